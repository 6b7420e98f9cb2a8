"""`shortlist export`: RUN -> ONE DIRECTORY."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from shortlist.cli.options import (
    RECIPE_FILE,
    JsonOption,
    OverwriteOption,
    RecipeOption,
    SetOption,
    beside,
    open_recipe,
    print_result,
)


def export(
    recipe: RecipeOption = Path(RECIPE_FILE),
    set_: SetOption = None,
    history: Annotated[
        Literal["all", "evaluation"],
        typer.Option(
            help="Events in the bundle: 'all', or 'evaluation' (all but the test part,"
            " to compare the server with the metrics)."
        ),
    ] = "all",
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Pack the run into a bundle directory."""
    loaded = open_recipe(recipe, set_)

    from shortlist.cli.stages import export_stage
    from shortlist.cli.warnings import warn_below_popularity, warn_of_repeats

    manifest = export_stage(loaded, recipe, history=history, overwrite=overwrite)
    warn_below_popularity(manifest.metrics)
    warn_of_repeats(manifest.metrics.get("repeats"), loaded.serving.repeats)
    path = beside(recipe, loaded.output.bundle)
    size = sum(entry.bytes for entry in manifest.files.values())
    result = {
        "bundle": str(path),
        "version": manifest.version,
        "files": len(manifest.files),
        "bytes": size,
    }
    text = (
        f"bundle {path}: version {manifest.version}, {len(manifest.files)} files,"
        f" {size / 1e6:.1f} MB\n  next: shortlist serve --bundle {path}"
    )
    print_result(result, text, json)

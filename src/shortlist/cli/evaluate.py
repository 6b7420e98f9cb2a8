"""`shortlist evaluate`: SCORES -> METRICS on the test part."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shortlist.cli.options import (
    RECIPE_FILE,
    JsonOption,
    RecipeOption,
    SetOption,
    open_recipe,
    print_result,
)


def evaluate(
    recipe: RecipeOption = Path(RECIPE_FILE),
    set_: SetOption = None,
    slice_: Annotated[
        list[str] | None,
        typer.Option("--slice", help="Also divide by this feature; repeatable."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Measure the run on the test part, beside popularity."""
    loaded = open_recipe(recipe, set_)

    from shortlist.cli.stages import evaluate_stage
    from shortlist.cli.tables import metrics_table

    report = evaluate_stage(loaded, recipe, slice_ or [])
    print_result(report, metrics_table(report), json)

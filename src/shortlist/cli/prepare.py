"""`shortlist prepare`: LOG -> DATASET."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from shortlist.data.findings import Finding


def prepare(
    recipe: RecipeOption = Path(RECIPE_FILE),
    set_: SetOption = None,
    append: Annotated[
        list[Path] | None,
        typer.Option(help="Add the events of this file, later ones; repeatable."),
    ] = None,
    on_error: Annotated[
        str | None, typer.Option(help="What a bad row does: raise or skip.")
    ] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Read and check the log, split it and write the dataset."""
    given = [f"log.on_error={on_error}"] if on_error is not None else []
    loaded = open_recipe(recipe, [*(set_ or []), *given])

    import msgspec

    from shortlist.cli.printable import printable
    from shortlist.cli.stages import append_stage, prepare_stage

    before: tuple[Finding, ...] = ()
    if append:
        before, dataset = append_stage(loaded, recipe, append)
    else:
        dataset = prepare_stage(loaded, recipe, overwrite=overwrite)
    info, path = dataset.info, beside(recipe, loaded.output.dataset)
    result = {
        "dataset": str(path),
        "fingerprint": info.fingerprint,
        "parts": info.parts,
        "statistics": info.statistics,
        "findings": msgspec.to_builtins(info.findings[len(before) :]),
    }
    counts = info.statistics
    parts = ", ".join(f"{name} {rows:,}" for name, rows in info.parts.items())
    text = (
        f"dataset {path}: {counts['events']:,} events, {counts['users']:,} users,"
        f" {counts['items']:,} items\n  split ({loaded.split.kind}): {parts}\n"
        f"  rows set aside: {counts['rows_skipped']:,}; duplicates dropped:"
        f" {counts['duplicates_dropped']:,}; test events of"
        f" unknown items: {counts['test_events_of_unknown_items']:,}, of unknown"
        f" users: {counts['test_events_of_unknown_users']:,}"
    )
    for part, purpose in (
        ("validation", "nothing stops training early and the ranker gets no weight"),
        ("test", "there is nothing to evaluate on"),
    ):
        if not info.parts[part]:
            warning = f"warning: the {part} part is empty, so {purpose}. Users may have"
            warning += " too few events for a share: try kind = 'last_n' under [split]."
            typer.echo(warning, err=True)
    for finding in info.findings[len(before) :]:
        typer.echo(printable(f"{finding.severity}: {_told(finding)}"), err=True)
    print_result(result, text, json)


def _told(finding: Finding) -> str:
    """A finding with its place."""
    places = (("file", finding.file), ("row", finding.row))
    told = ", ".join(f"{name} {value}" for name, value in places if value is not None)
    return f"{finding.message} ({told})" if told else finding.message

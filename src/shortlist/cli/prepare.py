"""`shortlist prepare`: LOG -> DATASET."""

from __future__ import annotations

from collections.abc import Iterator
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
    from shortlist.data.split import Split


def prepare(
    recipe: RecipeOption = Path(RECIPE_FILE),
    set_: SetOption = None,
    append: Annotated[
        list[Path] | None,
        typer.Option(help="Append the later events of this file; repeatable."),
    ] = None,
    on_error: Annotated[
        str | None, typer.Option(help="How to handle a bad row: raise or skip.")
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
    from shortlist.data.check.tables import place_of
    from shortlist.training.held_out import repeats_warning

    path = beside(recipe, loaded.output.dataset)
    before: tuple[Finding, ...] = ()
    if append:
        # Findings of earlier days were reported when they were read.
        before, dataset = append_stage(loaded, recipe, append)
    else:
        dataset = prepare_stage(loaded, recipe, overwrite=overwrite)
    info = dataset.info
    findings = info.findings[len(before) :]
    result = {
        "dataset": str(path),
        "fingerprint": info.fingerprint,
        "parts": info.parts,
        "statistics": info.statistics,
        "findings": [msgspec.to_builtins(finding) for finding in findings],
    }
    counts = info.statistics
    parts = ", ".join(f"{name} {rows:,}" for name, rows in info.parts.items())
    text = (
        f"dataset {path}: {counts['events']:,} events, {counts['users']:,} users,"
        f" {counts['items']:,} items\n  split ({loaded.split.kind}): {parts}\n"
        f"  rows skipped: {counts['rows_skipped']:,}; duplicates dropped:"
        f" {counts['duplicates_dropped']:,}; test events of"
        f" unknown items: {counts['test_events_of_unknown_items']:,}, of unknown"
        f" users: {counts['test_events_of_unknown_users']:,}"
    )
    for warning in _empty_parts(info.parts, loaded.split):
        typer.echo(f"warning: {warning}", err=True)
    if not loaded.evaluation.repeats and (warning := repeats_warning(dataset)):
        typer.echo(warning, err=True)
    for finding in findings:
        place = place_of(finding)
        where = f" ({place})" if place else ""
        text_of = f"{finding.severity}: {finding.message}{where}"
        typer.echo(printable(text_of), err=True)
    print_result(result, text, json)


def _empty_parts(parts: dict[str, int], split: Split) -> Iterator[str]:
    """The consequence of an empty part, and advice unless the recipe asks for it."""
    from shortlist.data.findings import empty_part_advice

    for part, purpose, amount in (
        (
            "validation",
            "early stopping and the choice of the ranker's weight are off",
            split.validation,
        ),
        ("test", "there is nothing to evaluate on", split.test),
    ):
        if not parts[part]:
            text = f"the {part} part is empty, so {purpose}."
            advice = empty_part_advice(split.kind, amount)
            yield f"{text} {advice}" if amount else f"{text} The recipe sets it to 0."

"""`shortlist init`: looks at a log and writes a commented recipe."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated

import typer

from shortlist.cli.options import (
    RECIPE_FILE,
    JsonOption,
    OverwriteOption,
    print_result,
)
from shortlist.errors import RecipeError

ColumnOption = Annotated[
    str | None, typer.Option(help="Name of this column; guessed by default.")
]


def init(
    logs: Annotated[
        list[Path], typer.Argument(metavar="LOG...", help="The interaction log.")
    ],
    users: Annotated[Path | None, typer.Option(help="User attribute file.")] = None,
    items: Annotated[Path | None, typer.Option(help="Item attribute file.")] = None,
    user: ColumnOption = None,
    item: ColumnOption = None,
    timestamp: ColumnOption = None,
    label: ColumnOption = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A reading option: log.FIELD=VALUE, as in a recipe; repeatable.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")] = Path(
        RECIPE_FILE
    ),
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Guess the columns of a log and write shortlist.toml."""
    from shortlist.cli.guess_text import guess_lines
    from shortlist.cli.printable import printable
    from shortlist.cli.recipe_text import write_recipe
    from shortlist.cli.stages import read_options
    from shortlist.data.guess.schema import guess_schema
    from shortlist.data.read.inputs import LogFiles
    from shortlist.recipe import load_reading

    known = load_reading(set_ or [])
    _check_used(known.model_fields_set)
    guess = guess_schema(
        LogFiles(logs, users=users, items=items),
        user_id=user,
        item_id=item,
        timestamp=timestamp,
        label=label,
        options=read_options(known),
    )
    if known.on_error == "skip":
        reasons = {"on_error": "As --set says.", **guess.format_reasons}
        guess = dataclasses.replace(guess, format_reasons=reasons)
    write_recipe(out, guess, log=logs, users=users, items=items, overwrite=overwrite)
    result = {
        "recipe": str(out),
        "layout": guess.layout,
        "reading": dict(guess.format_reasons),
        "reasons": guess.reasons,
        "columns": guess.columns,
        "split": guess.split.kind,
        "warnings": list(guess.warnings),
    }
    lines = [f"{out} written; guessed, please check:"]
    lines += [f"  {name}: {why}" for name, why in guess.format_reasons.items()]
    lines += [f"  {line}" for line in guess_lines(guess)]
    lines += [f"  warning: {warning}" for warning in guess.warnings]
    lines.append(f"next: shortlist check --recipe {shlex.quote(str(out))}")
    print_result(result, "\n".join(map(printable, lines)), json)


def _check_used(names: set[str]) -> None:
    """Raises for settings that are not reading options of the log."""
    from shortlist.data.read.file_format import FileFormat

    formats = {field.name for field in dataclasses.fields(FileFormat)}
    used = formats | {"events", "users_format", "items_format", "on_error"}
    if unused := sorted(names - used):
        raise RecipeError(
            "setting-invalid",
            "--set of `shortlist init` must be a reading option of the log. Received:"
            f" log.{unused[0]}. Set it in the recipe that init writes.",
        )

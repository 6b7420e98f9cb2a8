"""`shortlist init`: looks at a log and writes a commented recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shortlist.cli.options import (
    RECIPE_FILE,
    JsonOption,
    OverwriteOption,
    print_result,
)

ColumnOption = Annotated[str | None, typer.Option(help="Its column, if not guessed.")]


def init(
    log: Annotated[Path, typer.Argument(help="The interaction log.")],
    users: Annotated[Path | None, typer.Option(help="User attribute file.")] = None,
    items: Annotated[Path | None, typer.Option(help="Item attribute file.")] = None,
    user: ColumnOption = None,
    item: ColumnOption = None,
    timestamp: ColumnOption = None,
    label: ColumnOption = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")] = Path(
        RECIPE_FILE
    ),
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Guess what the columns of a log are and write shortlist.toml."""
    from shortlist.cli.guess_text import guess_lines
    from shortlist.cli.recipe_text import write_recipe
    from shortlist.data.guess import guess_schema

    guess = guess_schema(
        log,
        users_path=users,
        items_path=items,
        user_id=user,
        item_id=item,
        timestamp=timestamp,
        label=label,
    )
    write_recipe(out, guess, log=log, users=users, items=items, overwrite=overwrite)
    result = {
        "recipe": str(out),
        "layout": guess.layout,
        "reasons": guess.reasons,
        "columns": guess.columns,
        "split": guess.split.kind,
        "warnings": list(guess.warnings),
    }
    lines = [f"{out} written; the guesses, to be checked:"]
    lines += [f"  {line}" for line in guess_lines(guess)]
    lines += [f"  warning: {warning}" for warning in guess.warnings]
    lines.append(f"next: shortlist check --recipe {out}")
    print_result(result, "\n".join(lines), json)

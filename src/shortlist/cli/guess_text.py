"""The guesses about a log, one line each, for `init` and `check`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shortlist.data.guess.schema import Guess

_ROLES = ("user_id", "item_id", "timestamp", "label")
_FILES = {"log": "the log", "users": "the users file", "items": "the items file"}


def guess_lines(guess: Guess) -> Iterator[str]:
    """Columns with a role and their reasons, then the other columns of each file."""
    for role, reason in guess.reasons.items():
        column = getattr(guess.schema, role, None) if role in _ROLES else None
        named = column is None or repr(column) in reason
        yield f"{role}: {reason}" + ("" if named else f" ({column!r})")
    for file, reasons in guess.columns.items():
        if reasons:
            yield f"other columns of {_FILES[file]}:"
            yield from (f"  {name}: {reason}" for name, reason in reasons.items())

"""The exception tree of Shortlist. Every error a user can cause has a stable code.

    ShortlistError
    ├── InputError (ValueError)          the caller's mistake; exit code 2, HTTP 4xx
    │   ├── LogError                     an interaction log or attribute file
    │   ├── RecipeError                  shortlist.toml or a command-line flag
    │   └── UnknownIdError (KeyError)    an id that is in no vocabulary
    ├── ArtifactError (ValueError)       a damaged dataset, run or bundle; exit 3
    └── ResourceError (OSError)          disk, network, port, missing package; exit 4

A message about a value says what must hold, what was received and what to do. A message
about an event says what happened and what to do. `docs/errors.md` lists the codes;
`tests/test_errors.py` compares the two.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable


class ShortlistError(Exception):
    """Base of all errors raised on purpose.

    Args:
        code: stable kebab-case name, listed in `docs/errors.md`.
        message: see above.
        file: the file concerned, if known.
        column: the column concerned, if known.
        row: 1-based line or row number in `file`, if known (the header is line 1).
    """

    exit_code = 1
    # Keras would raise a RuntimeError without the code in place of an error of a layer.
    _keras_call_info_injected = True

    def __init__(
        self,
        code: str,
        message: str,
        *,
        file: object = None,
        column: str | None = None,
        row: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.file = None if file is None else str(file)
        self.column = column
        self.row = row

    def __str__(self) -> str:
        places = [
            f"{name} {value}"
            for name, value in (
                ("file", self.file),
                ("column", self.column),
                ("row", self.row),
            )
            if value is not None
        ]
        return f"{self.message} ({', '.join(places)})" if places else self.message

    def to_dict(self) -> dict[str, object]:
        """The error as plain JSON values: `code`, `message` and the known place."""
        place = {"file": self.file, "column": self.column, "row": self.row}
        known = {key: value for key, value in place.items() if value is not None}
        return {"code": self.code, "message": self.message, **known}


class InputError(ShortlistError, ValueError):
    """What the caller gave cannot be used."""

    exit_code = 2


class LogError(InputError):
    """An interaction log or attribute file that cannot be used."""


class RecipeError(InputError):
    """A recipe or a flag that cannot be used."""


class UnknownIdError(InputError, KeyError):
    """An id that the vocabulary does not hold."""

    __str__ = ShortlistError.__str__  # KeyError would print the repr


class ArtifactError(ShortlistError, ValueError):
    """A dataset, run or bundle that is missing, damaged or of another version."""

    exit_code = 3


class ResourceError(ShortlistError, OSError):
    """The machine cannot do it: disk, network, port or a missing package."""

    exit_code = 4

    __str__ = ShortlistError.__str__  # OSError would print its arguments


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """Returns " Did you mean 'x'?" for the closest known name, or an empty string.

    Only the first 10,000 names are compared: an answer must not wait for a search
    through a million ids.
    """
    first = [str(candidate) for candidate in itertools.islice(known, 10_000)]
    close = difflib.get_close_matches(str(name), first, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def listed(names: Iterable[object], most: int = 5) -> str:
    """Names as a message shows them: the first few, and how many more there are."""
    shown = [repr(name) for name in names]
    rest = len(shown) - most
    if rest > 0:
        return f"{', '.join(shown[:most])} and {rest:,} more"
    return " and ".join(filter(None, (", ".join(shown[:-1]), *shown[-1:])))

"""Which type a column of a log has in each of its files, and where it changes."""

from __future__ import annotations

import polars as pl

from shortlist.data.findings import Finding, changed_type

NUMBER = "number"
"""The type of a number in a layout without an integer type."""
_NUMBERS = ("integer", "float")


class ColumnTypes:
    """The types of some columns by file, in the order of the files."""

    def __init__(self) -> None:
        self._kinds: dict[str, dict[str, str]] = {}
        self._read_as: dict[str, str] = {}

    def note(self, column: str, file: str, kind: str, read_as: str) -> None:
        """Notes the type of a column in a file, as `kind_of` names it.

        Args:
            column: its name.
            file: the file.
            kind: its type there.
            read_as: how the column is read: as `text`, `numbers` or `times`.
        """
        self._kinds.setdefault(column, {})[file] = kind
        self._read_as[column] = read_as

    def findings(self) -> list[Finding]:
        """One finding (`column-type-changed`) per column whose type changes."""
        found = []
        for column, kinds in self._kinds.items():
            if NUMBER in kinds.values():
                kinds = {
                    file: NUMBER if kind in _NUMBERS else kind
                    for file, kind in kinds.items()
                }
            found += changed_type(column, kinds, self._read_as[column])
        return found


def kind_of(dtype: pl.DataType) -> str | None:
    """What people call a type; `None` for a column without values."""
    if dtype.is_integer():
        return "integer"
    if dtype.is_numeric():
        return "float"
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return "text"
    if dtype.is_temporal():
        return "date"
    if dtype in (pl.List, pl.Array):
        return "list"
    return None if dtype == pl.Null else str(dtype).lower()


def is_plain(dtype: pl.DataType) -> bool:
    """Whether values of the type have a text; lists, bytes and durations have none."""
    return not dtype.is_nested() and dtype not in (pl.Binary, pl.Duration)

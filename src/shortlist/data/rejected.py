"""Rows of a log that were set aside, why, and where they are.

Knows masks of one block of one file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from shortlist.atomic import atomic_file
from shortlist.data.column_types import is_plain
from shortlist.data.findings import Finding, shorten, shown, skipped_rows
from shortlist.data.layouts import LogFile
from shortlist.data.locate import row_of, rows_of
from shortlist.errors import LogError

_COLUMNS = pl.Schema(
    {"event": pl.Int64, "column": pl.String, "code": pl.String, "value": pl.String}
)


@dataclass(frozen=True)
class Reason:
    """Why some rows of a file were set aside.

    Args:
        file: the file.
        code: of the error the first of them would be.
        column: the column concerned.
        message: what must hold, what came and what to do.
        rows: one record per row: `event` (its number among the events of the file,
            from 0), `column`, `code` and `value`.
    """

    file: LogFile
    code: str
    column: str
    message: str
    rows: pl.DataFrame


class Rejections:
    """A `validate.Report` that collects the bad rows of one block.

    Args:
        file: the file being read.
        first: number of events of the file before the block.
        num_rows: rows of the block.
    """

    def __init__(self, file: LogFile, first: int, num_rows: int) -> None:
        self.file = file
        self.first = first
        self.bad = pl.repeat(False, num_rows, dtype=pl.Boolean, eager=True)
        self.reasons: list[Reason] = []

    def __call__(
        self, code: str, values: pl.Series, bad: pl.Series, rule: str, fix: str
    ) -> None:
        """Sets the rows of `bad` aside; the first reason of a row is the one kept."""
        new = bad & ~self.bad
        if not new.any():
            return
        self.bad = self.bad | new
        places = new.arg_true()
        events = places.cast(pl.Int64) + self.first
        found = values.gather(places)
        names = (values.name, code)
        column, codes = (pl.repeat(n, len(places), eager=True) for n in names)
        rows = pl.DataFrame([events, column, codes, _text(found)], schema=_COLUMNS)
        message = f"{rule} Found {shown(found, 0)}. {fix}"
        self.reasons.append(Reason(self.file, code, values.name, message, rows))


def _text(values: pl.Series) -> pl.Series:
    if is_plain(values.dtype):
        return values.cast(pl.String, strict=False)
    some = [None if v is None else shorten(v) for v in values.to_list()]
    return pl.Series(some, dtype=pl.String)


def findings_of(reasons: Iterable[Reason]) -> list[Finding]:
    """One finding per column and reason, at the first row of the file with most."""
    grouped: dict[tuple[str, str], dict[Path, list[Reason]]] = {}
    for reason in reasons:
        by_file = grouped.setdefault((reason.column, reason.code), {})
        by_file.setdefault(reason.file.path, []).append(reason)
    findings = []
    for by_file in grouped.values():
        sizes = {p: sum(len(r.rows) for r in alike) for p, alike in by_file.items()}
        worst = max(sizes, key=lambda path: sizes[path])
        first = by_file[worst][0]
        message = first.message
        if len(sizes) > 1:
            where = f"In {len(sizes):,} files, most in this one ({sizes[worst]:,})."
            message = f"{message} {where}"
        error = LogError(
            first.code,
            message,
            file=first.file.path,
            column=first.column or None,
            row=row_of(first.file, first.rows["event"][0]),
        )
        findings.append(skipped_rows(error, sum(sizes.values())))
    return findings


def write_rejected(path: Path, reasons: Iterable[Reason]) -> None:
    """Writes the rows set aside as CSV: file, row, column, code, value."""
    by_file: dict[Path, list[Reason]] = {}
    for reason in reasons:
        by_file.setdefault(reason.file.path, []).append(reason)
    frames = []
    for alike in by_file.values():
        rows = pl.concat([reason.rows for reason in alike]).sort("event")
        file = alike[0].file
        numbers = rows_of(file, rows["event"].to_list())
        frames.append(
            rows.select(
                pl.lit(str(file.path)).alias("file"),
                pl.Series("row", numbers, dtype=pl.Int64),
                "column",
                "code",
                "value",
            )
        )
    with atomic_file(path) as temporary:
        pl.concat(frames).write_csv(temporary)

"""The skipped rows of a log: why, and where they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from shortlist.atomic import atomic_file
from shortlist.data.findings import Finding, shorten, shown, skipped_rows
from shortlist.data.read.column_types import is_plain
from shortlist.data.read.error_locations import row_of, rows_of
from shortlist.data.read.log_file import LogFile
from shortlist.errors import LogError

_FORMULA_BEGINS = r"^['=+\-@\t\r\n＝＋－＠]"
_MOST_KEPT = 1_000
"""Characters of a value that are kept."""
_COLUMNS = pl.Schema(
    {"event": pl.Int64, "column": pl.String, "code": pl.String, "value": pl.String}
)


@dataclass(frozen=True)
class Reason:
    """Why some rows of a file were skipped.

    Args:
        file: the file.
        code: error code of the first of them.
        column: the column concerned.
        message: what must hold, what was found and what to do.
        rows: one record per row: `event` (its number among the events of the file,
            from 0), `column`, `code` and `value`.
    """

    file: LogFile
    code: str
    column: str
    message: str
    rows: pl.DataFrame


class SkipBadRows:
    """A `validate.BadRowHandler` that collects the bad rows of one block.

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
        """Skips the rows of `bad`; the first reason of a row is kept."""
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
        return values.cast(pl.String, strict=False).str.head(_MOST_KEPT)
    some = [None if v is None else shorten(v) for v in values.to_list()]
    return pl.Series(some, dtype=pl.String)


def findings_of(
    reasons: Iterable[Reason], what: Literal["row", "value"] = "row"
) -> list[Finding]:
    """One finding per column and reason, at the first row concerned.

    If several files have such rows, the one with most of them is named.

    Args:
        reasons: of all files.
        what: what was left out: rows, or single values.
    """
    grouped: dict[tuple[str, str], list[Reason]] = {}
    for reason in reasons:
        grouped.setdefault((reason.column, reason.code), []).append(reason)
    findings = []
    for alike in grouped.values():
        by_file: dict[Path, int] = {}
        for reason in alike:
            found = by_file.get(reason.file.path, 0) + len(reason.rows)
            by_file[reason.file.path] = found
        worst = max(by_file, key=lambda path: by_file[path])
        first = next(r for r in alike if r.file.path == worst)
        error = LogError(
            first.code,
            first.message,
            file=worst,
            column=first.column or None,
            row=row_of(first.file, first.rows["event"][0]),
        )
        count = sum(by_file.values())
        files = (len(by_file), by_file[worst])
        findings.append(skipped_rows(error, count, files=files, what=what))
    return findings


def write_rejected(path: Path, reasons: Iterable[Reason]) -> None:
    """Writes the skipped rows as CSV: file, row, column, code, value."""
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
        without_formulas(pl.concat(frames)).write_csv(temporary)


def without_formulas(frame: pl.DataFrame) -> pl.DataFrame:
    """The table with an apostrophe before every text that a spreadsheet would run.

    Texts that are numbers stay as they are. A text that starts with an apostrophe gets
    another one, so that removing the first character always restores the text.
    """
    texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    return frame.with_columns(
        pl.when(
            pl.col(name).str.contains(_FORMULA_BEGINS)
            & pl.col(name).cast(pl.Float64, strict=False).is_null()
        )
        .then("'" + pl.col(name))
        .otherwise(pl.col(name))
        .alias(name)
        for name in texts
    )

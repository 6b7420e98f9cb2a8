"""The attributes of users or items out of their file: one row per id.

Knows one file, neither features nor the log beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import polars as pl

from shortlist.data.findings import Finding
from shortlist.data.read.error_locations import extra_fields
from shortlist.data.read.file_format import FileFormat, as_format
from shortlist.data.read.layouts import inspect_file
from shortlist.data.read.log_file import LogFile
from shortlist.data.read.rejected import Rejections, findings_of
from shortlist.data.read.scan import (
    check_rows,
    extra_values,
    load,
)
from shortlist.data.read.validate import (
    Refusal,
    Report,
    check_not_empty,
    check_unique,
    to_ids,
    to_numbers,
)


class AttributeTable(NamedTuple):
    """The attributes that were read.

    Args:
        table: the id column (Int64 or String) and the columns wanted, in file order.
        findings: what was set aside.
    """

    table: pl.DataFrame
    findings: list[Finding]


def read_attributes(
    path: str | Path,
    id_column: str,
    columns: Sequence[str],
    *,
    layout: str | FileFormat | None = None,
    numeric: Collection[str] = (),
    on_error: Literal["raise", "skip"] = "raise",
) -> AttributeTable:
    """Reads the attributes of users or items.

    Args:
        path: a file of any supported layout.
        id_column: the column of the ids, one row each; ids are never changed.
        columns: the attribute columns wanted.
        layout: one of `LAYOUTS`, all settings of reading, or `None` to recognize it.
        numeric: those of `columns` that must be numbers: Float64 with null where a
            value is missing.
        on_error: `raise` at a bad row, or `skip` it: rows without an id or with too
            many fields are left out, of rows with the same id the last one counts, and
            text in a numeric column is a missing value.

    Raises:
        LogError: the file cannot be read or a column is missing; with `raise` also an
            id that is missing, or repeated unless the format says
            `repeated_ids = "last"`, too many fields in a row, or text in a numeric
            column.
    """
    file = inspect_file(path, layout)
    skips = on_error == "skip"
    wanted = list(dict.fromkeys([id_column, *columns]))
    frame = load(file, wanted, {id_column}, beyond=skips)
    check_rows(len(frame), file)
    check_not_empty(frame[id_column], file)
    rows, values = (Rejections(file, 0, len(frame)) for _ in range(2))
    _check_width(frame, file, rows)
    ids = to_ids(frame[id_column], rows if skips else Refusal(file), file)
    _keep_one(ids, file, rows, last=_keeps_last(layout) or skips)
    report: Report = values if skips else Refusal(file)
    numbers = [
        _finite(to_numbers(frame[name], report))
        for name in dict.fromkeys(columns)
        if name in numeric
    ]
    table = frame.select(wanted).with_columns(ids, *numbers)
    left_out = findings_of(rows.reasons) + findings_of(values.reasons, what="value")
    if _keeps_last(layout):  # as the recipe says
        left_out = [_as_note(found) for found in left_out]
    return AttributeTable(table.filter(~rows.bad), left_out)


def _keeps_last(layout: str | FileFormat | None) -> bool:
    return as_format(layout).repeated_ids == "last"


def _as_note(found: Finding) -> Finding:
    repeated = "[log-id-duplicated]" in found.message
    return msgspec.structs.replace(found, severity="note") if repeated else found


def _check_width(frame: pl.DataFrame, file: LogFile, rows: Rejections) -> None:
    extra = extra_values(frame)
    if extra is not None:
        message = extra_fields(file).message
        rule, _, fix = message.partition(" Found ")
        rows("log-row-fields", extra, extra.is_not_null(), rule, fix.split(". ", 1)[-1])


def _keep_one(ids: pl.Series, file: LogFile, rows: Rejections, *, last: bool) -> None:
    """Leaves out all rows of an id but its last one, or raises for the second."""
    if not last:
        check_unique(ids, Refusal(file))
        return
    usable = ids.to_frame().select(pl.when(~rows.bad).then(pl.col(ids.name)))
    kept = usable.to_series()
    earlier = kept.is_not_null() & ~kept.is_last_distinct()
    if earlier.any():
        rule = "An attribute file should have one row per id."
        rows("log-id-duplicated", ids, earlier, rule, "The last row of an id is used.")


def _finite(numbers: pl.Series) -> pl.Series:
    return (
        numbers.to_frame()
        .select(pl.when(pl.col(numbers.name).is_finite()).then(pl.col(numbers.name)))
        .to_series()
    )

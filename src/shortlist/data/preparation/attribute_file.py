"""Reads an attribute file of users or items, and compares its ids with the log's."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import polars as pl

from shortlist.data.findings import EXAMPLES, SPELLINGS, Finding, shorten
from shortlist.data.read.error_locations import extra_fields
from shortlist.data.read.file_format import FileFormat, as_format
from shortlist.data.read.inputs import OnError
from shortlist.data.read.layouts import inspect_file
from shortlist.data.read.log_file import LogFile
from shortlist.data.read.rejected import SkipBadRows, findings_of
from shortlist.data.read.scan import (
    check_rows,
    extra_values,
    load,
)
from shortlist.data.read.validate import (
    BadRowHandler,
    RaiseBadRows,
    check_not_empty,
    check_unique,
    to_ids,
    to_numbers,
)
from shortlist.data.schema import Owner

_FEW = 0.5
"""Share of the log's ids below which the file is probably that of another log."""


class AttributeTable(NamedTuple):
    """The attributes that were read.

    Args:
        table: the id column (Int64 or String) and the columns wanted, in file order.
        findings: what was skipped.
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
    on_error: OnError = "raise",
) -> AttributeTable:
    """Reads the attributes of users or items.

    Args:
        path: a file of any supported layout.
        id_column: the column of the ids, one row each; ids are never changed.
        columns: the attribute columns wanted.
        layout: one of `LAYOUTS`, a `FileFormat`, or `None` to recognize it.
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
    rows, values = (SkipBadRows(file, 0, len(frame)) for _ in range(2))
    _check_width(frame, file, rows)
    ids = to_ids(frame[id_column], rows if skips else RaiseBadRows(file), file)
    _keep_one(ids, file, rows, last=_keeps_last(layout) or skips)
    report: BadRowHandler = values if skips else RaiseBadRows(file)
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


def _check_width(frame: pl.DataFrame, file: LogFile, rows: SkipBadRows) -> None:
    extra = extra_values(frame)
    if extra is not None:
        message = extra_fields(file).message
        rule, _, fix = message.partition(" Found ")
        rows("log-row-fields", extra, extra.is_not_null(), rule, fix.split(". ", 1)[-1])


def _keep_one(ids: pl.Series, file: LogFile, rows: SkipBadRows, *, last: bool) -> None:
    """Leaves out all rows of an id but its last one, or raises for the second."""
    if not last:
        check_unique(ids, RaiseBadRows(file))
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


def unmatched_ids(
    ids: pl.Series, keys: pl.Series, *, kind: Owner, file: str | Path, column: str
) -> list[Finding]:
    """Findings on ids of a log that are not in the attribute file.

    Few of them are (code `attribute-ids-unmatched`: a problem if none is), or some
    would be if their spelling did not count (the codes of `findings.similar_ids`).

    Args:
        ids: ids of the log, each once, without nulls; Int64 or String.
        keys: ids of the file, of the same type.
        kind: whose ids they are.
        file: the attribute file.
        column: its id column.
    """
    lost = _apart(ids, keys)
    if lost.is_empty():
        return []
    found = []
    share = 1 - len(lost) / len(ids)
    if share < _FEW:
        summary = (
            f"{len(ids) - len(lost):,} of the log's {len(ids):,} {kind}s ({share:.0%})"
            f" are in the file; the others have no attributes. The log has ids such as"
            f" {shorten(lost[0])}, the file such as {shorten(keys[0])}."
        )
        found.append(
            Finding(
                "attribute-ids-unmatched",
                "warning" if share else "problem",
                f"{summary} Check that it is the file of this log, and `{kind}s_id`"
                " under [log].",
                file=str(file),
                column=column,
                count=len(lost),
            )
        )
    spare = _apart(keys, ids)
    return found + _other_spellings(lost, spare, kind, str(file), column)


def _other_spellings(
    lost: pl.Series, spare: pl.Series, kind: Owner, file: str, column: str
) -> list[Finding]:
    if lost.dtype != pl.String:
        return []
    found = []
    forms = (pl.DataFrame({"id": s, "written": s}) for s in (lost, spare))
    ours, theirs = forms
    for code, severity, difference, form in SPELLINGS:
        ours, theirs = (f.with_columns(form.alias("id")) for f in (ours, theirs))
        pairs = ours.join(theirs.unique("id"), on="id", maintain_order="left")
        if pairs.is_empty():
            continue
        shown = "; ".join(
            f"{shorten(one)} and {shorten(other)}"
            for _, one, other in pairs.head(EXAMPLES).rows()
        )
        found.append(
            Finding(
                code,
                severity,
                f"{len(pairs):,} {kind}s of the log without attributes are in the file"
                f" if {difference} does not count: {shown}. Write each id one way.",
                file=file,
                column=column,
                count=len(pairs),
            )
        )
        ours = ours.join(pairs, on="written", how="anti", maintain_order="left")
    return found


def _apart(ids: pl.Series, others: pl.Series) -> pl.Series:
    """Those of `ids` that are not among `others`."""
    left, right = ids.alias("id").to_frame(), others.alias("id").to_frame()
    return left.join(right, on="id", how="anti", maintain_order="left")["id"]

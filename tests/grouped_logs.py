"""Small logs as `check_log` takes them, made of plain lists."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from shortlist.data import Finding, Schema
from shortlist.data.preparation.sorted_log import SortedLog

DAY = 86_400_000
SCHEMA = Schema(
    user_id="user",
    item_id="item",
    timestamp="time",
    label="stars",
    label_kind="explicit",
    positive_from=4.0,
)

Row = tuple[int, int, int, float, int]
"""User code, item code, milliseconds, label, part."""


def grouped_log(
    rows: Sequence[Row],
    *,
    events_read: int | None = None,
    duplicates_dropped: int = 0,
    rows_skipped: int = 0,
    findings: tuple[Finding, ...] = (),
) -> SortedLog:
    """A log of these rows; code 3 is the user 'u3' or the item 'i3'."""
    names = ["user_code", "item_code", "timestamp_ms", "label", "part"]
    types = [pl.Int32, pl.Int32, pl.Int64, pl.Float32, pl.Int8]
    frame = pl.DataFrame(
        rows, schema=dict(zip(names, types, strict=True)), orient="row"
    ).sort("user_code", "timestamp_ms", maintain_order=True)
    users, items = (max((row[i] for row in rows), default=-1) + 1 for i in (0, 1))
    return SortedLog(
        frame=frame,
        user_ids=pl.Series("user", [f"u{n}" for n in range(users)]),
        item_ids=pl.Series("item", [f"i{n}" for n in range(items)]),
        events_read=len(rows) if events_read is None else events_read,
        duplicates_dropped=duplicates_dropped,
        rows_skipped=rows_skipped,
        findings=findings,
    )

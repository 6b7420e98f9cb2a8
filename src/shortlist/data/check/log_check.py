"""`check_log`: the data report of a log, and the problems found in it.

Knows a `SortedLog`, not the files it came from, and the attribute files. Every step
looks at whole columns; the memory is a few copies of them.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from shortlist.data import findings as look
from shortlist.data.check.part_findings import (
    of_cold,
    of_drift,
    of_leakage,
    of_order,
    of_parts,
)
from shortlist.data.check.parts import (
    Columns,
    by_part,
    cold,
    columns_of,
    drifts,
    held_out,
    leakage,
    summaries,
    tied,
)
from shortlist.data.check.report import (
    Activity,
    Counts,
    LogReport,
    TimeSpan,
)
from shortlist.data.check.spread import (
    labels_of,
    popularity_of,
    spread_of,
    value_counts,
)
from shortlist.data.check.verdict import verdict_of
from shortlist.data.findings import Finding
from shortlist.data.guess.label_findings import constant_label, zero_label
from shortlist.data.preparation.attributes import Attributes
from shortlist.data.preparation.fitted import AttributeFiles
from shortlist.data.preparation.id_rows import count_events, item_rows, user_rows
from shortlist.data.preparation.sorted_log import SortedLog
from shortlist.data.preparation.time_findings import (
    clock_jumps,
    moment_text,
    odd_times,
    tied_events,
)
from shortlist.data.schema import Owner, Schema
from shortlist.data.split import DAY_MS, PARTS, TIME_KINDS, Split
from shortlist.errors import LogError

MAX_POINTS = 200
"""Points of the events over time."""


def check_log(
    grouped: SortedLog,
    schema: Schema,
    split: Split,
    sources: AttributeFiles | None = None,
    *,
    repeats: bool = False,
) -> LogReport:
    """Reports on a log.

    Args:
        grouped: the log, checked and divided.
        schema: what its columns are.
        split: how it was divided.
        sources: the attribute files that go with it, to be read as `prepare` does;
            `None` to leave them out.
        repeats: whether items that a user had before count, as `evaluation.repeats`.

    Raises:
        LogError: no event is left (`log-empty`), or an attribute file cannot be used.
    """
    if grouped.frame.is_empty():
        raise LogError(
            "log-empty",
            "A log must hold events that can be used. None of"
            f" {grouped.events_read:,} rows is left. Repair the rows or the columns"
            " named.",
        )
    columns = columns_of(
        grouped,
        timed=schema.timestamp is not None and grouped.is_timed,
        labelled=schema.label is not None,
    )
    per_user, per_item = columns.users.sum(axis=0), columns.items.sum(axis=0)
    values, sizes = value_counts(columns.label) if columns.labelled else (None, None)
    counts = _counts(grouped, columns)
    held = held_out(columns)
    parts = summaries(columns)
    colds = tuple(cold(columns, part) for part in held)
    leaks = tuple(leakage(columns, part) for part in held)
    drift = drifts(columns)
    found = [
        *grouped.findings,
        *_of_columns(grouped, columns, schema, counts),
        *(of_order(grouped, columns, split) if split.kind in TIME_KINDS else []),
        *([] if sources is None else _of_attributes(grouped, schema, sources)),
        *of_parts(parts, split),
        *of_cold(colds),
        *of_leakage(leaks, parts, repeats=repeats),
        *of_drift(drift),
    ]
    findings = tuple(sorted(found, key=_rank))
    return LogReport(
        verdict=verdict_of(findings, counts),
        counts=counts,
        time=_time_span(columns.time) if columns.timed else None,
        events_per_user=spread_of(per_user),
        events_per_item=spread_of(per_item),
        popularity=popularity_of(per_item),
        labels=(
            labels_of(values, sizes, schema.positive_from)
            if values is not None and sizes is not None
            else None
        ),
        activity=_activity(columns) if columns.timed else None,
        parts=parts,
        cold=colds,
        drift=drift,
        leakage=leaks,
        findings=findings,
    )


def _rank(finding: Finding) -> int:
    return look.SEVERITIES.index(finding.severity)


def _counts(grouped: SortedLog, columns: Columns) -> Counts:
    events = len(columns.user)
    users = int(np.count_nonzero(columns.users.sum(axis=0)))
    items = int(np.count_nonzero(columns.items.sum(axis=0)))
    return Counts(
        rows_read=grouped.events_read,
        rows_skipped=grouped.rows_skipped,
        duplicates_dropped=grouped.duplicates_dropped,
        events=events,
        users=users,
        items=items,
        pairs=columns.num_pairs,
        repeated_share=1 - columns.num_pairs / events,
        density=columns.num_pairs / (users * items),
        tied_events=int(np.count_nonzero(tied(columns))) if columns.timed else 0,
    )


def _time_span(times: np.ndarray) -> TimeSpan:
    first, last = int(times.min()), int(times.max())
    active = np.bincount(times // DAY_MS - first // DAY_MS)
    return TimeSpan(
        first_ms=first,
        last_ms=last,
        first=moment_text(first),
        last=moment_text(last),
        days=(last - first) / DAY_MS,
        active_days=int(np.count_nonzero(active)),
    )


def _activity(columns: Columns) -> Activity:
    days = columns.time // DAY_MS
    start = int(days.min())
    days_per_point = int(days.max() - start) // MAX_POINTS + 1
    points = (days - start) // days_per_point
    length = int(points.max()) + 1
    counts = by_part(points, columns.part, length)
    return Activity(
        start_ms=start * DAY_MS,
        days_per_point=days_per_point,
        events=dict(zip(PARTS, map(tuple, counts.tolist()), strict=True)),
    )


def _of_columns(
    grouped: SortedLog, columns: Columns, schema: Schema, counts: Counts
) -> list[Finding]:
    """What the columns show, whatever the split."""
    found = look.duplicate_events(grouped.duplicates_dropped, grouped.events_read)
    owners: tuple[tuple[Owner, np.ndarray, pl.Series, str], ...] = (
        ("user", columns.users, grouped.user_ids, schema.user_id),
        ("item", columns.items, grouped.item_ids, schema.item_id),
    )
    for kind, counted, ids, column in owners:
        events = counted.sum(axis=0)
        found += look.single_id(events, kind=kind, column=column)
        found += look.extreme_share(events, ids, kind=kind, column=column)
        found += look.rare_ids(events, kind=kind, column=column, timed=columns.timed)
    if columns.timed:
        time = schema.timestamp
        found += odd_times(columns.time, column=time)
        found += clock_jumps(columns.time, column=time)
        found += tied_events(counts.tied_events, counts.events, column=time)
    if schema.label is not None:
        found += constant_label(columns.label, column=schema.label)
    if schema.label is not None and schema.label_kind == "explicit":
        values, sizes = value_counts(columns.label)
        labels = dict(zip(values.tolist(), sizes.tolist(), strict=True))
        found += zero_label(labels, column=schema.label)
    return found


def _of_attributes(
    grouped: SortedLog, schema: Schema, sources: AttributeFiles
) -> tuple[Finding, ...]:
    """What the attribute files show beside the ids that a dataset would have."""
    events = count_events(grouped, schema)
    users, items = (
        rows(grouped, schema, events).vocabulary.ids for rows in (user_rows, item_rows)
    )
    read = Attributes.read(schema, sources, users, items, grouped.attributes)
    return read.findings

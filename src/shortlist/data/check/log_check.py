"""`check_log`: the data report of a log, and the problems found in it.

Every step works on whole columns and needs memory for a few copies of them.
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
    LogArrays,
    arrays_of,
    by_part,
    cold,
    drifts,
    held_out,
    leakage,
    summaries,
    tied,
)
from shortlist.data.check.report import (
    Activity,
    Counts,
    Labels,
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
from shortlist.data.guess.shared_findings import constant_label, zero_label
from shortlist.data.preparation.attributes import AttributeFiles, Attributes
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
    log: SortedLog,
    schema: Schema,
    split: Split,
    attributes: AttributeFiles | None = None,
    *,
    repeats: bool = False,
) -> LogReport:
    """Reports on a log.

    Args:
        log: the log, checked and split.
        schema: what its columns are.
        split: how it was split.
        attributes: the attribute files that go with it, to be read as `prepare` does;
            `None` to leave them out.
        repeats: whether items that a user had before count, as `evaluation.repeats`.

    Raises:
        LogError: no event is left (`log-empty`), or an attribute file cannot be used.
    """
    _check_some(log)
    arrays = arrays_of(
        log,
        timed=schema.timestamp is not None and log.is_timed,
        labelled=schema.label is not None,
    )
    counts = _counts(log, arrays)
    held = held_out(arrays)
    parts = summaries(arrays)
    colds = tuple(cold(arrays, part) for part in held)
    leaks = tuple(leakage(arrays, part) for part in held)
    drift = drifts(arrays)
    found = [
        *log.findings,
        *_of_columns(log, arrays, schema, counts),
        *(of_order(log, arrays, split) if split.kind in TIME_KINDS else []),
        *([] if attributes is None else _of_attributes(log, schema, attributes)),
        *of_parts(parts, split),
        *of_cold(colds),
        *of_leakage(leaks, parts, repeats=repeats),
        *of_drift(drift),
    ]
    findings = tuple(sorted(found, key=_rank))
    per_item = arrays.items.sum(axis=0)
    return LogReport(
        verdict=verdict_of(findings, counts),
        counts=counts,
        time=_time_span(arrays.time) if arrays.timed else None,
        events_per_user=spread_of(arrays.users.sum(axis=0)),
        events_per_item=spread_of(per_item),
        popularity=popularity_of(per_item),
        labels=_labels(arrays, schema),
        activity=_activity(arrays) if arrays.timed else None,
        parts=parts,
        cold=colds,
        drift=drift,
        leakage=leaks,
        findings=findings,
    )


def _check_some(log: SortedLog) -> None:
    if log.frame.is_empty():
        raise LogError(
            "log-empty",
            f"The log has no usable event: all {log.events_read:,} rows are left out."
            " Correct the rows, or name other columns.",
        )


def _labels(arrays: LogArrays, schema: Schema) -> Labels | None:
    if not arrays.labelled:
        return None
    values, sizes = value_counts(arrays.label)
    return labels_of(values, sizes, schema.positive_from)


def _rank(finding: Finding) -> int:
    return look.SEVERITIES.index(finding.severity)


def _counts(log: SortedLog, arrays: LogArrays) -> Counts:
    events = len(arrays.user)
    users = int(np.count_nonzero(arrays.users.sum(axis=0)))
    items = int(np.count_nonzero(arrays.items.sum(axis=0)))
    return Counts(
        rows_read=log.events_read,
        rows_skipped=log.rows_skipped,
        duplicates_dropped=log.duplicates_dropped,
        events=events,
        users=users,
        items=items,
        pairs=arrays.num_pairs,
        repeated_share=1 - arrays.num_pairs / events,
        density=arrays.num_pairs / (users * items),
        tied_events=int(np.count_nonzero(tied(arrays))) if arrays.timed else 0,
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


def _activity(arrays: LogArrays) -> Activity:
    days = arrays.time // DAY_MS
    start = int(days.min())
    days_per_point = int(days.max() - start) // MAX_POINTS + 1
    points = (days - start) // days_per_point
    length = int(points.max()) + 1
    counts = by_part(points, arrays.part, length)
    return Activity(
        start_ms=start * DAY_MS,
        days_per_point=days_per_point,
        events=dict(zip(PARTS, map(tuple, counts.tolist()), strict=True)),
    )


def _of_columns(
    log: SortedLog, arrays: LogArrays, schema: Schema, counts: Counts
) -> list[Finding]:
    """Findings on columns, for any split."""
    found = look.duplicate_events(log.duplicates_dropped, log.events_read)
    owners: tuple[tuple[Owner, np.ndarray, pl.Series, str], ...] = (
        ("user", arrays.users, log.user_ids, schema.user_id),
        ("item", arrays.items, log.item_ids, schema.item_id),
    )
    for kind, counted, ids, column in owners:
        events = counted.sum(axis=0)
        found += look.single_id(events, kind=kind, column=column)
        found += look.extreme_share(events, ids, kind=kind, column=column)
        found += look.rare_ids(events, kind=kind, column=column, timed=arrays.timed)
    if arrays.timed:
        time = schema.timestamp
        found += odd_times(arrays.time, column=time)
        found += clock_jumps(arrays.time, column=time)
        found += tied_events(counts.tied_events, counts.events, column=time)
    if schema.label is not None:
        found += constant_label(arrays.label, column=schema.label)
    if schema.label is not None and schema.label_kind == "explicit":
        values, sizes = value_counts(arrays.label)
        labels = dict(zip(values.tolist(), sizes.tolist(), strict=True))
        found += zero_label(labels, column=schema.label)
    return found


def _of_attributes(
    log: SortedLog, schema: Schema, files: AttributeFiles
) -> tuple[Finding, ...]:
    """Findings on attribute files, for the ids that a dataset would have."""
    events = count_events(log, schema)
    users, items = (
        rows(log, schema, events).vocabulary.ids for rows in (user_rows, item_rows)
    )
    read = Attributes.read(schema, files, users, items, log.attributes)
    return read.findings

"""`check_log`: the data report of a log, and the problems found in it.

Knows a `GroupedLog`, not the files it came from, and the attribute files. Every step
looks at whole columns; the memory is a few copies of them.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from shortlist.data import findings as look
from shortlist.data.attributes import Attributes
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
    Cold,
    Counts,
    Drift,
    Leakage,
    LogReport,
    PartSummary,
    TimeSpan,
)
from shortlist.data.check.spread import (
    labels_of,
    popularity_of,
    spread_of,
    value_counts,
)
from shortlist.data.contents import Sources
from shortlist.data.findings import Finding, Severity
from shortlist.data.grouped import GroupedLog
from shortlist.data.id_rows import count_events, item_rows, user_rows
from shortlist.data.schema import Owner, Schema
from shortlist.data.split import PARTS, TEST, VALIDATION, Split
from shortlist.data.time_findings import (
    clock_jumps,
    moment_text,
    odd_times,
    tied_events,
)
from shortlist.data.validate import DAY_MS
from shortlist.errors import LogError

MAX_POINTS = 200
"""Points of the events over time."""
SHIFT = 0.25
"""A population stability index over this, and over chance, is a shift."""
COLD_SHARE = 0.1
"""Share of held-out events of unknown users or items that is worth a warning."""


def check_log(
    grouped: GroupedLog,
    schema: Schema,
    split: Split,
    sources: Sources | None = None,
) -> LogReport:
    """Reports on a log.

    Args:
        grouped: the log, checked and divided.
        schema: what its columns are.
        split: how it was divided.
        sources: the attribute files that go with it, to be read as `prepare` does;
            `None` to leave them out.

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
        *([] if sources is None else _of_attributes(grouped, schema, sources)),
        *_of_parts(parts, colds, leaks, drift, split),
    ]
    return LogReport(
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
        findings=tuple(sorted(found, key=_rank)),
    )


def _rank(finding: Finding) -> int:
    return look.SEVERITIES.index(finding.severity)


def _counts(grouped: GroupedLog, columns: Columns) -> Counts:
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
    grouped: GroupedLog, columns: Columns, schema: Schema, counts: Counts
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
        found += look.rare_ids(events, kind=kind, column=column)
    if columns.timed:
        time = schema.timestamp
        found += odd_times(columns.time, column=time)
        found += clock_jumps(columns.time, column=time)
        found += tied_events(counts.tied_events, counts.events, column=time)
    if columns.labelled:
        found += look.constant_label(columns.label, column=schema.label)
    return found


def _of_attributes(
    grouped: GroupedLog, schema: Schema, sources: Sources
) -> tuple[Finding, ...]:
    """What the attribute files show beside the ids that a dataset would have."""
    events = count_events(grouped, schema)
    users, items = (
        rows(grouped, schema, events).vocabulary.ids for rows in (user_rows, item_rows)
    )
    return Attributes.read(schema, sources, users, items).findings


def _of_parts(
    parts: tuple[PartSummary, ...],
    colds: tuple[Cold, ...],
    leaks: tuple[Leakage, ...],
    drifts: tuple[Drift, ...],
    split: Split,
) -> list[Finding]:
    """What the split shows."""
    found = [
        Finding(
            "empty-part",
            "warning",
            f"The split ({split.kind}) leaves the {part.part} part empty. Users may"
            " have too few events for a share: try kind = 'last_n' under [split].",
        )
        for part in parts
        if not part.events
        and (part.part != PARTS[VALIDATION] or split.validation)
        and (part.part != PARTS[TEST] or split.test)
    ]
    for unknown in colds:
        found += _of_cold(unknown)
    for leak in leaks:
        found += _of_leakage(leak)
    return found + [_of_drift(d) for d in drifts if d.psi > SHIFT + d.expected_psi]


def _of_cold(unknown: Cold) -> list[Finding]:
    shares = (
        ("cold-users", "users", unknown.events_of_users, unknown.users),
        ("cold-items", "items", unknown.events_of_items, unknown.items),
    )
    return [
        Finding(
            code,
            "warning",
            f"{share:.1%} of the {unknown.part} events are of {count:,} {kind} that the"
            " parts before do not know: no model without features can rank them.",
            count=count,
        )
        for code, kind, share, count in shares
        if share > COLD_SHARE
    ]


def _of_leakage(leak: Leakage) -> list[Finding]:
    told: list[tuple[str, Severity, int, str]] = [
        (
            "copied-events",
            "problem",
            leak.copies,
            f"{leak.copies:,} {leak.part} events are also in a part before it (the same"
            " user, item and time): the answer was seen in training. Remove one copy.",
        ),
        (
            "own-future",
            "warning",
            leak.train_after_own,
            f"{leak.train_after_own:,} training events"
            f" ({leak.train_after_own_share:.1%}) happened after their user's first"
            f" {leak.part} event: a model is asked about the past while it knows what"
            " the user did next. Prefer a split by time.",
        ),
        (
            "global-future",
            "note",
            leak.train_after_first,
            f"{leak.train_after_first:,} training events"
            f" ({leak.train_after_first_share:.1%}) happened after the first"
            f" {leak.part} event, so a model knows trends of a time that had not come."
            " kind = 'time_cut' under [split] rules it out.",
        ),
        (
            "repeated-pairs",
            "note",
            leak.repeated_pairs,
            f"{leak.repeated_pairs:,} {leak.part} events"
            f" ({leak.repeated_pairs_share:.1%}) are of an item that the user did in a"
            " part before. Seen items are never recommended, so they do not count.",
        ),
    ]
    return [
        Finding(code, severity, message, count=count)
        for code, severity, count, message in told
        if count
    ]


def _of_drift(drift: Drift) -> Finding:
    quantity = drift.quantity.replace("_", " ")
    return Finding(
        "drift",
        "warning",
        f"The {quantity} of the {drift.part} events is not that of the events before:"
        f" PSI {drift.psi:.2f} (over {SHIFT:g} is a shift). What is measured on this"
        " part may not hold for the next one.",
    )

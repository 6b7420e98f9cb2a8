"""Statistics and time findings of a dataset, shared by `prepare` and `append`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shortlist.data.findings import Finding
from shortlist.data.preparation.fitted import Fitted
from shortlist.data.preparation.id_rows import EventCounts
from shortlist.data.preparation.sorted_log import SortedLog
from shortlist.data.preparation.time_findings import clock_jumps
from shortlist.data.schema import ITEM, USER, Schema
from shortlist.data.split import KNOWN, TEST
from shortlist.data.store.dataset_info import Segment

_SUMS = ("rows_read", "rows_skipped", "duplicates_dropped", "below_threshold")


def statistics(
    log: SortedLog,
    counts: EventCounts,
    fitted: Fitted,
    segments: Sequence[Segment],
    *,
    known_ids: tuple[int, int],
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The counts in the description of a dataset.

    Args:
        log: the events that were read.
        counts: how often its users and items occur.
        fitted: the vocabularies of the dataset.
        segments: all events of the dataset.
        known_ids: number of users and of items with an event before the test part.
        before: statistics of the dataset that `log` is appended to.
    """
    known = sum(s.events for s in segments if s.part in KNOWN["test"])
    first = [s.first_timestamp_ms for s in segments if s.first_timestamp_ms is not None]
    last = [s.last_timestamp_ms for s in segments if s.last_timestamp_ms is not None]
    users, items = fitted.ids[USER], fitted.ids[ITEM]
    read = (log.events_read, log.rows_skipped, log.duplicates_dropped, log.below)
    sums = {
        name: count + (before[name] if before else 0)
        for name, count in zip(_SUMS, read, strict=True)
    }
    return {
        "events": sum(segment.events for segment in segments),
        "users": len(users.vocabulary) - 1,
        "items": len(items.vocabulary) - 1,
        "density": known / (known_ids[0] * known_ids[1]),
        **sums,
        "first_timestamp_ms": min(first, default=None),
        "last_timestamp_ms": max(last, default=None),
        "test_events_of_unknown_items": int(counts.items[TEST][items.unknown()].sum()),
        "test_events_of_unknown_users": int(counts.users[TEST][users.unknown()].sum()),
    }


def time_findings(log: SortedLog, schema: Schema) -> list[Finding]:
    """Findings on the clock that wrote a log; none for a log without times."""
    if not log.is_timed:
        return []
    return clock_jumps(log.frame["timestamp_ms"].to_numpy(), column=schema.timestamp)

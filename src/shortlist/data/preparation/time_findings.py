"""Findings on the times of a log: gaps, placeholder times, ties."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl

from shortlist.data.findings import Finding
from shortlist.data.split import DAY_MS

JUMP_FACTOR = 50
"""A silence is a jump when it is longer than so many usual gaps."""
MOMENT_SHARE = 0.1
"""Share of the events that one millisecond may hold."""
FEW = 20
"""Shares of fewer events say nothing."""
_FEW_DAYS = 2**16  # from the first to the last, marked one by one
_USUAL_GAP = 0.9  # quantile: up to a tenth of the gaps may be jumps


def clock_jumps(
    timestamp_ms: np.ndarray, *, column: str | None = None
) -> list[Finding]:
    """Gaps without any event that are far longer than usual.

    The gaps are those between neighbouring days (UTC) that have events. The usual gap
    is their 90th percentile, the lower neighbour where it falls between two of them; a
    gap over 50 times as long is a jump. Events of 1970-01-01 are ignored (see
    `odd_times`).

    Args:
        timestamp_ms: `(n,)` int64 milliseconds since the epoch, in any order.
        column: the column of the times.
    """
    days = _distinct(timestamp_ms // DAY_MS)
    days = days[days > 0]
    gaps = np.diff(days)
    if not len(gaps):
        return []
    usual = int(np.quantile(gaps, _USUAL_GAP, method="lower"))
    jumps = np.flatnonzero(gaps > JUMP_FACTOR * usual)
    if not len(jumps):
        return []
    longest = jumps[np.argmax(gaps[jumps])]
    begin, end = (_day(days[longest + step]) for step in (0, 1))
    others = f" (and {len(jumps) - 1} more like it)" if len(jumps) > 1 else ""
    usually = "every day" if usual == 1 else f"at least every {usual:,} days"
    return [
        Finding(
            "clock-jump",
            "warning",
            f"No event happened for {gaps[longest]:,} days, between {begin} and"
            f" {end}{others}; otherwise the log has events {usually}. Check the clock"
            " that wrote it, or whether a part of the log is missing.",
            column=column,
            count=len(jumps),
        )
    ]


def _distinct(days: np.ndarray) -> np.ndarray:
    """The distinct days, ascending."""
    if not len(days):
        return days
    first, last = int(days.min()), int(days.max())
    if last - first >= max(len(days), _FEW_DAYS):
        return pl.Series(days).unique().sort().to_numpy()
    seen = np.zeros(last - first + 1, bool)
    seen[days - first] = True
    return np.flatnonzero(seen) + first


def odd_times(timestamp_ms: np.ndarray, *, column: str | None = None) -> list[Finding]:
    """Times that are probably placeholders.

    `times-at-epoch`: events of 1970-01-01, a missing time written as 0.
    `times-at-midnight`: every event (of at least 20) is at 00:00 UTC, so days and not
    moments were logged. `times-at-one-moment`: one millisecond holds at least 10 % of
    at least 20 events, unless all are at midnight.

    Args:
        timestamp_ms: `(n,)` int64 milliseconds since the epoch, in any order.
        column: the column of the times.
    """
    findings = []
    if count := int(np.count_nonzero(timestamp_ms // DAY_MS == 0)):
        message = (
            f"Events of 1970-01-01, which is how a missing time is often written:"
            f" {count:,}. Write the true time or leave the events out."
        )
        findings.append(
            Finding("times-at-epoch", "problem", message, column=column, count=count)
        )
    if len(timestamp_ms) < FEW:
        return findings
    if not np.any(timestamp_ms % DAY_MS):
        message = (
            "Every event is at midnight (UTC): the log has dates without a time of day,"
            " so events of one day keep their order in the file. Log the time of day if"
            " it is known."
        )
        count = len(timestamp_ms)
        findings.append(
            Finding("times-at-midnight", "note", message, column=column, count=count)
        )
        return findings
    moment, count = _commonest(timestamp_ms)
    if count >= MOMENT_SHARE * len(timestamp_ms):
        message = (
            f"{count:,} events ({count / len(timestamp_ms):.1%}) have the same time,"
            f" {moment_text(moment)}: probably that of an import, not of the events."
            " Write the true times, or use a split that does not need them."
        )
        findings.append(
            Finding(
                "times-at-one-moment", "warning", message, column=column, count=count
            )
        )
    return findings


def one_time(timestamp_ms: int, *, column: str | None = None) -> Finding:
    """The finding for a log whose events all have the same time (`times-all-equal`)."""
    return Finding(
        "times-all-equal",
        "warning",
        f"Every event has the same time, {moment_text(timestamp_ms)}. The log is read"
        " as one without times, in the order of the file."
        " Write the true times, or name no timestamp column.",
        column=column,
    )


def _commonest(times: np.ndarray) -> tuple[int, int]:
    """A time that `MOMENT_SHARE` of the events have, if there is one, and its count.

    So many equal values cover one of the evenly spaced places of the sorted times,
    and these are found without sorting all times.
    """
    step = max(int(len(times) * MOMENT_SHARE), 1)
    places = np.arange(0, len(times), step)
    candidates = np.unique(np.partition(times, places)[places])
    counts = [int(np.count_nonzero(times == time)) for time in candidates]
    best = int(np.argmax(counts))
    return int(candidates[best]), counts[best]


def moment_text(timestamp_ms: int) -> str:
    """Milliseconds since the epoch as ISO-8601 text in UTC, to the second."""
    moment = dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(
        seconds=timestamp_ms // 1000
    )
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _day(day: int) -> str:
    return moment_text(int(day) * DAY_MS)[:10]


def tied_events(tied: int, events: int, *, column: str | None = None) -> list[Finding]:
    """Many events of one user at the same moment.

    Args:
        tied: events that share user and time with another one.
        events: all events.
        column: the column of the times.
    """
    if tied < 0.1 * events or not tied:
        return []
    return [
        Finding(
            "tied-events",
            "note",
            f"{tied:,} events ({tied / events:.0%}) share their moment with another"
            " event of their user: their order is that of the file, and histories"
            " leave out events of the same moment.",
            column=column,
            count=tied,
        )
    ]

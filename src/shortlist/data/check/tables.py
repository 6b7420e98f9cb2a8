"""The data report as tables of text, for the terminal and for the HTML page alike."""

from __future__ import annotations

from collections.abc import Iterable

from shortlist.data.check.report import LogReport, Spread
from shortlist.data.findings import SEVERITIES, Finding
from shortlist.data.preparation.time_findings import moment_text
from shortlist.page import Table

_SHOWN = ("min", "p5", "p25", "p50", "p75", "p95", "p99", "max")
_SHORT_LOG_DAYS = 10


def tables_of(report: LogReport) -> list[Table]:
    """The tables of a report, without those that would be empty."""
    tables = [_log(report), _spread(report), _labels(report), _parts(report)]
    tables += [_cold(report), _drift(report), _leakage(report)]
    return [table for table in tables if table.rows]


def summary_of(findings: Iterable[Finding]) -> str:
    """How many findings there are of each severity."""
    severities = [finding.severity for finding in findings]
    counts = [(severities.count(severity), severity) for severity in SEVERITIES]
    parts = [f"{n} {name}{'' if n == 1 else 's'}" for n, name in counts if n]
    return ", ".join(parts) or "no findings"


def place_of(finding: Finding) -> str:
    """The file, column and row of a finding, as in errors; empty if it has none."""
    places = (
        ("file", finding.file),
        ("column", finding.column),
        ("row", finding.row),
    )
    return ", ".join(f"{name} {value}" for name, value in places if value is not None)


def _log(report: LogReport) -> Table:
    counts, time = report.counts, report.time
    rows = [
        ("rows read", f"{counts.rows_read:,}"),
        ("rows left out", f"{counts.rows_skipped:,}"),
        ("duplicates left out", f"{counts.duplicates_dropped:,}"),
        ("events", f"{counts.events:,}"),
        ("users", f"{counts.users:,}"),
        ("items", f"{counts.items:,}"),
        ("user-item pairs", f"{counts.pairs:,}"),
        ("density", f"{counts.density:.3%}"),
        ("events of a pair seen before", f"{counts.repeated_share:.1%}"),
    ]
    if time is not None:
        rows += [
            ("events tied with another", f"{counts.tied_events / counts.events:.1%}"),
            ("first event", time.first),
            ("last event", time.last),
            ("days", f"{time.days:,.1f}"),
            ("calendar days with events", f"{time.active_days:,}"),
        ]
    note = "Density: the share of all pairs of a user and an item that occur."
    return Table("Log", ("", "value"), tuple(rows), note)


def _spread(report: LogReport) -> Table:
    def row(name: str, spread: Spread, ids: int) -> tuple[str, ...]:
        quantiles = (f"{spread.quantiles[key]:,}" for key in _SHOWN)
        shares = (f"{spread.gini:.2f}", f"{spread.once / ids:.1%}")
        return (name, f"{spread.mean:,.1f}", *quantiles, *shares)

    top = report.popularity
    return Table(
        "Events per user and item",
        ("", "mean", *_SHOWN, "Gini", "only 1"),
        (
            row("user", report.events_per_user, report.counts.users),
            row("item", report.events_per_item, report.counts.items),
        ),
        f"The most popular 1 % of the items have {top.top_1_percent:.1%} of the events,"
        f" the most popular 10 % have {top.top_10_percent:.1%}.\n"
        "p50 is the median. Gini is 0 if all have the same number of events, near 1 if"
        " one has nearly all.",
    )


def _labels(report: LogReport) -> Table:
    labels = report.labels
    if labels is None:
        return Table("Labels", (), ())
    quantiles = (f"{labels.quantiles[key]:g}" for key in _SHOWN)
    mean, deviation = f"{labels.mean:.3f}", f"{labels.deviation:.3f}"
    positive = f"{labels.positive_share:.1%}"
    return Table(
        "Labels",
        ("", "mean", "deviation", *_SHOWN, "positive"),
        (("label", mean, deviation, *quantiles, positive),),
    )


def _parts(report: LogReport) -> Table:
    rows = []
    short = report.time is not None and report.time.days < _SHORT_LOG_DAYS
    for part in report.parts:
        first, last = (
            "-" if moment is None else _moment(moment, with_clock=short)
            for moment in (part.first_ms, part.last_ms)
        )
        counts = (part.events, part.users, part.items)
        share = f"{part.events / report.counts.events:.1%}"
        mean = "-" if part.label_mean is None else f"{part.label_mean:.3f}"
        events, users, items = (f"{count:,}" for count in counts)
        rows.append((part.part, events, share, users, items, first, last, mean))
    header = ("", "events", "share", "users", "items", "first", "last", "mean label")
    note = (
        "train: fits the models. validation: early stopping and the ranker weight."
        " test: evaluation."
    )
    return Table("Parts", header, tuple(rows), note)


def _moment(moment_ms: int, *, with_clock: bool) -> str:
    """A date, or in a short log the time without the year."""
    text = moment_text(moment_ms)
    return text[5:16].replace("T", " ") if with_clock else text[:10]


def _cold(report: LogReport) -> Table:
    rows = tuple(
        (
            cold.part,
            f"{cold.users:,} ({cold.users_share:.1%})",
            f"{cold.items:,} ({cold.items_share:.1%})",
            f"{cold.events_of_users:.1%}",
            f"{cold.events_of_items:.1%}",
        )
        for cold in report.cold
    )
    header = ("", "users", "items", "events of such users", "events of such items")
    note = "Ids without an earlier event: only features or a history can rank them."
    return Table("Unknown to the parts before", header, rows, note)


def _drift(report: LogReport) -> Table:
    rows = tuple(
        (
            f"{drift.part}: {drift.quantity.replace('_', ' ')}",
            f"{drift.psi:.3f}",
            f"{drift.chance_psi:.3f}",
            f"{drift.total_variation:.1%}",
        )
        for drift in report.drift
    )
    return Table(
        "Drift against the parts before",
        ("", "PSI", "by chance", "total variation"),
        rows,
        "Population stability index: how much two histograms differ.\n"
        "By chance: its expected value without drift; 0.25 above that is a shift.",
    )


def _leakage(report: LogReport) -> Table:
    rows = tuple(
        (
            leak.part,
            f"{leak.repeated_pairs:,} ({leak.repeated_pairs_share:.1%})",
            f"{leak.copies:,}",
            f"{leak.train_after_first:,} ({leak.train_after_first_share:.1%})",
            f"{leak.train_after_own:,} ({leak.train_after_own_share:.1%})",
        )
        for leak in report.leakage
    )
    header = ("", "pairs of before", "copies", "train after first", "train after own")
    return Table(
        "Leakage from the parts before",
        header,
        rows,
        "Pairs of before: its events whose user had the item before.\n"
        "Copies: the same with the same time.\n"
        "Train after first (own): training events after the first event of the part (of"
        " the user's).",
    )

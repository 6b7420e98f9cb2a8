"""What the data report makes of its numbers: shifts, repeats, order and the verdict."""

from __future__ import annotations

import numpy as np
import pytest

from grouped_logs import DAY, SCHEMA, Row, grouped_log
from shortlist.data import Finding, LogReport, Schema, Split, check_log

HOUR = DAY // 24
START = 18_262 * DAY
PLAIN = Schema(user_id="user", item_id="item", timestamp="time")
NO_TIME = Schema(user_id="user", item_id="item")


def found(report: LogReport) -> dict[str, Finding]:
    codes = [finding.code for finding in report.findings]
    assert len(codes) == len(set(codes)), "one finding per kind"
    return {finding.code: finding for finding in report.findings}


def report_of(
    rows: list[Row], schema: Schema = PLAIN, split: Split | None = None, **options: bool
) -> LogReport:
    return check_log(grouped_log(rows), schema, split or Split(), **options)


def sessions(generator: np.random.Generator, hour: int | None = None) -> list[Row]:
    """30 users with eight sessions of ten events; the last one is the test part."""
    rows: list[Row] = []
    for user in range(30):
        for session in range(8):
            start = generator.integers(24) if hour is None or session < 7 else hour
            time = START + (10 * session + int(generator.integers(9))) * DAY
            time += int(start) * HOUR
            for event in range(10):
                item = int(generator.integers(40))
                rows.append((user, item, time + event * 1_000, 1.0, 2 * (session == 7)))
    return rows


@pytest.mark.parametrize("seed", range(5))
def test_sessions_at_random_hours_are_no_drift(seed: int) -> None:
    report = report_of(sessions(np.random.default_rng(seed)))
    hours = next(d for d in report.drift if d.quantity == "hour")
    # Thirty sessions fill the hours unevenly, though each has ten events.
    assert hours.psi > 0.25 + hours.expected_psi
    assert hours.chance_psi == pytest.approx(23 * (1 / 210 + 1 / 30), rel=0.1)
    assert not hours.is_shift
    assert "drift" not in found(report)


def test_sessions_that_all_move_to_one_hour_are_a_drift() -> None:
    report = report_of(sessions(np.random.default_rng(0), hour=3))
    finding = found(report)["drift"]
    assert finding.severity == "warning"
    assert "hour of the test events" in finding.message
    assert "clock" in finding.message


@pytest.mark.parametrize(
    ("days", "quantities"), [(0.5, set()), (3, {"hour"}), (8, {"hour", "weekday"})]
)
def test_a_short_part_is_not_asked_for_a_whole_week(
    days: float, quantities: set[str]
) -> None:
    rows: list[Row] = [(n % 9, n % 7, START + n * HOUR, 1, 0) for n in range(900)]
    step = int(days * DAY) // 49
    rows += [(n % 9, n % 7, START + 60 * DAY + n * step, 1, 2) for n in range(50)]
    drifts = {drift.quantity for drift in report_of(rows).drift}
    assert drifts == {"item_popularity", *quantities}


@pytest.mark.parametrize("seed", range(5))
def test_popularity_at_random_is_what_chance_gives(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows: list[Row] = [
        (u, int(i), START + n * HOUR, 1, 2 if n >= 768 else 0)
        for n, (u, i) in enumerate(generator.integers(0, (48, 300), (960, 2)).tolist())
    ]
    (drift,) = (d for d in report_of(rows).drift if d.quantity == "item_popularity")
    assert drift.psi > 0.25  # the tenths fit the events they were made of
    assert abs(drift.psi - drift.chance_psi) < 4 * drift.chance_deviation
    assert not drift.is_shift


def test_new_popular_items_are_a_note() -> None:
    generator = np.random.default_rng(0)
    rows: list[Row] = [
        (
            n % 48,
            int(generator.integers(60)) + 60 * (n >= 768),
            START + n * HOUR,
            1,
            2 * (n >= 768),
        )
        for n in range(960)
    ]
    finding = found(report_of(rows))["drift"]
    assert (finding.severity, finding.count) == ("note", 1)
    assert "train again often" in finding.message


def repeats(share: float, events: int = 100) -> list[Row]:
    """Of the test events this share repeats a pair of training."""
    known: list[Row] = [(n % 10, n, START + n * HOUR, 1, 0) for n in range(events)]
    again = int(share * events)
    return known + [
        (n % 10, n if n < again else events + n, START + (events + n) * HOUR, 1, 2)
        for n in range(events)
    ]


@pytest.mark.parametrize(
    ("share", "code", "severity"),
    [
        (1.0, "only-repeats", "problem"),
        (0.92, "only-repeats", "problem"),
        (0.6, "repeated-pairs", "warning"),
        (0.2, "repeated-pairs", "note"),
    ],
)
def test_repeats_weigh_by_their_share(share: float, code: str, severity: str) -> None:
    findings = found(report_of(repeats(share)))
    assert findings[code].severity == severity
    assert findings[code].count == int(share * 100)
    kept = found(report_of(repeats(share), repeats=True))
    assert kept["repeated-pairs"].severity == "note"
    assert "They count" in kept["repeated-pairs"].message
    assert "only-repeats" not in kept


def test_a_few_held_out_events_say_little_about_repeats() -> None:
    assert "only-repeats" not in found(report_of(repeats(1.0, events=9)))


def by_item(times: str) -> list[Row]:
    """20 users with ten items each, sorted by item; the last two are held out."""
    step = {"none": 1, "moments": HOUR, "one day": 0}[times]
    rows: list[Row] = []
    for user in range(20):
        items = np.sort(np.random.default_rng(user).permutation(30)[:10]).tolist()
        for n, item in enumerate(items):
            time = START + (10 * user + n) * step
            rows.append((user, item, time, 1, 2 * (n >= 8)))
    return rows


@pytest.mark.parametrize(
    ("times", "kind", "severity"),
    [
        ("none", "last_n", "problem"),
        ("none", "time_cut", "problem"),
        ("none", "random", None),
        ("moments", "last_n", None),
        ("one day", "last_n", "warning"),
    ],
)
def test_the_order_of_rows_matters_where_it_stands_for_time(
    times: str, kind: str, severity: str | None
) -> None:
    schema = NO_TIME if times == "none" else PLAIN
    amount = 1 if kind == "last_n" else 0.1
    split = Split(kind=kind, test=amount, validation=amount)  # type: ignore[arg-type]
    findings = found(report_of(by_item(times), schema, split))
    finding = findings.get("order-not-time")
    assert (finding and finding.severity) == severity


def test_the_verdict_counts_and_says_what_to_do() -> None:
    rows: list[Row] = [
        (n % 9, n // 9 % 40, START + n * HOUR, 1 + n % 5, 2 * (n >= 300))
        for n in range(360)
    ]
    verdict = report_of(rows, SCHEMA).verdict
    assert verdict.ready
    assert verdict.message.startswith(
        "This log can be trained on: 360 events of 9 users and 40 items."
    )
    bad = Finding("rows-skipped", "problem", "x"), Finding("a-b", "problem", "y")
    log = grouped_log(rows, findings=bad)
    verdict = check_log(log, SCHEMA, Split()).verdict
    assert not verdict.ready
    assert verdict.message == (
        "This log (360 events of 9 users and 40 items) is not ready. 2 problems to"
        ' solve first: rows-skipped: correct the rows, or set on_error = "skip" under'
        " [log]; a-b: see below."
    )

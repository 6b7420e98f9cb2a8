"""The numbers of the data report against plain loops over the rows."""

from __future__ import annotations

import math
from collections import Counter

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grouped_logs import DAY, SCHEMA, Row, grouped_log
from shortlist.data import PARTS, Finding, LogReport, Schema, Split, check_log
from shortlist.data.check.parts import drift, stability_index
from shortlist.data.check.spread import gini, labels_of, popularity_of, spread_of
from shortlist.errors import LogError

NO_TIME = Schema(user_id="user", item_id="item", label="stars")
NO_LABEL = Schema(user_id="user", item_id="item", timestamp="time")
DAY_2020 = 18_262

# User, item, milliseconds, label, part.
SMALL: list[Row] = [
    (0, 0, 1 * DAY, 5, 0),
    (0, 1, 2 * DAY, 3, 0),
    (0, 2, 9 * DAY, 1, 2),
    (1, 0, 3 * DAY, 4, 0),
    (1, 0, 8 * DAY, 4, 1),  # the pair again
    (1, 3, 8 * DAY, 2, 2),  # an item of the test part alone, tied
    (2, 1, 10 * DAY, 5, 2),  # a user of the test part alone
    (0, 3, 10 * DAY, 5, 0),  # after the own test event, and after all validation
]

rows = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.integers(0, 4),
        st.integers(0, 4).map(lambda n: n * DAY // 2 + 5 * DAY),
        st.sampled_from([1.0, 2.5, 5.0]),
        st.sampled_from([0, 1, 2]),
    ),
    min_size=1,
    max_size=40,
    unique_by=lambda row: row[:4],
)


def report_of(rows: list[Row], schema: Schema = SCHEMA) -> LogReport:
    return check_log(grouped_log(rows), schema, Split())


def codes(report: LogReport) -> list[str]:
    return [finding.code for finding in report.findings]


def test_counts_of_a_small_log() -> None:
    log = grouped_log(SMALL, events_read=12, duplicates_dropped=3, rows_skipped=1)
    counts = check_log(log, SCHEMA, Split()).counts
    assert msgspec.to_builtins(counts) == {
        "rows_read": 12,
        "rows_skipped": 1,
        "duplicates_dropped": 3,
        "events": 8,
        "users": 3,
        "items": 4,
        "pairs": 7,
        "repeated_share": 0.125,
        "density": 7 / 12,
        "tied_events": 2,
    }


def test_the_time_goes_from_the_first_event_to_the_last() -> None:
    report = report_of(SMALL)
    assert report.time is not None and report.activity is not None
    assert (report.time.first, report.time.last) == (
        "1970-01-02T00:00:00Z",
        "1970-01-11T00:00:00Z",
    )
    assert (report.time.days, report.time.active_days) == (9.0, 6)
    assert report.activity.start_ms == DAY
    assert report.activity.days_per_point == 1
    assert report.activity.events == {
        "train": (1, 1, 1, 0, 0, 0, 0, 0, 0, 1),
        "validation": (0, 0, 0, 0, 0, 0, 0, 1, 0, 0),
        "test": (0, 0, 0, 0, 0, 0, 0, 1, 1, 1),
    }


@pytest.mark.parametrize("num_days", [1, 199, 200, 201, 3_999, 4_000, 4_001])
def test_long_logs_are_drawn_with_at_most_200_points(num_days: int) -> None:
    log: list[Row] = [(n % 7, n % 5, n * DAY + DAY, 1, 0) for n in range(num_days)]
    activity = report_of(log).activity
    assert activity is not None
    points = activity.events["train"]
    assert len(points) <= 200
    assert sum(points) == num_days
    assert set(points[:-1]) <= {activity.days_per_point}
    assert len(points) * activity.days_per_point >= num_days


def test_parts_cold_and_leakage_of_a_small_log() -> None:
    report = report_of(SMALL)
    assert [(p.part, p.events, p.users, p.items) for p in report.parts] == [
        ("train", 4, 2, 3),
        ("validation", 1, 1, 1),
        ("test", 3, 3, 3),
    ]
    assert [p.label_mean for p in report.parts] == [17 / 4, 4, 8 / 3]
    assert (report.parts[2].first_ms, report.parts[2].last_ms) == (8 * DAY, 10 * DAY)
    test = report.cold[1]
    assert (test.part, test.known) == ("test", ("train", "validation"))
    assert (test.users, test.users_share, test.events_of_users) == (1, 1 / 3, 1 / 3)
    assert (test.items, test.items_share, test.events_of_items) == (1, 1 / 3, 1 / 3)
    validation, test = report.leakage
    assert (validation.repeated_pairs, validation.copies) == (1, 0)
    assert (validation.train_after_first, validation.train_after_own) == (1, 0)
    assert (test.repeated_pairs, test.copies) == (0, 0)
    assert (test.train_after_first, test.train_after_own) == (1, 1)
    assert test.train_after_own_share == 0.25


@settings(max_examples=200, deadline=None)
@given(rows)
def test_cold_and_leakage_are_those_of_plain_loops(log: list[Row]) -> None:
    report = report_of(log)
    reported = {unknown.part for unknown in report.cold}
    for number, name in ((1, "validation"), (2, "test")):
        ours = [row for row in log if row[4] == number]
        before = [row for row in log if row[4] < number]
        assert (name in reported) == bool(ours and before)
        if name not in reported:
            continue
        cold = next(c for c in report.cold if c.part == name)
        users, items = ({row[i] for row in before} for i in (0, 1))
        assert cold.users == len({row[0] for row in ours} - users)
        assert cold.items == len({row[1] for row in ours} - items)
        new = [row for row in ours if row[0] not in users]
        assert cold.events_of_users == len(new) / len(ours)
        new = [row for row in ours if row[1] not in items]
        assert cold.events_of_items == len(new) / len(ours)
        leak = next(c for c in report.leakage if c.part == name)
        pairs = {row[:2] for row in before}
        assert leak.repeated_pairs == sum(row[:2] in pairs for row in ours)
        moments = {row[:3] for row in before}
        assert leak.copies == sum(row[:3] in moments for row in ours)
        train = [row for row in log if row[4] == 0]
        first = min(row[2] for row in ours)
        assert leak.train_after_first == sum(row[2] > first for row in train)
        own = [
            row for row in train if any(o[0] == row[0] and o[2] < row[2] for o in ours)
        ]
        assert leak.train_after_own == len(own)


@settings(max_examples=200, deadline=None)
@given(rows)
def test_counts_and_ties_are_those_of_plain_loops(log: list[Row]) -> None:
    counts = report_of(log).counts
    pairs = {row[:2] for row in log}
    assert (counts.events, counts.pairs) == (len(log), len(pairs))
    assert counts.density == len(pairs) / (counts.users * counts.items)
    moments = Counter((row[0], row[2]) for row in log)
    assert counts.tied_events == sum(n for n in moments.values() if n > 1)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(rows)
def test_drift_is_that_of_plain_loops(log: list[Row]) -> None:
    for found in report_of(log).drift:
        number = PARTS.index(found.part)
        before = [row for row in log if row[4] < number]
        ours = [row for row in log if row[4] == number]
        if found.quantity == "hour":
            names, of = (
                [str(h) for h in range(24)],
                lambda row: (row[2] // 3_600_000) % 24,
            )
        elif found.quantity == "weekday":
            names = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]
            of = lambda row: (row[2] // DAY) % 7  # noqa: E731
        elif found.quantity == "label":
            values = sorted({row[3] for row in before + ours})
            names, of = [f"{v:g}" for v in values], lambda row: values.index(row[3])
        else:
            continue
        e, a = Counter(map(of, before)), Counter(map(of, ours))
        assert set(found.bins) == set(names)
        for name, share_before, share in zip(
            found.bins, found.before, found.share, strict=True
        ):
            place = names.index(name)
            assert share_before == pytest.approx(e[place] / len(before))
            assert share == pytest.approx(a[place] / len(ours))
        used = sorted(set(e) | set(a))
        psi = 0.0
        for place in used:
            p = (e[place] + 0.5) / (len(before) + 0.5 * len(used))
            q = (a[place] + 0.5) / (len(ours) + 0.5 * len(used))
            psi += (q - p) * math.log(q / p)
        assert found.psi == pytest.approx(psi)
        assert found.expected_psi == pytest.approx(
            (len(used) - 1) * (1 / len(before) + 1 / len(ours))
        )


def test_the_stability_index_of_two_literal_histograms() -> None:
    before, now = np.array([50, 30, 20, 0]), np.array([20, 30, 50, 0])
    # Shares with 0.5 added to the three used bins, of 101.5.
    a, b = 50.5 / 101.5, 20.5 / 101.5
    assert stability_index(before, now) == pytest.approx(2 * (a - b) * math.log(a / b))
    assert stability_index(before, before * 1_000) == pytest.approx(0, abs=1e-4)
    found = drift("test", "hour", list("abcd"), before, now)
    assert found.total_variation == pytest.approx(0.3)
    assert found.expected_psi == pytest.approx(2 * (1 / 100 + 1 / 100))


def test_without_drift_the_index_is_near_its_expectation() -> None:
    generator = np.random.default_rng(5)
    shares = [0.4, 0.3, 0.2, 0.1]
    draws = [
        drift(
            "test",
            "hour",
            list("abcd"),
            generator.multinomial(2_000, shares),
            generator.multinomial(500, shares),
        )
        for _ in range(400)
    ]
    mean = np.mean([found.psi for found in draws])
    assert mean == pytest.approx(draws[0].expected_psi, rel=0.1)


def test_items_are_grouped_into_tenths_of_the_events_before() -> None:
    # Item 0 has half of 20 events before, items 1 to 10 one each.
    log: list[Row] = [(n, 0, n * DAY, 1, 0) for n in range(10)]
    log += [(n, 1 + n, n * DAY, 1, 0) for n in range(10)]
    log += [(0, 0, 90 * DAY, 1, 2), (1, 11, 91 * DAY, 1, 2)]
    (popularity,) = (d for d in report_of(log).drift if d.quantity == "item_popularity")
    assert popularity.bins == (*(str(n) for n in range(1, 11)), "new")
    assert popularity.before == (0.5, 0, 0, 0, 0, 0.1, 0.1, 0.1, 0.1, 0.1, 0)
    assert popularity.share == (0.5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.5)
    assert popularity.total_variation == pytest.approx(0.5)


def test_many_labels_are_compared_in_tenths_of_those_before() -> None:
    log: list[Row] = [(n % 9, n % 11, n * DAY, n / 7, 0) for n in range(1_000)]
    log += [(n % 9, n % 11, n * DAY, 1e6, 2) for n in range(1_000, 1_100)]
    (labels,) = (d for d in report_of(log).drift if d.quantity == "label")
    assert len(labels.bins) == 10
    assert labels.before == pytest.approx([0.1] * 10, abs=0.002)
    assert labels.share == (*[0.0] * 9, 1.0)
    assert labels.psi > 0.25


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_the_gini_coefficient_is_half_the_relative_mean_difference(
    counts: list[int],
) -> None:
    differences = [abs(a - b) for a in counts for b in counts]
    expected = np.mean(differences) / (2 * np.mean(counts))
    assert gini(np.array(counts)) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=60).filter(any))
def test_a_spread_has_quantiles_that_occur_and_bars_that_sum_up(
    counts: list[int],
) -> None:
    spread, used = spread_of(np.array(counts)), sorted(n for n in counts if n)
    assert spread.mean == pytest.approx(sum(used) / len(used))
    assert spread.once == used.count(1)
    levels = {"min": 0, "p25": 0.25, "p50": 0.5, "p99": 0.99, "max": 1}
    for name, level in levels.items():
        enough = [x for x in used if sum(y <= x for y in used) >= level * len(used)]
        assert spread.quantiles[name] == enough[0]
    for bar in spread.histogram:
        assert bar.count == sum(bar.low <= n <= bar.high for n in used)
    assert sum(bar.count for bar in spread.histogram) == len(used)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=350).filter(any))
def test_the_popularity_curve_is_that_of_the_sorted_items(counts: list[int]) -> None:
    found = popularity_of(np.array(counts))
    used = sorted((n for n in counts if n), reverse=True)
    for share, percent in ((found.top_1_percent, 1), (found.top_10_percent, 10)):
        top = used[: math.ceil(len(used) * percent / 100)]
        assert share == pytest.approx(sum(top) / sum(used))
    assert len(found.curve) <= 100
    assert (found.curve[-1].items, found.curve[-1].events) == (1.0, 1.0)
    for point in found.curve:
        place = round(point.items * len(used))
        assert point.events == pytest.approx(sum(used[:place]) / sum(used))


def test_labels_are_described_by_their_values() -> None:
    labels = labels_of(np.array([1.0, 2.0, 5.0]), np.array([2, 1, 1]), 2.0)
    assert labels.mean == 2.25
    assert labels.deviation == pytest.approx(np.std([1, 1, 2, 5]))
    assert (labels.quantiles["p50"], labels.quantiles["p75"]) == (1.0, 2.0)
    assert (labels.quantiles["min"], labels.quantiles["max"]) == (1.0, 5.0)
    assert labels.positive_share == 0.5
    assert [(bar.low, bar.count) for bar in labels.histogram] == [
        (1, 2),
        (2, 1),
        (5, 1),
    ]


def test_labels_of_many_values_become_twenty_bars() -> None:
    values = np.arange(100, dtype=np.float32)
    labels = labels_of(values, np.full(100, 3), 0.0)
    assert [bar.count for bar in labels.histogram] == [15] * 20
    assert (labels.histogram[0].low, labels.histogram[-1].high) == (0, 99)


def test_without_times_nothing_is_said_about_them() -> None:
    log: list[Row] = [(n % 3, n % 4, n, n % 2, 0 if n < 20 else 2) for n in range(30)]
    report = report_of(log, NO_TIME)
    assert report.time is None and report.activity is None
    assert {found.quantity for found in report.drift} == {"item_popularity", "label"}
    assert [part.first_ms for part in report.parts] == [None] * 3
    assert report.leakage[0].train_after_first == 0
    assert report.leakage[0].copies == 0
    assert report.counts.tied_events == 0
    assert not [code for code in codes(report) if "time" in code]


def test_without_a_label_nothing_is_said_about_it() -> None:
    log: list[Row] = [(u, i, n * DAY, 1, p) for n, (u, i, _, _, p) in enumerate(SMALL)]
    report = report_of(log, NO_LABEL)
    assert report.labels is None
    assert "label" not in {found.quantity for found in report.drift}
    assert "label-constant" not in codes(report)
    assert "label-constant" in codes(report_of(log))


def test_a_log_of_one_user_or_one_event_can_be_reported_on() -> None:
    report = report_of([(0, n, DAY * (n + 1), 1, 0) for n in range(5)])
    assert "one-user" in codes(report)
    report = report_of([(0, 0, DAY, 1, 0)])
    assert {"one-user", "one-item"} <= set(codes(report))
    assert report.events_per_user.gini == 0
    assert (report.cold, report.drift, report.leakage) == ((), (), ())


def test_a_log_of_test_events_alone_has_nothing_to_compare_with() -> None:
    report = report_of([(0, 0, DAY, 1, 2), (1, 1, DAY, 1, 2)])
    assert report.cold == ()
    assert codes(report).count("empty-part") == 1  # of the validation part alone
    assert "log-too-small" in codes(report)


def test_a_log_without_events_is_refused() -> None:
    with pytest.raises(LogError, match="all 7 rows are left out") as caught:
        check_log(grouped_log([], events_read=7, rows_skipped=7), SCHEMA, Split())
    assert caught.value.code == "log-empty"


def test_codes_without_events_do_not_count() -> None:
    log = grouped_log([*SMALL, (7, 9, DAY, 1, 0)])
    report = check_log(log, SCHEMA, Split())
    assert (report.counts.users, report.counts.items) == (4, 5)
    assert report.events_per_user.quantiles["min"] == 1


def test_findings_of_reading_are_kept_and_problems_come_first() -> None:
    notes = (Finding("a-note", "note", "x"), Finding("a-problem", "problem", "y"))
    report = check_log(grouped_log(SMALL, findings=notes), SCHEMA, Split())
    assert codes(report)[0] == "a-problem"
    order = ["problem", "warning", "note"]
    severities = [order.index(finding.severity) for finding in report.findings]
    assert severities == sorted(severities)


def test_the_split_that_was_asked_for_may_leave_a_part_empty() -> None:
    log = grouped_log([(n % 3, n % 4, n * DAY, 1, 0) for n in range(20)])
    none = check_log(log, SCHEMA, Split(kind="last_n", test=0, validation=0))
    assert "empty-part" not in codes(none)
    asked = check_log(log, SCHEMA, Split())
    (empty,) = (f for f in asked.findings if f.code == "empty-part")
    assert empty.count == 2 and "both held-out parts" in empty.message


def test_copies_random_splits_and_cold_items_are_found() -> None:
    log: list[Row] = [
        (u, i, (u + i) * DAY + 10 * DAY, 1 + i % 5, (u + i) % 3)
        for u in range(12)
        for i in range(12)
    ]
    report = report_of(log)
    assert {"own-future", "global-future"} <= set(codes(report))
    assert "copied-events" not in codes(report)
    u, i, time, _, part = log[0]
    copied = [*log, (u, i, time, 4.5, 2 - part)]
    assert "copied-events" in codes(report_of(copied))
    cold = [*log, *((u, 50 + u, 400 * DAY, 3.0, 2) for u in range(12))]
    assert "cold-items" in codes(report_of(cold))
    assert "drift" in codes(report_of(cold))


def test_the_report_is_plain_json() -> None:
    report = report_of(SMALL)
    raw = msgspec.json.encode(report)
    assert msgspec.json.decode(raw, type=LogReport) == report
    assert b"NaN" not in raw and b"null" not in raw

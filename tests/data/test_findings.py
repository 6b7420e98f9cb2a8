"""What counts as a problem of a log, and what does not."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grouped_logs import DAY
from shortlist.data import Finding
from shortlist.data.findings import (
    changed_type,
    duplicate_events,
    empty_part,
    extreme_share,
    rare_ids,
    similar_ids,
    single_id,
    skipped_rows,
)
from shortlist.data.guess.shared_findings import constant_label, zero_label
from shortlist.data.preparation.time_findings import (
    clock_jumps,
    moment_text,
    odd_times,
    tied_events,
)
from shortlist.errors import LogError

DAY_2020 = 18_262  # 2020-01-01


def days(*numbers: int) -> np.ndarray:
    """Noon of these days from 2020-01-01 on."""
    return (np.array(numbers) + DAY_2020) * DAY + DAY // 2


def codes(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings]


def test_a_finding_is_plain_json_without_what_is_unknown() -> None:
    finding = Finding("a-code", "note", "Text.", column="user", count=3)
    assert json.loads(msgspec.json.encode(finding)) == {
        "code": "a-code",
        "severity": "note",
        "message": "Text.",
        "column": "user",
        "count": 3,
    }


def test_skipped_rows_say_the_first_reason_and_place() -> None:
    error = LogError("log-label-type", "Labels must be.", file="a", column="b", row=7)
    assert skipped_rows(error, 1_200) == Finding(
        "rows-skipped",
        "problem",
        "1,200 rows were left out [log-label-type]. Labels must be.",
        file="a",
        column="b",
        row=7,
        count=1_200,
    )
    assert "1 row was left out" in skipped_rows(error, 1).message


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["a", " a", "b"], [("ids-white-space", 2, "'a' and ' a'")]),
        (["Ann", "ann", "ANN", "bob"], [("ids-letter-case", 3, "'Ann' and 'ann'")]),
        (["7", "07", "7.0", "+7", "8"], [("ids-number-form", 4, "'7' and '07'")]),
        (["0", "00", "10", "1"], [("ids-number-form", 2, "'0' and '00'")]),
        (["7", "70", "7.5", "seven"], []),
        (["a", "a", None, "b"], []),
        ([], []),
    ],
)
def test_similar_ids_are_told_by_how_they_differ(ids, expected) -> None:
    found = similar_ids(pl.Series("user", ids, dtype=pl.String))
    assert [(f.code, f.count) for f in found] == [(c, n) for c, n, _ in expected]
    for finding, (_, _, example) in zip(found, expected, strict=True):
        assert example in finding.message
        assert finding.column == "user"


def test_an_id_counts_under_its_first_difference_only() -> None:
    found = similar_ids(pl.Series("id", ["x", "x ", "X", "1", "01"]))
    assert [(f.code, f.count, f.severity) for f in found] == [
        ("ids-white-space", 2, "problem"),
        ("ids-letter-case", 2, "warning"),
        ("ids-number-form", 2, "warning"),
    ]


def test_integers_have_one_spelling() -> None:
    assert similar_ids(pl.Series("id", [7, 7, 8])) == []


def test_examples_of_ids_are_short_and_printable() -> None:
    long = "\x1b[2J" + "x" * 5_000
    (finding,) = similar_ids(pl.Series("id", [long, long + " "]))
    assert len(finding.message) < 300
    assert finding.message.isprintable()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(" aAbB01.+", min_size=1, max_size=4), max_size=30))
def test_similar_ids_are_those_of_a_plain_loop(ids: list[str]) -> None:
    def groups(texts: list[str], form) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for text in texts:
            found.setdefault(form(text), []).append(text)
        return found

    def number(text: str) -> str:
        whole = text.removeprefix("+")
        head, dot, tail = whole.partition(".")
        good = head.isdigit() and (not dot or (tail and not tail.strip("0")))
        return str(int(head)) if good else text

    names = {
        "ids-white-space": str.strip,
        "ids-letter-case": str.lower,
        "ids-number-form": number,
    }
    expected, texts = {}, list(dict.fromkeys(ids))
    for code, form in names.items():
        grouped = groups(texts, form)
        alike = sum(len(group) for group in grouped.values() if len(group) > 1)
        if alike:
            expected[code] = alike
        texts = list(grouped)
    found = similar_ids(pl.Series("id", ids, dtype=pl.String))
    assert {finding.code: finding.count for finding in found} == expected


def test_a_column_that_changes_its_type_names_the_first_file_that_differs() -> None:
    types = {"a.csv": "Int64", "b.csv": "Int64", "c.csv": "String", "d.csv": "String"}
    (finding,) = changed_type("user", types)
    assert finding.code == "column-type-changed"
    assert (finding.file, finding.column, finding.count) == ("c.csv", "user", 2)
    assert "Int64 in 'a.csv' and String in 'c.csv'" in finding.message
    assert changed_type("user", {"a.csv": "Int64", "b.csv": "Int64"}) == []
    assert changed_type("user", {}) == []


@pytest.mark.parametrize(
    ("dropped", "severity"), [(0, None), (99, "note"), (100, "warning")]
)
def test_duplicates_weigh_more_from_a_tenth_on(dropped, severity) -> None:
    found = duplicate_events(dropped, 1_000)
    assert [f.severity for f in found] == ([severity] if severity else [])


def test_a_long_silence_in_a_daily_log_is_a_jump() -> None:
    times = days(*range(20), *range(71, 90))
    (finding,) = clock_jumps(times[::-1], column="time")
    assert (finding.code, finding.column, finding.count) == ("clock-jump", "time", 1)
    assert "for 52 days, between 2020-01-20 and 2020-03-12" in finding.message
    assert "events every day" in finding.message
    assert clock_jumps(days(*range(20), *range(69, 90))) == []  # exactly 50 days


def test_two_events_a_year_apart_are_no_jump_but_their_usual_gap() -> None:
    assert clock_jumps(days(0, 365, 730)) == []
    assert clock_jumps(days(0)) == []
    assert clock_jumps(days()) == []


def test_a_clock_far_in_the_past_or_future_is_a_jump_too() -> None:
    # Too far apart to mark every day in between.
    (finding,) = clock_jumps(days(*range(20), 200_000, 199_999))
    assert "for 199,980 days" in finding.message


def test_a_few_days_a_year_are_the_habit_of_the_log() -> None:
    visits = [year * 365 + day for year in range(5) for day in range(4)]
    assert clock_jumps(days(*visits)) == []


def test_a_missing_time_is_no_jump_but_at_the_epoch() -> None:
    times = np.append(days(*range(30)), [0, 5])
    assert clock_jumps(times) == []
    (finding,) = odd_times(times, column="time")
    assert (finding.code, finding.severity) == ("times-at-epoch", "problem")
    assert (finding.count, finding.column) == (2, "time")


def test_a_log_of_days_is_told_from_one_of_moments() -> None:
    midnights = days(*range(10), *range(10)) - DAY // 2
    assert codes(odd_times(midnights)) == ["times-at-midnight"]
    midnights[0] += 1
    assert codes(odd_times(midnights)) == ["times-at-one-moment"]
    assert odd_times(midnights[:19]) == []  # too few to tell


@pytest.mark.parametrize("size", [20, 99, 100, 1_001])
def test_a_tenth_at_one_moment_is_found_whatever_the_rest(size: int) -> None:
    for seed in range(5):
        generator = np.random.default_rng(seed)
        times = DAY_2020 * DAY + generator.permutation(10 * size)[:size]
        same = -(-size // 10)
        times[:same] = times[same] = DAY_2020 * DAY + generator.integers(10 * size)
        (finding,) = odd_times(generator.permutation(times))
        assert finding.code == "times-at-one-moment"
        assert finding.count == same + 1 or finding.count == same + 2
        assert odd_times(np.unique(times)) == []


def test_moments_are_told_in_utc() -> None:
    assert moment_text(0) == "1970-01-01T00:00:00Z"
    assert moment_text(1_577_836_799_999) == "2019-12-31T23:59:59Z"


def test_a_bot_is_over_a_share_and_over_the_median() -> None:
    counts = np.array([3] * 50 + [301, 0])
    ids = pl.Series("user", [f"u{n}" for n in range(52)])
    (finding,) = extreme_share(counts, ids, kind="user", column="user")
    assert (finding.code, finding.count) == ("user-extreme", 1)
    assert "'u50' has 301 events (66.7% of all; the median user has 3)" in (
        finding.message
    )
    counts[50] = 300  # exactly 100 times the median
    assert extreme_share(counts, ids, kind="user") == []
    many = np.array([1] * 100_000 + [500])
    assert extreme_share(many, ids, kind="user") == []  # under 1 %
    assert extreme_share(np.zeros(3, int), ids, kind="user") == []


def test_items_may_have_more_than_users() -> None:
    counts, ids = np.array([1] * 900 + [101]), pl.Series(range(901))
    assert codes(extreme_share(counts, ids, kind="item")) == ["item-extreme"]
    counts = np.array([1] * 1_000 + [101])
    assert extreme_share(counts, pl.Series(range(1_001)), kind="item") == []
    assert codes(extreme_share(counts, pl.Series(range(1_001)), kind="user")) == [
        "user-extreme"
    ]


def test_single_and_rare_ids_do_not_count_those_without_events() -> None:
    assert codes(single_id(np.array([0, 4]), kind="user")) == ["one-user"]
    assert codes(single_id(np.array([0, 4]), kind="item")) == ["one-item"]
    assert single_id(np.array([1, 4]), kind="item") == []
    (finding,) = rare_ids(np.array([1, 1, 2, 0]), kind="item")
    assert (finding.code, finding.count) == ("items-with-one-event", 2)
    assert rare_ids(np.array([1, 1, 2, 2, 0]), kind="item") == []
    assert codes(rare_ids(np.array([1]), kind="user")) == ["users-with-one-event"]


def test_a_label_that_never_changes_says_nothing() -> None:
    assert codes(constant_label(np.array([5.0, 5.0]))) == ["label-constant"]
    assert constant_label(np.array([5.0, 4.0])) == []
    assert constant_label(np.array([5.0])) == []


@pytest.mark.parametrize(("tied", "found"), [(0, False), (9, False), (10, True)])
def test_ties_count_from_a_tenth_on(tied: int, found: bool) -> None:
    assert bool(tied_events(tied, 100)) is found


@pytest.mark.parametrize(
    ("counts", "severity"),
    [
        ({0.0: 60, 1.0: 5, 5.0: 20, 10.0: 15}, "warning"),
        ({0.0: 10, 1.0: 9, 2.0: 9, 3.0: 9, 4.0: 9, 5.0: 9}, "note"),
        ({1.0: 5, 5.0: 20, 10.0: 15}, None),  # no 0
        ({0.0: 60, 0.5: 5, 4.0: 5, 5.0: 5}, None),  # a scale in halves
        ({0.0: 60, 1.0: 40}, None),  # clicks
        ({0.0: 60, 1.0: 4, 50.0: 4, 100.0: 40}, None),  # per cent
    ],
)
def test_a_zero_is_asked_about_where_the_scale_begins_at_one(counts, severity) -> None:
    found = zero_label(counts, column="stars")
    assert [f.severity for f in found] == ([severity] if severity else [])
    assert [f.count for f in found] == ([int(counts[0.0])] if severity else [])


def test_advice_fits_the_split() -> None:
    def told(kind: str) -> str:
        return empty_part(["test"], kind, 1).message

    assert "try kind = 'last_n'" in told("last_fraction")
    assert "try kind = 'last_n'" not in told("last_n")
    assert "earlier moment" in told("time_cut")
    counts = np.array([1, 1, 1, 2])
    for timed, kind in ((True, "time_cut"), (False, "random")):
        (finding,) = rare_ids(counts, kind="user", timed=timed)
        assert f"('{kind}')" in finding.message

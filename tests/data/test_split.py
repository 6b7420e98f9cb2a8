"""Splits against a plain-Python oracle, and what every split must promise."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortlist.data import TEST, TRAIN, VALIDATION, Split
from shortlist.data.split import KINDS, assign_parts, parse_moment
from shortlist.errors import InputError

# Few users and times, so that ties and users with one event are common.
EVENTS = st.lists(st.tuples(st.integers(-2, 4), st.integers(0, 9)), max_size=60)
SHARES = st.integers(0, 99).map(lambda percent: percent / 100)
COUNTS = st.integers(0, 5)


def parts_of(events: list[tuple[int, int]], split: Split) -> list[int]:
    user = np.array([u for u, _ in events], np.int64)
    times = np.array([t for _, t in events], np.int64)
    parts = assign_parts(user, times, split)
    assert parts.dtype == np.int8
    return parts.tolist()


def exact_share(num_events: int, share: float) -> int:
    """floor(n * share) of the decimal that was written, not of its nearest float."""
    return int(num_events * Fraction(str(share)))


def oracle(events: list[tuple[int, int]], split: Split) -> list[int]:
    """Walks every user's events from the newest back, one user at a time."""
    parts = [TRAIN] * len(events)
    of_user = defaultdict(list)
    for row, (user, _) in enumerate(events):
        of_user[user].append(row)
    for rows in of_user.values():
        rows.sort(key=lambda row: (events[row][1], row))
        for part, amount in ((TEST, split.test), (VALIDATION, split.validation)):
            if part == TEST and split.kind == "files":
                continue
            if split.kind == "last_n":
                held = int(amount) if len(rows) > amount else 0
            else:
                held = exact_share(len(rows), amount)
            for _ in range(held):
                parts[rows.pop()] = part
    return parts


@given(EVENTS, st.sampled_from(["last_fraction", "files"]), SHARES, SHARES)
def test_last_fraction_of_every_user_agrees_with_the_oracle(events, kind, test, rest):
    split = Split(kind=kind, test=test, validation=rest)
    assert parts_of(events, split) == oracle(events, split)


@given(EVENTS, COUNTS, COUNTS)
def test_last_n_of_every_user_agrees_with_the_oracle(events, test, validation):
    split = Split(kind="last_n", test=test, validation=validation)
    assert parts_of(events, split) == oracle(events, split)


@given(EVENTS, SHARES, COUNTS)
def test_no_held_out_event_of_a_user_comes_before_one_left(events, share, count):
    for split in (
        Split(test=share, validation=share),
        Split(kind="last_n", test=count, validation=count),
    ):
        parts = parts_of(events, split)
        keys = [(time, row) for row, (_, time) in enumerate(events)]
        for user in {u for u, _ in events}:
            rows = [row for row, (u, _) in enumerate(events) if u == user]
            by_part = [[keys[r] for r in rows if parts[r] == p] for p in range(3)]
            assert sum(map(len, by_part)) == len(rows)
            for earlier, later in ((0, 1), (0, 2), (1, 2)):
                if by_part[earlier] and by_part[later]:
                    assert max(by_part[earlier]) < min(by_part[later])
            assert by_part[TRAIN], "a user keeps at least one event to train on"


@given(EVENTS, SHARES, SHARES)
def test_time_cut_trains_on_nothing_at_or_after_the_cut(events, test, validation):
    split = Split(kind="time_cut", test=test, validation=validation)
    parts = parts_of(events, split)
    times = [
        [t for (_, t), p in zip(events, parts, strict=True) if p == n]
        for n in (0, 1, 2)
    ]
    for earlier, later in ((0, 1), (0, 2), (1, 2)):
        if times[earlier] and times[later]:
            assert max(times[earlier]) < min(times[later])
    assert sum(map(len, times)) == len(events)
    # Ties at the cut all fall behind it, so the share is a lower bound ...
    assert len(times[TEST]) >= exact_share(len(events), test)
    # ... and without ties it is exact.
    if len({t for _, t in events}) == len(events):
        assert len(times[TEST]) == exact_share(len(events), test)


@given(st.integers(0, 500), SHARES, SHARES)
def test_time_cut_holds_out_the_exact_share_when_times_differ(n, test, validation):
    events = [(0, time) for time in range(n)]
    parts = parts_of(events, Split(kind="time_cut", test=test, validation=validation))
    held = exact_share(n, test)
    assert parts.count(TEST) == held
    assert parts.count(VALIDATION) == exact_share(n - held, validation)
    assert parts == sorted(parts)


def test_time_cut_at_given_moments():
    day = 86_400_000
    start = parse_moment("2024-01-01")
    events = [(0, start + n * day) for n in range(10)]
    split = Split(
        kind="time_cut",
        test_from="2024-01-08",
        validation_from="2024-01-05T00:00:00+00:00",
    )
    assert parts_of(events, split) == [0] * 4 + [1] * 3 + [2] * 3
    only_test = Split(kind="time_cut", test_from="2024-01-08", validation=0)
    assert parts_of(events, only_test) == [0] * 7 + [2] * 3
    by_share = Split(kind="time_cut", test=0.3, validation_from="2024-01-05")
    assert parts_of(events, by_share) == [0] * 4 + [1] * 3 + [2] * 3


@given(EVENTS, SHARES, SHARES, st.integers(0, 2**40))
def test_random_has_the_exact_share_and_depends_on_the_seed_alone(
    events, test, validation, seed
):
    split = Split(kind="random", test=test, validation=validation, seed=seed)
    parts = parts_of(events, split)
    held = exact_share(len(events), test)
    assert parts.count(TEST) == held
    assert parts.count(VALIDATION) == exact_share(len(events) - held, validation)
    moved = [(user + 1, 9 - time) for user, time in events]
    assert parts_of(moved, split) == parts


def test_random_seeds_give_other_parts():
    events = [(0, 0)] * 1000
    parts = [parts_of(events, Split(kind="random", seed=seed)) for seed in range(3)]
    assert parts[0] != parts[1] != parts[2] != parts[0]
    # Not the ends of the log: each tenth has some of all parts.
    tenths = [set(parts[0][start : start + 100]) for start in range(0, 1000, 100)]
    assert tenths == [{TRAIN, VALIDATION, TEST}] * 10


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "files"])
def test_test_part_does_not_depend_on_the_validation_part(kind):
    generator = np.random.default_rng(0)
    user, times = generator.integers(0, 9, 200), generator.integers(0, 99, 200)
    few, many = (0, 2) if kind == "last_n" else (0.0, 0.5)
    amount = 3 if kind == "last_n" else 0.2
    without = assign_parts(user, times, Split(kind=kind, test=amount, validation=few))
    with_it = assign_parts(user, times, Split(kind=kind, test=amount, validation=many))
    np.testing.assert_array_equal(without == TEST, with_it == TEST)
    assert (with_it == VALIDATION).any() and not (without == VALIDATION).any()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_held_out_of_nothing_or_at_an_amount_of_zero(kind):
    split = Split(kind=kind, test=0, validation=0)
    assert parts_of([], Split(kind=kind, test=0, validation=0)) == []
    assert parts_of([(1, 5), (1, 5), (2, 0)], split) == [TRAIN] * 3


def test_user_with_one_event_keeps_it_for_training():
    assert parts_of([(1, 5)], Split(test=0.9, validation=0.9)) == [TRAIN]
    assert parts_of([(1, 5)], Split(kind="last_n", test=1, validation=1)) == [TRAIN]


def test_shares_are_decimals_not_their_nearest_floats():
    # 0.29 * 100 is 28.999999999999996 in floating point.
    assert parts_of([(0, 0)] * 100, Split(test=0.29)).count(TEST) == 29


@pytest.mark.parametrize("kind", ["last-fraction", "LAST_N", "", "lastn"])
def test_unknown_kind_is_answered_with_the_known_ones(kind):
    with pytest.raises(InputError, match="must be one of.*time_cut") as caught:
        Split(kind=kind)
    assert caught.value.code == "split-kind"
    with pytest.raises(InputError, match="Did you mean 'last_fraction'"):
        Split(kind="last-fraction")


@pytest.mark.parametrize(
    "amounts",
    [
        {"test": 1.0},
        {"test": -0.1},
        {"validation": 1},
        {"test": float("nan")},
        {"test": 2, "kind": "random"},
        {"test": 0.5, "kind": "last_n"},
        {"test": 1, "validation": 0.1, "kind": "last_n"},
        {"test": -1, "validation": 0, "kind": "last_n"},
        {"test": float("inf"), "validation": 0, "kind": "last_n"},
    ],
)
def test_amounts_that_do_not_fit_the_kind_are_refused(amounts):
    with pytest.raises(InputError, match="of a split must be") as caught:
        Split(**amounts)
    assert caught.value.code == "split-amount"


def test_moments_belong_to_the_time_cut_in_their_order():
    with pytest.raises(InputError, match="belong to kind = 'time_cut'") as caught:
        Split(kind="random", test_from="2024-01-01")
    assert caught.value.code == "split-time"
    for later in ("2024-01-01", "2024-01-02T00:00:00+05:00"):
        with pytest.raises(InputError, match="must be before `test_from`") as caught:
            Split(kind="time_cut", validation_from=later, test_from="2024-01-01")
        assert caught.value.code == "split-time"


@pytest.mark.parametrize("text", ["yesterday", "2024-13-01", "1700000000", ""])
def test_moment_that_is_no_iso_time_is_refused_at_once(text):
    with pytest.raises(InputError, match="must be an ISO date or time") as caught:
        Split(kind="time_cut", test_from=text)
    assert caught.value.code == "split-time"


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("1970-01-01", 0),
        ("1970-01-02", 86_400_000),
        ("2024-05-31T18:00:00Z", 1_717_178_400_000),
        ("2024-05-31T18:00:00+02:00", 1_717_171_200_000),
        ("1969-12-31T23:59:59.999", -1),
    ],
)
def test_moment_in_milliseconds(text, milliseconds):
    assert parse_moment(text) == milliseconds


@given(st.integers(0, 4_102_444_800_000))
def test_moment_keeps_every_millisecond(milliseconds):
    seconds, rest = divmod(milliseconds, 1000)
    moment = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=seconds, milliseconds=rest)
    assert parse_moment(moment.isoformat()) == milliseconds

"""Histories against a brute-force list of events."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shortlist import native
from shortlist.data import Histories
from shortlist.data.kernels import ids
from shortlist.errors import InputError
from table_cases import needs_core

# The fixture sets the same thing for every example.
BOTH_WAYS = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

NUM_USERS = 5
EVENTS = st.lists(
    st.tuples(st.integers(0, NUM_USERS - 1), st.integers(1, 300), st.integers(-3, 3)),
    max_size=40,
)
ASKED = st.lists(
    st.tuples(st.integers(0, NUM_USERS - 1), st.integers(-4, 4)), max_size=8
)
LENGTHS = st.integers(1, 6)

Event = tuple[int, int, int]


@pytest.fixture(
    params=[pytest.param(native.core(), marks=needs_core), None],
    ids=["core", "twin"],
    autouse=True,
)
def way(request, monkeypatch):
    """Runs a test with the compiled core and again with the twin."""
    monkeypatch.setattr(native, "_core", request.param)


def histories(events: list[Event], dtype: type[np.generic] = np.int32) -> Histories:
    columns = np.array(events, np.int64).reshape(-1, 3).T
    user, item, times = columns
    return Histories(user.astype(dtype), item.astype(np.uint16), times, NUM_USERS)


def items_of(events: list[Event], user: int, before: float = np.inf) -> list[int]:
    """Items of a user strictly before a moment, by time and then by file order."""
    rows = [r for r, (u, _, t) in enumerate(events) if u == user and t < before]
    return [events[r][1] for r in sorted(rows, key=lambda r: (events[r][2], r))]


def padded(items: list[int], length: int) -> list[int]:
    newest = items[-length:]
    return newest + [-1] * (length - len(newest))


@BOTH_WAYS
@given(EVENTS, ASKED, LENGTHS)
def test_last_is_the_newest_items_oldest_first(events, asked, length):
    users = np.array([u for u, _ in asked], np.int32)
    found = histories(events).last(users, length)
    assert found.dtype == np.int32 and found.shape == (len(asked), length)
    for user, row in zip(users.tolist(), found.tolist(), strict=True):
        assert row == padded(items_of(events, user) if user else [], length)


@BOTH_WAYS
@given(EVENTS, ASKED, LENGTHS)
def test_before_is_strictly_earlier(events, asked, length):
    users = np.array([u for u, _ in asked], np.int32)
    moments = np.array([t for _, t in asked], np.int64)
    found = histories(events).before(users, moments, length)
    assert found.dtype == np.int32 and found.shape == (len(asked), length)
    for (user, moment), row in zip(asked, found.tolist(), strict=True):
        assert row == padded(items_of(events, user, moment) if user else [], length)


@BOTH_WAYS
@given(EVENTS, LENGTHS)
def test_event_sees_neither_itself_nor_its_ties_nor_its_future(events, length):
    if not events:
        return
    # Every event gets an item of its own, so that it can be recognized.
    unique = [(user, row + 1, time) for row, (user, _, time) in enumerate(events)]
    users, items, times = np.array(unique, np.int64).T
    found = histories(unique).before(users, times, length)
    for row, visible in enumerate(found.tolist()):
        for item in visible:
            if item != -1:
                assert users[item - 1] == users[row] != 0
                assert times[item - 1] < times[row]
        assert items[row] not in visible


@BOTH_WAYS
@given(EVENTS, ASKED)
def test_seen_is_all_items_of_each_user(events, asked):
    users = np.array([u for u, _ in asked], np.int64)
    offsets, items = histories(events).seen(users)
    assert offsets.shape == (len(asked) + 1,) and items.dtype == np.int32
    assert offsets[0] == 0 and offsets[-1] == len(items)
    for n, user in enumerate(users.tolist()):
        seen = items[offsets[n] : offsets[n + 1]].tolist()
        assert seen == (items_of(events, user) if user else [])


@given(EVENTS, LENGTHS, st.one_of(st.none(), st.integers(0, 3)))
@BOTH_WAYS
def test_others_are_all_items_but_that_of_the_row(events, length, distance):
    rows = [(u, i, t) for u, i, t in events if u > 0]
    user, item, times = np.array(rows, np.int64).reshape(-1, 3).T
    near = None if distance is None else (times, np.full(len(rows), distance))
    found = histories(events).others(user, item, length, near=near)
    for (u, i, t), row in zip(rows, found.tolist(), strict=True):
        kept = sorted(
            (t2, r)
            for r, (u2, i2, t2) in enumerate(events)
            if u2 == u and i2 != i and (distance is None or abs(t2 - t) <= distance)
        )
        expected = [events[r][1] for _, r in kept][-length:]
        assert row == expected + [-1] * (length - len(expected))


def test_narrow_user_rows_do_not_overflow():
    events = [(4, 300, 0), (4, 299, 1)]
    assert histories(events, np.uint8).last(np.array([4]), 3).tolist() == [
        [300, 299, -1]
    ]


def test_ties_keep_the_given_order():
    events = [(1, 30, 5), (1, 10, 5), (1, 20, 5), (1, 40, 4)]
    assert histories(events).last(np.array([1]), 4).tolist() == [[40, 30, 10, 20]]


def test_without_events_everyone_has_an_empty_history():
    empty = histories([])
    users = np.array([0, 1, 4])
    assert empty.last(users, 2).tolist() == [[-1, -1]] * 3
    assert empty.before(users, np.full(3, 9), 2).tolist() == [[-1, -1]] * 3
    offsets, items = empty.seen(users)
    assert offsets.tolist() == [0, 0, 0, 0] and len(items) == 0


def test_nobody_asked_gives_no_rows():
    nobody = np.empty(0, np.int32)
    some = histories([(1, 1, 1)])
    assert some.last(nobody, 3).shape == (0, 3)
    assert some.before(nobody, np.empty(0, np.int64), 3).shape == (0, 3)
    assert some.seen(nobody)[0].tolist() == [0]


@BOTH_WAYS
@given(EVENTS, LENGTHS, st.integers(0, 4))
def test_session_reaches_back_to_the_first_long_gap(events, length, gap):
    if not events:
        return
    unique = [(user, row + 1, time) for row, (user, _, time) in enumerate(events)]
    users, items, times = np.array(unique, np.int64).T
    everything = histories(unique).before(users, times, len(events))
    found = histories(unique).before(users, times, length, gap_ms=gap)
    for row, seen in enumerate(everything.tolist()):
        earlier = [item for item in seen if item != -1]
        chain = [*(times[item - 1] for item in earlier), times[row]]
        session = []
        for at in range(len(earlier) - 1, -1, -1):
            if chain[at + 1] - chain[at] > gap:
                break
            session.insert(0, earlier[at])
        assert found[row].tolist() == padded(session, length)


def test_sorted_events_are_not_copied():
    users = np.array([1, 1, 2], np.int32)
    times = np.array([1, 1, 0])
    for dtype in (np.uint8, np.uint16, np.int32):
        items = np.array([5, 6, 7], dtype)
        kept = Histories(users, items, times, 3)
        assert np.shares_memory(kept.items, items)
        assert np.shares_memory(kept.timestamps, times)
        assert kept.offsets.tolist() == [0, 0, 2, 3]


@pytest.mark.parametrize("block", [1, 2, 3, 7])
def test_order_is_seen_across_blocks(monkeypatch, block):
    monkeypatch.setattr(ids, "_EVENTS_AT_ONCE", block)
    for unsorted in range(1, 6):
        times = np.arange(6)
        times[unsorted] = -1
        kept = Histories(np.ones(6, np.uint8), np.arange(6), times, 2)
        wanted = [unsorted, *(n for n in range(6) if n != unsorted)]
        assert kept.last(np.array([1]), 6).tolist() == [wanted]


def test_as_many_users_as_their_type_can_number():
    users = np.array([0, 254, 255], np.uint8)
    for num_users in (256, 300):
        kept = Histories(users, np.array([1, 2, 3]), np.zeros(3, np.int64), num_users)
        asked = np.array([255, 254, 3, num_users - 1])
        found = kept.last(asked, 1).ravel().tolist()
        assert found == [3, 2, -1, 3 if num_users == 256 else -1]


@pytest.mark.parametrize("user", [-1, NUM_USERS])
def test_users_out_of_range(user):
    known = histories([(1, 1, 1)])
    asked = np.array([user])
    calls = (
        lambda: known.last(asked, 2),
        lambda: known.before(asked, np.array([3]), 2),
        lambda: known.seen(asked),
        lambda: histories([(user, 1, 1), (2, 1, 1)]),
    )
    for call in calls:
        with pytest.raises(InputError) as caught:
            call()
        assert caught.value.code == "row-out-of-range"

"""Histories against a brute-force list of events."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shortlist.data.history import Histories

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


@given(EVENTS, ASKED, LENGTHS)
def test_last_is_the_newest_items_oldest_first(events, asked, length):
    users = np.array([u for u, _ in asked], np.int32)
    found = histories(events).last(users, length)
    assert found.dtype == np.int32 and found.shape == (len(asked), length)
    for user, row in zip(users.tolist(), found.tolist(), strict=True):
        assert row == padded(items_of(events, user) if user else [], length)


@given(EVENTS, ASKED, LENGTHS)
def test_before_is_strictly_earlier(events, asked, length):
    users = np.array([u for u, _ in asked], np.int32)
    moments = np.array([t for _, t in asked], np.int64)
    found = histories(events).before(users, moments, length)
    assert found.dtype == np.int32 and found.shape == (len(asked), length)
    for (user, moment), row in zip(asked, found.tolist(), strict=True):
        assert row == padded(items_of(events, user, moment) if user else [], length)


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


@given(EVENTS, ASKED)
def test_seen_is_all_items_of_each_user(events, asked):
    users = np.array([u for u, _ in asked], np.int64)
    offsets, items = histories(events).seen(users)
    assert offsets.shape == (len(asked) + 1,) and items.dtype == np.int32
    assert offsets[0] == 0 and offsets[-1] == len(items)
    for n, user in enumerate(users.tolist()):
        seen = items[offsets[n] : offsets[n + 1]].tolist()
        assert seen == (items_of(events, user) if user else [])


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

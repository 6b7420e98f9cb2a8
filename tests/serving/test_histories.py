"""Histories: what the bundle holds, then what was posted, by time."""

import threading

import numpy as np
import polars as pl
import pytest

from shortlist.errors import ResourceError
from shortlist.serving.histories import PostedColumns, UserHistories
from shortlist.serving.http.limits import StateLimits


@pytest.fixture
def histories():
    column = pl.Series([[], [3, 1], []], dtype=pl.List(pl.Int32))
    return UserHistories(column)


def test_posted_items_follow_exported_ones(histories):
    histories.add([(1, 5, 1000, None), (2, 4, 1000, None), ("new", 2, 1000, None)])
    assert histories.of(1).items.tolist() == [3, 1, 5]
    assert histories.of(2).items.tolist() == [4]
    assert histories.of("new").items.tolist() == [2]
    assert histories.of("other").items.tolist() == []


def test_posted_items_are_ordered_by_time_and_ties_by_arrival(histories):
    histories.add([("u", 1, 30, None), ("u", 2, 10, None)])
    histories.add([("u", 3, 20, None), ("u", 4, 20, None)])
    assert histories.of("u").items.tolist() == [2, 3, 4, 1]


def test_an_array_handed_out_never_changes(histories):
    before = histories.of(1).items
    histories.add([(1, 5, 1, None)])
    assert before.tolist() == [3, 1]


def test_several_threads_lose_nothing(histories):
    def post(row):
        for timestamp_ms in range(200):
            histories.add([("u", row, timestamp_ms, None)])

    threads = [threading.Thread(target=post, args=(row,)) for row in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = histories.of("u").items.tolist()
    assert [rows.count(row) for row in (1, 2, 3)] == [200, 200, 200]


def test_times_and_labels_go_along_where_the_bundle_keeps_them():
    histories = UserHistories(
        pl.Series([[], [3, 1]], dtype=pl.List(pl.Int32)),
        pl.Series([[], [10, 20]], dtype=pl.List(pl.Int64)),
        pl.Series([[], [4.0, 2.0]], dtype=pl.List(pl.Float32)),
    )
    histories.add([(1, 5, 40, None), (1, 6, 30, 5.0), ("new", 2, 7, 1.0)])
    known = histories.of(1)
    assert known.items.tolist() == [3, 1, 6, 5]
    assert known.times.tolist() == [10, 20, 30, 40]
    assert known.values.tolist()[:3] == [4.0, 2.0, 5.0] and np.isnan(known.values[3])
    assert histories.of("new").times.tolist() == [7]
    assert histories.of("other").times.tolist() == []


def naive(bundle, events):
    """Items of one user: the bundle's, then the posted ones by time and arrival."""
    return [*bundle, *(item for item, _ in sorted(events, key=lambda event: event[1]))]


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_events_gives_the_history_by_time(seed):
    rng = np.random.default_rng(seed)
    histories = UserHistories(
        pl.Series([[], [3, 1]], dtype=pl.List(pl.Int32)),
        pl.Series([[], [10, 20]], dtype=pl.List(pl.Int64)),
    )
    posted, shown = [], []
    for item in range(200):
        time_ms = int(rng.integers(50))
        posted.append((item, time_ms))
        histories.add([(1, item, time_ms, None)])
        history = histories.of(1)
        assert history.items.tolist() == naive([3, 1], posted)
        assert history.times.tolist()[2:] == sorted(time for _, time in posted)
        shown.append((history.items, naive([3, 1], posted)))
    # What was handed out earlier is as it was.
    for items, expected in shown:
        assert items.tolist() == expected


def test_posted_events_beyond_the_kept_ones_count_as_seen_only():
    column = pl.Series([[], [90, 91]], dtype=pl.List(pl.Int32))
    histories = UserHistories(column, kept_events=4)
    for number in range(30):
        histories.add([(1, number % 20, number, None)])
        history = histories.of(1)
        posted = [n % 20 for n in range(number + 1)]
        kept = history.items.tolist()
        assert kept[:2] == [90, 91]
        assert kept[2:] == posted[-(len(kept) - 2) :]
        assert min(4, len(posted)) <= len(kept) - 2 <= 8
        assert {*kept[2:], *history.seen.tolist()} == set(posted)
        assert len(set(history.seen.tolist())) == len(history.seen)


def columns(*rows):
    """(user, item, time, label) sorted by user and time."""
    users = list(dict.fromkeys(row[0] for row in rows))
    counts = [sum(row[0] == user for row in rows) for user in users]
    _, items, times, values = zip(*rows, strict=True)
    return PostedColumns(
        users,
        np.cumsum([0, *counts]),
        np.array(items, np.int32),
        np.array(times, np.int64),
        np.array(values, np.float32),
    )


def test_events_of_earlier_are_followed_by_those_of_now():
    histories = UserHistories(pl.Series([[], [3, 1]], dtype=pl.List(pl.Int32)))
    histories.load(columns(("new", 5, 10, 1), ("new", 6, 30, 1), (1, 7, 5, 1)))
    assert histories.of("new").items.tolist() == [5, 6]
    assert histories.of(1).items.tolist() == [3, 1, 7]
    before = histories.of("new").items
    histories.add([("new", 8, 20, None), (1, 9, 1, None), ("other", 2, 1, None)])
    assert histories.of("new").items.tolist() == [5, 8, 6]
    assert histories.of(1).items.tolist() == [3, 1, 9, 7]
    assert histories.of("other").items.tolist() == [2]
    assert before.tolist() == [5, 6]


def test_too_many_events_of_earlier_are_cut_like_those_of_now():
    histories = UserHistories(pl.Series([[]], dtype=pl.List(pl.Int32)), kept_events=3)
    histories.load(columns(*(("new", item, item, 1) for item in range(10))))
    history = histories.of("new")
    assert history.items.tolist() == [7, 8, 9]
    assert history.seen.tolist() == list(range(7))


def test_no_more_users_than_allowed_get_posted_events():
    histories = UserHistories(
        pl.Series([[], [1]], dtype=pl.List(pl.Int32)), limits=StateLimits(max_users=2)
    )
    histories.load(columns(("old", 5, 10, 1)))
    histories.check_room([1, "old"])
    histories.add([(1, 1, 1, None)])
    histories.check_room([1, "old", 1])  # known users always may
    with pytest.raises(ResourceError, match="at most 2 users") as caught:
        histories.check_room(["new"])
    assert caught.value.code == "events-full"


def test_no_more_memory_than_allowed_is_taken():
    limit = 100_000
    histories = UserHistories(
        pl.Series([[]], dtype=pl.List(pl.Int32)), limits=StateLimits(max_bytes=limit)
    )
    users = 0
    with pytest.raises(ResourceError, match=f"at most {limit} bytes") as caught:
        for users in range(1000):
            histories.check_room([f"user {users}"])
            histories.add([(f"user {users}", 1, 1, None)])
    assert caught.value.code == "events-full"
    assert 50 < users < 200  # some 900 bytes each
    with pytest.raises(ResourceError):
        histories.check_room(["x" * limit])

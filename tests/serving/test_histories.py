"""Histories: what the bundle holds, then what was posted, by time."""

import threading

import numpy as np
import polars as pl
import pytest

from shortlist.serving.histories import UserHistories


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

"""Histories: what the bundle holds, then what was posted, by time."""

import threading

import polars as pl
import pytest

from shortlist.serving.histories import UserHistories


@pytest.fixture
def histories():
    column = pl.Series([[], [3, 1], []], dtype=pl.List(pl.Int32))
    return UserHistories(column)


def test_posted_items_follow_exported_ones(histories):
    histories.add([(1, 5, 1000), (2, 4, 1000), ("new", 2, 1000)])
    assert histories.of(1).tolist() == [3, 1, 5]
    assert histories.of(2).tolist() == [4]
    assert histories.of("new").tolist() == [2]
    assert histories.of("other").tolist() == []


def test_posted_items_are_ordered_by_time_and_ties_by_arrival(histories):
    histories.add([("u", 1, 30), ("u", 2, 10)])
    histories.add([("u", 3, 20), ("u", 4, 20)])
    assert histories.of("u").tolist() == [2, 3, 4, 1]


def test_an_array_handed_out_never_changes(histories):
    before = histories.of(1)
    histories.add([(1, 5, 1)])
    assert before.tolist() == [3, 1]


def test_several_threads_lose_nothing(histories):
    def post(row):
        for timestamp_ms in range(200):
            histories.add([("u", row, timestamp_ms)])

    threads = [threading.Thread(target=post, args=(row,)) for row in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = histories.of("u").tolist()
    assert [rows.count(row) for row in (1, 2, 3)] == [200, 200, 200]

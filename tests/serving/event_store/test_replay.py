"""Stored events become the histories that the same events posted one by one give."""

import numpy as np
import polars as pl
import pytest

from shortlist.data import Schema, Vocabulary
from shortlist.serving.event_store.events import EventColumns
from shortlist.serving.event_store.replay import is_interaction, posted_columns
from shortlist.serving.histories import UserHistories

USERS = Vocabulary("user", pl.Series(["ann", "bob"]), np.array([1, 1]))
ITEMS = Vocabulary("item", pl.Series([7, 8, 9]), np.array([1, 1, 1]))
SCHEMA = Schema(user_id="user", item_id="item", label="rating", label_kind="explicit")
CLICKS = Schema(user_id="user", item_id="item", label="click", label_kind="binary")


def block(*events):
    users, items, times, labels = zip(*events, strict=True)
    return EventColumns(users, items, np.array(times), np.array(labels, float))


def replayed(*blocks, schema=SCHEMA):
    columns = posted_columns(blocks, USERS, ITEMS, schema)
    histories = UserHistories(pl.Series([[], [1], []], dtype=pl.List(pl.Int32)))
    histories.load(columns)
    return {user: histories.of(user).items.tolist() for user in columns.users}


def test_events_are_sorted_by_time_within_each_user():
    first = block(("zoe", 7, 30, 1), ("ann", 8, 5, 1), ("zoe", 9, 10, 1))
    second = block(("zoe", 8, 10, 1), ("ann", 7, 1, 1), ("yan", 7, 1, 1))
    # Rows of items: 7, 8, 9 are 1, 2, 3; ann has item 1 in the bundle.
    assert replayed(first, second) == {"zoe": [3, 2, 1], 1: [1, 1, 2], "yan": [1]}


def test_ids_find_their_rows_in_either_form():
    assert replayed(block((7, "8", 1, 1), ("7", 8, 2, 1))) == {"7": [2, 2]}


def test_items_that_the_bundle_lacks_are_left_out():
    events = block(("zoe", 5, 1, 1), ("ann", "gone", 1, 1), ("zoe", 7, 2, 1))
    assert replayed(events) == {"zoe": [1]}


def test_nothing_stored_is_no_history():
    assert replayed() == {}
    assert replayed(block(("zoe", "gone", 1, 1))) == {}


def test_what_was_not_clicked_was_not_taken():
    nan = float("nan")
    events = block(("zoe", 7, 1, 0), ("zoe", 8, 2, 1), ("zoe", 9, 3, nan))
    assert replayed(events, schema=CLICKS) == {"zoe": [2, 3]}
    assert replayed(events) == {"zoe": [1, 2, 3]}


@pytest.mark.parametrize(
    ("schema", "expected"), [(SCHEMA, [True] * 3), (CLICKS, [False, True, True])]
)
def test_labels_count_as_the_schema_says(schema, expected):
    labels = np.array([0.0, 1.0, np.nan])
    assert is_interaction(labels, schema).tolist() == expected


def test_labels_and_times_go_along():
    columns = posted_columns(
        [block(("zoe", 7, 2, 4.5), ("zoe", 8, 1, float("nan")))], USERS, ITEMS, SCHEMA
    )
    assert columns.times.tolist() == [1, 2]
    assert np.isnan(columns.values[0]) and columns.values[1] == 4.5
    assert columns.offsets.tolist() == [0, 2]

"""Ragged arrays against plain lists of lists."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortlist import native
from shortlist.data.store.ragged import Ragged, grouped, offsets_of, ranges

LISTS = st.lists(st.lists(st.integers(0, 6), max_size=5), max_size=6)


def lists_of(ragged: Ragged) -> list[list[int]]:
    return [ragged.row(i).tolist() for i in range(len(ragged.offsets) - 1)]


@given(LISTS)
def test_lists_and_columns_come_back_as_they_were(lists):
    ragged = Ragged.from_lists(lists)
    assert lists_of(ragged) == lists
    assert ragged.offsets.dtype == np.int64 and ragged.values.dtype == np.int32
    assert ragged.lengths.tolist() == [len(values) for values in lists]
    assert lists_of(Ragged.from_lengths(ragged.lengths, ragged.values)) == lists
    column = ragged.to_column()
    assert column.dtype == pl.List(pl.Int32) and column.to_list() == lists
    again = Ragged.from_column(pl.Series(lists, dtype=pl.List(pl.Int32)))
    assert lists_of(again) == lists


def test_a_null_of_a_column_is_an_empty_list():
    column = pl.Series([[4, 2], None, [], [1]], dtype=pl.List(pl.Int64))
    ragged = Ragged.from_column(column)
    assert lists_of(ragged) == [[4, 2], [], [], [1]]
    assert ragged.values.dtype == np.int64


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_values_have_the_number_type_asked_for(dtype):
    assert Ragged.from_lists([[1], [], [2, 3]], dtype).values.dtype == dtype
    assert Ragged.from_lists([], dtype).values.dtype == dtype


@given(LISTS, st.data())
def test_take_joins_lists_in_the_order_asked(lists, data):
    rows = []
    if lists:
        rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=8))
    ragged = Ragged.from_lists(lists)
    index = np.array(rows, np.int64)
    taken = ragged.take(index)
    assert lists_of(taken) == [lists[row] for row in rows]
    places = ragged.places(index)
    assert ragged.values[places.values].tolist() == taken.values.tolist()


@given(LISTS)
def test_owners_and_transposed_name_the_lists_of_a_value(lists):
    ragged = Ragged.from_lists(lists)
    owners = [i for i, values in enumerate(lists) for _ in values]
    assert ragged.owners.tolist() == owners
    found = lists_of(ragged.transposed(7))
    expected = [
        [i for i, values in enumerate(lists) for v in values if v == value]
        for value in range(7)
    ]
    assert found == expected


@given(LISTS, st.integers(0, 6))
def test_where_keeps_the_lists_and_drops_values(lists, dropped):
    ragged = Ragged.from_lists(lists)
    kept = ragged.where(ragged.values != dropped)
    assert lists_of(kept) == [[v for v in values if v != dropped] for values in lists]


@given(LISTS, st.integers(0, 6))
def test_last_is_padded_at_the_end(lists, length):
    found = Ragged.from_lists(lists).last(length)
    assert found.dtype == np.int32 and found.shape == (len(lists), length)
    for values, row in zip(lists, found.tolist(), strict=True):
        newest = values[len(values) - length :] if length < len(values) else values
        assert row == newest + [-1] * (length - len(newest))


@given(LISTS)
def test_mean_of_table_rows_is_zero_for_an_empty_list(lists):
    table = np.arange(21, dtype=np.float32).reshape(7, 3) ** 2
    expected = [
        np.mean([table[v] for v in values], axis=0) if values else np.zeros(3)
        for values in lists
    ]
    found = Ragged.from_lists(lists).mean(table)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.array(expected).reshape(-1, 3), rtol=1e-6)


@given(st.lists(st.integers(0, 4), max_size=30))
def test_grouped_positions_are_those_of_a_stable_sort(keys):
    found = grouped(np.array(keys, np.int32), 5)
    assert found.values.tolist() == np.argsort(keys, kind="stable").tolist()
    assert found.lengths.tolist() == [keys.count(key) for key in range(5)]


def test_ranges_and_offsets_of_literals():
    starts, lengths = np.array([5, 0, 9]), np.array([3, 0, 2])
    assert ranges(starts, lengths).tolist() == [5, 6, 7, 9, 10]
    assert ranges(starts[:0], lengths[:0]).tolist() == []
    assert offsets_of(lengths).tolist() == [0, 3, 3, 5]
    assert offsets_of([]).tolist() == [0]


def test_a_ragged_array_is_the_pair_that_top_k_excludes():
    items = np.eye(3, dtype=np.float32)
    queries = np.array([[3, 2, 1], [3, 2, 1]], np.float32)
    _, found = native.top_k(queries, items, 2, exclude=Ragged.from_lists([[0], []]))
    assert found.tolist() == [[1, 2], [0, 1]]

"""The compiled core answers wrong calls with an exception, never with a crash."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist import native
from shortlist.embeddings.host import kernels
from shortlist.embeddings.rules import KINDS, Rule
from shortlist.embeddings.table import Bags, Gradients, Table
from shortlist.errors import InputError
from table_cases import needs_core, random_table

pytestmark = needs_core

ROWS, DIM, BAGS = 5, 3, 4


def feature() -> list[Any]:
    """Of a lookup: table, ids, offsets, weights, combiner, vectors."""
    ids, offsets = np.arange(5, dtype=np.int32), np.array([0, 2, 2, 4, 5])
    out = np.zeros((BAGS, DIM), np.float32)
    return [0, ids, offsets, np.ones(5, np.float32), 0, out]


def dense() -> list[Any]:
    out = np.zeros((BAGS, DIM), np.float32)
    return [0, np.zeros((BAGS, 2), np.int64), None, None, 1, out]


def look_up(one: Any, rows: Any = None, threads: int = 1) -> None:
    rows = np.ones((ROWS, DIM), np.float32) if rows is None else rows
    native.core().lookup([rows], [one], threads)


def changed(make: Callable[[], list[Any]], place: int, value: Any) -> tuple[Any, ...]:
    parts = make()
    parts[place] = value
    return tuple(parts)


def zeros(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


def read_only() -> np.ndarray:
    array = zeros(BAGS, DIM)
    array.flags.writeable = False
    return array


def test_right_calls_pass() -> None:
    for make in (feature, dense):
        for threads in (0, 1, 3):
            look_up(tuple(make()), threads=threads)


@pytest.mark.parametrize("offsets", [
    [0, 2, 1, 4, 5],  # fall
    [0, 5, 0, 5, 5],  # fall below what was read
    [0, 2, 2, 4, 6],  # end beyond the ids
    [0, 2, 2, 4, 2**62],
    [-1, 2, 2, 4, 5],
    [0, -(2**63), 2, 4, 5],
    [0, 2**40, 2, 4, 5],  # lie in the middle
    [5, 4, 3, 2, 1],
])  # fmt: skip
def test_offsets_that_lie_or_fall(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="Offsets must rise"):
        look_up(changed(feature, 2, np.array(offsets)))
    table = adam()
    before = copy.deepcopy(table)
    with pytest.raises(ValueError, match="Offsets must rise"):
        update(table, changed(feature, 2, np.array(offsets))[:5])
    np.testing.assert_array_equal(table.rows, before.rows)
    with pytest.raises(InputError, match="rise from 0 to the number of its ids, 5"):
        kernels.lookup(
            [table],
            [
                Bags(
                    table=0, ids=np.arange(5, dtype=np.int32), offsets=np.array(offsets)
                )
            ],
        )


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.integers(-3, 8) | st.sampled_from([2**31, 2**62, -(2**63)]), max_size=6
    ),
    st.integers(0, 5),
)
def test_any_offsets_give_vectors_or_an_error(offsets: list[int], count: int) -> None:
    given = np.array([0, *offsets], np.int64)
    out = zeros(len(offsets), DIM)
    ids = np.arange(count, dtype=np.int32) % ROWS
    rises = sorted([0, *offsets]) == [0, *offsets] and int(given[-1]) <= count
    try:
        look_up((0, ids, given, None, 0, out))
    except ValueError:
        assert not rises
    else:
        assert rises
        np.testing.assert_array_equal(out[:, 0], np.diff(given))


@pytest.mark.parametrize(("place", "value", "words"), [
    (0, 1, "table that is not there"),
    (0, 2**40, "table that is not there"),
    (1, zeros(5, dtype=np.int16), "Ids must be int32 or int64"),
    (1, zeros(5, dtype=np.float32), "Ids must be int32 or int64"),
    (1, zeros(5, dtype=np.uint64), "Ids must be int32 or int64"),
    (1, zeros(5, dtype=">i4"), "Ids must be int32 or int64"),
    (1, zeros(5, 1, 1, dtype=np.int32), "one or two dimensions"),
    (1, np.array(3, np.int32), "one or two dimensions"),
    (1, zeros(5, 1, dtype=np.int32), "of ids of one dimension"),
    (1, zeros(4, dtype=np.int32), "Weights must be float32 of the shape"),
    (2, zeros(5, dtype=np.int32), "Offsets must be int64"),
    (2, zeros(0, dtype=np.int64), "Offsets must be int64"),
    (2, zeros(5, 1, dtype=np.int64), "Offsets must be int64"),
    (2, np.array([0, 5]), r"Vectors must be float32"),
    (3, zeros(4), "Weights must be float32 of the shape"),
    (3, zeros(5, dtype=np.float64), "Weights must be float32"),
    (4, 3, "combiner"),
    (4, -1, "combiner"),
    (5, zeros(BAGS, DIM - 1), "Vectors must be float32"),
    (5, zeros(BAGS - 1, DIM), "Vectors must be float32"),
    (5, zeros(BAGS, DIM, dtype=np.float64), "Vectors must be float32"),
])  # fmt: skip
def test_parts_of_a_feature(place: int, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        look_up(changed(feature, place, value))


def test_what_is_no_feature() -> None:
    for one in ((), tuple(feature())[:5], (*feature(), 1)):
        with pytest.raises(ValueError, match="too few or many parts"):
            look_up(one)
    for one in (feature(), "feature", None, 3):
        with pytest.raises(ValueError, match="must be a tuple"):
            look_up(one)
    with pytest.raises((ValueError, BufferError)):
        look_up(changed(feature, 5, read_only()))
    for place in (1, 2, 3, 5):
        with pytest.raises((TypeError, ValueError, BufferError)):
            look_up(changed(feature, place, "abc"))
    with pytest.raises((ValueError, BufferError)):
        look_up(changed(feature, 1, np.arange(10, dtype=np.int32)[::2]))


@pytest.mark.parametrize("rows", [
    zeros(ROWS, 0),
    zeros(0, DIM),
    zeros(ROWS, 1025),
    np.broadcast_to(np.float32(0), (2**31, 1)),  # takes no memory
    zeros(ROWS * DIM),
    zeros(ROWS, DIM, 1),
    zeros(ROWS, DIM, dtype=np.float64),
    zeros(ROWS, DIM, dtype=np.int16),
    zeros(ROWS, DIM, dtype=np.int32),
])  # fmt: skip
def test_rows_of_no_table(rows: Any) -> None:
    with pytest.raises((ValueError, BufferError)):
        look_up(changed(feature, 5, zeros(BAGS, max(1, rows.shape[-1]))), rows)


@pytest.mark.parametrize(("num_rows", "dim"), [(5, 0), (0, 3), (2**31, 3), (5, 1025)])
def test_tables_of_no_size_are_never_made(num_rows: int, dim: int) -> None:
    with pytest.raises(InputError, match="must be a whole number from 1") as caught:
        Table.allocate("t", num_rows, dim, Rule())
    assert caught.value.code == "invalid-table"


# Updates: index, rows, kind, numbers, two slots, last steps, moves, step, seed, rates.


def core_table(table: Table) -> list[Any]:
    return list(kernels._core_table(0, table, 0.1))


def update(table: Table | list[Any], bags: Any, gradient: Any = None) -> None:
    parts = core_table(table) if isinstance(table, Table) else table
    gradient = np.ones((BAGS, DIM), np.float32) if gradient is None else gradient
    native.core().update([tuple(parts)], [(*bags, gradient, 1.0)], 1)


def adam() -> Table:
    table = random_table(np.random.default_rng(0), Rule(), ROWS, DIM, "float32")
    table.begin_step(0.1)
    return table


@pytest.mark.parametrize("kind", KINDS)
def test_right_updates_pass(kind: Any) -> None:
    rule = Rule(kind=kind)
    table = random_table(np.random.default_rng(0), rule, ROWS, DIM, "float16")
    before = table.rows.copy()
    table.begin_step(0.1)
    update(table, feature()[:5])
    assert not np.array_equal(before, table.rows)


@pytest.mark.parametrize(("place", "value", "words"), [
    (1, zeros(ROWS, 0), "1 to 1024 values"),
    (1, zeros(0, DIM), "1 to 2147483647 rows"),
    (2, 5, "No rule"),
    (2, -1, "No rule"),
    (2, 0, "slots must be those of the rule"),
    (3, (1.0,) * 10, "11 numbers"),
    (3, [1.0] * 11, "11 numbers"),
    (4, None, "slots must be those of the rule"),
    (4, zeros(ROWS), "A slot must be float32"),
    (5, zeros(ROWS - 1, DIM), "A slot must be float32"),
    (5, zeros(ROWS, DIM, dtype=np.float64), "A slot must be float32"),
    (6, zeros(ROWS - 1, dtype=np.int32), "last steps must be int32"),
    (6, zeros(ROWS, dtype=np.int64), "last steps must be int32"),
    (7, zeros(0, dtype=np.float64), "a move for every step"),
    (7, zeros(64), "Moves must be float64"),
    (8, 65, "a move for every step"),
    (8, -1, "a step at least 0"),
])  # fmt: skip
def test_parts_of_a_table(place: int, value: Any, words: str) -> None:
    parts = core_table(adam())
    parts[place] = value
    with pytest.raises(ValueError, match=words):
        update(parts, feature()[:5])


def test_gradients_of_other_shapes() -> None:
    for shape in ((BAGS, DIM + 1), (BAGS - 1, DIM), (BAGS * DIM,)):
        with pytest.raises(ValueError, match="Gradients must"):
            update(adam(), feature()[:5], zeros(*shape))
    with pytest.raises(ValueError, match="Gradients must"):
        update(adam(), feature()[:5], zeros(BAGS, DIM, dtype=np.float64))


def test_a_last_step_that_is_still_to_come() -> None:
    """A damaged table: the row does not catch up."""
    table, twin = adam(), adam()
    table.slots["last_step"][:] = 2**31 - 1
    update(table, feature()[:5])
    update(twin, feature()[:5])
    np.testing.assert_array_equal(table.rows, twin.rows)
    assert (table.slots["last_step"] == 1).all()


@pytest.mark.parametrize("offsets", [np.zeros(3, np.int32), np.zeros((2, 2), np.int64)])
def test_offsets_of_another_type(offsets: np.ndarray) -> None:
    with pytest.raises(ValueError, match="Offsets must be int64"):
        native.core().offsets_rise(offsets)


def test_the_largest_row_can_be_read_and_moved() -> None:
    """Without its memory: pages that are not touched are none."""
    table = Table.allocate("t", 2**31 - 1, 1, Rule(kind="sgd"), row_type="float16")
    last = Bags(table=0, ids=np.array([2**31 - 2, 0], np.int32))
    kernels.update(
        [table],
        [Gradients(features=(last,), gradients=(np.ones((2, 1), np.float32),))],
        [0.5],
    )
    (vectors,) = kernels.lookup([table], [last])
    np.testing.assert_array_equal(vectors, [[-0.5], [-0.5]])
    beyond = Bags(table=0, ids=np.array([2**31 - 1, 2**31, 2**32], np.int64))
    assert kernels.lookup_checked([table], [beyond])[1] == (0, 2**31 - 1)

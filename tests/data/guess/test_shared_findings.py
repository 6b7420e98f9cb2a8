"""Whether rows are sorted, and how many held-out events are repeats."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.data.guess.shared_findings import (
    grouped_by_item,
    id_ranks,
    repeated_share,
    sorted_by,
)

USERS = np.repeat(np.arange(20), 10)


def orders(generator: np.random.Generator) -> np.ndarray:
    """Ten different items of 100 for each of 20 users, in any order."""
    return np.concatenate([generator.choice(100, 10, replace=False) for _ in range(20)])


def test_random_orders_are_not_called_sorted() -> None:
    generator = np.random.default_rng(1)
    for _ in range(300):
        items = orders(generator)
        assert sorted_by(USERS, {"item id": items}) == ""
        assert grouped_by_item(items) == ""


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("disturbed", [0, 1, 2])
def test_rows_sorted_within_users_are_found(sign: int, disturbed: int) -> None:
    generator = np.random.default_rng(2)
    items = np.sort(orders(generator).reshape(20, 10) * sign, axis=1).ravel()
    items[disturbed * 3 : disturbed * 6] = items[disturbed * 3 : disturbed * 6][::-1]
    told = sorted_by(USERS, {"item id": items * sign})
    assert "sorted by item id" in told
    assert ("rising" if sign == 1 else "falling") in told


def test_few_neighbours_prove_nothing() -> None:
    assert sorted_by(np.zeros(10, int), {"x": np.arange(10)}) == ""
    assert sorted_by(np.arange(500), {"x": np.arange(500)}) == ""  # one row a user
    assert sorted_by(USERS, {"x": np.zeros(200)}) == ""
    assert sorted_by(np.zeros(0, int), {"x": np.zeros(0)}) == ""


def test_only_the_places_asked_about_count() -> None:
    items = np.tile(np.arange(10), 20)
    nowhere = np.zeros(199, bool)
    assert sorted_by(USERS, {"x": items}, nowhere) == ""
    assert sorted_by(USERS, {"x": items}, ~nowhere)


def test_rows_of_an_item_together_are_found() -> None:
    generator = np.random.default_rng(3)
    together = np.repeat(generator.permutation(30), 7)
    assert "30 runs for 30 items" in grouped_by_item(together)
    assert grouped_by_item(generator.permutation(together)) == ""
    assert grouped_by_item(np.arange(100)) == ""  # every item once
    assert grouped_by_item(np.zeros(100, int)) == ""  # one item
    assert grouped_by_item(together[:30]) == ""


def test_text_ids_are_ranked_as_text_and_by_their_number() -> None:
    ranks = id_ranks(pl.Series(["i2", "i10", "i1"]))
    assert ranks["id"].tolist() == [3, 2, 1]
    assert ranks["number of the id"].tolist() == [2, 10, 1]
    assert list(id_ranks(pl.Series(["a", "b7"]))) == ["id"]
    assert id_ranks(pl.Series([5, 3]))["id"].tolist() == [5, 3]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 2)),
        min_size=1,
        max_size=30,
    )
)
def test_repeats_are_those_of_a_plain_loop(rows) -> None:
    user, item, part = (np.array(column) for column in zip(*rows, strict=True))
    last = max(row[2] for row in rows)
    held = [row for row in rows if row[2] == last]
    known = {row[:2] for row in rows if row[2] < last}
    expected = sum(row[:2] in known for row in held) / len(held) if last else 0.0
    assert repeated_share(user, item, part) == pytest.approx(expected)

"""Item sets per user and the popularity baseline, against plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.errors import InputError
from shortlist.evaluation.metrics import rankings
from shortlist.evaluation.metrics.rankings import (
    build_csr,
    check_csr,
    check_ranking,
    popularity_ranking,
)


def csr_of(sets: list[list[int]]) -> rankings.Csr:
    users = [user for user, items in enumerate(sets) for _ in items]
    items = [item for items in sets for item in items]
    return build_csr(np.array(users, int), np.array(items, int), len(sets))


def test_csr_groups_items_by_user_in_their_order() -> None:
    users, items = np.array([2, 0, 2, 0, 2]), np.array([7, 9, 5, 1, 7])
    offsets, indices = build_csr(users, items, 4)
    assert offsets.tolist() == [0, 2, 2, 5, 5] and offsets.dtype == np.int64
    assert indices.tolist() == [9, 1, 7, 5, 7] and indices.dtype == np.int32


def test_csr_of_nothing_is_empty() -> None:
    offsets, indices = build_csr(np.array([], int), np.array([], int), 2)
    assert offsets.tolist() == [0, 0, 0] and indices.tolist() == []


@pytest.mark.parametrize(
    ("users", "items", "message"),
    [
        ([0, 1], [1], "one length"),
        ([0.0], [1], "lists of integers"),
        ([[0]], [[1]], "one length"),
        ([2], [1], "from 0 to 1. Received: 2 to 2"),
        ([-1], [1], "from 0 to 1. Received: -1 to -1"),
        ([0], [-1], "at least 0. Received: -1"),
    ],
)
def test_pairs_that_are_none_are_refused(
    users: list, items: list, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build_csr(np.array(users), np.array(items), 2)
    assert caught.value.code == "relevance-shape"


@pytest.mark.parametrize(
    ("offsets", "indices", "message"),
    [
        ([0, 1], [1], "3 offsets for 2 users"),
        ([0, 2, 1], [1], "falling in between"),
        ([0, 1, 1], [1, 2], "from 0 to the number of indices, 2. Received: 0 to 1"),
        ([1, 1, 1], [1], "Received: 1 to 1"),
        ([0, 0, 1], [-5], "at least 0. Received: -5"),
    ],
)
def test_damaged_csr_is_refused(offsets: list, indices: list, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_csr((np.array(offsets), np.array(indices, np.int32)), 2)
    assert caught.value.code == "relevance-shape"


@pytest.mark.parametrize(
    ("ranked", "code", "message"),
    [
        ([1, 2], "ranking-shape", r"shape \(2,\)"),
        ([[1.0, 2.0]], "ranking-shape", "float64"),
        ([[1, 2], [-1, 3]], "ranking-padding", r"list 11: \[-1, 3\]"),
        ([[1, -2]], "ranking-padding", r"list 10: \[1, -2\]"),
        ([[1, 2, 3], [4, 5, 4]], "ranking-duplicate", "item row 4 twice in list 11"),
    ],
)
def test_bad_ranking_is_refused(ranked: list, code: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_ranking(np.array(ranked), first=10)
    assert caught.value.code == code


def test_repeated_padding_is_no_repetition() -> None:
    assert check_ranking(np.array([[1, -1, -1], [-1, -1, -1]])) is None


def test_popularity_leaves_out_seen_items_and_breaks_ties_by_row() -> None:
    counts = np.array([99, 3, 5, 5, 0, 1])
    seen = csr_of([[], [2], [2, 3, 1], [1, 2, 3, 4, 5], [0, 0, 3]])
    assert popularity_ranking(counts, seen, 3).tolist() == [
        [2, 3, 1],
        [3, 1, 5],
        [5, 4, -1],
        [-1, -1, -1],
        [2, 1, 5],
    ]


def plain_popularity(counts: list[int], seen: list[int], k: int) -> list[int]:
    rows = [row for row in range(1, len(counts)) if row not in seen]
    top = sorted(rows, key=lambda row: (-counts[row], row))[:k]
    return top + [-1] * (k - len(top))


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=12),
    data=st.data(),
    k=st.integers(1, 15),
    cells=st.integers(1, 60),
)
def test_popularity_equals_the_plain_formula_in_blocks_of_any_size(
    counts: list[int], data: st.DataObject, k: int, cells: int
) -> None:
    items = st.lists(st.integers(0, len(counts) - 1), max_size=14)
    seen = data.draw(st.lists(items, max_size=8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rankings, "_CELLS", cells)
        found = popularity_ranking(np.array(counts), csr_of(seen), k)
    expected = [plain_popularity(counts, items, k) for items in seen]
    assert found.tolist() == expected and found.shape == (len(seen), k)


def test_popularity_refuses_rows_that_were_not_counted() -> None:
    with pytest.raises(InputError, match="below 3. Received: 3"):
        popularity_ranking(np.array([0, 1, 1]), csr_of([[3]]), 2)


def test_popularity_refuses_a_k_of_zero() -> None:
    with pytest.raises(InputError, match="at least 1. Received: 0") as caught:
        popularity_ranking(np.array([0, 1]), csr_of([[]]), 0)
    assert caught.value.code == "k-out-of-range"

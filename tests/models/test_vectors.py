"""A two-tower model is a scorer: its scores against plain dot products."""

from __future__ import annotations

import numpy as np
import pytest

from shortlist.models.scorers import LAST, Blend, Popularity, Queries, TwoTowerScorer

NUM_ITEMS, DIM = 9, 4
COUNTS = np.array([0, 3, 0, 1, 2, 0, 5, 1, 1])


class Given(TwoTowerScorer):
    """User vectors by row, given as arrays."""

    def __init__(self, users: np.ndarray, items: np.ndarray, **changes: bool) -> None:
        super().__init__(COUNTS, **changes)
        self.users, self.items = users, items
        self.calls = 0

    @property
    def item_vectors(self) -> np.ndarray:
        return self.items

    def user_vectors(self, queries: Queries) -> np.ndarray:
        self.calls += 1
        return self.users[queries.user_index]


def given(*, several: int | None = None, item_bias: bool = False) -> Given:
    rng = np.random.default_rng(7)
    shape = (5, DIM) if several is None else (5, several, DIM)
    items = rng.normal(size=(NUM_ITEMS, DIM)).astype(np.float32)
    items[0] = 0
    users = rng.normal(size=shape).astype(np.float32)
    return Given(users, items, item_bias=item_bias)


def users(*rows: int) -> Queries:
    return Queries.from_lists(rows, [[1, 2]] * len(rows))


def expected(scorer: Given, user: int, item: int) -> float:
    """The best dot product, one number after the other."""
    vectors = scorer.users[user].reshape(-1, DIM).astype(np.float64)
    return max(float(vector @ scorer.items[item]) for vector in vectors)


@pytest.mark.parametrize("several", [None, 1, 3])
def test_scores_are_the_best_dot_products_of_all_items(several: int | None) -> None:
    scorer = given(several=several)
    scores = scorer.score_all(users(4, 1))
    assert scores.shape == (2, NUM_ITEMS) and scores.dtype == np.float32
    for place, user in enumerate((4, 1)):
        wanted = [expected(scorer, user, item) for item in range(NUM_ITEMS)]
        np.testing.assert_allclose(scores[place], wanted, rtol=1e-5, atol=1e-6)
    assert scores[0, 0] == 0  # an item without training events is scored all the same
    assert (scores > LAST / 2).all()


@pytest.mark.parametrize("several", [None, 1, 3])
@pytest.mark.parametrize("rows", [(2,), (0, 3, 1)])
def test_pairs_score_as_in_the_table_of_all(
    several: int | None, rows: tuple[int, ...]
) -> None:
    scorer = given(several=several)
    rng = np.random.default_rng(1)
    positions = rng.integers(0, len(rows), 40)
    items = rng.integers(0, NUM_ITEMS, 40)
    found = scorer.predict(users(*rows), positions, items)
    assert found.dtype == np.float32
    wanted = [
        expected(scorer, rows[p], i) for p, i in zip(positions, items, strict=True)
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("several", [None, 3])
def test_a_search_leaves_out_what_is_excluded(several: int | None) -> None:
    scorer = given(several=several)
    exclude = (np.array([0, 2, 3]), np.array([0, 5, 0], np.int32))
    scores, rows = scorer.top_k(users(3, 2), NUM_ITEMS, exclude)
    for place, (user, left_out) in enumerate(((3, {0, 5}), (2, {0}))):
        left = [item for item in range(NUM_ITEMS) if item not in left_out]
        left.sort(key=lambda item: -expected(scorer, user, item))
        assert rows[place].tolist() == (left + [-1, -1])[:NUM_ITEMS]
        wanted = [expected(scorer, user, item) for item in left]
        np.testing.assert_allclose(scores[place, : len(left)], wanted, rtol=1e-5)


@pytest.mark.parametrize("item_bias", [False, True])
def test_items_are_alike_by_the_cosine_without_a_bias(item_bias: bool) -> None:
    scorer = given(item_bias=item_bias)
    places = scorer.items[:, : DIM - item_bias].astype(np.float64)
    np.testing.assert_array_equal(scorer.item_places(), places.astype(np.float32))
    lengths = np.linalg.norm(places[1:], axis=1)
    cosines = places[1:] @ places[3] / lengths / lengths[2]
    np.testing.assert_allclose(scorer.similar(3)[1:], cosines, rtol=1e-5, atol=1e-6)
    scores, rows = (array[0] for array in scorer.nearest(3, 4))
    order = [row for row in 1 + np.argsort(-cosines) if row != 3][:4]
    assert rows.tolist() == order
    np.testing.assert_allclose(scores, cosines[rows - 1], rtol=1e-5, atol=1e-6)


def test_all_users_of_a_tower_are_asked_at_once() -> None:
    scorer = given()
    assert scorer.user_blocks(10**6) == [(0, 10**6)]
    assert scorer.user_blocks(0) == []


def test_a_blend_keeps_the_kind_of_its_tower_alone() -> None:
    popularity = Popularity()
    popularity.counts = COUNTS
    popularity.scores = COUNTS[None].astype(np.float32)
    blend = Blend({"two_tower": given(), "popularity": popularity})
    assert blend.get_config()["members"] == {
        "two_tower": {"kind": "two_tower"},
        "popularity": {"kind": "popularity", "config": popularity.get_config()},
    }
    assert set(blend.arrays()) == {
        "counts",
        "popularity/scores",
        "popularity/segments",
        "popularity/counts",
    }
    assert list(blend.towers()) == ["two_tower"]
    assert popularity.towers() == {}
    blend.counts = COUNTS.astype(np.float32)
    scores = blend.score_all(users(1))[0]
    assert (scores[COUNTS == 0] == LAST).all() and (scores[COUNTS > 0] > -10).all()

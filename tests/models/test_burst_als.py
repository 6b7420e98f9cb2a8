"""Burst ALS through the suite, and its rows and equations against plain formulas."""

from __future__ import annotations

import numpy as np
import pytest

from scorer_suite import ScorerSuite
from shortlist.data import Dataset
from shortlist.models.scorers import BurstAls, KnownItems, Queries
from shortlist.models.scorers.burst_als import bursts
from toy import synthetic

ARGUMENTS = {
    "factors": 5,
    "iterations": 3,
    "regularization": 0.7,
    "unobserved": 0.1,
    "burst_weight": 0.35,
    "user_balance": 0.2,
    "burst_seconds": 86_400.0,
    "label_weight": 0.3,
}


class TestBurstAls(ScorerSuite):
    make = staticmethod(lambda: BurstAls(**ARGUMENTS))


class TestBurstAlsOfPairsAlone(ScorerSuite):
    make = staticmethod(
        lambda: BurstAls(factors=4, iterations=2, burst_weight=0.0, label_weight=0.0)
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return synthetic(tmp_path_factory.getbasetemp())


def known_of(dataset: Dataset) -> Queries:
    return KnownItems(dataset, ("train",), values=True).everyone().distinct()


def test_a_burst_ends_a_time_after_its_first_event() -> None:
    known = Queries(
        np.array([4, 7], np.int32),
        np.array([0, 6, 8]),
        np.array([1, 2, 3, 5, 8, 9, 1, 2], np.int32),
        times=np.array([9_000, 0, 5_000, 10_000, 10_001, 90_000, 9_000, 19_001]),
    )
    found = bursts(known, 10.0)
    # User 4: 2, 3, 1 and 5 within ten seconds of 2; 8 alone; 9 alone. User 7: too far.
    assert found.user_index.tolist() == [4]
    assert found.items.tolist() == [2, 3, 1, 5]
    assert found.offsets.tolist() == [0, 4]
    assert bursts(known, 10.001).items.tolist() == [2, 3, 1, 5, 8, 1, 2]


def test_factors_of_a_user_solve_the_normal_equations(dataset: Dataset) -> None:
    model = BurstAls(**ARGUMENTS).fit(dataset)
    items, known = model.item_factors.astype(np.float64), known_of(dataset)
    labels = known.values.astype(np.float64)
    folded, active = model.fold_in(known), int((model.counts > 0).sum())
    for user in (1, 50, 100):
        mine = slice(known.offsets[user], known.offsets[user + 1])
        rows, size = known.items[mine], known.offsets[user + 1] - known.offsets[user]
        standard = (labels[mine] - labels.mean()) / labels.std()
        confidence = np.maximum(1 + 0.3 * standard, 0.05)
        ridge = 0.7 * (size + 0.1 * active) ** 0.5
        matrix = 0.1 * items.T @ items + ridge * np.eye(5)
        matrix += items[rows].T @ (confidence[:, None] * items[rows])
        expected = np.linalg.solve(matrix, items[rows].T @ confidence)
        np.testing.assert_allclose(folded[user], expected, rtol=1e-4, atol=1e-6)


def test_training_alternates_between_all_rows_and_items(dataset: Dataset) -> None:
    model = BurstAls(**ARGUMENTS, seed=3).fit(dataset)
    known = known_of(dataset)
    found = bursts(known, 86_400.0)
    assert len(found) > 30
    confidence = np.zeros((len(known) + len(found), dataset.num_items))
    weights = np.full(len(confidence), 0.35)
    standard = (known.values - known.values.mean()) / known.values.std()
    sizes = np.diff(known.offsets)
    for row in range(len(confidence)):
        own, place = (known, row) if row < len(known) else (found, row - len(known))
        mine = slice(own.offsets[place], own.offsets[place + 1])
        confidence[row, own.items[mine]] = 1.0
        if own is known:
            confidence[row, own.items[mine]] += 0.3 * standard[mine]
            mean = sizes[sizes > 0].mean()
            weights[row] = (max(sizes[row], 1) / mean) ** -0.2 * (sizes[row] > 0)
    taken, trained = confidence > 0, model.counts > 0
    assert (confidence[taken] > 0.05).all()
    rng = np.random.default_rng(3)
    items = rng.normal(0, 0.1 / 5**0.5, (dataset.num_items, 5)) * trained[:, None]
    for _ in range(3):
        ones = np.ones(dataset.num_items)
        users = _solve(confidence, items, ones, taken.sum(1), trained.sum())
        by_item = (confidence * weights[:, None]).T
        sums = (taken * weights[:, None]).sum(axis=0)
        items = _solve(by_item, users, weights, sums, weights.sum())
        items[~trained] = 0.0
    np.testing.assert_allclose(model.item_factors, items, rtol=1e-3, atol=1e-4)


def _solve(
    confidence: np.ndarray,
    others: np.ndarray,
    weights: np.ndarray,
    sizes: np.ndarray,
    size: float,
) -> np.ndarray:
    rows = []
    for row, taken in zip(confidence, sizes, strict=True):
        every = 0.1 * others.T @ (weights[:, None] * others)
        matrix = others.T @ (row[:, None] * others) + every
        matrix += 0.7 * (taken + 0.1 * size) ** 0.5 * np.eye(others.shape[1])
        rows.append(np.linalg.solve(matrix, others.T @ row))
    return np.array(rows)


def test_without_times_of_known_items_a_label_still_counts(dataset: Dataset) -> None:
    model = BurstAls(**ARGUMENTS).fit(dataset)
    liked, disliked = (
        Queries(
            np.zeros(1, np.int32),
            np.array([0, 2]),
            np.array([3, 4], np.int32),
            values=np.array(values, np.float32),
        )
        for values in ([5, 1], [1, 5])
    )
    assert model.score_all(liked)[0, 3] > model.score_all(disliked)[0, 3]


def test_unusable_arguments_are_refused() -> None:
    for name, value in (("factors", 0), ("unobserved", 0.0), ("burst_weight", -1.0)):
        with pytest.raises(ValueError, match=name):
            BurstAls(**{name: value})

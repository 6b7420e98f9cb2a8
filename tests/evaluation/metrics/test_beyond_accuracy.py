"""Metrics beyond accuracy against values by hand and formulas over pairs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.evaluation.metrics import beyond_accuracy as beyond
from shortlist.evaluation.metrics.rankings import build_csr

COUNTS = np.array([0, 8, 4, 4, 0])
RANKED = np.array([[1, 2], [3, -1], [-1, -1]])


def test_novelty_is_the_mean_self_information() -> None:
    # Shares 1/2 and 1/4 of 16 events: 1 and 2 bits.
    assert beyond.novelty(RANKED, COUNTS, 2).tolist() == [1.5, 2.0, 0.0]
    assert beyond.novelty(RANKED, COUNTS, 1).tolist() == [1.0, 2.0, 0.0]
    # An item without events counts as one with one: 1/16, 4 bits.
    assert beyond.novelty(np.array([[4]]), COUNTS, 1).tolist() == [4.0]


def test_average_popularity_and_its_lift() -> None:
    recommended = beyond.average_popularity(RANKED, COUNTS, 2)
    assert recommended.tolist() == [6.0, 4.0, 0.0]
    seen = build_csr(np.array([0, 0, 1]), np.array([2, 3, 2]), 3)
    profile = beyond.profile_popularity(seen, COUNTS)
    assert profile.tolist() == [4.0, 4.0, 0.0]
    # (10 - 8) / 8
    assert beyond.popularity_lift(recommended, profile) == pytest.approx(0.25)
    assert math.isnan(beyond.popularity_lift(recommended, np.zeros(3)))


def test_gini_by_hand() -> None:
    assert beyond.gini(np.array([3, 3, 3])) == pytest.approx(0.0)
    # x = 0, 0, 1: (2 * 3 - 3 - 1) / 3
    assert beyond.gini(np.array([0, 1, 0])) == pytest.approx(2 / 3)
    assert math.isnan(beyond.gini(np.zeros(3)))


@settings(derandomize=True, max_examples=50)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=12).filter(sum))
def test_gini_is_half_the_relative_mean_difference(counts: list[int]) -> None:
    n = len(counts)
    apart = sum(abs(a - b) for a, b in itertools.product(counts, counts))
    expected = apart / (2 * n * sum(counts))
    assert beyond.gini(np.array(counts)) == pytest.approx(expected)


def test_lorenz_begins_at_0_and_ends_at_1() -> None:
    assert beyond.lorenz(np.array([3, 1]), 3) == [0.0, 0.25, 1.0]
    assert beyond.lorenz(np.array([0, 0]), 3) == [0.0, 0.0, 0.0]


def test_personalization_is_over_all_pairs_of_users() -> None:
    lists = np.array([[1, 2], [2, 1], [3, 4]])
    pairs = itertools.combinations(lists.tolist(), 2)
    expected = np.mean([1 - len({*a} & {*b}) / 2 for a, b in pairs])
    counts = beyond.list_counts(lists, 2, 5)
    assert counts.tolist() == [0, 2, 2, 1, 1]
    lengths = np.array([2, 2, 2])
    assert beyond.personalization(counts, lengths) == pytest.approx(expected)
    assert math.isnan(beyond.personalization(counts, lengths[:1]))


def test_lists_alike_have_no_personalization_however_short() -> None:
    alike = np.array([[1, 2, 3, -1, -1]] * 4)
    counts, lengths = beyond.list_counts(alike, 5, 4), np.array([3, 3, 3, 3])
    assert beyond.personalization(counts, lengths) == 0.0
    assert math.isnan(beyond.personalization(np.zeros(4), np.zeros(4)))


@settings(derandomize=True, max_examples=50)
@given(st.lists(st.sets(st.integers(1, 6), max_size=4), min_size=2, max_size=6))
def test_personalization_is_what_pairs_do_not_share(lists: list[set[int]]) -> None:
    pairs = list(itertools.combinations(lists, 2))
    most = sum(min(len(a), len(b)) for a, b in pairs)
    shared = sum(len(a & b) for a, b in pairs)
    counts = np.array([sum(item in each for each in lists) for item in range(1, 7)])
    found = beyond.personalization(counts, np.array([len(each) for each in lists]))
    assert found == pytest.approx(1 - shared / most if most else math.nan, nan_ok=True)


@settings(derandomize=True, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_diversity_is_the_mean_cosine_distance_of_pairs(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-2, 3, (9, 3)).astype(np.float32)
    ranked = np.stack([rng.permutation(8)[:6] + 1 for _ in range(4)])
    ranked[1, 3:] = -1
    ranked[2, 1:] = -1
    found = beyond.diversity(ranked, vectors, k)
    for row, value in zip(ranked, found, strict=True):
        items = [i for i in row[:k].tolist() if i > 0]
        distances = []
        for a, b in itertools.combinations(vectors[items].astype(float), 2):
            norm = np.linalg.norm(a) * np.linalg.norm(b)
            distances.append(1 - (a @ b / norm if norm else 0.0))
        expected = np.mean(distances) if distances else 0.0
        assert value == pytest.approx(expected, abs=1e-6)


def test_taste_divergence_by_hand() -> None:
    shares = np.array([[0, 0], [1, 0], [0, 1], [0.5, 0.5]])
    seen = build_csr(np.array([0, 0, 1]), np.array([1, 3, 2]), 3)
    taste = beyond.tastes(seen, shares)
    assert taste.tolist() == [[0.75, 0.25], [0.0, 1.0], [0.0, 0.0]]
    lists = np.array([[1, 3], [1, -1], [2, -1]])
    found = beyond.taste_divergence(lists, taste, shares, 2)
    # The first list is like the past, the second has nothing of it but alpha = 0.01.
    # The third user has no past to be like.
    expected = [0.0, math.log(1 / 0.01), math.nan]
    assert found == pytest.approx(expected, nan_ok=True)

"""Sign flips against every flip by hand, Holm against its definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.errors import InputError
from shortlist.evaluation.metrics import significance
from shortlist.evaluation.metrics.significance import EXACT_UP_TO, holm, sign_flip_test

# Eighths are exact in binary: sums of any order are equal, also in the reference.
eighths = st.integers(-40, 40).map(lambda n: n / 8)
p_values = st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=12)


def by_hand(differences: list[float]) -> float:
    observed = abs(sum(differences))
    sums = [
        abs(sum(sign * d for sign, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(s >= observed for s in sums) / len(sums)


def holm_by_definition(p: list[float]) -> list[float]:
    """The largest step of the p-values up to one's own, ties with it."""
    ordered = sorted(p)
    steps = [min(1.0, (len(p) - i) * each) for i, each in enumerate(ordered)]
    return [max(steps[: ordered.index(each) + ordered.count(each)]) for each in p]


@settings(derandomize=True, deadline=None)
@given(st.lists(eighths, max_size=8))
def test_few_users_are_tested_exactly(differences: list[float]) -> None:
    found = sign_flip_test(np.array(differences, np.float64))
    assert found.exact
    assert found.p == by_hand(differences)


def test_known_values() -> None:
    assert sign_flip_test(np.array([1.0, 1.0, 1.0])).p == 2 / 8
    assert sign_flip_test(np.array([0.1] * 10)).p == 2 / 1024
    assert sign_flip_test(np.array([1.0, -1.0])).p == 1.0
    assert sign_flip_test(np.array([])).p == 1.0
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@settings(derandomize=True, deadline=None)
@given(st.lists(st.floats(-1, 1), max_size=40), st.integers(0, 5))
def test_neither_side_is_preferred_and_no_p_is_zero(
    differences: list[float], seed: int
) -> None:
    values = np.array(differences, np.float64)
    found = sign_flip_test(values, flips=99, seed=seed)
    assert 0 < found.p <= 1
    assert sign_flip_test(-values, flips=99, seed=seed) == found
    assert sign_flip_test(4 * values, flips=99, seed=seed) == found
    assert found.exact == (np.count_nonzero(values) <= EXACT_UP_TO)


def test_users_without_a_difference_change_nothing() -> None:
    few = np.array([0.5, 0.25, -0.125])
    many = np.zeros(1000)
    many[[3, 500, 999]] = few
    assert sign_flip_test(many) == sign_flip_test(few)
    same = sign_flip_test(np.zeros(100_000))
    assert (same.p, same.exact) == (1.0, True)


def test_a_sample_of_the_flips_comes_near_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    differences = np.random.default_rng(1).normal(0.4, 1.0, EXACT_UP_TO)
    every = sign_flip_test(differences)
    monkeypatch.setattr(significance, "EXACT_UP_TO", 0)
    drawn = sign_flip_test(differences, flips=20_000)
    assert every.exact and not drawn.exact
    error = (every.p * (1 - every.p) / 20_000) ** 0.5
    assert abs(drawn.p - every.p) < 4 * error
    assert sign_flip_test(differences, flips=20_000) == drawn  # a seed repeats it


def test_sums_of_random_flips_have_their_mean_and_spread() -> None:
    differences = np.random.default_rng(2).normal(size=21)  # no whole groups of 8
    sums = significance._random_sums(differences, 40_000, 0)
    error = (differences**2).sum() ** 0.5 / 2 / 200
    assert sums.mean() == pytest.approx(differences.sum() / 2, abs=4 * error)
    assert sums.var() == pytest.approx((differences**2).sum() / 4, rel=0.05)
    # One user alone is chosen in half of the flips.
    alone = significance._random_sums(np.eye(21)[20], 40_000, 0)
    assert set(alone.tolist()) == {0.0, 1.0}
    assert alone.mean() == pytest.approx(0.5, abs=0.01)


def test_a_large_difference_gets_the_smallest_p_there_is() -> None:
    found = sign_flip_test(np.full(100, 0.1), flips=999)
    assert found.p == 1 / 1000


def test_equal_models_are_told_apart_as_often_as_the_level_says() -> None:
    generator = np.random.default_rng(0)
    found = [
        sign_flip_test(generator.normal(size=30), flips=199, seed=seed).p
        for seed in range(400)
    ]
    assert np.mean(np.array(found) <= 0.05) == pytest.approx(0.05, abs=0.03)


@settings(derandomize=True)
@given(p_values)
def test_holm_as_defined(p: list[float]) -> None:
    found = holm(p)
    assert found == pytest.approx(holm_by_definition(p))
    assert all(c >= each for c, each in zip(found, p, strict=True))
    assert holm(p[::-1]) == found[::-1]


def test_flips_must_be_some() -> None:
    with pytest.raises(InputError, match="Try 9999") as caught:
        sign_flip_test(np.ones(3), flips=0)
    assert caught.value.code == "flips-out-of-range"

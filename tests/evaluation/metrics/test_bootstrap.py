"""The bootstrap against its definition and against the normal approximation."""

from __future__ import annotations

import numpy as np
import pytest

from shortlist.errors import InputError
from shortlist.evaluation.metrics import bootstrap
from shortlist.evaluation.metrics.bootstrap import bootstrap_means, percentile_interval


def test_means_are_those_of_samples_drawn_with_replacement() -> None:
    values = np.random.default_rng(1).random((30, 2))
    draws = np.random.Generator(np.random.PCG64(5)).integers(0, 30, (8, 30))
    expected = values[draws].mean(axis=1)
    np.testing.assert_allclose(bootstrap_means(values, resamples=8, seed=5), expected)


def test_blocks_do_not_change_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).random((30, 3))
    whole = bootstrap_means(values, resamples=50, seed=2)
    monkeypatch.setattr(bootstrap, "_BLOCK_DRAWS", 70)
    np.testing.assert_allclose(bootstrap_means(values, resamples=50, seed=2), whole)


def test_interval_agrees_with_the_normal_approximation() -> None:
    values = np.random.default_rng(3).normal(2.0, 1.0, (1000, 1))
    low, high = percentile_interval(bootstrap_means(values, resamples=4000, seed=0))[0]
    error = values.std() / np.sqrt(1000)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(300):
        sample = rng.exponential(1.0, (200, 1))
        means = bootstrap_means(sample, resamples=300, seed=seed)
        low, high = percentile_interval(means)[0]
        covered += low <= 1.0 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_constant_metric_has_no_width() -> None:
    means = bootstrap_means(np.full((10, 1), 0.25), resamples=20, seed=0)
    assert percentile_interval(means).tolist() == [[0.25, 0.25]]


def test_users_without_a_value_are_left_out_of_its_mean() -> None:
    values = np.random.default_rng(1).random((30, 3))
    values[::3, 1] = np.nan
    values[1:, 2] = np.nan
    draws = np.random.Generator(np.random.PCG64(5)).integers(0, 30, (40, 30))
    found = bootstrap_means(values, resamples=40, seed=5)
    np.testing.assert_allclose(found[:, 0], values[draws, 0].mean(axis=1))
    np.testing.assert_allclose(found[:, 1], np.nanmean(values[draws, 1], axis=1))
    # Some samples are without the only user that has a value.
    assert (draws != 0).all(axis=1).any()
    assert found[:, 2] == pytest.approx(values[0, 2])


def test_no_metrics_have_no_intervals() -> None:
    means = bootstrap_means(np.empty((10, 0)), resamples=20, seed=0)
    assert means.shape == (20, 0)
    assert percentile_interval(means).shape == (0, 2)


@pytest.mark.parametrize(("users", "resamples"), [(0, 10), (5, 0)])
def test_nothing_to_draw_is_refused(users: int, resamples: int) -> None:
    message = f"{users} users, {resamples} resamples"
    with pytest.raises(InputError, match=message) as caught:
        bootstrap_means(np.zeros((users, 1)), resamples=resamples, seed=0)
    assert caught.value.code == "bootstrap-empty"

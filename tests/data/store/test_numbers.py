"""Transforms of numbers against short formulas: fitted on training values alone."""

from __future__ import annotations

import math
import statistics as stdlib

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shortlist.data import Feature
from shortlist.data.store.numbers import (
    NUM_POINTS,
    NumberStatistics,
    fit_numbers,
    numbers_of,
    transform_numbers,
)

NAN = float("nan")
LARGEST = float(np.finfo(np.float32).max)
SOME = np.array([3.0, -1.0, 4.0, 1.5, NAN, 4.0])
VALUES = st.lists(
    st.floats() | st.sampled_from([0.0, 1.0, -1.0, 1e-300, NAN]), max_size=30
).map(lambda values: np.array(values, np.float64))


def feature(transform: str = "standardize", **fields: object) -> Feature:
    if fields:
        return Feature(name="x", owner="item", kind="bucketized", **fields)
    return Feature(name="x", owner="item", kind="numeric", transform=transform)


NUMERIC = [feature(name) for name in ("standardize", "log", "quantile", "none")]
BUCKETIZED = [
    Feature(name="x", owner="item", kind="bucketized"),
    feature(num_buckets=3),
    feature(boundaries=(-1.0, 0.5, 4.0)),
]


def known(values: np.ndarray) -> list[float]:
    return [v for v in values.tolist() if math.isfinite(v) and abs(v) <= LARGEST]


def transformed(values: np.ndarray, one: Feature) -> np.ndarray:
    return transform_numbers(values, one, fit_numbers(values, one))


def test_standardize_is_the_distance_from_the_mean_in_deviations():
    fitted = fit_numbers(SOME, feature())
    mean, scale = stdlib.mean(known(SOME)), stdlib.stdev(known(SOME))
    assert fitted == NumberStatistics(mean=mean, scale=pytest.approx(scale))
    asked = np.array([10.0, NAN, mean])
    expected = [(10.0 - mean) / scale, 0.0, 0.0]
    found = transform_numbers(asked, feature(), fitted)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_log_is_standardized_after_a_logarithm_of_either_sign():
    logs = [math.copysign(math.log1p(abs(v)), v) for v in known(SOME)]
    mean, scale = stdlib.mean(logs), stdlib.stdev(logs)
    found = transform_numbers(
        np.array([-99.0, 0.0, NAN]), feature("log"), fit_numbers(SOME, feature("log"))
    )
    expected = [(-math.log(100.0) - mean) / scale, -mean / scale, 0.0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_none_leaves_numbers_and_fits_nothing():
    assert fit_numbers(SOME, feature("none")) == NumberStatistics()
    found = transformed(np.array([0.1, NAN, 1e39, -7.0]), feature("none"))
    assert found.tolist() == [np.float32(0.1), 0.0, 0.0, -7.0]


def test_quantile_is_the_share_of_training_values_below():
    ramp = np.arange(101.0)
    fitted = fit_numbers(ramp, feature("quantile"))
    asked = np.array([0.0, 25.0, 62.5, 100.0, -3.0, 300.0, NAN])
    found = transform_numbers(asked, feature("quantile"), fitted)
    expected = [0.0, 0.25, 0.625, 1.0, 0.0, 1.0, 0.5]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_quantile_of_a_value_that_repeats_is_the_middle_of_its_share():
    values = np.array([0.0] * 50 + [1.0] * 25 + [2.0] * 25 + [3.0])
    found = transformed(values, feature("quantile"))
    assert found[0] == pytest.approx(0.245, abs=0.01)  # from 0 to 0.49
    assert found[50] == pytest.approx((0.5 + 0.74) / 2, abs=0.01)
    assert found[-1] == 1.0


def test_quantile_points_stay_few_and_close_to_the_exact_share():
    values = np.random.default_rng(0).lognormal(size=20_000)
    fitted = fit_numbers(values, feature("quantile"))
    assert len(fitted.points) == NUM_POINTS
    exact = np.searchsorted(np.sort(values), values) / len(values)
    found = transform_numbers(values, feature("quantile"), fitted)
    assert np.abs(found - exact).max() < 2 / NUM_POINTS


@pytest.mark.parametrize("one", [*NUMERIC, *BUCKETIZED], ids=str)
def test_training_without_any_value_is_no_obstacle(one):
    fitted = fit_numbers(np.array([NAN, np.inf]), one)
    found = transform_numbers(np.array([NAN, 2.0]), one, fitted)
    missing = {"quantile": 0.5}.get(one.transform, 0.0)
    assert found[0] == missing
    assert np.isfinite(found).all()


@pytest.mark.parametrize("value", [5.0, 0.1, -1e30])
def test_constant_number_is_zero_everywhere(value):
    values = np.array([value] * 7)  # the mean of seven times 0.1 is not 0.1
    assert transformed(values, feature()).tolist() == [0.0] * 7
    assert transformed(values, feature("log")).tolist() == [0.0] * 7
    assert transformed(values, feature("quantile")).tolist() == [0.5] * 7
    assert transformed(values, BUCKETIZED[0]).tolist() == [1] * 7


def test_bucket_begins_at_its_boundary_and_row_zero_is_missing():
    one = feature(boundaries=(0.0, 19.99))
    fitted = fit_numbers(np.array([NAN]), one)
    asked = np.array([-5.0, 0.0, 19.98, 19.99, 1e9, NAN, np.inf])
    rows = transform_numbers(asked, one, fitted)
    assert rows.dtype == np.int32
    assert rows.tolist() == [1, 2, 2, 3, 3, 0, 0]
    assert fitted.boundaries == (0.0, 19.99)
    assert fitted.table_rows == 4


def test_fitted_buckets_have_equal_shares():
    one = feature(num_buckets=4)
    values = np.random.default_rng(1).permutation(np.arange(400.0))
    fitted = fit_numbers(values, one)
    assert len(fitted.boundaries) == 3 and fitted.table_rows == 5
    assert np.bincount(transform_numbers(values, one, fitted)).tolist() == [
        *(0, 100, 100, 100, 100)
    ]


def test_every_bucket_of_training_values_that_repeat_is_trained():
    one = feature(num_buckets=5)
    values = np.array([0.0] * 90 + [1.0] * 5 + [2.0] * 105)
    fitted = fit_numbers(values, one)
    rows = transform_numbers(values, one, fitted)
    assert set(rows.tolist()) == set(range(1, fitted.table_rows))


@pytest.mark.parametrize("one", [*NUMERIC, *BUCKETIZED], ids=str)
def test_transforms_are_finite_bounded_and_monotone(one):
    @settings(max_examples=60, derandomize=True)
    @given(VALUES, VALUES)
    def check(training, asked):
        fitted = fit_numbers(training, one)
        found = transform_numbers(asked, one, fitted)
        assert found.shape == asked.shape
        assert np.isfinite(found).all()
        present = np.isfinite(asked) & (np.abs(asked) <= LARGEST)
        ordered = found[present][np.argsort(asked[present], kind="stable")]
        assert (np.diff(ordered) >= 0).all()
        if one.kind == "bucketized":
            assert found.dtype == np.int32
            assert (found[~present] == 0).all()
            assert ((found[present] >= 1) & (found[present] < fitted.table_rows)).all()
        else:
            assert found.dtype == np.float32
        if one.transform == "quantile":
            assert ((found >= 0) & (found <= 1)).all()

    check()


@pytest.mark.parametrize("one", [*NUMERIC, *BUCKETIZED], ids=str)
def test_statistics_survive_json_and_do_not_hang_on_the_order_or_on_gaps(one):
    @settings(max_examples=40, derandomize=True)
    @given(VALUES)
    def check(training):
        fitted = fit_numbers(training, one)
        raw = msgspec.json.encode(fitted)
        assert msgspec.json.decode(raw, type=NumberStatistics) == fitted
        again = fit_numbers(np.append(training, [NAN, np.inf]), one)
        assert again == fitted

    check()


def test_standardized_training_values_have_mean_zero_and_deviation_one():
    @settings(max_examples=60, derandomize=True)
    @given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
    def check(values):
        assume(np.ptp(values) > 1e-3)
        found = transformed(np.array(values), feature()).astype(np.float64)
        assert abs(found.mean()) < 1e-2
        assert found.std(ddof=1) == pytest.approx(1.0, abs=1e-3)

    check()


def test_column_of_numbers_has_nan_for_null():
    column = pl.Series([1, None, 3])
    np.testing.assert_array_equal(numbers_of(column), [1.0, NAN, 3.0])

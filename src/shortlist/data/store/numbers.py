"""Numeric features: statistics fitted on training values, and transforms.

Knows arrays of numbers and the options of a feature. Knows no ids, files or parts: the
caller passes only training values, so that nothing else affects a statistic.
"""

from __future__ import annotations

import msgspec
import numpy as np
import polars as pl

from shortlist.data.schema import Feature

NUM_POINTS = 1_001  # of a quantile transform: one per thousandth
_LARGEST = float(np.finfo(np.float32).max)


class NumberStatistics(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fitted statistics of one numeric or bucketized feature; plain JSON values.

    Args:
        mean: of `standardize` and `log`, after the logarithm.
        scale: the standard deviation, above 0.
        points: of `quantile`: the quantiles of the training values at equal steps,
            ascending, from the minimum to the maximum.
        boundaries: of a bucketized feature, ascending.
    """

    mean: float | None = None
    scale: float | None = None
    points: tuple[float, ...] | None = None
    boundaries: tuple[float, ...] | None = None

    @property
    def table_rows(self) -> int:
        """Rows of the table of a bucketized feature: the missing value, the buckets."""
        return len(self.boundaries or ()) + 2


def numbers_of(column: pl.Series) -> np.ndarray:
    """A column of numbers as `(n,)` float64, NaN for missing ones."""
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def fit_numbers(values: np.ndarray, feature: Feature) -> NumberStatistics:
    """Fits the statistics that `transform_numbers` needs.

    Args:
        values: training values, `(n,)` float64; n may be 0. NaN, infinity and numbers
            beyond float32 count as missing.
        feature: a numeric or bucketized feature.
    """
    known = values[_is_known(values)]
    if feature.kind == "bucketized":
        return NumberStatistics(boundaries=_boundaries(known, feature))
    if feature.transform == "none":
        return NumberStatistics()
    if feature.transform == "quantile":
        return NumberStatistics(points=_points(known))
    if feature.transform == "log":
        known = _signed_log(known)
    return _moments(known)


def transform_numbers(
    values: np.ndarray, feature: Feature, statistics: NumberStatistics
) -> np.ndarray:
    """The values as a model reads them.

    Args:
        values: `(n,)` float64; NaN, infinity and numbers beyond float32 are missing.
        feature: the feature that the statistics were fitted for.
        statistics: the result of `fit_numbers`.

    Returns: for a numeric feature `(n,)` float32, always finite; a missing value is 0,
    the mean, or with `quantile` 0.5, the median. For a bucketized feature `(n,)` int32
    rows: 0 for a missing value, 1 below the first boundary, and one more with each
    boundary that the value reaches.
    """
    known = _is_known(values)
    if feature.kind == "bucketized":
        assert statistics.boundaries is not None  # fit_numbers
        # `right`: a number on a boundary belongs to the bucket above, as in Keras.
        rows = 1 + np.searchsorted(statistics.boundaries, values, side="right")
        return np.where(known, rows, 0).astype(np.int32)
    filled = np.where(known, values, 0.0)
    if feature.transform == "quantile":
        assert statistics.points is not None  # fit_numbers
        shares = _shares(filled, np.array(statistics.points, np.float64))
        return np.where(known, shares, 0.5).astype(np.float32)
    if feature.transform == "none":
        return filled.astype(np.float32)
    if feature.transform == "log":
        filled = _signed_log(filled)
    assert statistics.mean is not None and statistics.scale is not None  # fit_numbers
    # With a tiny scale, a number of another part may overflow.
    standardized = np.clip((filled - statistics.mean) / statistics.scale, *_RANGE)
    return np.where(known, standardized, 0.0).astype(np.float32)


_RANGE = (-_LARGEST, _LARGEST)


def _is_known(values: np.ndarray) -> np.ndarray:
    known: np.ndarray = np.abs(values) <= _LARGEST  # false for NaN too
    return known


def _signed_log(values: np.ndarray) -> np.ndarray:
    logs: np.ndarray = np.sign(values) * np.log1p(np.abs(values))
    return logs


def _moments(known: np.ndarray) -> NumberStatistics:
    if len(known) == 0:
        return NumberStatistics(mean=0.0, scale=1.0)
    if known.min() == known.max():
        # Not `known.mean()`: its rounding error would become the deviation.
        return NumberStatistics(mean=float(known[0]), scale=1.0)
    scale = float(known.std(ddof=1))
    return NumberStatistics(mean=float(known.mean()), scale=scale or 1.0)


def _points(known: np.ndarray) -> tuple[float, ...]:
    if len(known) == 0:
        return ()
    num_points = max(2, min(len(known), NUM_POINTS))
    points = np.quantile(known, np.linspace(0.0, 1.0, num_points))
    # Interpolation between equal values may descend by the last bit.
    return tuple(np.maximum.accumulate(points).tolist())


def _shares(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The share of training values below, in [0, 1]; the middle if many are equal.

    Interpolated from both sides, because `np.interp` returns one end of a plateau. The
    mean of both is its middle, as in scikit-learn's `QuantileTransformer`.
    """
    if len(points) == 0:
        return np.full(len(values), 0.5)
    shares = np.linspace(0.0, 1.0, len(points))
    upper = np.interp(values, points, shares)
    lower = -np.interp(-values, -points[::-1], -shares[::-1])
    middle: np.ndarray = (upper + lower) / 2
    return middle


def _boundaries(known: np.ndarray, feature: Feature) -> tuple[float, ...]:
    if feature.boundaries:
        return feature.boundaries
    if len(known) == 0:
        return ()
    inner = np.linspace(0.0, 1.0, feature.num_buckets + 1)[1:-1]
    found = np.unique(np.quantile(known, inner))
    # No training value is below a boundary at the minimum: that row would never be
    # trained.
    return tuple(found[found > known.min()].tolist())

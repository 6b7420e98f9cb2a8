"""Bootstrap intervals of means over users.

References:
    Efron, 1979, "Bootstrap Methods: Another Look at the Jackknife",
        https://doi.org/10.1214/aos/1176344552
    Efron and Tibshirani, 1993, "An Introduction to the Bootstrap", chapter 13
        (percentile intervals)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortlist.errors import InputError

_BLOCK_DRAWS = 1 << 22


def bootstrap_means(
    values: NDArray[Any], *, resamples: int, seed: int
) -> NDArray[np.float64]:
    """Means of `resamples` samples of users, drawn with replacement.

    Every column sees the same samples, so that columns can be compared pairwise. A
    sample is kept as the number of times each user was drawn (multinomial weights).

    Args:
        values: `(num_users, num_metrics)`; NaN where a user has no value, who is then
            left out of the means of that column. Each column has some value.
        resamples: number of samples.
        seed: seed of the draws.

    Returns:
        `(resamples, num_metrics)`, finite: a sample of which nobody has a value takes
        the mean of all who have one.

    Raises:
        InputError: no user, or `resamples` below 1 (`bootstrap-empty`).
    """
    num_users = len(values)
    if not num_users or resamples < 1:
        raise InputError(
            "bootstrap-empty",
            "There must be at least one user and one resample. Received:"
            f" {num_users} users, {resamples} resamples. Raise the number.",
        )
    rng = np.random.Generator(np.random.PCG64(seed))
    missing = np.isnan(values)
    partial = np.flatnonzero(missing.any(axis=0))
    known = (~missing[:, partial]).astype(np.float64)
    values = np.where(missing, 0.0, values).astype(np.float64)
    whole = values[:, partial].sum(axis=0) / known.sum(axis=0)
    means = np.empty((resamples, values.shape[1]))
    if not values.shape[1]:
        return means
    block = max(1, min(resamples, _BLOCK_DRAWS // num_users))
    weights = np.empty((block, num_users))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        for row in range(rows):  # one sample at a time: its counts fit the cache
            drawn = rng.integers(0, num_users, num_users, dtype=np.int32)
            weights[row] = np.bincount(drawn, minlength=num_users)
        sums = weights[:rows] @ values
        means[start : start + rows] = sums / num_users
        counted = weights[:rows] @ known
        of_known = sums[:, partial] / np.maximum(counted, 1.0)
        means[start : start + rows, partial] = np.where(counted, of_known, whole)
    return means


def percentile_interval(
    means: NDArray[np.float64], level: float = 0.95
) -> NDArray[np.float64]:
    """Percentile intervals of the columns of `means`, `(num_metrics, 2)`: low, high."""
    tail = (1.0 - level) / 2.0
    return np.quantile(means, [tail, 1.0 - tail], axis=0).T

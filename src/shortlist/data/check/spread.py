"""Distributions: quantiles, inequality, histograms, popularity curves.

`report.py` defines the results.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from shortlist.data.check.report import Bar, CurvePoint, ItemPopularity, Labels, Spread

QUANTILES = {
    "min": 0.0,
    "p1": 0.01,
    "p5": 0.05,
    "p25": 0.25,
    "p50": 0.5,
    "p75": 0.75,
    "p95": 0.95,
    "p99": 0.99,
    "max": 1.0,
}
_CURVE_POINTS = 100
_MAX_VALUES = 30
_LABEL_BARS = 20


def spread_of(counts: np.ndarray) -> Spread:
    """How events are spread.

    Args:
        counts: events by code, `(n,)` integers of which one is positive; zeros do not
            count.
    """
    used = counts[counts > 0]
    levels = list(QUANTILES.values())
    found = np.quantile(used, levels, method="inverted_cdf")
    return Spread(
        mean=float(used.mean()),
        quantiles=dict(zip(QUANTILES, map(int, found), strict=True)),
        gini=gini(used),
        once=int(np.count_nonzero(used == 1)),
        histogram=_powers_of_two(used),
    )


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of `(n,)` positive numbers.

    `2 * sum(i * x_i) / (n * sum(x)) - (n + 1) / n` over the sorted x_1 .. x_n, which
    is half the mean absolute difference over the mean (Gini, 1912).
    """
    ordered = np.sort(counts).astype(np.float64)
    n = len(ordered)
    ranks = np.arange(1, n + 1, dtype=np.float64)
    return float(2 * (ranks @ ordered) / (n * ordered.sum()) - (n + 1) / n)


def _powers_of_two(counts: np.ndarray) -> tuple[Bar, ...]:
    # frexp is exact where log2 rounds: 2**k <= x < 2**(k + 1) has the exponent k + 1.
    exponents = np.frexp(counts.astype(np.float64))[1] - 1
    sizes = np.bincount(exponents)
    return tuple(
        Bar(low=2**power, high=2 ** (power + 1) - 1, count=int(size))
        for power, size in enumerate(sizes)
    )


def popularity_of(counts: np.ndarray) -> ItemPopularity:
    """How much the popular items have; `counts` as in `spread_of`."""
    ordered = np.sort(counts[counts > 0])[::-1]
    n, shares = len(ordered), np.cumsum(ordered) / ordered.sum()
    # Points crowd at the head, where the curve bends.
    places = np.unique(np.ceil(np.geomspace(1, n, _CURVE_POINTS) - 1e-9).astype(int))
    return ItemPopularity(
        top_1_percent=float(shares[-(-n // 100) - 1]),
        top_10_percent=float(shares[-(-n // 10) - 1]),
        curve=tuple(
            CurvePoint(items=float(place / n), events=float(shares[place - 1]))
            for place in places
        ),
    )


def value_counts(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values, sorted, and their counts."""
    table = pl.DataFrame({"value": values}).group_by("value").len().sort("value")
    return table["value"].to_numpy(), table["len"].to_numpy().astype(np.int64)


def labels_of(values: np.ndarray, counts: np.ndarray, positive_from: float) -> Labels:
    """The labels of a log.

    Args:
        values: different labels, sorted, `(n,)` floats.
        counts: how often each is there, `(n,)`.
        positive_from: smallest label that counts as positive.
    """
    wide, total = values.astype(np.float64), counts.sum()
    mean = float(wide @ counts / total)
    below = np.cumsum(counts)
    # The smallest value that at least this share does not exceed.
    places = [
        np.searchsorted(below, level * total - 1e-9) for level in QUANTILES.values()
    ]
    quantiles = [float(wide[min(place, len(wide) - 1)]) for place in places]
    return Labels(
        mean=mean,
        deviation=float(np.sqrt((wide - mean) ** 2 @ counts / total)),
        quantiles=dict(zip(QUANTILES, quantiles, strict=True)),
        positive_share=float(counts[values >= positive_from].sum() / total),
        histogram=_label_bars(wide, counts),
    )


def _label_bars(values: np.ndarray, counts: np.ndarray) -> tuple[Bar, ...]:
    if len(values) <= _MAX_VALUES:
        pairs = zip(values.tolist(), counts.tolist(), strict=True)
        return tuple(Bar(low=value, high=value, count=count) for value, count in pairs)
    sizes, edges = np.histogram(values, bins=_LABEL_BARS, weights=counts)
    return tuple(
        Bar(low=float(low), high=float(high), count=int(size))
        for low, high, size in zip(edges[:-1], edges[1:], sizes, strict=True)
    )

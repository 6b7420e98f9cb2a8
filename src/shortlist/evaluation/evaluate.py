"""Metrics of ranked lists at every k, with intervals, and comparisons of two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortlist.errors import InputError
from shortlist.evaluation.metrics.bootstrap import bootstrap_means, percentile_interval
from shortlist.evaluation.metrics.hits import (
    FORMULAS,
    Hits,
    PerUser,
    coverage,
    find_hits,
)
from shortlist.evaluation.metrics.rankings import Csr


@dataclass(frozen=True, kw_only=True, eq=False)
class RankingReport:
    """Metrics of one ranking, named `metric@k`."""

    names: tuple[str, ...]
    """`recall@5`, `ndcg@5`, ... in the order of the columns of `values`."""
    users: NDArray[np.int64]
    """`(num_users,)`: positions, in the ranking, of the users that were evaluated."""
    values: NDArray[np.float64]
    """`(num_users, len(names))`: each metric of each evaluated user; NaN where a user
    has no value and is left out of the mean."""
    num_excluded: int
    """Users without relevant items, left out of every mean."""
    coverage: dict[str, float]
    """`coverage@k`: share of the catalogue in the first k of any list."""
    resamples: int
    seed: int

    @property
    def num_users(self) -> int:
        """Users that were evaluated."""
        return len(self.users)

    def with_metrics(self, extra: Mapping[str, PerUser]) -> RankingReport:
        """The report with further metrics of each user.

        Args:
            extra: by `metric@k`, `(users of the ranking,)` each. NaN leaves a user out
                of the mean; a metric without a value for any user is left out.
        """
        columns = {name: values[self.users] for name, values in extra.items()}
        columns = {n: each for n, each in columns.items() if not np.isnan(each).all()}
        added = _stacked(columns, self.num_users)
        return replace(
            self,
            names=(*self.names, *columns),
            values=np.concatenate([self.values, added], axis=1),
        )

    def to_dict(self) -> dict[str, float]:
        """Mean over users of every metric, then the coverage at every k."""
        means = np.nanmean(self.values, axis=0).tolist()
        return {**dict(zip(self.names, means, strict=True)), **self.coverage}

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Bootstrap 95 % interval over users of every mean: (low, high)."""
        means = bootstrap_means(self.values, resamples=self.resamples, seed=self.seed)
        return _named(self.names, percentile_interval(means))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One metric of a model and of the baseline, over the same users."""

    name: str
    model: float
    baseline: float
    ratio: float | None
    """`model / baseline`; `None` when the baseline is 0."""
    difference: float
    """`model - baseline`."""
    low: float
    """Lower end of the paired bootstrap 95 % interval of the difference."""
    high: float
    """Upper end. If both ends are above 0, the model is significantly better."""


def evaluate_rankings(
    ranked: NDArray[Any],
    relevant: Csr,
    *,
    ks: Sequence[int],
    num_items: int,
    resamples: int = 1000,
    seed: int = 0,
    names: Sequence[str] | None = None,
) -> RankingReport:
    """Evaluates ranked lists against what the users did.

    Args:
        ranked: `(num_users, max_k)` item rows, best first, padded with -1; seen items
            already removed. Ranks beyond `max_k` count as misses.
        relevant: relevant items of each user, `(offsets, indices)`; row 0 stands for
            an item outside the catalogue, relevant but never hit.
        ks: list lengths to evaluate at.
        num_items: items of the catalogue, row 0 not counted.
        resamples: bootstrap samples for the intervals.
        seed: seed of the bootstrap.
        names: metrics of hits to compute, and `coverage`; all of them by default.

    Raises:
        InputError: a bad ranking (`ranking-...`), bad truth (`relevance-shape`), `k`
            below 1 (`k-out-of-range`), no `ks` (`ks-empty`) or no user with a relevant
            item (`no-relevant-items`).
    """
    if not len(ks):
        raise InputError(
            "ks-empty", "There must be at least one k. Received: none. Try ks=(10,)."
        )
    ranked = np.asarray(ranked)
    hits = find_hits(ranked, relevant)
    users = np.flatnonzero(hits.num_relevant)
    if not len(users):
        raise _no_relevant_items(len(ranked))
    evaluated = Hits(hits.places[users], hits.num_relevant[users])
    ordered = sorted(set(ks))
    columns = {
        f"{name}@{k}": metric(evaluated, k)
        for k in ordered
        for name, metric in FORMULAS.items()
        if names is None or name in names
    }
    covered = ordered if names is None or "coverage" in names else []
    return RankingReport(
        names=tuple(columns),
        users=users,
        values=_stacked(columns, len(users)),
        num_excluded=len(ranked) - len(users),
        coverage={f"coverage@{k}": coverage(ranked, k, num_items) for k in covered},
        resamples=resamples,
        seed=seed,
    )


def _no_relevant_items(num_users: int) -> InputError:
    return InputError(
        "no-relevant-items",
        "At least one user must have a relevant item to be evaluated on. Received:"
        f" {num_users} users, none of them with any. Check the split: its test part may"
        " be empty, hold no event of at least `positive_from`, or only items the users"
        " did before.",
    )


def _stacked(columns: Mapping[str, PerUser], num_users: int) -> NDArray[np.float64]:
    values = np.empty((num_users, len(columns)))  # `np.stack` refuses no columns
    for place, column in enumerate(columns.values()):
        values[:, place] = column
    return values


def compare(model: RankingReport, baseline: RankingReport) -> dict[str, Comparison]:
    """Compares a model with a baseline, user by user.

    Args:
        model: report of the model.
        baseline: report of popularity, say, on the same users and the same truth.

    Returns:
        A `Comparison` for each metric that both reports hold.

    Raises:
        InputError: the reports cover different users (`reports-not-paired`).
    """
    return compare_with_intervals(model, baseline)[0]


def compare_with_intervals(
    model: RankingReport, baseline: RankingReport
) -> tuple[dict[str, Comparison], list[dict[str, tuple[float, float]]]]:
    """`compare`, and the intervals of both reports, from one bootstrap.

    A mean of differences is the difference of the means, so the samples that give the
    intervals of both give that of the difference as well.

    Returns: comparisons by metric, and the intervals of the model and the baseline.

    Raises:
        InputError: the reports cover different users (`reports-not-paired`).
    """
    if not np.array_equal(model.users, baseline.users):
        raise InputError(
            "reports-not-paired",
            "Both reports must cover the same users. Received: reports on"
            f" {model.num_users} and {baseline.num_users} users that differ."
            " Evaluate both rankings against the same relevant items.",
        )
    values = np.concatenate([model.values, baseline.values], axis=1)
    means = bootstrap_means(values, resamples=model.resamples, seed=model.seed)
    ours, theirs = means[:, : len(model.names)], means[:, len(model.names) :]
    names = tuple(name for name in model.names if name in baseline.names)
    mine = [model.names.index(name) for name in names]
    other = [baseline.names.index(name) for name in names]
    differences = _named(names, percentile_interval(ours[:, mine] - theirs[:, other]))
    average, beside = model.to_dict(), baseline.to_dict()
    compared = {
        name: _comparison(name, average[name], beside[name], *differences[name])
        for name in names
    }
    reports = ((model, ours), (baseline, theirs))
    return compared, [
        _named(report.names, percentile_interval(each)) for report, each in reports
    ]


def _comparison(
    name: str, model: float, baseline: float, low: float, high: float
) -> Comparison:
    return Comparison(
        name=name,
        model=model,
        baseline=baseline,
        ratio=model / baseline if baseline else None,
        difference=model - baseline,
        low=low,
        high=high,
    )


def _named(
    names: tuple[str, ...], intervals: NDArray[np.float64]
) -> dict[str, tuple[float, float]]:
    ends = ((float(low), float(high)) for low, high in intervals)
    return dict(zip(names, ends, strict=True))

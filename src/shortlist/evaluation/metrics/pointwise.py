"""Metrics of scored (user, item) pairs: AUC, RMSE, MAE.

References:
    Mann and Whitney, 1947, https://doi.org/10.1214/aoms/1177730491 (the statistic)
    Hanley and McNeil, 1982, https://doi.org/10.1148/radiology.143.1.7063747 (its
        meaning as the area under the ROC curve)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortlist.errors import InputError


@dataclass(frozen=True, kw_only=True)
class UserAuc:
    """AUC within each user, averaged."""

    mean: float
    """Mean over the users that have one; NaN if none has."""
    num_users: int
    """Users with both a positive and a negative."""
    num_undefined: int
    """Users with positives only or negatives only, left out."""


def auc(labels: NDArray[Any], scores: NDArray[Any]) -> float:
    """Probability that a random positive scores above a random negative.

    Ties count half. NaN when there are no positives or no negatives.

    Args:
        labels: `(n,)`, 0 or 1, or booleans.
        scores: `(n,)`, any finite numbers.

    Raises:
        InputError: shapes differ, a value is not finite, or a label is neither 0 nor 1
            (`pointwise-values`).
    """
    return float(_grouped_auc(np.zeros(len(labels), np.int64), labels, scores)[0])


def user_auc(
    user_index: NDArray[Any], labels: NDArray[Any], scores: NDArray[Any]
) -> UserAuc:
    """AUC among the pairs of each user, averaged over users.

    Args:
        user_index: `(n,)` user of each pair.
        labels: `(n,)`, 0 or 1, or booleans.
        scores: `(n,)`, any finite numbers.

    Raises:
        InputError: as `auc`.
    """
    users = np.unique(user_index, return_inverse=True)[1]
    values = _grouped_auc(users, labels, scores)
    defined = values[~np.isnan(values)]
    mean = float(defined.mean()) if len(defined) else float("nan")
    num_undefined = 0 if not len(users) else len(values) - len(defined)
    return UserAuc(mean=mean, num_users=len(defined), num_undefined=num_undefined)


def rmse(labels: NDArray[Any], predictions: NDArray[Any]) -> float:
    """Root mean squared error, in the unit of the labels; NaN without pairs."""
    difference = _difference(labels, predictions)
    return float(np.sqrt(np.mean(difference**2))) if len(difference) else float("nan")


def mae(labels: NDArray[Any], predictions: NDArray[Any]) -> float:
    """Mean absolute error, in the unit of the labels; NaN without pairs."""
    difference = _difference(labels, predictions)
    return float(np.mean(np.abs(difference))) if len(difference) else float("nan")


def _grouped_auc(
    groups: NDArray[Any], labels: NDArray[Any], scores: NDArray[Any]
) -> NDArray[np.float64]:
    """AUC of groups 0 .. max, `(num_groups,)`, NaN where one class is missing."""
    labels, scores = label_pair(labels, scores)
    if not np.isin(labels, (0, 1)).all():
        wrong = labels[~np.isin(labels, (0, 1))][0]
        raise _values_error("Labels must be 0 or 1", str(wrong))
    if groups.shape != labels.shape:
        raise _values_error("There must be one user per label", str(groups.shape))
    group, score, positive = _sorted(groups, scores, labels == 1)
    # Equal scores of a group share the mean of their ranks (1-based, over all rows).
    fresh = np.ones(len(group), bool)
    fresh[1:] = (group[1:] != group[:-1]) | (score[1:] != score[:-1])
    first = np.flatnonzero(fresh)
    last = np.append(first[1:], len(group))
    rank = np.repeat((first + last + 1) / 2.0, last - first)
    num_groups = int(group[-1]) + 1 if len(group) else 1
    size = np.bincount(group, minlength=num_groups)
    positives = np.bincount(group, weights=positive, minlength=num_groups)
    rank_sum = np.bincount(group, weights=rank * positive, minlength=num_groups)
    # Subtracting the rows before the group makes the ranks begin at 1 in each group.
    rank_sum -= positives * (np.cumsum(size) - size)
    pairs = positives * (size - positives)
    wins = rank_sum - positives * (positives + 1) / 2
    values: NDArray[np.float64] = np.full(num_groups, np.nan)
    np.divide(wins, pairs, out=values, where=pairs > 0)
    return values


def _sorted(
    groups: NDArray[Any], scores: NDArray[np.float64], positive: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The rows by group, then score; scores as numbers of the same order."""
    narrow = scores.astype(np.float32)
    largest = int(groups.max()) if len(groups) else 0
    if largest >= 2**30 or not np.array_equal(narrow, scores):
        order = np.lexsort((scores, groups))
        return groups[order], scores[order], positive[order]
    # Group, score and label in one integer: sorting that is several times faster. The
    # bits of a float rise with it once those of a negative one are flipped.
    bits = (narrow + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0
    negative = bits >> np.uint32(31) == 1
    bits = np.where(negative, ~bits, bits | np.uint32(2**31)).astype(np.uint64)
    one = np.uint64(1)
    keys = groups.astype(np.uint64) << np.uint64(33)
    keys |= (bits << one) | positive.astype(np.uint64)
    keys.sort()
    score = (keys >> one) & np.uint64(2**32 - 1)
    return (keys >> np.uint64(33)).astype(np.int64), score, (keys & one) == 1


def _difference(labels: NDArray[Any], predictions: NDArray[Any]) -> NDArray[np.float64]:
    labels, predictions = label_pair(labels, predictions)
    return predictions - labels


def label_pair(
    labels: NDArray[Any], scores: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Labels and scores as float64.

    Raises:
        InputError: shapes differ, or a value is not finite (`pointwise-values`).
    """
    pair = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    if pair[0].ndim != 1 or pair[0].shape != pair[1].shape:
        raise _values_error(
            "Labels and scores must be two lists of one length",
            f"shapes {pair[0].shape} and {pair[1].shape}",
        )
    for name, values in zip(("Labels", "Scores"), pair, strict=True):
        finite = np.isfinite(values)
        if not finite.all():
            place = int(np.argmin(finite))
            raise _values_error(
                f"{name} must be finite numbers", f"{values[place]} at place {place}"
            )
    return pair


def _values_error(rule: str, received: str) -> InputError:
    return InputError(
        "pointwise-values",
        f"{rule}. Received: {received}. Leave such pairs out or correct them.",
    )

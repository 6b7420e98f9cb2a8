"""Metrics of predicted probabilities: log loss and calibration.

References:
    Good, 1952, "Rational decisions",
        https://doi.org/10.1111/j.2517-6161.1952.tb00104.x (logarithmic loss)
    DeGroot and Fienberg, 1983, "The comparison and evaluation of forecasters",
        https://doi.org/10.2307/2987588 (reliability)
    Naeini, Cooper and Hauskrecht, 2015, "Obtaining well calibrated probabilities using
        Bayesian binning", AAAI (expected calibration error)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortlist.errors import InputError
from shortlist.evaluation.metrics.pointwise import label_pair

_SMALLEST = 1e-15  # a probability of 0 that was wrong must not cost infinitely much


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """The predictions of one interval of probabilities."""

    low: float
    high: float
    count: int
    predicted: float
    """Mean predicted probability."""
    observed: float
    """Share of positives."""


def sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities of logits, without overflow."""
    x = np.asarray(logits, np.float64)
    exp = np.exp(-np.abs(x))
    probabilities: NDArray[np.float64] = np.where(x >= 0, 1.0, exp) / (1.0 + exp)
    return probabilities


def log_loss(labels: NDArray[Any], probabilities: NDArray[Any]) -> float:
    """Mean of `-log(p)` of what happened, in nats; NaN without pairs.

    Probabilities are kept 1e-15 away from 0 and 1.

    Args:
        labels: `(n,)`, 0 or 1, or booleans.
        probabilities: `(n,)`, from 0 to 1.

    Raises:
        InputError: shapes differ, or a value is out of range (`pointwise-values`).
    """
    labels, p = _checked(labels, probabilities)
    if not len(p):
        return float("nan")
    happened = np.clip(np.where(labels == 1, p, 1.0 - p), _SMALLEST, 1.0 - _SMALLEST)
    return float(-np.log(happened).mean())


def reliability(
    labels: NDArray[Any], probabilities: NDArray[Any], num_bins: int = 10
) -> list[ReliabilityBin]:
    """Predicted and observed rates in bins of equal width, without empty bins.

    Bin i holds probabilities from i / n to below (i + 1) / n, the last one also 1.
    Arguments and errors as `log_loss`.
    """
    labels, p = _checked(labels, probabilities)
    place = np.minimum((p * num_bins).astype(np.int64), num_bins - 1)
    count = np.bincount(place, minlength=num_bins)
    predicted = np.bincount(place, weights=p, minlength=num_bins)
    observed = np.bincount(place, weights=labels, minlength=num_bins)
    return [
        ReliabilityBin(
            low=i / num_bins,
            high=(i + 1) / num_bins,
            count=int(count[i]),
            predicted=float(predicted[i] / count[i]),
            observed=float(observed[i] / count[i]),
        )
        for i in np.flatnonzero(count).tolist()
    ]


def expected_calibration_error(bins: list[ReliabilityBin]) -> float:
    """`sum(count / n * |observed - predicted|)` over the bins; NaN without any."""
    n = sum(each.count for each in bins)
    gaps = (each.count * abs(each.observed - each.predicted) for each in bins)
    return sum(gaps) / n if n else float("nan")


def _checked(
    labels: NDArray[Any], probabilities: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    labels, p = label_pair(labels, probabilities)
    wrong = (p < 0) | (p > 1) | ((labels != 0) & (labels != 1))
    if wrong.any():
        place = int(wrong.argmax())
        raise InputError(
            "pointwise-values",
            "Labels must be 0 or 1 and probabilities from 0 to 1. Received: label"
            f" {labels[place]} with probability {p[place]} at place {place}. Turn"
            " logits into probabilities with `sigmoid` first.",
        )
    return labels, p

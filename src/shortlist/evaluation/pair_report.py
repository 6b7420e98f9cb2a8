"""Metrics of the held-out pairs whose user and item are known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from shortlist.data.schema import Schema
from shortlist.data.store.dataset import Part
from shortlist.evaluation.metrics.pointwise import auc, mae, rmse, user_auc
from shortlist.evaluation.metrics.probabilities import (
    expected_calibration_error,
    log_loss,
    reliability,
    sigmoid,
)

if TYPE_CHECKING:
    from shortlist.models.pipeline import Pipeline


@dataclasses.dataclass(frozen=True)
class PairReport:
    """Metrics of pair scores.

    Args:
        metrics: `pairs` (their number), `auc`, `auc_per_user`, `auc_users`; by
            objective `rmse` and `mae`, or `log_loss` and `calibration_error`.
        heads: metrics by head of a multi-task ranker; see `head_metrics`.
        reliability: bins of predicted probabilities, with objective `binary`.
        notes: why a metric is missing.
    """

    metrics: dict[str, float | int] = dataclasses.field(default_factory=dict)
    heads: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    reliability: list[dict[str, float]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


def pair_report(
    pipeline: Pipeline, events: Part, objective: str | None, known: tuple[str, ...]
) -> PairReport:
    """Measures pair scores against the labels of a held-out part.

    Args:
        pipeline: what scores pairs.
        events: of the held-out part.
        objective: `explicit`, `binary` or `None`: what the scores are.
        known: parts whose events are known.
    """
    schema = pipeline.dataset.schema
    pairs = events.take((events.user_index > 0) & (events.item_index > 0))
    if schema.label is None or not len(pairs):
        return PairReport()
    scores = pipeline.score_pairs(pairs.user_index, pairs.item_index, known)
    outputs = pipeline.score_heads(pairs.user_index, pairs.item_index, known)
    positive = pairs.label >= schema.positive_from
    by_user = user_auc(pairs.user_index, positive, scores)
    measured: dict[str, float | int] = {
        "pairs": len(pairs),
        "auc": auc(positive, scores),
        "auc_per_user": by_user.mean,
        "auc_users": by_user.num_users,
    }
    report = PairReport(measured, head_metrics(outputs, pairs, schema))
    if math.isnan(measured["auc"]):
        kind = "positives" if positive.all() else "negatives"
        report.notes.append(
            f"No AUC: all {len(pairs):,} known pairs are {kind} (positive_from ="
            f" {schema.positive_from:g})."
        )
    if objective == "explicit":
        measured.update(_errors(pairs.label, scores, schema))
    elif objective == "binary" and not math.isnan(measured["auc"]):
        probabilities = sigmoid(scores)
        bins = reliability(positive, probabilities)
        measured["log_loss"] = log_loss(positive, probabilities)
        measured["calibration_error"] = expected_calibration_error(bins)
        report.reliability.extend(dataclasses.asdict(each) for each in bins)
    for name in [name for name, value in measured.items() if math.isnan(value)]:
        del measured[name]
    return report


def head_metrics(
    outputs: Mapping[str, tuple[str, np.ndarray]], pairs: Part, schema: Schema
) -> dict[str, dict[str, float]]:
    """RMSE and MAE of explicit heads, AUC of all others.

    Args:
        outputs: objective and output `(n,)` of each head.
        pairs: the held-out events that were scored, `n`.
        schema: the limits of labels, which predicted labels are clipped to, and which
            labels are positive.

    Returns: metrics by head; an AUC of events of one class is left out.
    """
    positive = pairs.label >= schema.positive_from
    measured = {}
    for name, (objective, scores) in outputs.items():
        if objective == "explicit":
            found = _errors(pairs.label, scores, schema)
        else:
            found = {"auc": auc(positive, scores)}
        measured[name] = {k: v for k, v in found.items() if not math.isnan(v)}
    return measured


def _errors(label: np.ndarray, scores: np.ndarray, schema: Schema) -> dict[str, float]:
    """RMSE and MAE of predicted labels, clipped to the limits of labels."""
    low = -math.inf if schema.label_min is None else schema.label_min
    high = math.inf if schema.label_max is None else schema.label_max
    clipped = scores.clip(low, high)
    return {"rmse": rmse(label, clipped), "mae": mae(label, clipped)}

"""Metrics of the held-out pairs whose user and item are known."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from shortlist.data.store.dataset import Part
from shortlist.evaluation.metrics.pointwise import auc, mae, rmse, user_auc
from shortlist.evaluation.metrics.probabilities import (
    expected_calibration_error,
    log_loss,
    reliability,
    sigmoid,
)

if TYPE_CHECKING:
    import numpy as np

    from shortlist.evaluation.report import Recommends


@dataclasses.dataclass(frozen=True)
class PairReport:
    """What pair scores are worth.

    Args:
        metrics: `pairs` (their number), `auc`, `auc_per_user`, `auc_users`; by
            objective `rmse` and `mae`, or `log_loss` and `calibration_error`.
        reliability: bins of predicted probabilities, with objective `binary`.
        notes: why a metric is missing.
    """

    metrics: dict[str, float | int] = dataclasses.field(default_factory=dict)
    reliability: list[dict[str, float]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


def pair_report(
    pipeline: Recommends, events: Part, objective: str | None, known: tuple[str, ...]
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
    positive = pairs.label >= schema.positive_from
    by_user = user_auc(pairs.user_index, positive, scores)
    measured: dict[str, float | int] = {
        "pairs": len(pairs),
        "auc": auc(positive, scores),
        "auc_per_user": by_user.mean,
        "auc_users": by_user.num_users,
    }
    report = PairReport(measured)
    if math.isnan(measured["auc"]):
        kind = "positives" if positive.all() else "negatives"
        report.notes.append(
            f"No AUC: all {len(pairs):,} known pairs are {kind} (positive_from ="
            f" {schema.positive_from:g})."
        )
    if objective == "explicit":
        _add_errors(measured, pairs.label, scores, schema)
    elif objective == "binary" and not math.isnan(measured["auc"]):
        probabilities = sigmoid(scores)
        bins = reliability(positive, probabilities)
        measured["log_loss"] = log_loss(positive, probabilities)
        measured["calibration_error"] = expected_calibration_error(bins)
        report.reliability.extend(dataclasses.asdict(each) for each in bins)
    for name in [name for name, value in measured.items() if math.isnan(value)]:
        del measured[name]
    return report


def _add_errors(
    measured: dict[str, float | int], label: np.ndarray, scores: np.ndarray, schema: Any
) -> None:
    low = -math.inf if schema.label_min is None else schema.label_min
    high = math.inf if schema.label_max is None else schema.label_max
    clipped = scores.clip(low, high)
    measured["rmse"] = rmse(label, clipped)
    measured["mae"] = mae(label, clipped)

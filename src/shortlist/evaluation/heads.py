"""What each head of a multi-task ranker scores on held-out pairs.

Knows scores and labels by head; knows no model.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from shortlist.data.schema import Schema
from shortlist.data.store.dataset import Part
from shortlist.evaluation.metrics.pointwise import auc, mae, rmse


def head_metrics(
    outputs: Mapping[str, tuple[str, np.ndarray]], pairs: Part, schema: Schema
) -> dict[str, dict[str, float]]:
    """RMSE and MAE of explicit heads, AUC of all others.

    Args:
        outputs: objective and output `(n,)` of each head.
        pairs: the held-out events that were scored, `n`.
        schema: tells limits of labels and which are positive. Predicted labels are
            clipped to the limits.

    Returns: metrics by head; an AUC of events of one class is left out.
    """
    low = -np.inf if schema.label_min is None else schema.label_min
    high = np.inf if schema.label_max is None else schema.label_max
    positive = pairs.label >= schema.positive_from
    measured = {}
    for name, (objective, scores) in outputs.items():
        if objective == "explicit":
            clipped = np.clip(scores, low, high)
            found = {
                "rmse": rmse(pairs.label, clipped),
                "mae": mae(pairs.label, clipped),
            }
        else:
            found = {"auc": auc(positive, scores)}
        measured[name] = {k: v for k, v in found.items() if not np.isnan(v)}
    return measured

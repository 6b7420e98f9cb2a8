"""Metrics of heads against formulas."""

from __future__ import annotations

import numpy as np
import pytest

from shortlist.data import Part, Schema
from shortlist.evaluation.pair_report import head_metrics

SCHEMA = Schema(
    user_id="u",
    item_id="i",
    label="r",
    label_kind="explicit",
    positive_from=4.0,
    label_min=1.0,
    label_max=5.0,
)


def part(label: list[float]) -> Part:
    rows = np.arange(1, len(label) + 1, dtype=np.int32)
    return Part(rows, rows, rows.astype(np.int64), np.array(label, np.float32))


def test_explicit_heads_have_errors_and_the_others_an_auc() -> None:
    outputs = {
        "rating": ("explicit", np.array([9.0, 2.0, 1.0])),
        "click": ("binary", np.array([0.5, -1.0, 0.7])),
        "list": ("listwise", np.array([3.0, 1.0, 2.0])),
    }
    found = head_metrics(outputs, part([5.0, 4.0, 1.0]), SCHEMA)
    # 9 is clipped to 5: errors 0, 2, 0.
    assert found["rating"]["rmse"] == pytest.approx(np.sqrt(4 / 3))
    assert found["rating"]["mae"] == pytest.approx(2 / 3)
    # Pairs (positive, negative): (0, 2) and (1, 2).
    assert found["click"] == {"auc": 0.0}
    assert found["list"] == {"auc": 0.5}


def test_an_auc_of_one_class_is_left_out() -> None:
    outputs = {"click": ("binary", np.array([0.5, -1.0]))}
    assert head_metrics(outputs, part([5.0, 4.0]), SCHEMA) == {"click": {}}

"""AUC by counting every pair, RMSE and MAE by their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.errors import InputError
from shortlist.evaluation.metrics.pointwise import auc, mae, rmse, user_auc

SCORED = st.lists(
    st.tuples(st.integers(0, 3), st.booleans(), st.integers(-3, 3)), max_size=25
)


def counted_auc(labels: list[bool], scores: list[float]) -> float:
    ups = [s for s, label in zip(scores, labels, strict=True) if label]
    downs = [s for s, label in zip(scores, labels, strict=True) if not label]
    wins = sum((u > d) + 0.5 * (u == d) for u in ups for d in downs)
    return wins / (len(ups) * len(downs)) if ups and downs else math.nan


@settings(deadline=None)
@given(rows=SCORED)
def test_auc_equals_the_share_of_pairs_in_order(rows: list) -> None:
    labels, scores = [row[1] for row in rows], [row[2] for row in rows]
    expected = counted_auc(labels, scores)
    found = auc(np.array(labels), np.array(scores))
    assert found == pytest.approx(expected, nan_ok=True)


@settings(deadline=None)
@given(rows=SCORED)
def test_user_auc_is_the_mean_over_users_that_have_one(rows: list) -> None:
    values = []
    for user in sorted({row[0] for row in rows}):
        own = [row for row in rows if row[0] == user]
        values.append(counted_auc([row[1] for row in own], [row[2] for row in own]))
    defined = [value for value in values if not math.isnan(value)]
    users, labels, scores = (np.array([row[i] for row in rows]) for i in range(3))
    report = user_auc(users, labels, scores)
    mean = sum(defined) / len(defined) if defined else math.nan
    assert report.mean == pytest.approx(mean, nan_ok=True)
    assert report.num_users == len(defined)
    assert report.num_undefined == len(values) - len(defined)


def test_auc_of_a_perfect_and_a_reversed_order() -> None:
    labels = np.array([0, 0, 1, 1])
    assert auc(labels, np.array([0.1, 0.2, 0.3, 0.4])) == 1.0
    assert auc(labels, np.array([0.4, 0.3, 0.2, 0.1])) == 0.0
    assert auc(labels, np.ones(4)) == 0.5


def test_auc_of_a_textbook_example() -> None:
    # Positives 0.8 and 0.4 against 0.6 and 0.2: three of four pairs in order.
    assert auc(np.array([1, 0, 1, 0]), np.array([0.8, 0.6, 0.4, 0.2])) == 0.75


def test_one_class_has_no_auc() -> None:
    assert math.isnan(auc(np.ones(3), np.arange(3)))
    report = user_auc(np.array([5, 5, 9]), np.array([1, 0, 1]), np.array([2, 1, 0]))
    assert (report.mean, report.num_users, report.num_undefined) == (1.0, 1, 1)


def test_errors_of_predictions_by_hand() -> None:
    labels, predictions = np.array([1.0, 2.0, 5.0]), np.array([2.0, 2.0, 3.0])
    assert rmse(labels, predictions) == pytest.approx(math.sqrt(5 / 3))
    assert mae(labels, predictions) == pytest.approx(1.0)


def test_float32_labels_are_averaged_in_double_precision() -> None:
    labels = np.full(1_000_000, 1 / 3, np.float32)
    assert mae(labels, np.zeros(1_000_000, np.float32)) == pytest.approx(
        1 / 3, rel=1e-7
    )


def test_errors_of_nothing_are_undefined() -> None:
    assert math.isnan(rmse(np.array([]), np.array([])))
    assert math.isnan(mae(np.array([]), np.array([])))


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([1, 0], [1.0], r"shapes \(2,\) and \(1,\)"),
        ([1, 0], [1.0, math.nan], "Scores must be finite.*nan at place 1"),
        ([math.inf, 0], [1.0, 2.0], "Labels must be finite.*inf at place 0"),
        ([1, 3], [1.0, 2.0], "0 or 1. Received: 3"),
    ],
)
def test_values_without_meaning_are_refused(
    labels: list, scores: list, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        auc(np.array(labels), np.array(scores))
    assert caught.value.code == "pointwise-values"


def test_users_of_another_length_are_refused() -> None:
    with pytest.raises(InputError, match="one user per label"):
        user_auc(np.array([1]), np.array([1, 0]), np.array([1, 0]))

"""Implicit events: the threshold, the labels and the confidence, one by one."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.data import Schema
from shortlist.data.read.implicit import implicit_events

LABELS = st.lists(st.floats(-5, 1000, width=32), max_size=30).map(
    lambda values: pl.Series("plays", values, dtype=pl.Float32)
)


def schema(**fields: object) -> Schema:
    return Schema(**{"user_id": "u", "item_id": "i", "label": "plays", **fields})


def test_events_below_the_threshold_are_left_out_and_the_others_count_one():
    labels = pl.Series("plays", [0.0, 2.0, 2.5, -1.0], dtype=pl.Float32)
    found = implicit_events(labels, schema(positive_from=2.0))
    assert found.keep.to_list() == [False, True, True, False]
    assert found.labels.to_list() == [1.0] * 4
    assert found.labels.dtype == pl.Float32
    assert found.weights is None


def test_threshold_that_no_float32_holds_exactly_is_reached_by_itself():
    labels = pl.Series([4.2], dtype=pl.Float32)
    assert implicit_events(labels, schema(positive_from=4.2)).keep.to_list() == [True]


@pytest.mark.parametrize(
    ("weight", "formula"),
    [
        ("linear", lambda r, alpha: 1 + alpha * r),
        ("log", lambda r, alpha: 1 + alpha * math.log(1 + r)),
    ],
)
@pytest.mark.parametrize("alpha", [1.0, 40.0])
def test_confidence_is_that_of_hu_koren_and_volinsky(weight, formula, alpha):
    @settings(max_examples=40, derandomize=True)
    @given(LABELS)
    def check(labels):
        one = schema(weight=weight, weight_alpha=alpha, positive_from=0.5)
        keep, ones, weights = implicit_events(labels, one)
        assert keep.to_list() == [r >= 0.5 for r in labels]
        assert len(ones) == len(labels) and weights.dtype == pl.Float32
        kept = [formula(r, alpha) for r in labels if r >= 0.5]
        np.testing.assert_allclose(weights.filter(keep), kept, rtol=1e-6)
        assert (weights.filter(~keep) == 0).all()

    check()


def test_weight_stays_finite():
    labels = pl.Series([3e38], dtype=pl.Float32)
    weights = implicit_events(labels, schema(weight="linear", weight_alpha=10.0))[2]
    assert weights.is_finite().all()


@pytest.mark.parametrize(
    "fields", [{"label_kind": "explicit"}, {"label_kind": "binary"}, {"label": None}]
)
def test_other_logs_keep_their_events_and_labels(fields):
    labels = pl.Series([0.0, 0.5], dtype=pl.Float32)
    keep, same, weights = implicit_events(labels, schema(**fields))
    assert keep.to_list() == [True, True]
    assert same.to_list() == [0.0, 0.5]
    assert weights is None


def test_log_may_pass_in_chunks():
    labels = pl.Series([0.0, 3.0, 1.0, 7.0], dtype=pl.Float32)
    one = schema(weight="log")
    whole = implicit_events(labels, one)
    parts = [implicit_events(labels[:1], one), implicit_events(labels[1:], one)]
    for column, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        assert pl.concat(pieces).to_list() == column.to_list()

"""Log loss and calibration against values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shortlist.errors import InputError
from shortlist.evaluation.metrics.probabilities import (
    expected_calibration_error,
    log_loss,
    reliability,
    sigmoid,
)


def test_log_loss_by_hand() -> None:
    expected = -(math.log(0.8) + math.log(0.4)) / 2
    assert log_loss([1, 0], [0.8, 0.6]) == pytest.approx(expected)
    assert log_loss([1], [0.0]) == pytest.approx(-math.log(1e-15))
    assert math.isnan(log_loss([], []))


def test_bins_and_their_mean_gap() -> None:
    bins = reliability([0, 1, 1, 1], [0.1, 0.3, 0.75, 1.0], num_bins=2)
    assert [(b.low, b.high, b.count) for b in bins] == [(0.0, 0.5, 2), (0.5, 1.0, 2)]
    assert [b.predicted for b in bins] == pytest.approx([0.2, 0.875])
    assert [b.observed for b in bins] == [0.5, 1.0]
    # Half of the pairs are off by 0.3, half by 0.125.
    assert expected_calibration_error(bins) == pytest.approx(0.2125)
    assert math.isnan(expected_calibration_error([]))


def test_sigmoid_does_not_overflow() -> None:
    assert sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(("label", "probability"), [(1, 1.5), (1, -0.1), (2, 0.5)])
def test_values_out_of_range_are_refused(label: float, probability: float) -> None:
    with pytest.raises(InputError, match="probabilities from 0 to 1") as caught:
        log_loss([label], [probability])
    assert caught.value.code == "pointwise-values"

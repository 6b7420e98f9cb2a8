"""The retrieval losses against NumPy twins, one row and one candidate at a time."""

from __future__ import annotations

from typing import Any, get_args

import keras
import numpy as np
import pytest
from keras import ops

from shortlist.models import losses
from shortlist.models.options import LossName

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(4, 7)).astype(np.float32)
ITEMS = np.array([3, 1, 3, 2])
CANDIDATES = np.array([3, 1, 3, 2, 3, 5, 1])  # the batch's own, then drawn ones
LABELS = np.eye(4, 7, dtype=np.float32)
PROBABILITY = np.array([0.4, 0.1, 0.4, 0.05, 0.4, 0.02, 0.1], np.float32)


def twin(name: str, probability: Any, hard: int | None) -> np.ndarray:
    found = []
    for row, own in enumerate(ITEMS):
        others = [j for j, item in enumerate(CANDIDATES) if item != own]
        chance = np.ones(7) if probability is None else probability.astype(float)
        scores = LOGITS[row].astype(float)
        if name == "sampled_softmax":
            scores = scores - np.log(chance)
        if hard is not None:
            others = sorted(others, key=lambda j: -scores[j])[:hard]
            chance = np.ones(7)
        if name == "sampled_softmax":
            total = sum(np.exp(scores[j]) for j in [row, *others])
            found.append(np.log(total) - scores[row])
            continue
        ahead = [scores[row] - scores[j] for j in others]
        pairs = [
            np.log1p(np.exp(-a)) if name == "bpr" else max(0.0, 0.7 - a) for a in ahead
        ]
        found.append(np.average(pairs, weights=[1 / chance[j] for j in others]))
    return np.array(found)


def loss_of(name: Any, probability: Any, hard: int | None) -> np.ndarray:
    hits = losses.accidental_hits(
        ops.convert_to_tensor(LABELS),
        ops.convert_to_tensor(ITEMS),
        ops.convert_to_tensor(CANDIDATES),
    )
    found = losses.retrieval_loss(
        name,
        ops.convert_to_tensor(LOGITS),
        ops.convert_to_tensor(LABELS),
        hits,
        None if probability is None else ops.convert_to_tensor(probability),
        hard_negatives=hard,
        margin=0.7,
    )
    return np.asarray(ops.convert_to_numpy(found))


@pytest.mark.parametrize("name", get_args(LossName))
@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize("hard", [None, 2, 100])
def test_losses_equal_their_twins(name: str, corrected: bool, hard: int | None) -> None:
    probability = PROBABILITY if corrected else None
    expected = twin(name, probability, hard)
    np.testing.assert_allclose(loss_of(name, probability, hard), expected, rtol=1e-5)


def test_a_popular_item_has_a_lower_logit() -> None:
    logits = ops.convert_to_tensor(np.zeros((1, 2), np.float32))
    found = losses.corrected(logits, ops.convert_to_tensor(np.float32([0.5, 0.01])))
    expected = [[-np.log(0.5), -np.log(0.01)]]
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-5)


def test_the_mixture_is_the_share_of_both_sources() -> None:
    found = losses.mixture_probability(
        ops.convert_to_tensor(np.float32([0.4, 0.0])),
        ops.convert_to_tensor(np.float32(0.1)),
        30,
        10,
    )
    expected = [0.75 * 0.4 + 0.25 * 0.1, 0.25 * 0.1]
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-6)


def test_correction_brings_sampled_scores_closer_to_the_full_softmax() -> None:
    """One user's scores of six items, learned by both from the same events."""
    events = np.array([0.3, 0.25, 0.2, 0.15, 0.07, 0.03])  # what this user takes
    share = np.array([0.5, 0.2, 0.1, 0.1, 0.05, 0.05])  # what everybody takes
    rng = np.random.default_rng(1)

    def learned(correct: bool) -> np.ndarray:
        scores, mean = np.zeros(6, np.float32), np.zeros(6)
        for step in range(3000):
            own = rng.choice(6, 1, p=events)
            drawn = np.concatenate([own, rng.choice(6, 40, p=share)])
            labels = np.eye(1, 41)
            hits = (drawn[None] == own[:, None]) - labels
            logits = scores[drawn][None] - (np.log(share[drawn]) if correct else 0)
            logits = logits - hits * losses.REMOVED
            chance = np.exp(logits - logits.max())
            gradient = (chance / chance.sum() - labels)[0]
            np.add.at(scores, drawn, -0.05 * gradient)
            if step >= 1000:
                mean += scores
        chance = np.exp(mean / 2000)
        return chance / chance.sum()

    corrected, plain = learned(True), learned(False)
    assert np.abs(corrected - events).sum() < 0.5 * np.abs(plain - events).sum()


def test_a_mean_of_weights_zero_is_zero() -> None:
    found = losses.weighted_mean(ops.ones((3,)), ops.zeros((3,)))
    assert float(keras.ops.convert_to_numpy(found)) == 0.0

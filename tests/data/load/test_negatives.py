"""Items drawn beside an event: never its own, and as often as the formula says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.data import Negatives
from shortlist.data.load.negatives import KINDS, NegativeSampler
from shortlist.errors import InputError

COUNTS = np.array([0, 40, 0, 1, 7, 300, 2, 0, 15])
CANDIDATES = [1, 3, 4, 5, 6, 8]


def chances(kind: str, own: int, power: float = 0.75) -> np.ndarray:
    """The formula: counts to the power, without the own item, of their sum."""
    weights = np.where(COUNTS > 0, COUNTS**power, 0.0)
    if kind == "uniform":
        weights = np.where(COUNTS > 0, 1.0, 0.0)
    weights[own] = 0
    return weights / weights.sum()


def check_frequencies(drawn: np.ndarray, expected: np.ndarray) -> None:
    found = np.bincount(drawn, minlength=len(expected)) / len(drawn)
    spread = np.sqrt(expected * (1 - expected) / len(drawn))
    assert (np.abs(found - expected) <= 5 * spread).all()


@pytest.mark.parametrize("own", [0, 1, 2, 4, 5, 8])
@pytest.mark.parametrize(
    "negatives",
    [
        Negatives("uniform", 20_000),
        *(Negatives("popularity", 20_000, power) for power in (0.0, 0.75, 1.0, 2.0)),
    ],
    ids=str,
)
def test_others_are_drawn_as_often_as_the_formula_says(
    negatives: Negatives, own: int
) -> None:
    sampler = NegativeSampler(negatives, COUNTS)
    (drawn,) = sampler.others(np.array([own]), np.random.default_rng(own))
    expected = chances(negatives.kind, own, negatives.power)
    assert drawn.dtype == np.int32 and own not in drawn
    check_frequencies(drawn, expected)
    everything = np.arange(len(COUNTS))
    found = sampler.probability(everything[None], np.array([own]))
    assert found.dtype == np.float64 and found.shape == (1, len(COUNTS))
    np.testing.assert_allclose(found[0], expected, rtol=1e-9)


def test_every_event_of_a_batch_has_its_own_chances() -> None:
    sampler = NegativeSampler(Negatives("popularity", 5_000), COUNTS)
    own = np.array([5, 1, 5, 3])
    drawn = sampler.others(own, np.random.default_rng(0))
    assert drawn.shape == (4, 5_000)
    found = sampler.probability(drawn, own)
    for row, item in enumerate(own.tolist()):
        expected = chances("popularity", item)
        check_frequencies(drawn[row], expected)
        np.testing.assert_allclose(found[row], expected[drawn[row]], rtol=1e-9)
    first = sampler.probability(drawn[:, 0], own)
    np.testing.assert_array_equal(first, found[:, 0])


def test_items_of_a_batch_are_drawn_uniformly() -> None:
    sampler = NegativeSampler(Negatives("mixed", 30_000), COUNTS)
    drawn = sampler.shared(np.random.default_rng(0))
    assert drawn.dtype == np.int32 and drawn.shape == (30_000,)
    check_frequencies(drawn, chances("uniform", 0))
    found = sampler.probability(np.arange(len(COUNTS)))
    np.testing.assert_allclose(found, chances("uniform", 0))


@settings(derandomize=True, deadline=None)
@given(
    counts=st.lists(st.integers(0, 10**9), min_size=2, max_size=40),
    power=st.floats(0, 3),
    kind=st.sampled_from(["uniform", "popularity"]),
)
def test_what_is_drawn_occurs_and_is_another_item(
    counts: list[int], power: float, kind: str
) -> None:
    if sum(count > 0 for count in counts) < 2:
        return
    sampler = NegativeSampler(Negatives(kind, 20, power), np.array(counts))
    own = np.arange(len(counts))
    drawn = sampler.others(own, np.random.default_rng(0))
    assert (drawn != own[:, None]).all()
    assert (np.array(counts)[drawn] > 0).all()
    assert (sampler.probability(drawn, own) > 0).all()
    total = sampler.probability(np.tile(own, (len(own), 1)), own).sum(1)
    np.testing.assert_allclose(total, 1, rtol=1e-9)


def test_a_uniform_draw_is_a_place_among_the_other_items() -> None:
    generator, twin = np.random.default_rng(3), np.random.default_rng(3)
    own = np.array([4, 2, 8])
    found = NegativeSampler(Negatives("uniform", 6), COUNTS).others(own, generator)
    for row, item in enumerate(own.tolist()):
        rest = [candidate for candidate in CANDIDATES if candidate != item]
        places = twin.integers(0, len(rest), 6)
        assert found[row].tolist() == [rest[place] for place in places]


def test_two_items_are_needed() -> None:
    with pytest.raises(InputError, match="at least 2 items") as caught:
        NegativeSampler(Negatives("uniform", 1), np.array([0, 3, 0]))
    assert caught.value.code == "log-too-small"


def test_rows_of_an_event() -> None:
    made = {
        kind: Negatives(kind, 0 if kind in ("in_batch", "all") else 3) for kind in KINDS
    }
    rows = {kind: negatives.rows_per_event for kind, negatives in made.items()}
    assert rows == {"uniform": 4, "popularity": 4, "in_batch": 1, "mixed": 1, "all": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("unifrom", 3), "Received: 'unifrom'. Did you mean 'uniform'?"),
        (("uniform", 0), "at least 1. Received: 0"),
        (("mixed", 2.5), "at least 1. Received: 2.5"),
        (("popularity", -1), "at least 1. Received: -1"),
        (("in_batch", 4), "none is sampled. Received: 4"),
        (("popularity", 1, -0.1), "from 0 to 10. Received: -0.1"),
        (("popularity", 1, float("nan")), "from 0 to 10. Received: nan"),
    ],
)
def test_settings_out_of_range_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Negatives(*arguments)
    assert caught.value.code == "invalid-negatives"

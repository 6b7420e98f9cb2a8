"""Significance tests of two runs, on the users that both were evaluated on.

Works on differences per user and p-values.

References:
    Fisher, 1935, "The Design of Experiments", section 21 (the sign-flip test)
    Smucker, Allan and Carterette, 2007, "A comparison of statistical significance tests
        for information retrieval evaluation", https://doi.org/10.1145/1321440.1321528
    Phipson and Smyth, 2010, "Permutation p-values should never be zero",
        https://doi.org/10.2202/1544-6115.1585 (one more in both counts)
    Holm, 1979, "A simple sequentially rejective multiple test procedure",
        https://www.jstor.org/stable/4615733
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shortlist.errors import InputError

EXACT_UP_TO = 14
"""Users that differ, up to which all flips are tried: 16,384."""
FLIPS = 9999
_EQUAL = 1e-9  # of the sum of all differences: sums of other order are the same sum


@dataclass(frozen=True, kw_only=True)
class SignFlip:
    """What a sign-flip test found."""

    p: float
    """Share of the flips with a mean at least as far from 0; above 0, at most 1."""
    exact: bool
    """All flips were tried, not a sample of them."""


def sign_flip_test(
    differences: NDArray[np.float64], *, flips: int = FLIPS, seed: int = 0
) -> SignFlip:
    """Tests whether paired differences come from two equally good models.

    If they do, each user's difference might as well have the other sign. Both sides
    count. A user without a difference changes nothing and is left out first, so few
    users that differ are tested exactly, however many there are.

    Args:
        differences: `(n,)` finite float64, one per user.
        flips: random flips tried where there are too many to try all.
        seed: seed of the random flips.

    Raises:
        InputError: `flips` below 1 (`flips-out-of-range`).
    """
    if flips < 1:
        raise InputError(
            "flips-out-of-range",
            f"`flips` must be at least 1. Received: {flips}. Try {FLIPS}.",
        )
    differences = differences[differences != 0]
    exact = len(differences) <= EXACT_UP_TO
    total = float(differences.sum())
    limit = abs(total) - _EQUAL * float(np.abs(differences).sum())
    flipped = (
        _all_choices(len(differences)) @ differences
        if exact
        else _random_sums(differences, flips, seed)
    )
    # Of a flip, the sum is the total without twice what is flipped.
    reached = int(np.count_nonzero(np.abs(total - 2.0 * flipped) >= limit))
    if exact:
        return SignFlip(p=reached / 2 ** len(differences), exact=True)
    return SignFlip(p=(reached + 1) / (flips + 1), exact=False)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for being several: step by step, from the smallest on.

    The chance that any true "no difference" falls under a level is kept to that level.

    Args:
        p_values: of the tests, in any order.

    Returns: the corrected ones, in the same order, at most 1.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for done, place in enumerate(order):
        highest = max(highest, (len(order) - done) * p_values[place])
        corrected[place] = min(highest, 1.0)
    return corrected


def _all_choices(n: int) -> NDArray[np.float64]:
    """Every choice among n users as rows of 0 and 1, `(2 ** n, n)`."""
    numbers = np.arange(2**n)[:, None]
    return (numbers >> np.arange(n) & 1).astype(np.float64)


def _random_sums(
    differences: NDArray[np.float64], flips: int, seed: int
) -> NDArray[np.float64]:
    """Sums of the differences of users of whom each is chosen or not, `(flips,)`.

    Of every 8 users the 256 sums are made once, and then looked up by random bytes.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    groups = np.zeros((-(-len(differences) // 8), 8))
    groups.ravel()[: len(differences)] = differences
    choices = _all_choices(8).T
    sums = np.zeros(flips)
    for group in groups:
        chosen = generator.integers(0, 256, flips, dtype=np.uint8)
        sums += (group @ choices)[chosen]
    return sums

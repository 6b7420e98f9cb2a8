"""Sampled negatives: random items for a model to compare the item of an event with.

Knows counts of items; knows nothing of events, batches or models.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import numpy as np

from shortlist.errors import InputError, did_you_mean

Kind = Literal["uniform", "popularity", "in_batch", "mixed", "all"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# The weights of all items sum to about this: as precise as float64, and exact sums.
_TOTAL = 2**53


@dataclasses.dataclass(frozen=True)
class Negatives:
    """Which negatives a batch gets.

    Args:
        kind: `uniform` and `popularity` add `count` examples of label 0 after every
            event, each with another item than the event's, sampled uniformly or in
            proportion to its number of interactions to the power of `power`.
            `in_batch` samples nothing: the items of the other events of a batch are
            the negatives, corrected by `sampling_probability`. `mixed` adds to those
            `count` items sampled uniformly for the whole batch. `all` adds every item
            of the catalogue to the batch.
        count: items sampled per event, or per batch with `mixed`; 0 with `in_batch`
            and `all`.
        power: exponent of the counts, for `popularity`; 0 is uniform, 1 proportional.

    Raises:
        InputError: `invalid-negatives`.

    References:
        Mikolov et al. (2013), Distributed Representations of Words and Phrases and
        their Compositionality (the power of 0.75).
        Yang et al. (2020), Mixed Negative Sampling for Learning Two-tower Neural
        Networks in Recommendations.
    """

    kind: Kind
    count: int = 0
    power: float = 0.75

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(
                "invalid-negatives",
                f"`kind` of negatives must be one of {', '.join(KINDS)}. Received:"
                f" {self.kind!r}.{did_you_mean(self.kind, KINDS)}",
            )
        least = 0 if self.kind in ("in_batch", "all") else 1
        if not isinstance(self.count, int) or not least <= self.count <= least * 2**31:
            raise InputError(
                "invalid-negatives",
                f"`count` of {self.kind} negatives must be"
                f" {'at least 1' if least else '0: none is sampled'}. Received:"
                f" {self.count!r}. Use another number or kind.",
            )
        if not 0 <= self.power <= 10:
            raise InputError(
                "invalid-negatives",
                "`power` of negatives must be from 0 to 10. Received:"
                f" {self.power!r}. Leave it out for 0.75.",
            )

    @property
    def rows_per_event(self) -> int:
        """Examples that an event makes, its own included."""
        return 1 + (self.count if self.kind in ("uniform", "popularity") else 0)


class NegativeSampler:
    """Samples negatives among the items that occur.

    Args:
        negatives: what to sample.
        counts: interactions per item row, `(num_items,)`; an item without any is
            never sampled.

    Attributes:
        candidates: the item rows that can be sampled, `(num_candidates,)` int32.

    Raises:
        InputError: `log-too-small` with fewer than two items to sample from.
    """

    def __init__(self, negatives: Negatives, counts: np.ndarray) -> None:
        self.negatives = negatives
        self.candidates = np.flatnonzero(counts > 0).astype(np.int32)
        if len(self.candidates) < 2:
            raise InputError(
                "log-too-small",
                "The parts must hold at least 2 items to sample negatives from."
                f" Received: {len(self.candidates)}. Use more events.",
            )
        # Integer weights: sums are exact, also without the weight of one item.
        weights = np.ones(len(self.candidates), np.int64)
        if negatives.kind == "popularity":
            powers = counts[self.candidates].astype(np.float64) ** negatives.power
            scaled = np.rint(powers / powers.sum() * _TOTAL)
            weights = np.maximum(scaled, 1).astype(np.int64)
        self._ends = np.cumsum(weights)
        self._weights = weights

    def others(self, item: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Samples items for events, never the event's own item.

        Args:
            item: the events' own items, `(n,)`; they need not be candidates.
            generator: source of the randomness.

        Returns:
            `(n, count)` int32, sampled with replacement.
        """
        places, own = self._own(item)
        shape = (len(item), self.negatives.count)
        sampled = generator.integers(0, (self._ends[-1] - own)[:, None], shape)
        # The own item is skipped: a number from its start on moves past its end.
        starts = (self._ends[places] - self._weights[places])[:, None]
        sampled += np.where(sampled >= starts, own[:, None], 0)
        if self.negatives.kind != "popularity":
            return self.candidates[sampled]
        return self.candidates[np.searchsorted(self._ends, sampled, side="right")]

    def shared(self, generator: np.random.Generator) -> np.ndarray:
        """Samples `(count,)` int32 items uniformly, for a whole batch."""
        sampled = generator.integers(0, len(self.candidates), self.negatives.count)
        return self.candidates[sampled]

    def probability(
        self, sampled: np.ndarray, item: np.ndarray | None = None
    ) -> np.ndarray:
        """The chance of each sampled item in one draw.

        Args:
            sampled: `(n,)` or `(n, count)` item rows.
            item: the events' own items, `(n,)`, which are never sampled; none for the
                items of a whole batch.

        Returns:
            float64, of the shape of `sampled`.
        """
        _, weights = self._own(sampled)
        if item is None:
            chance: np.ndarray = weights / self._ends[-1]
            return chance
        _, own = self._own(item)
        # Events last, so that both shapes of `sampled` fit.
        of_event = weights.T / (self._ends[-1] - own)
        return np.where(sampled.T == item, 0.0, of_event).T

    def _own(self, item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions of items among the candidates, and weights; 0 for other items."""
        places = np.searchsorted(self.candidates, item)
        places = np.minimum(places, len(self.candidates) - 1)
        return places, np.where(
            self.candidates[places] == item, self._weights[places], 0
        )

"""Scorers whose items have learned factors, and whose users are folded in.

The factors of a user are computed in closed form from the known items at query time: a
new event changes them, and a new user needs no training. Knows arrays; knows no files.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from shortlist.models.scorers.queries import Queries
from shortlist.models.scorers.scorer import LAST
from shortlist.models.scorers.vectors import VectorScorer, cosines


class FoldedFactors(VectorScorer):
    """The dot product of a user's and an item's factors.

    Users without known items get popularity.

    Attributes:
        item_factors: `(num_items, factors)` float32, 0 for an item never seen.
    """

    item_factors: np.ndarray

    @property
    def item_vectors(self) -> np.ndarray:
        """Factors, popularity and the mark of untrained items: `(num_items, dim)`."""
        return self._item_vectors

    def user_vectors(self, queries: Queries) -> np.ndarray:
        """Folded-in factors `(n, factors + 2)`; the last two choose popularity."""
        known = queries.distinct()
        factors = self.fold_in(known)
        vectors = np.zeros((len(known), factors.shape[1] + 2), np.float32)
        vectors[:, :-2] = factors
        vectors[:, -2] = np.diff(known.offsets) == 0
        vectors[:, -1] = 1.0
        return vectors

    @abstractmethod
    def fold_in(self, known: Queries) -> np.ndarray:
        """User factors `(n, factors)` float64 of distinct known items."""

    def similar(self, row: int) -> np.ndarray:
        """Cosines of the item factors, `(num_items,)` float32."""
        return self._finished(cosines(self.item_factors, row))

    def _set_factors(self, item_factors: np.ndarray, counts: np.ndarray) -> None:
        """Sets the learned factors and counts of the items."""
        self.item_factors = item_factors.astype(np.float32)
        self.item_factors[counts == 0] = 0.0
        self.counts = counts.astype(np.float32)
        self._gram = gram_of(self.item_factors)
        self._num_trained = int(np.count_nonzero(self.counts))
        largest = max(float(self.counts.max(initial=0)), 1.0)
        last = np.where(self.counts > 0, np.float32(0), LAST)
        extra = np.column_stack([self.counts / np.float32(largest), last])
        self._item_vectors = np.hstack([self.item_factors, extra]).astype(np.float32)


def gram_of(vectors: np.ndarray) -> np.ndarray:
    """`vectors.T @ vectors` in float64."""
    wide = vectors.astype(np.float64)
    gram: np.ndarray = wide.T @ wide
    return gram

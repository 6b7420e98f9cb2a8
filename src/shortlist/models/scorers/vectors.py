"""Scorers whose score is a dot product, searched exactly in the native core.

Needs no Keras: a two-tower model is scored here, whoever computes its user vectors.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

import numpy as np

from shortlist import native
from shortlist.data.store.dataset import Dataset
from shortlist.models.scorers.queries import Queries
from shortlist.models.scorers.scorer import Exclusions, Scorer, all_but, blocks

TWO_TOWER = "two_tower"
SMALL_SEARCH = 2**23
"""Numbers in the item vectors up to which one user is searched on one thread."""


class VectorScorer(Scorer):
    """The score is the dot product of a user vector and an item vector.

    A user may have several vectors: the best one gives the score.
    """

    @property
    @abstractmethod
    def item_vectors(self) -> np.ndarray:
        """Vectors `(num_items, dim)` float32 of the items."""

    @abstractmethod
    def user_vectors(self, queries: Queries) -> np.ndarray:
        """Vectors of users, `(n, dim)` or `(n, several, dim)` float32."""

    def score_all(self, queries: Queries) -> np.ndarray:
        """Scores `(n, num_items)` float32 of all item rows."""
        scores: np.ndarray = self.user_vectors(queries) @ self.item_vectors.T
        return self._finished(scores.max(axis=1) if scores.ndim == 3 else scores)

    def top_k(
        self, queries: Queries, k: int, exclude: Exclusions
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k items with the highest scores, without those of all items."""
        return _search(self.user_vectors(queries), self.item_vectors, k, exclude)

    def score(
        self, queries: Queries, positions: np.ndarray, item_index: np.ndarray
    ) -> np.ndarray:
        """Scores `(m,)` float32 of pairs, without those of all items."""
        users, items = self.user_vectors(queries), self.item_vectors
        scores = np.empty(len(positions), np.float32)
        for begin, end in blocks(len(positions), users[:1].size):
            rows = slice(begin, end)
            found = np.einsum(
                "n...d,nd->n...", users[positions[rows]], items[item_index[rows]]
            )
            scores[rows] = found.max(axis=1) if found.ndim == 2 else found
        return self._finished(scores, item_index)


class TwoTowerScorer(VectorScorer):
    """A trained two-tower model. Subclasses say where its vectors come from.

    Items without training events are scored too, by their features. The temperature is
    part of the user vectors.

    Args:
        counts: training events of each item row, `(num_items,)`.
        item_bias: whether the last column of the item vectors is a bias, which is no
            part of their direction.
    """

    kind = TWO_TOWER

    def __init__(self, counts: np.ndarray, *, item_bias: bool = False) -> None:
        self.counts = counts.astype(np.float32)
        self.item_bias = item_bias

    def fit(self, dataset: Dataset, parts: tuple[str, ...] = ("train",)) -> Self:
        """Returns itself: the towers are trained before, batch by batch."""
        return self

    def get_config(self) -> dict[str, Any]:
        """Nothing: the configuration is that of the towers."""
        return {}

    def arrays(self) -> dict[str, np.ndarray]:
        """Nothing: weights and tables are those of the towers."""
        return {}

    def record(self) -> dict[str, Any]:
        """The kind alone."""
        return {"kind": self.kind}

    def towers(self) -> dict[str, Scorer]:
        """Itself."""
        return {self.kind: self}

    def user_blocks(self, num_users: int) -> list[tuple[int, int]]:
        """All users at once: a tower splits them into batches of one size."""
        return [(0, num_users)] if num_users else []

    def score(
        self, queries: Queries, positions: np.ndarray, item_index: np.ndarray
    ) -> np.ndarray:
        """Scores `(m,)` float32 of pairs."""
        if len(queries) == 1:  # one matrix product, without a user vector per pair
            (user,) = self.user_vectors(queries)
            scores: np.ndarray = user @ self.item_vectors[item_index].T
            return self._finished(scores.max(axis=0) if scores.ndim == 2 else scores)
        return super().score(queries, positions, item_index)

    def similar(self, row: int) -> np.ndarray:
        """Cosines of the item vectors without their bias, `(num_items,)` float32."""
        return cosines(self.item_places(), row)

    def nearest(self, row: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k items with the highest cosine with the item at `row`."""
        directions = self._directions
        return _search(directions[row : row + 1], directions, k, all_but(row))

    def item_places(self) -> np.ndarray:
        """Item vectors without their bias."""
        vectors = self.item_vectors
        return vectors[:, :-1] if self.item_bias else vectors

    def _set_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Nothing to take over."""

    def _finished(
        self, scores: np.ndarray, item_index: np.ndarray | slice = slice(None)
    ) -> np.ndarray:
        return scores.astype(np.float32, copy=False)

    @cached_property
    def _directions(self) -> np.ndarray:
        # Computed when first used: a second copy of the vectors that few need.
        places = self.item_places()
        lengths = np.linalg.norm(places, axis=1, keepdims=True)
        directions: np.ndarray = places / np.where(lengths > 0, lengths, 1)
        return directions


def _search(
    users: np.ndarray, items: np.ndarray, k: int, exclude: Exclusions
) -> tuple[np.ndarray, np.ndarray]:
    # A single query gains less from threads than it takes to wake them up.
    threads = 1 if len(users) == 1 and items.size < SMALL_SEARCH else None
    return native.top_k(users, items, k, exclude=exclude, threads=threads)


def cosines(vectors: np.ndarray, row: int) -> np.ndarray:
    """Cosine of every vector with the one at `row`, `(rows,)`; 0 for zeros."""
    lengths = np.linalg.norm(vectors, axis=1)
    directions = vectors / np.where(lengths > 0, lengths, 1)[:, None]
    scores: np.ndarray = directions @ directions[row]
    return scores

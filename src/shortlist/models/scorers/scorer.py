"""The one interface of models that score every item from a user's known items.

A scorer needs NumPy alone, so a server answers with the same class that was trained.
Knows no Keras and no files; `storage.py` writes scorers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from shortlist.data.store.dataset import Dataset
from shortlist.errors import InputError
from shortlist.models.scorers.queries import Queries

LAST = np.float32(-1e9)
"""Score of row 0 and of items without a training event: behind all others, finite."""

CELLS = 2**24
"""Scores held at once: 64 MiB."""


class Scorer(ABC):
    """Scores all items for users, from what they are known to have taken.

    Hyper-parameters are arguments of the constructor. Scores depend neither on the
    order of known items nor on repetitions, but where a class says so.

    Attributes:
        counts: training events of each item row, `(num_items,)`; empty before `fit`.
    """

    kind: ClassVar[str]
    counts: np.ndarray
    predicts_label: ClassVar[bool] = False
    """Whether `predict` says which label a user would give."""
    uses_times: bool = False
    """Whether the times of known items matter."""
    uses_values: bool = False
    """Whether the labels of known items matter."""

    @abstractmethod
    def fit(self, dataset: Dataset, parts: tuple[str, ...] = ("train",)) -> Self:
        """Learns from the interactions of the named parts."""

    @abstractmethod
    def score_all(self, queries: Queries) -> np.ndarray:
        """Scores `(n, num_items)` float32 of all item rows; `LAST` where untrained."""

    @abstractmethod
    def get_config(self) -> dict[str, Any]:
        """The constructor arguments as plain values."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """What was learned, float32 and int32 arrays by name."""

    @classmethod
    def from_arrays(
        cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> Self:
        """The scorer of `get_config()` and `arrays()`.

        Raises:
            InputError: a configuration that no scorer of this kind has.
        """
        try:
            scorer = cls(**config)
        except TypeError as error:
            raise InputError(
                "invalid-argument",
                f"A {cls.kind} scorer must have its own arguments. Received:"
                f" {sorted(config)} ({error}). Train again.",
            ) from error
        scorer._set_arrays(arrays)
        return scorer

    @property
    def num_items(self) -> int:
        """Item rows, row 0 included."""
        return len(self.counts)

    def score(
        self, queries: Queries, positions: np.ndarray, item_index: np.ndarray
    ) -> np.ndarray:
        """Scores `(m,)` float32 of pairs.

        Args:
            queries: the users.
            positions: which query each pair belongs to, `(m,)`.
            item_index: item rows `(m,)`.
        """
        scores = np.empty(len(positions), np.float32)
        order = np.argsort(positions, kind="stable")
        ordered = positions[order]
        for begin, end in blocks(len(queries), self.num_items):
            first, last = np.searchsorted(ordered, (begin, end))
            if first < last:
                rows = order[first:last]
                table = self.score_all(queries.part(begin, end))
                scores[rows] = table[positions[rows] - begin, item_index[rows]]
        return scores

    def predict(
        self, queries: Queries, positions: np.ndarray, item_index: np.ndarray
    ) -> np.ndarray:
        """What a pair comes to: the label where it is predicted, else the score."""
        return self.score(queries, positions, item_index)

    def similar(self, row: int) -> np.ndarray | None:
        """Scores `(num_items,)` of all items beside one; `None` if it knows none."""
        return None

    @abstractmethod
    def _set_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes over what `arrays` returned."""

    def _finished(self, scores: np.ndarray) -> np.ndarray:
        """The scores as float32, with `LAST` where an item was never seen."""
        finished = scores.astype(np.float32, copy=False)
        finished[..., self.counts <= 0] = LAST
        return finished


class VectorScorer(Scorer):
    """A scorer whose score is a dot product, so that the native search serves it."""

    @property
    @abstractmethod
    def item_vectors(self) -> np.ndarray:
        """Vectors `(num_items, dim)` float32 of the items; `LAST` is among them."""

    @abstractmethod
    def user_vectors(self, queries: Queries) -> np.ndarray:
        """Vectors `(n, dim)` float32 of users."""

    def score_all(self, queries: Queries) -> np.ndarray:
        """Scores `(n, num_items)` float32 of all item rows."""
        scores: np.ndarray = self.user_vectors(queries) @ self.item_vectors.T
        return self._finished(scores)

    def score(
        self, queries: Queries, positions: np.ndarray, item_index: np.ndarray
    ) -> np.ndarray:
        """Scores `(m,)` float32 of pairs, without those of all items."""
        users, items = self.user_vectors(queries), self.item_vectors
        scores = np.empty(len(positions), np.float32)
        for begin, end in blocks(len(positions), items.shape[1]):
            rows = slice(begin, end)
            scores[rows] = np.einsum(
                "nd,nd->n", users[positions[rows]], items[item_index[rows]]
            )
        scores[self.counts[item_index] <= 0] = LAST
        return scores


def blocks(num_rows: int, width: int) -> list[tuple[int, int]]:
    """Ranges of rows, of which each holds at most `CELLS` numbers of `width`."""
    step = max(1, CELLS // max(1, width))
    return [(b, min(b + step, num_rows)) for b in range(0, num_rows, step)]


def best_of_queries(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Scores `(n, num_items)` of vectors `(n, dim)`; of several per user, the best."""
    scores: np.ndarray = users @ items.T
    return scores.max(axis=1) if scores.ndim == 3 else scores


def cosines(vectors: np.ndarray, row: int) -> np.ndarray:
    """Cosine of every vector with the one at `row`, `(rows,)`; 0 for zeros."""
    lengths = np.linalg.norm(vectors, axis=1)
    directions = vectors / np.where(lengths > 0, lengths, 1)[:, None]
    scores: np.ndarray = directions @ directions[row]
    return scores


def check_times(dataset: Dataset, options: str) -> None:
    """Raises `InputError` (`times-needed`) for a log without a time column."""
    if dataset.schema.timestamp is None:
        raise InputError(
            "times-needed",
            f"{options} of a scorer need the time of events. Received: a schema without"
            " `timestamp`. Name the column, or leave the option out.",
        )

"""The one interface of retrieval models: users in, a score for every item out.

A scorer needs NumPy alone, so a server answers with the class that was fitted.
`storage.py` saves scorers and loads them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from shortlist.data.store.dataset import Dataset
from shortlist.errors import InputError
from shortlist.models.scorers.queries import Queries
from shortlist.models.scorers.search import best_items

LAST = np.float32(-1e9)
"""Score of row 0 and of items without a training event: below all others, finite."""

CELLS = 2**24
"""Scores held at once: 64 MiB."""

Exclusions = tuple[np.ndarray, np.ndarray]
"""Offsets `(n + 1,)` and item rows that each of n users must not get."""

Shapes = dict[str, tuple[type[np.number], tuple[int, ...]]]
"""Type and shape of each array of a scorer."""


class Scorer(ABC):
    """Scores all items for users, from the items they interacted with.

    Hyper-parameters are arguments of the constructor. Scores do not depend on the
    order of a user's items or on repetitions, unless a class says so.

    To add a model, write a file in this folder whose class has a `kind` of its own,
    and give its options a table in the recipe.

    Attributes:
        counts: training events of each item row, `(num_items,)`; empty before `fit`.
    """

    kind: ClassVar[str]
    counts: np.ndarray
    predicts_label: ClassVar[bool] = False
    """Whether `predict` returns the label that a user would give."""
    scores_strangers: ClassVar[bool] = False
    """Whether it ranks items for users about whom nothing is known."""
    is_seeded: ClassVar[bool] = False
    """Whether the constructor takes the `seed` of the recipe."""
    uses_times: bool = False
    """Whether the times of a user's items matter."""
    uses_values: bool = False
    """Whether the labels of a user's items matter."""

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
            InputError: the class has no such arguments (`invalid-argument`).
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

    def shapes(
        self, arrays: Mapping[str, np.ndarray], num_users: int, num_items: int
    ) -> Shapes:
        """Type and shape that each of `arrays()` but `counts` must have in a bundle.

        Args:
            arrays: arrays from a file, of any shape. A size that only the arrays
                themselves define may be read from them.
            num_users: user rows, row 0 included.
            num_items: item rows, row 0 included.
        """
        return {}

    def value_problem(self, arrays: Mapping[str, np.ndarray]) -> tuple[str, str] | None:
        """What must hold of the numbers in arrays from a file, and what came instead.

        Args:
            arrays: finite arrays with the types and shapes of `shapes`.

        Returns: "must ..." and what was found; `None` if nothing would break an answer.
        """
        return None

    def record(self) -> dict[str, Any]:
        """Kind and configuration, as a blend keeps them of its members."""
        return {"kind": self.kind, "config": self.get_config()}

    def towers(self) -> dict[str, Scorer]:
        """The two-tower models in it by name: they are saved as models of Keras."""
        return {}

    def user_blocks(self, num_users: int) -> list[tuple[int, int]]:
        """Ranges of users to ask about at once."""
        return blocks(num_users, self.num_items)

    def top_k(
        self, queries: Queries, k: int, exclude: Exclusions
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k items with the highest scores of each user, ties by lower row.

        Holds the scores of all items of all `queries` at once, unless the search needs
        only vectors: pass the users of one of `user_blocks`.

        Args:
            queries: the users.
            k: number of items.
            exclude: items that a user must not get, row 0 among them.

        Returns: scores `(n, k)` float32, descending, and item rows `(n, k)` int32; -inf
        and -1 where fewer are left.
        """
        return best_items(self.score_all(queries), k, exclude)

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
        """The label of each pair where the class predicts it, else the score."""
        return self.score(queries, positions, item_index)

    def similar(self, row: int) -> np.ndarray | None:
        """Similarities `(num_items,)` of all items to one; `None` if it has none."""
        return None

    def nearest(self, row: int, k: int) -> tuple[np.ndarray, np.ndarray] | None:
        """The k items most similar to one, as `top_k` of one user; `None` if none."""
        scores = self.similar(row)
        if scores is None:
            return None
        return best_items(scores[None], min(k, len(scores)), all_but(row))

    def item_places(self) -> np.ndarray | None:
        """Item vectors `(num_items, dim)` whose directions say which items are alike.

        `None` for a model without them.
        """
        return None

    @abstractmethod
    def _set_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes over what `arrays` returned."""

    def _finished(
        self, scores: np.ndarray, item_index: np.ndarray | slice = slice(None)
    ) -> np.ndarray:
        """The scores as float32, with `LAST` where an item has no training event.

        Args:
            scores: `(..., m)`.
            item_index: the item of each of the last axis; all by default.
        """
        finished = scores.astype(np.float32, copy=False)
        finished[..., self.counts[item_index] <= 0] = LAST
        return finished


def blocks(num_rows: int, width: int) -> list[tuple[int, int]]:
    """Ranges of rows, each with at most `CELLS` numbers if a row has `width`."""
    step = max(1, CELLS // max(1, width))
    return [(b, min(b + step, num_rows)) for b in range(0, num_rows, step)]


def check_times(dataset: Dataset, options: str) -> None:
    """Raises `InputError` (`times-needed`) for a log without a time column."""
    if dataset.schema.timestamp is None:
        raise InputError(
            "times-needed",
            f"{options} of a scorer need the time of events. Received: a schema without"
            " `timestamp`. Name the column, or leave the option out.",
        )


def all_but(row: int) -> Exclusions:
    """Excludes one item and row 0 from a single list."""
    return np.array([0, 2], np.int64), np.array([0, row], np.int32)

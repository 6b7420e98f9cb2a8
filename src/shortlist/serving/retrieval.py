"""The first stage of a bundle's model: a user tower over vectors, or a scorer.

Knows rows only, and no ranker.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np

from shortlist.bundle.checks import refuse
from shortlist.bundle.contents import (
    BundleContents,
    RetrievalContents,
    ScorerContents,
)
from shortlist.errors import ResourceError
from shortlist.models.scorers.popularity import Popularity
from shortlist.models.scorers.queries import Queries
from shortlist.models.scorers.scorer import (
    VectorScorer,
    best_of_queries,
    blocks,
    cosines,
)
from shortlist.models.scorers.search import best_items
from shortlist.models.scorers.storage import UNUSABLE, restore
from shortlist.native import top_k
from shortlist.serving.encoder import InputEncoder
from shortlist.serving.graph import Graph

_logger = logging.getLogger("shortlist.serving")

Found = list[tuple[np.ndarray, np.ndarray]]  # item rows and scores, best first


@dataclass(frozen=True, kw_only=True, slots=True)
class UserQuery:
    """One user as rows.

    Args:
        user_row: row of the user table; 0 for a user the training did not see.
        feature_row: row of the users' attributes.
        history: item rows, oldest first.
        excluded: item rows that must not be returned; row 0 among them.
        times: milliseconds of the history, int64, or `None` where not known.
        values: labels of the history, float32, NaN where there is none, or `None`.
    """

    user_row: int
    feature_row: int
    history: np.ndarray
    excluded: np.ndarray
    times: np.ndarray | None = None
    values: np.ndarray | None = None


class Retrieval(Protocol):
    """What the model asks of its first stage; `None` where it fails."""

    knows_strangers: bool
    """Whether users of whom nothing is known get an answer of their own."""

    def search(self, queries: Sequence[UserQuery], k: int) -> Found | None:
        """The k best items of each user that are not excluded."""
        ...

    def score(self, query: UserQuery, rows: np.ndarray) -> np.ndarray | None:
        """Scores `(n,)` of given items."""
        ...

    def nearest(self, row: int, k: int) -> tuple[np.ndarray, np.ndarray] | None:
        """The k items most like the one at `row`; `None` if it knows none."""
        ...


class TowerRetrieval:
    """The user tower as a graph, and the item vectors.

    Args:
        part: the two-tower part of the bundle.
        contents: the bundle itself.
    """

    kind: ClassVar[str] = "two_tower"
    knows_strangers = False

    def __init__(self, part: RetrievalContents, contents: BundleContents) -> None:
        self.item_vectors = part.item_vectors
        self._places = part.places
        self._trained = contents.vocabularies["user"].counts > 0
        self._encoder = InputEncoder(part, contents)
        self._graph = Graph(
            part.graph,
            "user_tower",
            width=self._encoder.width,
            output_dim=self.item_vectors.shape[1],
            num_outputs=part.num_queries,
        )

    def search(self, queries: Sequence[UserQuery], k: int) -> Found | None:
        """The k items with the highest dot product of each user."""
        users = self._user_vectors(queries)
        if users is None:
            return None
        excluded = [query.excluded for query in queries]
        return _search_vectors(users, self.item_vectors, k, excluded)

    def score(self, query: UserQuery, rows: np.ndarray) -> np.ndarray | None:
        """Dot products `(n,)` with given items."""
        users = self._user_vectors([query])
        if users is None:
            return None
        scores: np.ndarray = best_of_queries(users, self.item_vectors[rows])[0]
        return scores

    def nearest(self, row: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k items with the highest cosine with the item at `row`."""
        excluded = [np.array([0, row], np.int32)]
        directions = self._directions
        query = directions[row : row + 1]
        return _search_vectors(query, directions, k, excluded)[0]

    def score_all(self, queries: Queries) -> np.ndarray:
        """Dot products `(n, num_items)` float32, as a member of a blend.

        Raises:
            ResourceError: the graph fails; there is no blend without it.
        """
        rows = queries.user_index
        vectors = self._encoder.encode(
            np.where(self._trained[rows], rows, 0),
            rows,
            np.split(queries.items, queries.offsets[1:-1]),
        )
        return best_of_queries(self._graph.run(vectors), self.item_vectors)

    def similar(self, row: int) -> np.ndarray:
        """Cosines of the item vectors without their bias, `(num_items,)` float32."""
        return cosines(self._places, row)

    @cached_property
    def _directions(self) -> np.ndarray:
        # Made at the first use: a second copy of the vectors that many never need.
        lengths = np.linalg.norm(self._places, axis=1, keepdims=True)
        return self._places / np.where(lengths > 0, lengths, 1)

    def _user_vectors(self, queries: Sequence[UserQuery]) -> np.ndarray | None:
        vectors = self._encoder.encode(
            np.array([query.user_row for query in queries]),
            np.array([query.feature_row for query in queries]),
            [query.history for query in queries],
        )
        return run_graph(self._graph, vectors)


class ScorerRetrieval:
    """A scorer of the bundle, asked with the history that is known right now.

    Args:
        part: the scorer part of the bundle.
        contents: the bundle itself.
    """

    def __init__(self, part: ScorerContents, contents: BundleContents) -> None:
        towers = {
            name: TowerRetrieval(tower, contents) for name, tower in part.towers.items()
        }
        try:
            self._scorer = restore(part.kind, part.config, part.arrays, towers)
        except UNUSABLE as error:
            refuse("scorer", f"must be one of kind {part.kind!r}", str(error))
        self.knows_strangers = isinstance(self._scorer, Popularity)

    def search(self, queries: Sequence[UserQuery], k: int) -> Found | None:
        """The k items with the highest score of each user."""
        excluded = [query.excluded for query in queries]
        if isinstance(self._scorer, VectorScorer):
            users = self._scorer.user_vectors(self._queries(queries))
            return _search_vectors(users, self._scorer.item_vectors, k, excluded)
        found: Found = []
        for begin, end in blocks(len(queries), self._scorer.num_items):
            scores = self._scores(queries[begin:end])
            if scores is None:
                return None
            exclude = _joined(excluded[begin:end])
            found += _listed(*best_items(scores, min(k, scores.shape[1]), exclude))
        return found

    def score(self, query: UserQuery, rows: np.ndarray) -> np.ndarray | None:
        """Scores `(n,)` of given items, or labels where the scorer predicts them."""
        positions = np.zeros(len(rows), np.int64)
        try:
            return self._scorer.predict(self._queries([query]), positions, rows)
        except ResourceError as error:
            _warn(error)
            return None

    def nearest(self, row: int, k: int) -> tuple[np.ndarray, np.ndarray] | None:
        """The k items that the scorer holds most like the one at `row`."""
        scores = self._scorer.similar(row)
        if scores is None:
            return None
        exclude = _joined([np.array([0, row], np.int32)])
        return _listed(*best_items(scores[None], min(k, len(scores)), exclude))[0]

    def _scores(self, queries: Sequence[UserQuery]) -> np.ndarray | None:
        try:
            return self._scorer.score_all(self._queries(queries))
        except ResourceError as error:
            _warn(error)
            return None

    def _queries(self, queries: Sequence[UserQuery]) -> Queries:
        rows = [query.feature_row for query in queries]
        joined = Queries.from_lists(rows, [query.history for query in queries])
        times = values = None
        # Items of one time, or without a label, count alike: nothing is known of them.
        if self._scorer.uses_times:
            times = np.concatenate(
                [
                    np.zeros(len(q.history), np.int64) if q.times is None else q.times
                    for q in queries
                ]
            )
        if self._scorer.uses_values:
            values = np.concatenate(
                [
                    np.full(len(q.history), np.nan, np.float32)
                    if q.values is None
                    else q.values
                    for q in queries
                ]
            )
        return Queries(joined.user_index, joined.offsets, joined.items, times, values)


def make_retrieval(
    part: RetrievalContents | ScorerContents, contents: BundleContents
) -> Retrieval:
    """The first stage of a bundle."""
    if isinstance(part, ScorerContents):
        return ScorerRetrieval(part, contents)
    return TowerRetrieval(part, contents)


def run_graph(graph: Graph, vectors: np.ndarray) -> np.ndarray | None:
    """The outputs of a graph, or `None` and a warning in the log where it fails."""
    try:
        return graph.run(vectors)
    except ResourceError as error:
        _warn(error)
        return None


def _warn(error: ResourceError) -> None:
    _logger.warning("answering without a part of the model: %s", error)


def _joined(excluded: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.zeros(len(excluded) + 1, np.int64)
    np.cumsum([len(rows) for rows in excluded], out=offsets[1:])
    return offsets, np.concatenate(excluded)


def _search_vectors(
    queries: np.ndarray, items: np.ndarray, k: int, excluded: Sequence[np.ndarray]
) -> Found:
    # A single query gains less from threads than it pays to wake them up.
    threads = 1 if len(queries) == 1 and items.size < 2**23 else None
    scores, rows = top_k(
        queries, items, min(k, len(items)), exclude=_joined(excluded), threads=threads
    )
    return _listed(scores, rows)


def _listed(scores: np.ndarray, rows: np.ndarray) -> Found:
    return [(r[r >= 0], s[r >= 0]) for r, s in zip(rows, scores, strict=True)]

"""A bundle's model at work: user vectors, retrieval, re-scoring, nearest items.

Knows rows only. Where the ranker fails the order of retrieval stands; where retrieval
fails there is no answer, and the recommender gives one without the model.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from shortlist.bundle.contents import BundleContents, RankerContents, RetrievalContents
from shortlist.errors import ResourceError
from shortlist.native import top_k
from shortlist.serving.catalogue import Scored
from shortlist.serving.encoder import InputEncoder
from shortlist.serving.graph import Graph

_logger = logging.getLogger("shortlist.serving")


@dataclass(frozen=True, kw_only=True, slots=True)
class UserQuery:
    """One user as rows.

    Args:
        user_row: row of the user table; 0 for a user the training did not see.
        feature_row: row of the users' attributes.
        history: item rows, oldest first.
        excluded: item rows that must not be returned; row 0 among them.
    """

    user_row: int
    feature_row: int
    history: np.ndarray
    excluded: np.ndarray


class Model:
    """Retrieval, and the ranker if there is one. Thread-safe.

    Args:
        retrieval: retrieval part of the bundle.
        ranker: ranker part, or `None` to keep the order of retrieval.
        contents: the bundle itself.
    """

    def __init__(
        self,
        retrieval: RetrievalContents,
        ranker: RankerContents | None,
        contents: BundleContents,
    ) -> None:
        self.item_vectors = retrieval.item_vectors
        self._encoder = InputEncoder(retrieval, contents)
        self._tower = Graph(
            retrieval.graph,
            "user_tower",
            width=self._encoder.width,
            output_dim=self.item_vectors.shape[1],
        )
        self._ranker = None if ranker is None else _Ranker(ranker, contents)

    def search(self, queries: Sequence[UserQuery], k: int) -> list[Scored | None]:
        """The k best items of each user: retrieval, then the ranker's share."""
        if not queries:
            return []
        users = self._user_vectors(queries)
        if users is None:
            return [None] * len(queries)
        depth = k if self._ranker is None else max(k, self._ranker.candidates)
        excluded = [query.excluded for query in queries]
        found = _search_vectors(users, self.item_vectors, depth, excluded)
        return [
            _first(self._reordered(query, *scored), k)
            for query, scored in zip(queries, found, strict=True)
        ]

    def score(self, query: UserQuery, rows: np.ndarray) -> Scored | None:
        """Scores given items, best first: the ranker's, or retrieval's without one."""
        share = None if self._ranker is None else self._ranker.score(query, rows)
        if share is not None:
            return _sorted(rows, share)
        users = self._user_vectors([query])
        if users is None:
            return None
        scored = _sorted(rows, self.item_vectors[rows] @ users[0])
        return scored._replace(degraded=self._ranker is not None)

    def nearest(self, row: int, k: int) -> Scored:
        """The k items with the highest cosine with the item at `row`."""
        excluded = [np.array([0, row], np.int32)]
        directions = self._directions
        query = directions[row : row + 1]
        return Scored(*_search_vectors(query, directions, k, excluded)[0])

    @cached_property
    def _directions(self) -> np.ndarray:
        # Made at the first use: a second copy of the vectors that many never need.
        lengths = np.linalg.norm(self.item_vectors, axis=1, keepdims=True)
        return self.item_vectors / np.where(lengths > 0, lengths, 1)

    def _user_vectors(self, queries: Sequence[UserQuery]) -> np.ndarray | None:
        vectors = self._encoder.encode(
            np.array([query.user_row for query in queries]),
            np.array([query.feature_row for query in queries]),
            [query.history for query in queries],
        )
        return _run(self._tower, vectors)

    def _reordered(
        self, query: UserQuery, rows: np.ndarray, scores: np.ndarray
    ) -> Scored:
        if self._ranker is None:
            return Scored(rows, scores)
        share = self._ranker.score(query, rows)
        if share is None:
            return Scored(rows, scores, degraded=True)
        return _sorted(rows, scores + self._ranker.weight * share)


class _Ranker:
    def __init__(self, part: RankerContents, contents: BundleContents) -> None:
        self.weight = np.float32(part.weight)
        self.candidates = part.candidates
        self._encoder = InputEncoder(part, contents)
        width = self._encoder.width
        self._graph = Graph(part.graph, "ranker", width=width, output_dim=1)

    def score(self, query: UserQuery, rows: np.ndarray) -> np.ndarray | None:
        if len(rows) == 0:
            return np.empty(0, np.float32)
        vectors = self._encoder.encode(
            np.array([query.user_row]),
            np.array([query.feature_row]),
            [query.history],
            rows,
        )
        scores = _run(self._graph, vectors)
        return None if scores is None else scores[:, 0]


def _run(graph: Graph, vectors: np.ndarray) -> np.ndarray | None:
    try:
        return graph.run(vectors)
    except ResourceError as error:
        _logger.warning("answering without a part of the model: %s", error)
        return None


def _search_vectors(
    queries: np.ndarray, items: np.ndarray, k: int, excluded: Sequence[np.ndarray]
) -> list[tuple[np.ndarray, np.ndarray]]:
    offsets = np.zeros(len(excluded) + 1, np.int64)
    np.cumsum([len(rows) for rows in excluded], out=offsets[1:])
    exclude = (offsets, np.concatenate(excluded))
    # A single query gains less from threads than it pays to wake them up.
    threads = 1 if len(queries) == 1 and items.size < 2**23 else None
    scores, rows = top_k(
        queries, items, min(k, len(items)), exclude=exclude, threads=threads
    )
    return [(r[r >= 0], s[r >= 0]) for r, s in zip(rows, scores, strict=True)]


def _sorted(rows: np.ndarray, scores: np.ndarray) -> Scored:
    order = np.lexsort((rows, -scores))
    return Scored(rows[order], scores[order])


def _first(scored: Scored, k: int) -> Scored | None:
    """The first k, or `None` if a sum of finite numbers went out of range."""
    scored = scored._replace(rows=scored.rows[:k], scores=scored.scores[:k])
    return scored if np.isfinite(scored.scores).all() else None

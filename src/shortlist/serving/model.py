"""A bundle's model at work: retrieval, re-scoring, nearest items.

Knows rows only. Where the ranker fails the order of retrieval stands; where retrieval
fails there is no answer, and the recommender gives one without the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shortlist.bundle.contents import (
    BundleContents,
    RankerContents,
    RetrievalContents,
    ScorerContents,
)
from shortlist.serving.catalogue import Scored
from shortlist.serving.encoder import InputEncoder
from shortlist.serving.graph import Graph
from shortlist.serving.retrieval import UserQuery, make_retrieval, run_graph


class Model:
    """Retrieval, and the ranker if there is one. Thread-safe.

    Args:
        retrieval: retrieval part of the bundle.
        ranker: ranker part, or `None` to keep the order of retrieval.
        contents: the bundle itself.
    """

    def __init__(
        self,
        retrieval: RetrievalContents | ScorerContents,
        ranker: RankerContents | None,
        contents: BundleContents,
    ) -> None:
        self._retrieval = make_retrieval(retrieval, contents)
        self._ranker = None if ranker is None else _Ranker(ranker, contents)

    @property
    def knows_strangers(self) -> bool:
        """Whether users of whom nothing is known get an answer of their own."""
        return self._retrieval.knows_strangers

    def search(self, queries: Sequence[UserQuery], k: int) -> list[Scored | None]:
        """The k best items of each user: retrieval, then the ranker's share."""
        if not queries:
            return []
        depth = k if self._ranker is None else max(k, self._ranker.candidates)
        found = self._retrieval.search(queries, depth)
        if found is None:
            return [None] * len(queries)
        return [
            _first(self._reordered(query, *scored), k)
            for query, scored in zip(queries, found, strict=True)
        ]

    def score(self, query: UserQuery, rows: np.ndarray) -> Scored | None:
        """Scores given items, best first: the ranker's, or retrieval's without one."""
        share = None if self._ranker is None else self._ranker.score(query, rows)
        if share is not None:
            return _sorted(rows, share)
        scores = self._retrieval.score(query, rows)
        if scores is None:
            return None
        scored = _sorted(rows, scores)
        return scored._replace(degraded=self._ranker is not None)

    def nearest(self, row: int, k: int) -> Scored | None:
        """The k items most like the one at `row`; `None` if retrieval knows none."""
        found = self._retrieval.nearest(row, k)
        return None if found is None else Scored(*found)

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
        scores = run_graph(self._graph, vectors)
        return None if scores is None else scores[:, 0]


def _sorted(rows: np.ndarray, scores: np.ndarray) -> Scored:
    order = np.lexsort((rows, -scores))
    return Scored(rows[order], scores[order])


def _first(scored: Scored, k: int) -> Scored | None:
    """The first k, or `None` if a sum of finite numbers went out of range."""
    scored = scored._replace(rows=scored.rows[:k], scores=scored.scores[:k])
    return scored if np.isfinite(scored.scores).all() else None

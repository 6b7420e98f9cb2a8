"""A bundle's model at work: retrieval, re-scoring, similar items.

Knows rows only. If the ranker fails, the order of retrieval is the answer. If retrieval
fails, there is none, and the recommender answers without the model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from shortlist.bundle.contents import (
    BundleContents,
    RankerContents,
    RetrievalContents,
)
from shortlist.errors import ResourceError
from shortlist.models.scorers.queries import Queries
from shortlist.models.scorers.scorer import Exclusions
from shortlist.serving.catalogue import Scored
from shortlist.serving.encoder import InputEncoder
from shortlist.serving.graph import Graph
from shortlist.serving.retrieval import Retrieval

_logger = logging.getLogger("shortlist.serving")
Result = TypeVar("Result")


class Model:
    """Retrieval, and the ranker if there is one. Thread-safe.

    Args:
        retrieval: retrieval part of the bundle.
        ranker: ranker part, or `None` to keep the order of retrieval.
        contents: the bundle itself.

    Raises:
        ArtifactError: a part cannot be run (`bundle-graph`, `bundle-inconsistent`).
        ResourceError: ONNX Runtime is missing (`package-missing`).
    """

    def __init__(
        self,
        retrieval: RetrievalContents,
        ranker: RankerContents | None,
        contents: BundleContents,
    ) -> None:
        self._retrieval = Retrieval(retrieval, contents)
        self._ranker = None if ranker is None else _Ranker(ranker, contents)

    @property
    def scores_strangers(self) -> bool:
        """Whether it ranks items for users about whom nothing is known."""
        return self._retrieval.scores_strangers

    def search(
        self, queries: Queries, exclude: Exclusions, k: int
    ) -> list[Scored | None]:
        """The k best items of each user: retrieval, then the ranker's share.

        Args:
            queries: the users.
            exclude: items that a user must not get, row 0 among them.
            k: number of items.

        Returns: `None` for a user where retrieval fails or a score is not finite.
        """
        depth = k if self._ranker is None else max(k, self._ranker.candidates)
        found = _attempt(lambda: self._retrieval.search(queries, exclude, depth))
        if found is None:
            return [None] * len(queries)
        return [
            _first(self._reordered(queries.part(i, i + 1), scored), k)
            for i, scored in enumerate(found)
        ]

    def score(self, query: Queries, rows: np.ndarray) -> Scored | None:
        """Scores of given items for one user, best first.

        They are the ranker's, or retrieval's without one. `None` where both fail.
        """
        share = self._share(query, rows)
        if share is not None:
            return _sorted(rows, share)
        scores = _attempt(lambda: self._retrieval.score(query, rows))
        if scores is None:
            return None
        return _sorted(rows, scores)._replace(degraded=self._ranker is not None)

    def nearest(self, row: int, k: int) -> Scored | None:
        """The k items most similar to one; `None` for a model without similar items."""
        return self._retrieval.nearest(row, k)

    def _reordered(self, query: Queries, found: Scored) -> Scored:
        if self._ranker is None:
            return found
        share = self._share(query, found.rows)
        if share is None:
            return found._replace(degraded=True)
        return _sorted(found.rows, found.scores + self._ranker.weight * share)

    def _share(self, query: Queries, rows: np.ndarray) -> np.ndarray | None:
        """Outputs of the ranker `(n,)`; `None` without one, or where it fails."""
        ranker = self._ranker
        return None if ranker is None else _attempt(lambda: ranker.score(query, rows))


class _Ranker:
    def __init__(self, part: RankerContents, contents: BundleContents) -> None:
        self.weight = np.float32(part.weight)
        self.candidates = part.candidates
        self._encoder = InputEncoder(part, contents)
        width = self._encoder.width
        self._graph = Graph(part.graph, "ranker", width=width, output_dim=1)

    def score(self, query: Queries, rows: np.ndarray) -> np.ndarray:
        if len(rows) == 0:
            return np.empty(0, np.float32)
        scores: np.ndarray = self._graph.run(self._encoder.encode(query, rows))[:, 0]
        return scores


def _attempt(compute: Callable[[], Result]) -> Result | None:
    """The result, or `None` and a warning in the log if a part of the model fails."""
    try:
        return compute()
    except ResourceError as error:
        _logger.warning("answering without a part of the model: %s", error)
        return None


def _sorted(rows: np.ndarray, scores: np.ndarray) -> Scored:
    order = np.lexsort((rows, -scores))
    return Scored(rows[order], scores[order])


def _first(scored: Scored, k: int) -> Scored | None:
    """The first k, or `None` if a sum of finite numbers overflowed."""
    scored = scored._replace(rows=scored.rows[:k], scores=scored.scores[:k])
    return scored if np.isfinite(scored.scores).all() else None

"""The retrieval model of a bundle at work: a scorer, asked with the latest history.

Knows rows only, and no ranker.
"""

from __future__ import annotations

import numpy as np

from shortlist.bundle.checks import refuse
from shortlist.bundle.contents import (
    BundleContents,
    RetrievalContents,
    TowerContents,
)
from shortlist.data.schema import ITEM
from shortlist.models.scorers.queries import Queries
from shortlist.models.scorers.scorer import Exclusions
from shortlist.models.scorers.storage import UNUSABLE, restore
from shortlist.models.scorers.vectors import TwoTowerScorer
from shortlist.serving.catalogue import Scored
from shortlist.serving.encoder import InputEncoder
from shortlist.serving.graph import Graph


class Retrieval:
    """Finds items for users by the scorer of a bundle. Thread-safe.

    Args:
        part: the retrieval part of the bundle.
        contents: the bundle itself.

    Raises:
        ArtifactError: the scorer cannot be restored (`bundle-inconsistent`), or the
            graph of a tower cannot be run (`bundle-graph`).
    """

    def __init__(self, part: RetrievalContents, contents: BundleContents) -> None:
        towers = {
            name: GraphTower(tower, contents) for name, tower in part.towers.items()
        }
        try:
            self._scorer = restore(part.kind, part.config, part.arrays, towers)
        except UNUSABLE as error:
            refuse("scorer", f"must be one of kind {part.kind!r}", str(error))
        self.scores_strangers = self._scorer.scores_strangers
        """Whether it ranks items for users about whom nothing is known."""

    def search(self, queries: Queries, exclude: Exclusions, k: int) -> list[Scored]:
        """The k items with the highest scores of each user, best first.

        Args:
            queries: the users.
            exclude: items that a user must not get, row 0 among them.
            k: number of items.

        Raises:
            ResourceError: the graph of a tower fails (`graph-failed`).
        """
        offsets, excluded = exclude
        found = []
        for begin, end in self._scorer.user_blocks(len(queries)):
            first, last = offsets[begin], offsets[end]
            scores, rows = self._scorer.top_k(
                queries.part(begin, end),
                k,
                (offsets[begin : end + 1] - first, excluded[first:last]),
            )
            found += [
                Scored(r[r >= 0], s[r >= 0]) for r, s in zip(rows, scores, strict=True)
            ]
        return found

    def score(self, query: Queries, rows: np.ndarray) -> np.ndarray:
        """Scores `(n,)` of given items for one user, or labels where it predicts them.

        Raises:
            ResourceError: the graph of a tower fails (`graph-failed`).
        """
        return self._scorer.predict(query, np.zeros(len(rows), np.int64), rows)

    def nearest(self, row: int, k: int) -> Scored | None:
        """The k items most similar to one; `None` for a model without similar items."""
        found = self._scorer.nearest(row, k)
        if found is None:
            return None
        scores, rows = (array[0] for array in found)
        return Scored(rows[rows >= 0], scores[rows >= 0])


class GraphTower(TwoTowerScorer):
    """A two-tower model whose user tower is an ONNX graph.

    Args:
        part: the two-tower part of the bundle.
        contents: the bundle itself.

    Raises:
        ArtifactError: the graph cannot be run (`bundle-graph`).
        ResourceError: ONNX Runtime is missing (`package-missing`).
    """

    def __init__(self, part: TowerContents, contents: BundleContents) -> None:
        super().__init__(contents.vocabularies[ITEM].counts, item_bias=part.item_bias)
        self._item_vectors = part.item_vectors
        self._encoder = InputEncoder(part, contents)
        self._graph = Graph(
            part.graph,
            "user_tower",
            width=self._encoder.width,
            output_dim=part.item_vectors.shape[1],
            num_outputs=part.num_queries,
        )

    @property
    def item_vectors(self) -> np.ndarray:
        """Vectors of all item rows, `(num_items, embedding_dim)`."""
        return self._item_vectors

    def user_vectors(self, queries: Queries) -> np.ndarray:
        """Vectors of users, `(n, dim)` or `(n, num_queries, dim)`.

        Raises:
            ResourceError: the graph fails (`graph-failed`).
        """
        return self._graph.run(self._encoder.encode(queries))

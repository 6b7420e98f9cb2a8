"""A two-tower model behind the calls of a blend's member."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np

from shortlist.models.pipeline import Pipeline
from shortlist.models.scorers.queries import Queries
from shortlist.models.scorers.scorer import best_of_queries, cosines
from shortlist.models.two_tower import TwoTower


class TowerMember:
    """Scores of a trained two-tower model, for a `Blend`.

    Args:
        pipeline: the two-tower model alone, over the dataset; trained, for its item
            vectors are computed once.
    """

    kind: ClassVar[str] = "two_tower"

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    @property
    def model(self) -> TwoTower:
        """The two-tower model."""
        return self.pipeline.tower

    def score_all(self, queries: Queries) -> np.ndarray:
        """Dot products `(n, num_items)` float32 of the users with all items."""
        return best_of_queries(self.pipeline.query_vectors(queries), self._items)

    def similar(self, row: int) -> np.ndarray:
        """Cosines of the item vectors without their bias, `(num_items,)` float32."""
        return cosines(self.pipeline.item_places(), row)

    @cached_property
    def _items(self) -> np.ndarray:
        return self.pipeline.item_vectors()

"""A trained two-tower model of Keras as a scorer over its dataset."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from shortlist.data.load.examples import Batch, item_features
from shortlist.data.schema import HISTORY, ITEM
from shortlist.data.store.dataset import Dataset
from shortlist.models.prediction import in_blocks, user_batch
from shortlist.models.scorers.queries import Queries
from shortlist.models.scorers.scorer import Scorer
from shortlist.models.scorers.vectors import TwoTowerScorer
from shortlist.models.two_tower import TwoTower


class TowerScorer(TwoTowerScorer):
    """Scores items by the towers of a Keras model.

    The item vectors are computed once, when they are first needed: make a new scorer
    after training the model further.

    Args:
        model: a trained two-tower model.
        dataset: features and vocabularies of its users and items.
        history_length: number of a user's newest items that the user tower reads.
    """

    def __init__(
        self, model: TwoTower, dataset: Dataset, history_length: int = 0
    ) -> None:
        counts = dataset.vocabularies[ITEM].counts
        super().__init__(counts, item_bias=model.item_bias)
        self.model = model
        self.dataset = dataset
        self.history_length = history_length

    @cached_property
    def item_vectors(self) -> np.ndarray:
        """Vectors of all item rows, `(num_items, embedding_dim)`; row 0 is zeros."""
        rows = np.arange(self.dataset.num_items)
        vectors = self._vectors("item_vector", item_features(self.dataset, rows))
        vectors[0] = 0.0
        return vectors

    def user_vectors(self, queries: Queries) -> np.ndarray:
        """Vectors of users by their features and the history in the queries.

        Returns: `(n, embedding_dim)`, or `(n, num_queries, embedding_dim)`.
        """
        batch = user_batch(self.dataset, queries.user_index)
        if self.history_length:
            batch[HISTORY] = queries.last(self.history_length)
        vectors = self._vectors("user_vector", batch)
        if self.model.num_queries > 1:
            width = self.model.embedding_dim
            return vectors.reshape(-1, self.model.num_queries, width)
        return vectors

    def _vectors(self, name: str, batch: Batch) -> np.ndarray:
        predict = self.model.predict_on_batch  # compiled, unlike a plain call
        return in_blocks(
            lambda block: predict(block)[name], batch, self.model.embedding_dim
        )


def keras_towers(scorer: Scorer) -> dict[str, TowerScorer]:
    """The two-tower models in a scorer by name, to be saved or exported."""
    return {
        name: tower
        for name, tower in scorer.towers().items()
        if isinstance(tower, TowerScorer)
    }

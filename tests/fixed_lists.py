"""What an evaluation asks of a pipeline, for models without Keras."""

from __future__ import annotations

import numpy as np

from shortlist.data import Dataset
from shortlist.models.scorers import Popularity, Scorer


class FixedLists:
    """A pipeline of a scorer without a ranker; subclasses make lists and scores."""

    def __init__(
        self, dataset: Dataset, scorer: Scorer | None = None, *, repeats: bool = False
    ) -> None:
        self.dataset, self.repeats = dataset, repeats
        self.retrieval = scorer or Popularity()

    def score_heads(
        self, user_index: np.ndarray, item_index: np.ndarray, parts: tuple[str, ...]
    ) -> dict[str, tuple[str, np.ndarray]]:
        return {}

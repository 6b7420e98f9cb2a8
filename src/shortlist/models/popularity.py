"""The baseline that must be beaten: what most people took."""

from __future__ import annotations

import numpy as np

from shortlist.data.dataset import Dataset


class Popularity:
    """Scores an item by its number of events, the same for every user.

    Attributes:
        counts: events per item row, `(num_items,)` int64; row 0 is never recommended.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(0, np.int64)

    def fit(self, dataset: Dataset, parts: tuple[str, ...] = ("train",)) -> Popularity:
        """Counts the events of the named parts."""
        self.counts = dataset.item_counts(*parts)
        return self

    def score(self, user_index: np.ndarray, item_index: np.ndarray) -> np.ndarray:
        """Scores `(n,)` float32 of (user, item) rows."""
        scores: np.ndarray = self.counts[item_index].astype(np.float32)
        return scores

"""Retrieval, then ranking: what a trained run answers, before it is exported.

`serving/recommender.py` gives the same answers from a bundle, without Keras.
"""

from __future__ import annotations

import numpy as np

from shortlist.data.kernels.gather import checked_rows
from shortlist.data.load.examples import Batch, item_features
from shortlist.data.schema import HISTORY
from shortlist.data.store.dataset import Dataset
from shortlist.models.multitask import MultiTask
from shortlist.models.prediction import in_blocks, user_batch
from shortlist.models.ranker import Ranker
from shortlist.models.scorers.queries import KnownItems
from shortlist.models.scorers.scorer import Scorer
from shortlist.models.scorers.search import nothing_seen

PAIRS_AT_ONCE = 2**18  # (user, item) rows whose features are held at once


class Pipeline:
    """Candidates of a retrieval model, scored again by a ranker.

    The score of a candidate is its retrieval score plus `ranker_weight` times the
    ranker's output.

    Args:
        dataset: features, vocabularies and events.
        retrieval: a fitted scorer. `TowerScorer` makes one of a trained two-tower
            model.
        ranker: a trained ranker, of one task or several, or `None`.
        ranker_history: history length of the ranker.
        ranker_weight: weight of the ranker's output.
        candidates: number of items that the ranker scores.
        repeats: recommend items again that a user has interacted with.
    """

    def __init__(
        self,
        dataset: Dataset,
        retrieval: Scorer,
        ranker: Ranker | MultiTask | None = None,
        *,
        ranker_history: int = 0,
        ranker_weight: float = 0.0,
        candidates: int = 100,
        repeats: bool = False,
    ) -> None:
        self.dataset = dataset
        self.retrieval = retrieval
        self.ranker = ranker
        self.ranker_history = ranker_history
        self.ranker_weight = ranker_weight
        self.candidates = candidates
        self.repeats = repeats

    def recommend(
        self, user_index: np.ndarray, k: int, *, parts: tuple[str, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best items of users, without those of their past unless `repeats`.

        Args:
            user_index: rows of the users, `(n,)`.
            k: number of items.
            parts: parts that hold the users' past: their history, and the items that
                are not recommended to them again.

        Returns: scores `(n, k)` float32, descending, and item rows `(n, k)` int32;
        -inf and -1 where fewer items are left.
        """
        scores, items = self.retrieve(user_index, max(k, self.candidates), parts)
        if self.ranker is None or self.ranker_weight == 0.0:
            return scores[:, :k], items[:, :k]
        ranked = self.rank(user_index, items, parts)
        return combine(scores, items, ranked, self.ranker_weight, k)

    def retrieve(
        self, user_index: np.ndarray, k: int, parts: tuple[str, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best items of users by the retrieval model alone; as `recommend`.

        Raises:
            InputError: `row-out-of-range` or `invalid-rows`.
        """
        user_index = checked_rows("user_index", user_index, self.dataset.num_users)
        known = self._known(parts)
        found = [(np.zeros((0, k), np.float32), np.zeros((0, k), np.int32))]
        for begin, end in self.retrieval.user_blocks(len(user_index)):
            queries = known.of(user_index[begin:end])
            exclude = with_row_zero(
                *nothing_seen(len(queries))
                if self.repeats
                else (queries.offsets, queries.items)
            )
            found.append(self.retrieval.top_k(queries, k, exclude))
        scores, rows = zip(*found, strict=True)
        return np.concatenate(scores), np.concatenate(rows)

    def rank(
        self, user_index: np.ndarray, items: np.ndarray, parts: tuple[str, ...]
    ) -> np.ndarray:
        """Ranker outputs `(n, k)` of items `(n, k)`; any number for an item of -1."""
        num_users, k = items.shape
        outputs = self.score_pairs(
            np.repeat(user_index, k), np.maximum(items.ravel(), 0), parts
        )
        return outputs.reshape(num_users, k)

    def score_pairs(
        self, user_index: np.ndarray, item_index: np.ndarray, parts: tuple[str, ...]
    ) -> np.ndarray:
        """Ranker outputs `(n,)` of (user, item) rows; without a ranker retrieval's.

        Those are scores, or labels where the scorer predicts them.
        """
        if self.ranker is None:
            users = checked_rows("user_index", user_index, self.dataset.num_users)
            distinct, places = np.unique(users, return_inverse=True)
            queries = self._known(parts).of(distinct)
            return self.retrieval.predict(queries, places, item_index)
        scores = np.empty(len(user_index), np.float32)
        for start in range(0, len(user_index), PAIRS_AT_ONCE):
            block = slice(start, start + PAIRS_AT_ONCE)
            batch = self._pair_batch(user_index[block], item_index[block], parts)
            scores[block] = in_blocks(self.ranker.score_on_batch, batch, 1)[:, 0]
        return scores

    def score_heads(
        self, user_index: np.ndarray, item_index: np.ndarray, parts: tuple[str, ...]
    ) -> dict[str, tuple[str, np.ndarray]]:
        """Objective and outputs `(n,)` of each head; none without a multi-task ranker.

        All features of the pairs are held at once.
        """
        if not isinstance(self.ranker, MultiTask):
            return {}
        model, heads = self.ranker, self.ranker.heads
        batch = self._pair_batch(user_index, item_index, parts)

        def outputs(block: Batch) -> np.ndarray:
            found = model.predict_on_batch(block)
            return np.concatenate([found[name] for name in heads], axis=1)

        columns = in_blocks(outputs, batch, len(heads)).T
        return {
            name: (head.objective, column)
            for (name, head), column in zip(heads.items(), columns, strict=True)
        }

    def _pair_batch(
        self, user_index: np.ndarray, item_index: np.ndarray, parts: tuple[str, ...]
    ) -> Batch:
        batch = user_batch(self.dataset, user_index)
        if self.ranker_history:
            histories = self.dataset.histories(*parts)
            batch[HISTORY] = histories.last(user_index, self.ranker_history)
        return batch | item_features(self.dataset, item_index)

    def _known(self, parts: tuple[str, ...]) -> KnownItems:
        return KnownItems(self.dataset, parts, values=self.retrieval.uses_values)


def combine(
    scores: np.ndarray, items: np.ndarray, ranked: np.ndarray, weight: float, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Re-orders candidates by retrieval score plus weighted ranker output.

    Args:
        scores: retrieval scores `(n, candidates)`, -inf where there is no item.
        items: item rows `(n, candidates)`, -1 where there is none.
        ranked: ranker outputs `(n, candidates)`.
        weight: weight of the ranker's output.
        k: number of items to keep.

    Returns: scores and item rows `(n, k)`, best first, ties by lower row.
    """
    total = np.where(items < 0, -np.inf, scores + np.float32(weight) * ranked)
    total = total.astype(np.float32)
    order = np.lexsort((items, -total), axis=-1)[:, :k]
    return (
        np.take_along_axis(total, order, axis=1),
        np.take_along_axis(items, order, axis=1),
    )


def with_row_zero(
    offsets: np.ndarray, indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Adds row 0, which is never recommended, to every list of excluded items."""
    inserted = np.insert(indices, offsets[:-1], 0).astype(np.int32)
    return offsets + np.arange(len(offsets)), inserted

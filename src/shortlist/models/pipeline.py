"""Retrieval, then ranking: what a trained run answers, before it is packed.

`serving/recommender.py` answers the same from a bundle, without Keras.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from shortlist import native
from shortlist.data.load.examples import Batch, item_features, user_features
from shortlist.data.schema import HISTORY, USER
from shortlist.data.store.dataset import Dataset
from shortlist.models.multitask import MultiTask
from shortlist.models.ranker import Ranker
from shortlist.models.scorers.queries import KnownItems, Queries
from shortlist.models.scorers.scorer import Scorer, VectorScorer, blocks
from shortlist.models.scorers.search import best_items, nothing_seen
from shortlist.models.two_tower import TwoTower

BLOCK = 8192  # rows per call of a model: one compiled shape, bounded memory
PAIRS_AT_ONCE = 2**18  # (user, item) rows whose features are held at once


class Pipeline:
    """Retrieval of candidates by a two-tower model or a scorer, re-scored by a ranker.

    The score of a candidate is its retrieval score plus `ranker_weight` times the
    ranker's output.

    Args:
        dataset: features, vocabularies and events.
        retrieval: a trained two-tower model or a fitted scorer.
        ranker: a trained ranker, of one task or several, or `None`.
        retrieval_history: history length of a two-tower model.
        ranker_history: history length of the ranker.
        ranker_weight: weight of the ranker's output.
        candidates: how many items the ranker re-scores.
        repeats: recommend items again that a user has taken before.
    """

    def __init__(
        self,
        dataset: Dataset,
        retrieval: TwoTower | Scorer,
        ranker: Ranker | MultiTask | None = None,
        *,
        retrieval_history: int = 0,
        ranker_history: int = 0,
        ranker_weight: float = 0.0,
        candidates: int = 100,
        repeats: bool = False,
    ) -> None:
        self.dataset = dataset
        self.retrieval = retrieval
        self.ranker = ranker
        self.retrieval_history = retrieval_history
        self.ranker_history = ranker_history
        self.ranker_weight = ranker_weight
        self.candidates = candidates
        self.repeats = repeats

    @property
    def tower(self) -> TwoTower:
        """The two-tower model, where the retrieval is one."""
        assert not isinstance(self.retrieval, Scorer)
        return self.retrieval

    def item_vectors(self) -> np.ndarray:
        """Two-tower vectors of all item rows, `(num_items, dim)`; row 0 is zeros."""
        rows = np.arange(self.dataset.num_items)
        vectors = self._vectors("item_vector", item_features(self.dataset, rows))
        vectors[0] = 0.0
        return vectors

    def item_places(self) -> np.ndarray:
        """Item vectors without a bias: items that lie near each other are alike."""
        vectors = self.item_vectors()
        return vectors[:, :-1] if self.tower.item_bias else vectors

    def user_vectors(
        self, user_index: np.ndarray, parts: tuple[str, ...]
    ) -> np.ndarray:
        """Vectors of users whose history is in `parts`.

        Returns: `(n, embedding_dim)`, or `(n, num_queries, embedding_dim)`.
        """
        batch = self._user_batch(user_index, parts, self.retrieval_history)
        return self._vectors("user_vector", batch)

    def query_vectors(self, queries: Queries) -> np.ndarray:
        """Two-tower vectors `(n, dim)` of users with the history of the queries."""
        batch = self._users(queries.user_index)
        if self.retrieval_history:
            batch[HISTORY] = queries.last(self.retrieval_history)
        return self._vectors("user_vector", batch)

    def recommend(
        self, user_index: np.ndarray, k: int, *, parts: tuple[str, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best items of users, without those they have taken unless `repeats`.

        Args:
            user_index: rows of the users, `(n,)`.
            k: number of items.
            parts: parts that hold what the users did: their history and the items
                that are not recommended to them again.

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
        """The best items of users by the retrieval model alone; as `recommend`."""
        if isinstance(self.retrieval, Scorer):
            return self._scorer_best(self.retrieval, user_index, k, parts)
        vectors = self.item_vectors()
        offsets, exclude = with_row_zero(
            *nothing_seen(len(user_index))
            if self.repeats
            else self.dataset.histories(*parts).seen(user_index)
        )
        return native.top_k(
            self.user_vectors(user_index, parts), vectors, k, exclude=(offsets, exclude)
        )

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
        """Ranker outputs `(n,)` of (user, item) rows; retrieval's without one.

        Those are scores, or labels where the scorer predicts them.
        """
        if self.ranker is None and isinstance(self.retrieval, Scorer):
            scorer = self.retrieval
            distinct, places = np.unique(user_index, return_inverse=True)
            queries = self._known(scorer, parts).of(distinct)
            return scorer.predict(queries, places, item_index)
        if self.ranker is None:
            distinct, places = np.unique(user_index, return_inverse=True)
            users, items = self.user_vectors(distinct, parts), self.item_vectors()
            score = functools.partial(_dot, users=users, items=items)
        else:
            places = user_index
            score = functools.partial(self._ranked, parts=parts)
        scores = np.empty(len(user_index), np.float32)
        for start in range(0, len(user_index), PAIRS_AT_ONCE):
            block = slice(start, start + PAIRS_AT_ONCE)
            scores[block] = score(places[block], item_index[block])
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

    def _ranked(
        self, user_index: np.ndarray, item_index: np.ndarray, parts: tuple[str, ...]
    ) -> np.ndarray:
        assert self.ranker is not None  # score_pairs
        batch = self._pair_batch(user_index, item_index, parts)
        return in_blocks(self.ranker.score_on_batch, batch, 1)[:, 0]

    def _pair_batch(
        self, user_index: np.ndarray, item_index: np.ndarray, parts: tuple[str, ...]
    ) -> Batch:
        batch = self._user_batch(user_index, parts, self.ranker_history)
        return batch | item_features(self.dataset, item_index)

    def _scorer_best(
        self,
        scorer: Scorer,
        user_index: np.ndarray,
        k: int,
        parts: tuple[str, ...],
    ) -> tuple[np.ndarray, np.ndarray]:
        known = self._known(scorer, parts)
        found = [(np.zeros((0, k), np.float32), np.zeros((0, k), np.int32))]
        for begin, end in blocks(len(user_index), scorer.num_items):
            queries = known.of(user_index[begin:end])
            exclude = with_row_zero(
                *nothing_seen(len(queries))
                if self.repeats
                else (queries.offsets, queries.items)
            )
            if isinstance(scorer, VectorScorer):
                users, items = scorer.user_vectors(queries), scorer.item_vectors
                found.append(native.top_k(users, items, k, exclude=exclude))
            else:
                found.append(best_items(scorer.score_all(queries), k, exclude))
        scores, rows = zip(*found, strict=True)
        return np.concatenate(scores), np.concatenate(rows)

    def _known(self, scorer: Scorer, parts: tuple[str, ...]) -> KnownItems:
        return KnownItems(self.dataset, parts, values=scorer.uses_values)

    def _vectors(self, name: str, batch: Batch) -> np.ndarray:
        predict = self.tower.predict_on_batch  # compiled, unlike a plain call
        width = self.tower.embedding_dim
        vectors = in_blocks(lambda block: predict(block)[name], batch, width)
        if name == "user_vector" and self.tower.num_queries > 1:
            return vectors.reshape(-1, self.tower.num_queries, width)
        return vectors

    def _user_batch(
        self, user_index: np.ndarray, parts: tuple[str, ...], history_length: int
    ) -> Batch:
        batch = self._users(user_index)
        if history_length:
            histories = self.dataset.histories(*parts)
            batch[HISTORY] = histories.last(user_index, history_length)
        return batch

    def _users(self, user_index: np.ndarray) -> Batch:
        batch = user_features(self.dataset, user_index)
        # The row of a user without training events was never trained; row 0 was.
        trained = self.dataset.vocabularies[USER].counts[user_index] > 0
        batch["user_index"] = np.where(trained, batch["user_index"], np.int32(0))
        return batch


def _dot(
    user_rows: np.ndarray, item_rows: np.ndarray, users: np.ndarray, items: np.ndarray
) -> np.ndarray:
    """Scores `(n,)` of rows of two tables of vectors; of several, the highest."""
    scores: np.ndarray = np.einsum("n...d,nd->n...", users[user_rows], items[item_rows])
    return scores.max(axis=1) if scores.ndim == 2 else scores


def combine(
    scores: np.ndarray, items: np.ndarray, ranked: np.ndarray, weight: float, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Re-orders candidates by retrieval score plus weighted ranker output.

    Args:
        scores: retrieval scores `(n, candidates)`, -inf where there is no item.
        items: item rows `(n, candidates)`, -1 where there is none.
        ranked: ranker outputs `(n, candidates)`.
        weight: weight of the ranker's output.
        k: number of items kept.

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


def in_blocks(
    function: Callable[[Batch], np.ndarray], batch: Batch, width: int
) -> np.ndarray:
    """Calls a model on blocks of equal size, so that it is compiled once.

    The last block is filled up with its own first row and cut afterwards.

    Args:
        function: block to outputs `(rows, width)`.
        batch: any number of rows, none included.
        width: columns of the outputs.
    """
    num_rows = len(next(iter(batch.values())))
    outputs = []
    for start in range(0, num_rows, BLOCK):
        block = {key: values[start : start + BLOCK] for key, values in batch.items()}
        rows = min(BLOCK, num_rows - start)
        if num_rows > BLOCK and rows < BLOCK:
            fill = np.r_[np.arange(rows), np.zeros(BLOCK - rows, np.int64)]
            block = {key: values[fill] for key, values in block.items()}
        outputs.append(np.asarray(function(block)[:rows], np.float32))
    return np.concatenate(outputs or [np.zeros((0, width), np.float32)])

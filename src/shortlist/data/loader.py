"""Batches out of a dataset: flat dicts of arrays with fixed dtypes.

Knows nothing of Keras; `training/batches.py` adapts it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from shortlist.data.dataset import Dataset
from shortlist.data.schema import HISTORY
from shortlist.errors import InputError

Batch = dict[str, np.ndarray]


class Loader:
    """Shuffled training batches of the events of some parts.

    Args:
        dataset: where the events come from.
        parts: names of the parts whose events are drawn.
        batch_size: rows per batch; every batch has it, so the rows left over after
            the last whole batch wait for the next epoch's order. A part smaller than
            one batch makes one batch of all its rows.
        history_length: width of the history, 0 for none.
        seed: of the order; the order of an epoch depends on seed and epoch alone.
        negatives: uniformly drawn other items per event, each a row with label 0;
            the event itself then has label 1, or with a binary label its own.
            Without negatives the label is the event's own.
        interactions_only: leave out events whose binary label is not positive.
        unknown_rate: share of events whose user is replaced by row 0, so that the
            out-of-vocabulary row learns to stand for people never seen.
        history_parts: parts the histories are taken from; `parts` by default.

    Each batch holds `user_index`, `item_index`, the features of both, the `history`
    before the event, `sampling_probability` (the item's share of the training events)
    and `label`.
    """

    def __init__(
        self,
        dataset: Dataset,
        parts: tuple[str, ...] = ("train",),
        *,
        batch_size: int,
        history_length: int,
        seed: int = 0,
        negatives: int = 0,
        interactions_only: bool = False,
        unknown_rate: float = 0.0,
        history_parts: tuple[str, ...] | None = None,
    ) -> None:
        self.dataset = dataset
        self.unknown_rate = unknown_rate
        self.history_length = history_length
        self.seed = seed
        self.negatives = negatives
        events = (dataset.interactions if interactions_only else dataset.part)(*parts)
        self.events = events.take((events.user_index > 0) & (events.item_index > 0))
        if not len(self.events):
            raise InputError(
                "part-empty",
                f"The parts {parts} must hold events to train on. Received: none."
                " Hold out fewer events.",
            )
        self.batch_size = min(batch_size, len(self.events))
        known = history_parts or parts
        self.histories = dataset.histories(*known)
        counts = dataset.item_counts(*known)
        share = np.maximum(counts, 1) / max(int(counts.sum()), 1)
        self.sampling_probability = share.astype(np.float32)
        self.candidates = np.flatnonzero(counts > 0).astype(np.int32)
        if negatives and len(self.candidates) < 2:
            raise InputError(
                "log-too-small",
                f"The parts {known} must hold at least 2 items to draw negatives."
                f" Received: {len(self.candidates)}. Give more events.",
            )

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.events) // self.batch_size

    def order(self, epoch: int) -> np.ndarray:
        """The order in which an epoch visits the events."""
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.events))

    def epoch(self, number: int) -> Iterator[Batch]:
        """All batches of one epoch in its own order."""
        order = self.order(number)
        for index in range(len(self)):
            yield self.batch(order, index, number)

    def batch(self, order: np.ndarray, index: int, epoch: int) -> Batch:
        """Batch `index` of the epoch whose order is given."""
        rows = order[index * self.batch_size : (index + 1) * self.batch_size]
        events = self.events.take(rows)
        user, item, label = events.user_index, events.item_index, events.label
        history = self._history(user, events.timestamp_ms)
        # Not [seed, epoch, index]: with index 0 that is the generator of the order.
        generator = np.random.default_rng([self.seed, epoch, 1 + index])
        if self.unknown_rate:
            known = generator.random(len(user)) >= self.unknown_rate
            user = np.where(known, user, 0)
        if self.negatives:
            repeats = 1 + self.negatives
            item = np.column_stack([item, self._others(item, generator)]).ravel()
            drawn = np.zeros((len(user), self.negatives))
            label = np.column_stack([self._taken(label), drawn]).ravel()
            user = np.repeat(user, repeats)
            history = {k: np.repeat(v, repeats, axis=0) for k, v in history.items()}
        return {
            **pair_features(self.dataset, user, item),
            **history,
            "sampling_probability": self.sampling_probability[item],
            "label": label.astype(np.float32),
        }

    def _taken(self, label: np.ndarray) -> np.ndarray:
        """1 for an event in which the user took the item, else 0."""
        if self.dataset.schema.label_kind != "binary":
            return np.ones(len(label))
        return label >= self.dataset.schema.positive_from

    def _others(self, item: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Items `(n, negatives)` drawn uniformly from all candidates but the own."""
        places = np.searchsorted(self.candidates, item)[:, None]
        is_own = self.candidates[places % len(self.candidates)] == item[:, None]
        shape = (len(item), self.negatives)
        drawn = generator.integers(0, len(self.candidates) - is_own, shape)
        others: np.ndarray = self.candidates[drawn + (is_own & (drawn >= places))]
        return others

    def _history(self, user: np.ndarray, timestamp_ms: np.ndarray) -> Batch:
        if not self.history_length:
            return {}
        before = self.histories.before(user, timestamp_ms, self.history_length)
        return {HISTORY: before}


def user_features(dataset: Dataset, user_index: np.ndarray) -> Batch:
    """The ids and features of users, without their history."""
    owned = dataset.schema.owned_by("user")
    features = {f.name: dataset.features[f.name][user_index] for f in owned}
    return {"user_index": user_index.astype(np.int32), **features}


def item_features(dataset: Dataset, item_index: np.ndarray) -> Batch:
    """The ids and features of items."""
    owned = dataset.schema.owned_by("item")
    features = {f.name: dataset.features[f.name][item_index] for f in owned}
    return {"item_index": item_index.astype(np.int32), **features}


def pair_features(
    dataset: Dataset, user_index: np.ndarray, item_index: np.ndarray
) -> Batch:
    """The ids and features of (user, item) rows, without the history."""
    return {
        **user_features(dataset, user_index),
        **item_features(dataset, item_index),
    }

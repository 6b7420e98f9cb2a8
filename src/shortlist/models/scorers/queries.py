"""What a scorer may know of users: the items they took, when, and how they liked them.

Knows datasets and arrays; knows no scorer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shortlist.data.store.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Queries:
    """Users and their known items, one user after the other.

    Args:
        user_index: user rows `(n,)` int32; 0 for a user outside the vocabulary.
        offsets: `(n + 1,)` int64: query q knows `items[offsets[q]:offsets[q + 1]]`.
        items: item rows `(m,)` int32, oldest first within each user.
        times: milliseconds `(m,)` int64, or `None` where nobody knows them.
        values: labels `(m,)` float32, or `None`.
    """

    user_index: np.ndarray
    offsets: np.ndarray
    items: np.ndarray
    times: np.ndarray | None = None
    values: np.ndarray | None = None

    @classmethod
    def from_lists(
        cls,
        user_index: Sequence[int] | np.ndarray,
        histories: Sequence[Sequence[int] | np.ndarray],
    ) -> Queries:
        """Queries of users with a list of item rows each, oldest first."""
        offsets = np.zeros(len(histories) + 1, np.int64)
        np.cumsum([len(rows) for rows in histories], out=offsets[1:])
        lists = [np.asarray(rows, np.int32) for rows in histories]
        items = np.concatenate([np.empty(0, np.int32), *lists])
        return cls(np.asarray(user_index, np.int32), offsets, items)

    def __len__(self) -> int:
        """Number of users."""
        return len(self.user_index)

    @property
    def positions(self) -> np.ndarray:
        """The query that each known item belongs to, `(m,)` int64."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def part(self, begin: int, end: int) -> Queries:
        """The queries from `begin` to before `end`."""
        end = min(end, len(self))
        first, last = int(self.offsets[begin]), int(self.offsets[end])
        return Queries(
            self.user_index[begin:end],
            self.offsets[begin : end + 1] - first,
            self.items[first:last],
            None if self.times is None else self.times[first:last],
            None if self.values is None else self.values[first:last],
        )

    def take(self, positions: np.ndarray) -> Queries:
        """The queries at `positions`, in that order."""
        starts = self.offsets[positions]
        sizes = self.offsets[positions + 1] - starts
        offsets = np.zeros(len(positions) + 1, np.int64)
        np.cumsum(sizes, out=offsets[1:])
        rows = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], sizes)
        return self._chosen(self.user_index[positions], offsets, rows)

    def last(self, length: int) -> np.ndarray:
        """The newest items, `(n, length)` int32, oldest first, padded with -1."""
        sizes = np.diff(self.offsets)
        taken = np.minimum(sizes, length)
        places = np.arange(length) < taken[:, None]
        rows = (self.offsets[1:] - taken)[:, None] + np.arange(length)
        newest = np.full((len(self), length), -1, np.int32)
        newest[places] = self.items[rows[places]]
        return newest

    def distinct(self) -> Queries:
        """Each known item once, as its newest event, by item row within a user.

        Items of row 0 are left out. What a scorer makes of the result depends neither
        on the order of the events of different items nor on repetitions.
        """
        positions = self.positions
        order = np.lexsort((np.arange(len(self.items)), self.items, positions))
        items, owners = self.items[order], positions[order]
        last = np.ones(len(order), bool)
        last[:-1] = (items[1:] != items[:-1]) | (owners[1:] != owners[:-1])
        kept = order[last & (items > 0)]
        offsets = np.zeros(len(self) + 1, np.int64)
        np.cumsum(np.bincount(positions[kept], minlength=len(self)), out=offsets[1:])
        return self._chosen(self.user_index, offsets, kept)

    def transposed(self, num_items: int) -> tuple[np.ndarray, np.ndarray]:
        """Who knows each item: offsets `(num_items + 1,)` and positions of queries."""
        order = np.argsort(self.items, kind="stable")
        offsets = np.zeros(num_items + 1, np.int64)
        np.cumsum(np.bincount(self.items, minlength=num_items), out=offsets[1:])
        return offsets, self.positions[order]

    def _chosen(
        self, user_index: np.ndarray, offsets: np.ndarray, rows: np.ndarray
    ) -> Queries:
        return Queries(
            user_index,
            offsets,
            self.items[rows],
            None if self.times is None else self.times[rows],
            None if self.values is None else self.values[rows],
        )


class KnownItems:
    """What the users of a dataset took in some of its parts.

    Args:
        dataset: where the events are.
        parts: the parts that are known.
        values: whether the labels are wanted.
    """

    def __init__(
        self, dataset: Dataset, parts: tuple[str, ...], *, values: bool = False
    ) -> None:
        histories = dataset.histories(*parts)
        labels = None
        if values and dataset.schema.label is not None:
            events = dataset.interactions(*parts)
            labels = events.label[events.item_index > 0]
        everyone = np.arange(dataset.num_users, dtype=np.int32)
        items = histories.items.astype(np.int32, copy=False)
        self._all = Queries(
            everyone, histories.offsets, items, histories.timestamps, labels
        )

    def of(self, user_index: np.ndarray) -> Queries:
        """Queries of the user rows `(n,)`; row 0 knows nothing."""
        users = np.asarray(user_index)
        # The events of row 0 are of many users that nobody can tell apart.
        taken = self._all.take(users[users > 0])
        sizes = np.zeros(len(users) + 1, np.int64)
        sizes[1:][users > 0] = np.diff(taken.offsets)
        return Queries(
            users.astype(np.int32),
            np.cumsum(sizes),
            taken.items,
            taken.times,
            taken.values,
        )

    def everyone(self) -> Queries:
        """Queries of all user rows in order."""
        return self.of(self._all.user_index)

"""What a scorer may know of users: the items they took, when, and how they liked them.

Knows datasets and arrays; knows no scorer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shortlist.data.store.dataset import Dataset
from shortlist.data.store.ragged import Ragged, offsets_of


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
        return cls(np.asarray(user_index, np.int32), *Ragged.from_lists(histories))

    def __len__(self) -> int:
        """Number of users."""
        return len(self.user_index)

    @property
    def lists(self) -> Ragged:
        """The known items of each user."""
        return Ragged(self.offsets, self.items)

    @property
    def positions(self) -> np.ndarray:
        """The query that each known item belongs to, `(m,)` int64."""
        return self.lists.owners

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
        return self._chosen(self.user_index[positions], self.lists.places(positions))

    def last(self, length: int) -> np.ndarray:
        """The newest items, `(n, length)` int32, oldest first, padded with -1."""
        return self.lists.last(length)

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
        sizes = np.bincount(positions[kept], minlength=len(self))
        return self._chosen(self.user_index, Ragged.from_lengths(sizes, kept))

    def transposed(self, num_items: int) -> Ragged:
        """For each item row, the positions of the queries that know it."""
        return self.lists.transposed(num_items)

    def _chosen(self, user_index: np.ndarray, places: Ragged) -> Queries:
        """Other users with the known items at `places`."""
        offsets, rows = places
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
        sizes = np.zeros(len(users), np.int64)
        sizes[users > 0] = taken.lists.lengths
        return Queries(
            users.astype(np.int32),
            offsets_of(sizes),
            taken.items,
            taken.times,
            taken.values,
        )

    def everyone(self) -> Queries:
        """Queries of all user rows in order."""
        return self.of(self._all.user_index)

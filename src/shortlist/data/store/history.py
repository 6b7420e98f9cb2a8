"""The items of each user in time order, gathered as padded lists.

The history of an event contains only events of the same user with an earlier time:
never the event itself, one at the same time or a later one.
"""

from __future__ import annotations

import numpy as np

from shortlist.data.kernels import gather
from shortlist.data.kernels.ids import group_order, is_sorted
from shortlist.data.store.ragged import Ragged, ranges


class Histories:
    """Items of every user in time order.

    Events that are already sorted by user and time are not copied if the items are
    uint8, uint16 or int32: they may be a view of a file.

    Args:
        user_index: user row of every event, `(n,)`.
        item_index: item row of every event, `(n,)`.
        timestamp_ms: time of every event, `(n,)` int64; ties keep the given order.
        num_users: number of user rows, row 0 included.

    Attributes:
        items: item row of every event, sorted by user and time, `(n,)`.
        timestamps: time of every event, in the same order, `(n,)` int64.
        offsets: `(num_users + 1,)` int64: user u has the events from `offsets[u]` to
            `offsets[u + 1]`.

    Raises:
        InputError: `row-out-of-range` or `invalid-rows`.
    """

    def __init__(
        self,
        user_index: np.ndarray,
        item_index: np.ndarray,
        timestamp_ms: np.ndarray,
        num_users: int,
    ) -> None:
        if not is_sorted(user_index, timestamp_ms):
            gather.checked_rows("user_index", user_index, num_users)
            order = group_order(
                user_index.astype(np.int32), timestamp_ms.astype(np.int64), num_users
            )
            user_index, item_index = user_index[order], item_index[order]
            timestamp_ms = timestamp_ms[order]
        # The events are sorted: the first and the last user bound the others.
        bounds = user_index[[0, -1]] if len(user_index) else user_index
        gather.checked_rows("user_index", bounds, num_users)
        narrow = item_index.dtype in (np.uint8, np.uint16)
        self.items = np.ascontiguousarray(
            item_index, item_index.dtype if narrow else np.int32
        )
        self.timestamps = np.ascontiguousarray(timestamp_ms, np.int64)
        self.offsets = _offsets(user_index, num_users)
        self._stored = gather.UserItems(self.offsets, self.timestamps, self.items)

    def last(
        self, user_index: np.ndarray, length: int, *, threads: int | None = None
    ) -> np.ndarray:
        """The newest `length` items of users, `(n, length)` int32, oldest first.

        Shorter histories are padded with -1 at the end; row 0 has no history.

        Raises:
            InputError: `row-out-of-range` or `invalid-rows`.
        """
        return gather.newest_items(
            self._stored,
            user_index,
            None,
            length,
            threads=threads,
        )

    def before(
        self,
        user_index: np.ndarray,
        timestamp_ms: np.ndarray,
        length: int,
        *,
        gap_ms: int | None = None,
        threads: int | None = None,
    ) -> np.ndarray:
        """The newest `length` items strictly before a moment, `(n, length)` int32.

        Args:
            user_index: `(n,)` integers.
            timestamp_ms: the moments, `(n,)` integers.
            length: most items per row.
            gap_ms: only the items of the session that the moment belongs to. A session
                starts after a gap of more than so many milliseconds. All items by
                default.
            threads: most threads to use; the result does not depend on it.

        Raises:
            InputError: `row-out-of-range`, `invalid-rows` or `invalid-argument`.
        """
        return gather.newest_items(
            self._stored,
            user_index,
            timestamp_ms,
            length,
            gap_ms=gap_ms,
            threads=threads,
        )

    def others(
        self,
        user_index: np.ndarray,
        item_index: np.ndarray,
        length: int,
        *,
        near: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> np.ndarray:
        """The newest other items of users, earlier or later, `(n, length)` int32.

        For parts that were not split by time. Oldest first, padded with -1 at the end.

        Args:
            user_index: `(n,)` integers.
            item_index: the item to leave out of each history, `(n,)`.
            length: most items per history.
            near: a time per history, `(n,)` milliseconds, and how far from it in
                either direction an item may be, `(n,)`; any distance by default.

        Raises:
            InputError: `row-out-of-range` or `invalid-rows`.
        """
        seen = self.seen(user_index)
        rows = seen.owners
        kept = seen.values != np.asarray(item_index)[rows]
        if near is not None:
            moments, distances = near
            times = self.timestamps[self._places(user_index).values]
            kept &= np.abs(times - moments[rows]) <= distances[rows]
        return seen.where(kept).last(length)

    def seen(self, user_index: np.ndarray) -> Ragged:
        """All items of users, int32; row 0 has none.

        Raises:
            InputError: `row-out-of-range` or `invalid-rows`.
        """
        places = self._places(user_index)
        items = self.items[places.values]
        return Ragged(places.offsets, items.astype(np.int32, copy=False))

    def _places(self, user_index: np.ndarray) -> Ragged:
        """Where the events of users are stored."""
        users = gather.checked_rows("user_index", user_index, len(self.offsets) - 1)
        starts = self.offsets[users]
        lengths = np.where(users == 0, 0, self.offsets[users + 1] - starts)
        return Ragged.from_lengths(lengths, ranges(starts, lengths))


def _offsets(user_index: np.ndarray, num_users: int) -> np.ndarray:
    """Where the events of each user begin in sorted events, and the end of the last."""
    offsets = np.full(num_users + 1, len(user_index), np.int64)
    # The type of `user_index`: with another one searchsorted converts all of it.
    largest = int(np.iinfo(user_index.dtype).max)
    users = np.arange(min(num_users, largest + 1)).astype(user_index.dtype)
    offsets[: len(users)] = np.searchsorted(user_index, users)
    return offsets

"""What each user did before: stored once per user, gathered as padded lists.

The row of an event sees only events of the same user with an earlier time, never
itself, its ties or its future.
"""

from __future__ import annotations

import numpy as np


class Histories:
    """Items of every user in time order.

    Args:
        user_index: user row of every event, `(n,)`.
        item_index: item row of every event, `(n,)`.
        timestamp_ms: time of every event, `(n,)` int64; ties keep the given order.
        num_users: number of user rows, row 0 included.
    """

    def __init__(
        self,
        user_index: np.ndarray,
        item_index: np.ndarray,
        timestamp_ms: np.ndarray,
        num_users: int,
    ) -> None:
        order = np.lexsort((timestamp_ms, user_index))
        users = user_index[order].astype(np.int64)
        self.items = item_index[order].astype(np.int32)
        self.timestamps = timestamp_ms[order]
        self.offsets = np.searchsorted(users, np.arange(num_users + 1))

    def last(self, user_index: np.ndarray, length: int) -> np.ndarray:
        """The newest `length` items of users, `(n, length)` int32, oldest first.

        Shorter histories are padded with -1 at the end; row 0 has no history.
        """
        ends = self.offsets[user_index + 1]
        starts = np.where(user_index == 0, ends, self.offsets[user_index])
        return self._gather(np.maximum(starts, ends - length), ends, length)

    def before(
        self, user_index: np.ndarray, timestamp_ms: np.ndarray, length: int
    ) -> np.ndarray:
        """The newest `length` items strictly before a moment, `(n, length)` int32."""
        starts = self.offsets[user_index]
        ends = self._first_at_or_after(user_index, timestamp_ms)
        ends = np.where(user_index == 0, starts, ends)
        return self._gather(np.maximum(starts, ends - length), ends, length)

    def seen(self, user_index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All items of users as offsets `(n + 1,)` int64 and indices int32."""
        starts = self.offsets[user_index]
        sizes = np.where(user_index == 0, 0, self.offsets[user_index + 1] - starts)
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes)
        return offsets, self.items[np.repeat(starts, sizes) + within]

    def _first_at_or_after(
        self, user_index: np.ndarray, timestamp_ms: np.ndarray
    ) -> np.ndarray:
        """Binary search within each user's slice, all rows at once."""
        low: np.ndarray = self.offsets[user_index]
        high = self.offsets[user_index + 1]
        while np.any(low < high):
            middle = (low + high) // 2
            inside = low < high
            times = self.timestamps[np.minimum(middle, len(self.timestamps) - 1)]
            earlier = inside & (times < timestamp_ms)
            low = np.where(earlier, middle + 1, low)
            high = np.where(inside & ~earlier, middle, high)
        return low

    def _gather(self, starts: np.ndarray, ends: np.ndarray, length: int) -> np.ndarray:
        positions = starts[:, None] + np.arange(length)
        present = positions < ends[:, None]
        if not len(self.items):
            return np.full(positions.shape, -1, np.int32)
        items = self.items[np.minimum(positions, len(self.items) - 1)]
        return np.where(present, items, np.int32(-1))

"""What each user did: the history in the bundle, then the events posted since.

Knows rows only. Readers need no lock: an array is replaced, never changed.
"""

from __future__ import annotations

import threading
from bisect import insort
from typing import NamedTuple

import numpy as np
import polars as pl

from shortlist.serving.encoder import RaggedRows

# A known user's row, or the external id of a user the vocabulary does not hold.
UserKey = int | str


class History(NamedTuple):
    """What one user did, oldest first.

    Args:
        items: item rows `(n,)` int32.
        times: milliseconds `(n,)` int64; `None` where the bundle keeps none.
        values: labels `(n,)` float32, NaN where there is none; `None` likewise.
    """

    items: np.ndarray
    times: np.ndarray | None = None
    values: np.ndarray | None = None


NO_HISTORY = History(np.empty(0, np.int32))


class UserHistories:
    """Items of each user, oldest first.

    Args:
        items: the `history` column of the users in a bundle.
        times: the `history_times` column, if there is one.
        values: the `history_values` column, if there is one.
    """

    def __init__(
        self,
        items: pl.Series,
        times: pl.Series | None = None,
        values: pl.Series | None = None,
    ) -> None:
        self._items = RaggedRows.from_column(items)
        self._times, self._values = (
            None if column is None else column.explode(empty_as_null=False).to_numpy()
            for column in (times, values)
        )
        self._posted: dict[UserKey, list[tuple[int, int, int, float]]] = {}
        self._merged: dict[UserKey, History] = {}
        self._sequence = 0
        self._lock = threading.Lock()

    def of(self, user: UserKey) -> History:
        """What one user did; nothing for a new user."""
        merged = self._merged.get(user)
        return self._of_bundle(user) if merged is None else merged

    def add(self, events: list[tuple[UserKey, int, int, float | None]]) -> None:
        """Appends (user, item row, timestamp_ms, label); the later time is the newer.

        Events of one time keep the order they came in. All exported events count as
        older than any posted one, for a bundle need not keep their times.
        """
        with self._lock:
            for user, item_row, timestamp_ms, label in events:
                self._sequence += 1
                posted = self._posted.setdefault(user, [])
                value = float("nan") if label is None else label
                insort(posted, (timestamp_ms, self._sequence, item_row, value))
            for user in {event[0] for event in events}:
                self._merged[user] = self._joined(user)

    def _joined(self, user: UserKey) -> History:
        posted, old = self._posted[user], self._of_bundle(user)
        times, _, items, values = zip(*posted, strict=True)
        return History(
            np.concatenate([old.items, np.array(items, np.int32)]),
            _appended(old.times, times),
            _appended(old.values, values),
        )

    def _of_bundle(self, user: UserKey) -> History:
        if isinstance(user, int):
            begin, end = self._items.offsets[user], self._items.offsets[user + 1]
            return History(
                self._items[user],
                None if self._times is None else self._times[begin:end],
                None if self._values is None else self._values[begin:end],
            )
        return History(
            NO_HISTORY.items,
            None if self._times is None else self._times[:0],
            None if self._values is None else self._values[:0],
        )


def _appended(
    old: np.ndarray | None, new: tuple[int, ...] | tuple[float, ...]
) -> np.ndarray | None:
    return None if old is None else np.concatenate([old, np.array(new, old.dtype)])

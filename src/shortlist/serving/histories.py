"""What each user did: the history in the bundle, then the events posted since.

Knows rows only. Readers need no lock: an array is replaced, never changed.
"""

from __future__ import annotations

import threading
from bisect import insort

import numpy as np
import polars as pl

from shortlist.serving.encoder import RaggedRows

# A known user's row, or the external id of a user the vocabulary does not hold.
UserKey = int | str


class UserHistories:
    """Item rows of each user, oldest first.

    Args:
        column: the `history` column of the users in a bundle.
    """

    def __init__(self, column: pl.Series) -> None:
        self._exported = RaggedRows.from_column(column)
        self._posted: dict[UserKey, list[tuple[int, int, int]]] = {}
        self._merged: dict[UserKey, np.ndarray] = {}
        self._sequence = 0
        self._lock = threading.Lock()

    def of(self, user: UserKey) -> np.ndarray:
        """Item rows of one user, int32, oldest first; empty for a new user."""
        merged = self._merged.get(user)
        return self._of_bundle(user) if merged is None else merged

    def add(self, events: list[tuple[UserKey, int, int]]) -> None:
        """Appends (user, item row, timestamp_ms); the later time is the newer.

        Events of one time keep the order they came in. All exported events count as
        older than any posted one, for a bundle does not keep their times.
        """
        with self._lock:
            for user, item_row, timestamp_ms in events:
                self._sequence += 1
                posted = self._posted.setdefault(user, [])
                insort(posted, (timestamp_ms, self._sequence, item_row))
            for user in {user for user, _, _ in events}:
                rows = [item_row for _, _, item_row in self._posted[user]]
                new = np.array(rows, np.int32)
                self._merged[user] = np.concatenate([self._of_bundle(user), new])

    def _of_bundle(self, user: UserKey) -> np.ndarray:
        if isinstance(user, int):
            return self._exported[user]
        return np.empty(0, np.int32)

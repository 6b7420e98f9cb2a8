"""What each user did: the history in the bundle, then the events posted since.

Knows rows only. Readers need no lock: an array that was handed out never changes, new
events go behind its end.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from shortlist.errors import ResourceError
from shortlist.serving.encoder import rows_of_column
from shortlist.serving.http.limits import StateLimits

# A known user's row, or the external id of a user the vocabulary does not hold.
UserKey = int | str

KEPT_EVENTS = 10_000
"""Posted events of one user that stay in the history; older ones only count as seen."""

# Python objects and array headers of a user, measured: with events of this process, and
# with those of earlier alone.
_USER_BYTES = 900
_STORED_USER_BYTES = 200


class History(NamedTuple):
    """What one user did, oldest first.

    Args:
        items: item rows `(n,)` int32.
        times: milliseconds `(n,)` int64; `None` where the bundle keeps none.
        values: labels `(n,)` float32, NaN where there is none; `None` likewise.
        seen: further item rows that the user took, int32, in no order.
    """

    items: np.ndarray
    times: np.ndarray | None = None
    values: np.ndarray | None = None
    seen: np.ndarray = np.empty(0, np.int32)


NO_HISTORY = History(np.empty(0, np.int32))


@dataclass(frozen=True)
class PostedColumns:
    """Posted events of many users, sorted by user and then by time.

    Args:
        users: keys of the users, each once.
        offsets: `(len(users) + 1,)` where each user's events begin.
        items: item rows, int32.
        times: milliseconds, int64.
        values: labels, float32, NaN where there is none.
    """

    users: Sequence[UserKey]
    offsets: np.ndarray
    items: np.ndarray
    times: np.ndarray
    values: np.ndarray


class UserHistories:
    """Items of each user, oldest first.

    Args:
        items: the `history` column of the users in a bundle.
        times: the `history_times` column, if there is one.
        values: the `history_values` column, if there is one.
        limits: how much posted state may be held.
        kept_events: posted events of one user that stay in the history.
    """

    def __init__(
        self,
        items: pl.Series,
        times: pl.Series | None = None,
        values: pl.Series | None = None,
        *,
        limits: StateLimits | None = None,
        kept_events: int = KEPT_EVENTS,
    ) -> None:
        self._items = rows_of_column(items)
        self._times, self._values = (
            None if column is None else column.explode(empty_as_null=False).to_numpy()
            for column in (times, values)
        )
        self._limits = limits or StateLimits()
        self._kept_events = kept_events
        self._stored: PostedColumns | None = None
        self._place: dict[UserKey, int] = {}
        self._grown: dict[UserKey, _Growing] = {}
        self._num_bytes = 0
        self._num_users = 0
        self._lock = threading.Lock()

    def of(self, user: UserKey) -> History:
        """What one user did; nothing for a new user."""
        grown = self._grown.get(user)
        if grown is not None:
            return grown.history
        if user in self._place:
            return self._grow(user).history
        return self._of_bundle(user)

    def add(self, events: list[tuple[UserKey, int, int, float | None]]) -> None:
        """Appends (user, item row, timestamp_ms, label); the later time is the newer.

        Events of one time keep the order they came in. All exported events count as
        older than any posted one, for a bundle need not keep their times.
        """
        with self._lock:
            touched: dict[UserKey, _Growing] = {}
            for user, item_row, timestamp_ms, label in events:
                grown = touched.get(user) or self._grown.get(user)
                if grown is None:
                    grown = self._grow(user)
                    self._num_users += user not in self._place
                    self._num_bytes += grown.num_bytes + _user_bytes(user)
                touched[user] = grown
                before = grown.num_bytes
                value = float("nan") if label is None else label
                grown.add(item_row, timestamp_ms, value)
                self._num_bytes += grown.num_bytes - before
            for user, grown in touched.items():
                grown.show()
                self._grown[user] = grown

    def load(self, columns: PostedColumns) -> None:
        """Takes the events of earlier; to be called once, before any `add`."""
        self._stored = columns
        self._place = {user: place for place, user in enumerate(columns.users)}
        self._num_users = len(self._place)
        arrays = (columns.offsets, columns.items, columns.times, columns.values)
        self._num_bytes = sum(array.nbytes for array in arrays)
        self._num_bytes += _STORED_USER_BYTES * len(columns.users)
        # What these many events come to is found once, not at every request.
        many = np.flatnonzero(np.diff(columns.offsets) > self._kept_events)
        for place in many.tolist():
            user = columns.users[place]
            grown = self._grown[user] = self._grow(user)
            self._num_bytes += grown.num_bytes

    def check_room(self, users: Iterable[UserKey]) -> None:
        """Raises unless an event of each of these users may be held.

        Raises:
            ResourceError: a limit is reached (`events-full`).
        """
        new = {u for u in users if u not in self._grown and u not in self._place}
        known = self._num_users + len(new)
        if new and known > self._limits.max_users:
            raise _full(f"{self._limits.max_users} users", "--max-users")
        growth = sum(map(_user_bytes, new))
        if self._num_bytes + growth > self._limits.max_bytes:
            raise _full(f"{self._limits.max_bytes} bytes", "--max-state-mb")

    def _grow(self, user: UserKey) -> _Growing:
        grown = _Growing(self._of_bundle(user), self._kept_events)
        if self._stored is not None and user in self._place:
            place, stored = self._place[user], self._stored
            posted = slice(stored.offsets[place], stored.offsets[place + 1])
            grown.extend(
                stored.items[posted], stored.times[posted], stored.values[posted]
            )
        grown.show()
        return grown

    def _of_bundle(self, user: UserKey) -> History:
        if isinstance(user, int):
            begin, end = self._items.offsets[user], self._items.offsets[user + 1]
            return History(
                self._items.row(user),
                None if self._times is None else self._times[begin:end],
                None if self._values is None else self._values[begin:end],
            )
        return History(
            NO_HISTORY.items,
            None if self._times is None else self._times[:0],
            None if self._values is None else self._values[:0],
        )


class _Growing:
    """One user's history in arrays with room behind their end.

    An event costs the same however many there are: the arrays double, and posted
    events beyond the kept ones leave them in large steps.

    Args:
        bundle: the exported history; it stays at the front.
        kept: posted events that stay.
    """

    __slots__ = ("_arrays", "_bundle", "_end", "_kept", "_seen", "history")

    def __init__(self, bundle: History, kept: int) -> None:
        self._bundle = bundle
        self._kept = kept
        self._end = size = len(bundle.items)
        self._seen = NO_HISTORY.items
        self._arrays: tuple[np.ndarray, ...] = (
            bundle.items,
            np.zeros(size, np.int64) if bundle.times is None else bundle.times,
            np.zeros(size, np.float32) if bundle.values is None else bundle.values,
        )
        self.history = bundle

    @property
    def num_bytes(self) -> int:
        """Bytes of its arrays."""
        return sum(array.nbytes for array in self._arrays) + self._seen.nbytes

    def add(self, item: int, time_ms: int, value: float) -> None:
        """Puts one event in its place by time."""
        times, end = self._arrays[1], self._end
        begin = len(self._bundle.items)
        place = end
        if end > begin and time_ms < times[end - 1]:
            place = begin + int(np.searchsorted(times[begin:end], time_ms, "right"))
        if place < end or end == len(times):
            self._make_room(place)
        for array, number in zip(self._arrays, (item, time_ms, value), strict=True):
            array[place] = number
        self._end += 1
        if self._end - begin > 2 * self._kept:
            self._drop()

    def extend(self, items: np.ndarray, times: np.ndarray, values: np.ndarray) -> None:
        """Appends events sorted by time that are newer than all there are."""
        self._arrays = tuple(
            np.concatenate([array[: self._end], new])
            for array, new in zip(self._arrays, (items, times, values), strict=True)
        )
        self._end += len(items)
        if len(items) > self._kept:
            self._drop()

    def show(self) -> None:
        """Lets readers see what was added."""
        items, times, values = (array[: self._end] for array in self._arrays)
        self.history = History(
            items,
            None if self._bundle.times is None else times,
            None if self._bundle.values is None else values,
            self._seen,
        )

    def _make_room(self, place: int) -> None:
        """New arrays, twice as large if they are full, with a gap at `place`."""
        size = len(self._arrays[0])
        if self._end == size:
            size = 2 * size + 4
        made = []
        for array in self._arrays:
            larger = np.empty(size, array.dtype)
            larger[:place] = array[:place]
            larger[place + 1 : self._end + 1] = array[place : self._end]
            made.append(larger)
        self._arrays = tuple(made)

    def _drop(self) -> None:
        """Leaves the newest posted events; the others stay as seen items."""
        begin, first = len(self._bundle.items), self._end - self._kept
        self._seen = np.union1d(self._seen, self._arrays[0][begin:first])
        self._arrays = tuple(
            np.concatenate([array[:begin], array[first : self._end]])
            for array in self._arrays
        )
        self._end = begin + self._kept


def _user_bytes(user: UserKey) -> int:
    return _USER_BYTES + (4 * len(user) if isinstance(user, str) else 0)


def _full(limit: str, flag: str) -> ResourceError:
    return ResourceError(
        "events-full",
        f"The server holds posted events of at most {limit} in memory. They are full,"
        f" and no event was kept. Train on the events so far, or raise {flag}.",
    )

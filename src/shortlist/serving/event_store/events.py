"""Stores of posted events. An event is on disk before it is acknowledged.

Events have external ids only, because a store outlives the bundles that read it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn, Protocol

import msgspec
import numpy as np

from shortlist.errors import InputError, ResourceError
from shortlist.serving.event_store.database import (
    APPLICATION_ID,
    connect,
    copy_readable,
    count_rows,
    prepare,
    rows_after,
    store_errors,
    transaction,
)
from shortlist.serving.event_store.file import EventFile, publish
from shortlist.serving.results import ExternalId

_logger = logging.getLogger("shortlist.serving")

# Below the 700 new objects that trigger Python's garbage collector: reading two million
# events takes half as long as in larger blocks.
_BLOCK_ROWS = 512
_FREE_BYTES = 2**20  # with this much free space, the limit was reached, not the disk


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing one user did with one item.

    Args:
        user_id: external id.
        item_id: external id.
        timestamp_ms: milliseconds since the epoch.
        label: rating or click, or `None`.
        event_id: a retry repeats it: an event with a known id is stored once. `None`
            for an event that is stored each time it is sent.
    """

    user_id: ExternalId
    item_id: ExternalId
    timestamp_ms: int
    label: float | None = None
    event_id: str | None = None

    def digest(self) -> bytes:
        """A 16-byte digest of the event without its id and time."""
        content = msgspec.json.encode((self.user_id, self.item_id, self.label))
        return hashlib.blake2b(content, digest_size=16).digest()


class EventColumns(NamedTuple):
    """Some events, column by column.

    Args:
        user_ids: external ids.
        item_ids: external ids.
        times_ms: `(n,)` int64.
        labels: `(n,)` float64, NaN for none.
    """

    user_ids: Sequence[ExternalId]
    item_ids: Sequence[ExternalId]
    times_ms: np.ndarray
    labels: np.ndarray


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class EventStore(Protocol):
    """The interface of an event store."""

    def append(self, events: Sequence[Event]) -> Sequence[bool]:
        """Stores all events or none; they are on disk when it returns.

        Returns:
            For each event whether it is new; false if its `event_id` was stored before.
        """

    def blocks(self) -> Iterator[EventColumns]:
        """All stored events in the order they were appended."""

    def close(self) -> None:
        """Releases the store."""


class SqliteEventStore:
    """Events in one SQLite file, write-ahead logged and fsynced at each append.

    Thread-safe. Only one store can open the file at a time. Before and after each
    append it checks that the file is still at its path. A file that was deleted or
    moved away is written again with all acknowledged events. A file that was replaced
    or damaged is left as it is: what can be read is copied to a file next to it, and
    appends are refused.

    Args:
        path: file to create or open.
        max_bytes: largest size of the database; no limit by default.

    Raises:
        ArtifactError: the file is not an event store, or of a later version
            (`events-unreadable`).
        InputError: the path cannot be a file (`output-path`).
        ResourceError: another server uses it (`events-in-use`), no permission, no
            space.
    """

    def __init__(self, path: str | Path, *, max_bytes: int | None = None) -> None:
        self.path = Path(path)
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._refused = False
        self._version = self._count = -1
        self._file = EventFile(self.path)
        try:
            self._connection = self._connect()
            self._file.make_private()
            # From here on the file has its header and all events.
            with store_errors(self.path):
                self._one("PRAGMA wal_checkpoint(TRUNCATE)")
        except BaseException:
            self._file.release()
            raise
        self._remember()

    def append(self, events: Sequence[Event]) -> list[bool]:
        """Stores all events or none; they are on disk when it returns.

        Returns:
            For each event whether it is new; false if its `event_id` was stored before.

        Raises:
            InputError: another event has this `event_id` (`event-id-reused`).
            ResourceError: writing failed (`events-not-stored`), the file has reached
                its limit (`events-full`), or it was replaced or damaged
                (`events-file-lost`).
        """
        with self._lock:
            self._ensure_file()
            with store_errors(self.path), self._limit(), transaction(self._connection):
                fresh = self._insert(events)
            # Do not acknowledge events in a file that is no longer at the path.
            if self._file.place() not in ("same", "changed"):
                self._ensure_file()
            self._count += sum(fresh)
            self._remember()
        return fresh

    def blocks(self) -> Iterator[EventColumns]:
        """Yields every readable event, in the order it was appended.

        Rows that are not events, written by another program, are skipped and logged.
        """
        last, found = -(2**63), 0
        while True:
            with self._lock, store_errors(self.path):
                block = rows_after(self._connection, last, _BLOCK_ROWS)
            if block is None:
                break
            rows, last = block
            if not rows:
                continue
            found += len(rows)
            _, users, items, times, labels = zip(*rows, strict=True)
            yield EventColumns(
                users,
                items,
                np.array(times, np.int64),
                np.array([np.nan if x is None else x for x in labels], np.float64),
            )
        with self._lock, store_errors(self.path):
            unreadable = count_rows(self._connection) - found
        if unreadable > 0:
            _logger.warning(
                "%d rows of %s are not events (ids, times or labels of another type)."
                " They were skipped and left in the file.",
                unreadable,
                self.path,
            )

    def read(self) -> Iterator[Event]:
        """Yields every readable event in the order it was appended."""
        for users, items, times, labels in self.blocks():
            for user, item, time_ms, label in zip(
                users, items, times.tolist(), labels.tolist(), strict=True
            ):
                yield Event(
                    user_id=user,
                    item_id=item,
                    timestamp_ms=time_ms,
                    label=None if np.isnan(label) else label,
                )

    def check(self) -> None:
        """Checks the file between appends; problems are only logged."""
        with self._lock, contextlib.suppress(ResourceError, sqlite3.Error):
            if self._file.is_open:
                self._ensure_file()

    def close(self) -> None:
        """Closes the file; the store cannot be used afterwards."""
        self.check()
        with self._lock:
            self._connection.close()
            self._file.release()

    def _connect(self) -> sqlite3.Connection:
        with store_errors(self.path):
            connection = connect(self._file.real_path)
            try:
                prepare(connection, self.path)
                if self._max_bytes is not None:
                    (size,) = connection.execute("PRAGMA page_size").fetchone()
                    pages = max(1, self._max_bytes // size)
                    # SQLite never reduces this below the present number of pages.
                    connection.execute(f"PRAGMA max_page_count = {pages}")
            except BaseException:
                connection.close()
                raise
        return connection

    def _remember(self) -> None:
        """Records the present state of the file as valid."""
        self._file.remember()
        (version,) = self._one("PRAGMA data_version")
        if version != self._version:  # another program has written
            self._version, self._count = version, count_rows(self._connection)

    def _one(self, statement: str) -> tuple[int, ...]:
        row: tuple[int, ...] = self._connection.execute(statement).fetchone()
        return row

    def _insert(self, events: Sequence[Event]) -> list[bool]:
        fresh = [
            e.event_id is None or self._is_new_id(e.event_id, e.digest())
            for e in events
        ]
        self._connection.executemany(
            "INSERT INTO events VALUES (?, ?, ?, ?)",
            [
                (e.user_id, e.item_id, e.timestamp_ms, e.label)
                for e, is_new in zip(events, fresh, strict=True)
                if is_new
            ],
        )
        return fresh

    def _is_new_id(self, event_id: str, digest: bytes) -> bool:
        inserted = self._connection.execute(
            "INSERT INTO event_ids VALUES (?, ?) ON CONFLICT DO NOTHING",
            (event_id, digest),
        )
        if inserted.rowcount:
            return True
        (kept,) = self._connection.execute(
            "SELECT digest FROM event_ids WHERE event_id = ?", (event_id,)
        ).fetchone()
        if kept != digest:
            raise id_reused(event_id)
        return False

    @contextlib.contextmanager
    def _limit(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if self._max_bytes is None or error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
            disk = os.statvfs(self._file.real_path)
            if disk.f_bavail * disk.f_frsize < _FREE_BYTES:
                raise
            raise ResourceError(
                "events-full",
                f"The events file has reached its limit of {self._max_bytes} bytes."
                " Move its events into the log, or raise --max-events-mb.",
            ) from error

    def _ensure_file(self) -> None:
        """Checks the file at the path; writes it again if it is gone."""
        place: str = self._file.place()
        if place in ("changed", "unlogged"):
            if self._is_sound(place):
                self._remember()
                place = "same"
            elif self._file.is_cut_off(APPLICATION_ID):
                place = "cut off"
        if place in ("missing", "cut off"):
            self._make_again(place)
        elif place != "same":
            self._refuse(place)
        if self._refused:
            _logger.warning("the events file %s is back", self.path)
            self._refused = False

    def _is_sound(self, place: str) -> bool:
        """Whether a file that another program changed still has all our events."""
        with contextlib.ExitStack() as undo:
            try:
                if not self._file.is_whole(APPLICATION_ID):
                    return False
                (version,) = self._one("PRAGMA data_version")
                if place == "unlogged":
                    # The newest pages are in an unlinked log: move them to the file.
                    self._one("PRAGMA wal_checkpoint(TRUNCATE)")
                known = count_rows(self._connection)
                fresh = undo.enter_context(contextlib.closing(self._connect()))
                found = count_rows(fresh)
            except (sqlite3.Error, OSError, ValueError):
                return False
            # Another program may have deleted events through SQLite.
            if found < known or (version == self._version and found != known):
                return False
            undo.pop_all()
        self._connection.close()
        self._connection = fresh
        return True

    def _make_again(self, place: str) -> None:
        """Writes all stored events to a new file at the path."""
        with contextlib.ExitStack() as undo:
            try:
                temporary = self._file.temporary()
                undo.callback(temporary.unlink, missing_ok=True)
                if self._copy(temporary, place) < self._count:
                    self._refuse(place)
                with contextlib.suppress(sqlite3.Error):
                    # Completes a file that was moved away, and empties its log, which
                    # SQLite could mistake for that of the new file.
                    self._one("PRAGMA wal_checkpoint(TRUNCATE)")
                publish(temporary, self.path, replace=place == "cut off")
                gone, self._file = self._file, EventFile(self.path)
                self._connection.close()
                gone.remove_siblings()
                gone.release()
                self._connection = self._connect()
                self._one("PRAGMA wal_checkpoint(TRUNCATE)")
                self._remember()
            except ResourceError as error:
                if error.code == "events-file-lost":
                    raise
                self._give_up(error)
            except (sqlite3.Error, OSError, ValueError) as error:
                self._give_up(error)
        _logger.error(
            "the events file %s was %s while serving: written again with all %d events",
            self.path,
            "deleted or moved away" if place == "missing" else "cut off",
            self._count,
        )

    def _copy(self, path: Path, place: str) -> int:
        """Copies all events to an empty file; returns the number of copied rows."""
        (version,) = self._one("PRAGMA data_version")
        if version != self._version:  # another program has removed events
            self._count = count_rows(self._connection)
        if place == "cut off":
            return copy_readable(self._connection, path)
        with contextlib.closing(sqlite3.connect(path)) as copy:
            self._connection.backup(copy)
            return count_rows(copy)

    def _give_up(self, error: Exception) -> NoReturn:
        reason = f"lost, and could not be written again: {error}"
        if not self._refused:
            self._refused = True
            _logger.error("the events file %s was %s", self.path, reason)
        raise self._lost(reason) from error

    def _refuse(self, place: str) -> None:
        what = "replaced" if place == "replaced" else "damaged or overwritten"
        if not self._refused:
            self._refused = True
            _logger.error(
                "the events file %s was %s while serving: no more events are accepted."
                " %s. Restore the file and start again.",
                self.path,
                what,
                self._rescue(),
            )
        raise self._lost(what)

    def _rescue(self) -> str:
        """Copies what can be read to a file next to it; returns a message."""
        now = time.strftime("%Y%m%dT%H%M%S")
        rescue = self.path.with_name(f"{self.path.name}.rescued-{now}")
        try:
            os.close(os.open(rescue, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            kept = copy_readable(self._connection, rescue)
        except (sqlite3.Error, OSError, ValueError) as error:
            return f"They could not be copied to {rescue}: {error}"
        return f"The {kept} events that could be read are in {rescue}"

    def _lost(self, what: str) -> ResourceError:
        return ResourceError(
            "events-file-lost",
            f"The events file cannot be used: it was {what}. No event was stored. The"
            " server's log says where its events are. Restore the file and start the"
            " server again.",
        )


def id_reused(event_id: str) -> InputError:
    """The error for two different events with one id."""
    return InputError(
        "event-id-reused",
        "An `event_id` must belong to one event. Received another user, item or label"
        f" for {event_id!r}. Give each event its own id.",
    )


class MemoryEventStore:
    """Stores no events, only the newest event ids, so that a retry counts once.

    Args:
        max_ids: how many ids are stored.
    """

    def __init__(self, max_ids: int = 100_000) -> None:
        self._max_ids = max_ids
        self._digests: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def append(self, events: Sequence[Event]) -> list[bool]:
        """Returns for each event whether it is new.

        Raises:
            InputError: another event has this `event_id` (`event-id-reused`).
        """
        with self._lock:
            fresh, added = [], dict[str, bytes]()
            for event in events:
                event_id = event.event_id
                digest = b"" if event_id is None else event.digest()
                kept = None
                if event_id is not None:
                    kept = added.get(event_id) or self._digests.get(event_id)
                    added.setdefault(event_id, digest)
                if event_id is not None and kept not in (None, digest):
                    raise id_reused(event_id)
                fresh.append(kept is None)
            self._digests.update(added)
            while len(self._digests) > self._max_ids:
                del self._digests[next(iter(self._digests))]
        return fresh

    def blocks(self) -> Iterator[EventColumns]:
        """Nothing."""
        return iter(())

    def close(self) -> None:
        """Nothing to release."""

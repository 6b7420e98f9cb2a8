"""Where posted events are kept. An event is on the disk before it is acknowledged.

Knows external ids only: a store outlives the bundles that read it.
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

# Fewer than the 700 new objects at which Python looks for cycles: reading two million
# events takes half the time that it takes in large blocks.
_BLOCK_ROWS = 512
_FREE_BYTES = 2**20  # with so much space left it was the limit, not the disk


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing one user did with one item.

    Args:
        user_id: external id.
        item_id: external id.
        timestamp_ms: milliseconds since the epoch.
        label: rating or click, or `None`.
        event_id: what a retry of the same event repeats: events of one id are kept
            once. `None` for an event that is kept however often it comes.
    """

    user_id: ExternalId
    item_id: ExternalId
    timestamp_ms: int
    label: float | None = None
    event_id: str | None = None

    def digest(self) -> bytes:
        """16 bytes that tell two events of one id apart; the time does not count."""
        content = msgspec.json.encode((self.user_id, self.item_id, self.label))
        return hashlib.blake2b(content, digest_size=16).digest()


class EventColumns(NamedTuple):
    """Some events, column by column.

    Args:
        user_ids: external ids.
        item_ids: external ids.
        times_ms: `(n,)` int64.
        labels: `(n,)` float64, NaN where there is none.
    """

    user_ids: Sequence[ExternalId]
    item_ids: Sequence[ExternalId]
    times_ms: np.ndarray
    labels: np.ndarray


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class EventStore(Protocol):
    """Anything that keeps events."""

    def append(self, events: Sequence[Event]) -> Sequence[bool]:
        """Keeps all of them or none; durable when it returns.

        Returns:
            For each event whether it is new; false where its `event_id` was there.
        """

    def blocks(self) -> Iterator[EventColumns]:
        """Every event kept, in the order it was appended."""

    def close(self) -> None:
        """Releases the store."""


class SqliteEventStore:
    """Events in one SQLite file, write-ahead logged and fsynced at each append.

    Safe to use from several threads. One store has the file at a time. Before and after
    each append it looks whether its file is still where the next start will find it: a
    file that was deleted or moved away is made again with everything that was
    acknowledged; one that was replaced or damaged stays as it is, what can be read goes
    into a file beside it, and appends are refused.

    Args:
        path: file to make or open.
        max_bytes: largest size of the database; no limit by default.

    Raises:
        ArtifactError: the file is no event store, or of a later version
            (`events-unreadable`).
        InputError: no file can be there (`output-path`).
        ResourceError: another server has it (`events-in-use`), no permission, no space.
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
            # From here on the file itself says what it is and holds what was posted.
            with store_errors(self.path):
                self._one("PRAGMA wal_checkpoint(TRUNCATE)")
        except BaseException:
            self._file.release()
            raise
        self._remember()

    def append(self, events: Sequence[Event]) -> list[bool]:
        """Keeps all events or none; they are fsynced when it returns.

        Returns:
            For each event whether it is new; false where its `event_id` was there.

        Raises:
            InputError: an `event_id` that another event has (`event-id-reused`).
            ResourceError: they could not be kept (`events-not-stored`), the limit of
                the file is reached (`events-full`), or the file was replaced or
                damaged (`events-file-lost`).
        """
        with self._lock:
            self._ensure_file()
            with store_errors(self.path), self._limit(), transaction(self._connection):
                fresh = self._insert(events)
            # What went into a file that is no longer at the path is not acknowledged.
            if self._file.place() not in ("same", "changed"):
                self._ensure_file()
            self._count += sum(fresh)
            self._remember()
        return fresh

    def blocks(self) -> Iterator[EventColumns]:
        """Yields every readable event, in the order it was appended.

        Rows that something else wrote and that are no events are counted in the log.
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
                "%d rows of %s are no events (ids, times or labels of another type):"
                " passed over and left in the file",
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
        """Looks after the file between appends; what is wrong is only logged."""
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
                    # SQLite never goes below the pages that are there already.
                    connection.execute(f"PRAGMA max_page_count = {pages}")
            except BaseException:
                connection.close()
                raise
        return connection

    def _remember(self) -> None:
        """Takes the file as it is now for the right one."""
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
                f"The events file may have at most {self._max_bytes} bytes. It is full."
                " Move its events into the log, or raise --max-events-mb.",
            ) from error

    def _ensure_file(self) -> None:
        """Returns if the file is the right one; makes it again where it is gone."""
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
        """Whether a file that something else wrote still holds what we wrote."""
        with contextlib.ExitStack() as undo:
            try:
                if not self._file.is_whole(APPLICATION_ID):
                    return False
                (version,) = self._one("PRAGMA data_version")
                if place == "unlogged":
                    # The newest pages are in a log without a name: into the database.
                    self._one("PRAGMA wal_checkpoint(TRUNCATE)")
                known = count_rows(self._connection)
                fresh = undo.enter_context(contextlib.closing(self._connect()))
                found = count_rows(fresh)
            except (sqlite3.Error, OSError, ValueError):
                return False
            # Another program may have removed events in the way SQLite provides.
            if found < known or (version == self._version and found != known):
                return False
            undo.pop_all()
        self._connection.close()
        self._connection = fresh
        return True

    def _make_again(self, place: str) -> None:
        """Writes everything known to a new file at the path."""
        with contextlib.ExitStack() as undo:
            try:
                temporary = self._file.temporary()
                undo.callback(temporary.unlink, missing_ok=True)
                if self._copy(temporary, place) < self._count:
                    self._refuse(place)
                with contextlib.suppress(sqlite3.Error):
                    # A file that was moved away becomes whole too, and its log holds
                    # nothing that SQLite could take for that of the new one.
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
            "the events file %s was %s while serving: made again with all %d events",
            self.path,
            "deleted or moved away" if place == "missing" else "cut off",
            self._count,
        )

    def _copy(self, path: Path, place: str) -> int:
        """Copies everything into an empty file; the number of rows that it got."""
        (version,) = self._one("PRAGMA data_version")
        if version != self._version:  # another program has removed events
            self._count = count_rows(self._connection)
        if place == "cut off":
            return copy_readable(self._connection, path)
        with contextlib.closing(sqlite3.connect(path)) as copy:
            self._connection.backup(copy)
            return count_rows(copy)

    def _give_up(self, error: Exception) -> NoReturn:
        reason = f"gone, and could not be made again: {error}"
        if not self._refused:
            self._refused = True
            _logger.error("the events file %s is %s", self.path, reason)
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
        """Copies what can be read into a file beside it; says how that went."""
        stamp = time.strftime("%Y%m%dT%H%M%S")
        rescue = self.path.with_name(f"{self.path.name}.rescued-{stamp}")
        try:
            os.close(os.open(rescue, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            kept = copy_readable(self._connection, rescue)
        except (sqlite3.Error, OSError, ValueError) as error:
            return f"They could not be copied to {rescue}: {error}"
        return f"{kept} events that could be read are in {rescue}"

    def _lost(self, what: str) -> ResourceError:
        return ResourceError(
            "events-file-lost",
            "Events must be kept in the file that the server began with. It was found"
            f" {what}. The server's log says where its events are; restore the file and"
            " start the server again.",
        )


def id_reused(event_id: str) -> InputError:
    """The error for two different events of one id."""
    return InputError(
        "event-id-reused",
        "Events of one `event_id` must be one event sent again. Received another user,"
        f" item or label for {event_id!r}. Give each event an id of its own.",
    )


class MemoryEventStore:
    """Keeps no events, only the newest ids of events, so that a retry counts once.

    Args:
        max_ids: how many ids are remembered.
    """

    def __init__(self, max_ids: int = 100_000) -> None:
        self._max_ids = max_ids
        self._digests: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def append(self, events: Sequence[Event]) -> list[bool]:
        """For each event whether it is new.

        Raises:
            InputError: an `event_id` that another event has (`event-id-reused`).
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

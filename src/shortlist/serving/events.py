"""Where posted events are kept. An event is on the disk before it is acknowledged.

Knows external ids only: a store outlives the bundles that read it.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from shortlist.atomic import disk_errors, fsync
from shortlist.errors import ArtifactError, ResourceError
from shortlist.serving.results import ExternalId

_APPLICATION_ID = 0x53484C54  # "SHLT": tells our files from other SQLite databases
_STORE_VERSION = 1


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing one user did with one item.

    Args:
        user_id: external id.
        item_id: external id.
        timestamp_ms: milliseconds since the epoch.
        label: rating or click, or `None`.
    """

    user_id: ExternalId
    item_id: ExternalId
    timestamp_ms: int
    label: float | None = None


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class EventStore(Protocol):
    """Anything that keeps events."""

    def append(self, events: Sequence[Event]) -> None:
        """Keeps all of them or none; durable when it returns."""

    def read(self) -> Iterator[Event]:
        """Every event kept, in the order it was appended."""

    def close(self) -> None:
        """Releases the store."""


class SqliteEventStore:
    """Events in one SQLite file, write-ahead logged and fsynced at each append.

    Safe to use from several threads.

    Args:
        path: file to make or open.

    Raises:
        ArtifactError: the file is no event store, or of a later version
            (`events-unreadable`).
        ResourceError: no permission, no space.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
            # SQLite syncs the file's bytes, not the name of a new file.
            fsync(self.path.parent)
        with self._store_errors():
            self._connection = sqlite3.connect(
                self.path,
                isolation_level=None,  # transactions are written out below
                check_same_thread=False,  # the lock takes that place
            )
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def append(self, events: Sequence[Event]) -> None:
        """Keeps all events or none; they are fsynced when it returns.

        Raises:
            ResourceError: they could not be kept (`events-not-stored`).
        """
        rows = [(e.user_id, e.item_id, e.timestamp_ms, e.label) for e in events]
        with self._lock, self._store_errors(), self._transaction():
            self._connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", rows)

    def read(self) -> Iterator[Event]:
        """Yields every event in the order it was appended."""
        with self._lock, self._store_errors():
            rows = self._connection.execute(
                "SELECT user_id, item_id, timestamp_ms, label FROM events"
                " ORDER BY rowid"
            ).fetchall()
        for user_id, item_id, timestamp_ms, label in rows:
            yield Event(
                user_id=user_id,
                item_id=item_id,
                timestamp_ms=timestamp_ms,
                label=label,
            )

    def close(self) -> None:
        """Closes the file; the store cannot be used afterwards."""
        with self._lock:
            self._connection.close()

    def _prepare(self) -> None:
        with self._store_errors():
            (application,) = self._one("PRAGMA application_id")
            (version,) = self._one("PRAGMA user_version")
            (tables,) = self._one("SELECT count(*) FROM sqlite_master")
            if tables and (application, version) != (_APPLICATION_ID, _STORE_VERSION):
                raise self._unreadable(f"a database of kind {application}.{version}")
            self._connection.execute("PRAGMA busy_timeout = 5000")
            self._one("PRAGMA journal_mode = WAL")
            # FULL syncs the log at every commit; WAL's usual NORMAL loses the last
            # events when the power goes.
            self._connection.execute("PRAGMA synchronous = FULL")
            if not tables:
                self._create()

    def _create(self) -> None:
        with self._transaction():
            # Ids have no declared type, so 7 and "7" come back as they went in.
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS events"
                " (user_id NOT NULL, item_id NOT NULL,"
                " timestamp_ms INTEGER NOT NULL, label REAL)"
            )
            self._connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            self._connection.execute(f"PRAGMA user_version = {_STORE_VERSION}")

    def _one(self, statement: str) -> tuple[int, ...]:
        row: tuple[int, ...] = self._connection.execute(statement).fetchone()
        return row

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _store_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise ResourceError(
                "events-not-stored",
                "Events must be written to the disk before they are acknowledged."
                f" SQLite said: {error}. Check space, permissions and other users of"
                " the file, and send the events again.",
                file=self.path,
            ) from error
        except sqlite3.DatabaseError as error:
            raise self._unreadable(str(error)) from error

    def _unreadable(self, found: str) -> ArtifactError:
        return ArtifactError(
            "events-unreadable",
            "An event store must be a file that this version of Shortlist made."
            f" Found: {found}. Restore it, or name another file.",
            file=self.path,
        )

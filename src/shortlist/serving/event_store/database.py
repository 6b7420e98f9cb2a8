"""The SQLite side of an event store: its tables, and checks of a database.

Works on a connection; the file itself is in `file.py`.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shortlist.errors import ArtifactError, ResourceError

Row = tuple[Any, ...]

APPLICATION_ID = 0x53484C54  # "SHLT": tells our files from other SQLite databases
STORE_VERSION = 1

# Ids have no declared type, so 7 and "7" come back as they went in.
_EVENTS = (
    "CREATE TABLE events (user_id NOT NULL, item_id NOT NULL,"
    " timestamp_ms INTEGER NOT NULL, label REAL)"
)
# In its own table: earlier versions, which do not have it, read the same file.
_EVENT_IDS = (
    "CREATE TABLE event_ids (event_id TEXT PRIMARY KEY, digest BLOB NOT NULL)"
    " WITHOUT ROWID"
)
_TABLES = {"events": _EVENTS, "event_ids": _EVENT_IDS}

# Rows that are events; other programs may have written other rows.
READABLE = (
    "typeof(user_id) IN ('integer', 'text') AND typeof(item_id) IN ('integer', 'text')"
    " AND typeof(timestamp_ms) = 'integer' AND timestamp_ms >= 0"
    " AND (label IS NULL OR (typeof(label) = 'real' AND abs(label) < 9e999))"
)


def connect(path: Path) -> sqlite3.Connection:
    """A connection for the threads of one store."""
    return sqlite3.connect(
        path,
        isolation_level=None,  # transactions are written out
        check_same_thread=False,  # the store has its own lock
    )


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Checks that a database is an event store, or makes an empty one into one.

    Raises:
        ArtifactError: it is something else, or of a later version
            (`events-unreadable`).
    """
    connection.execute("PRAGMA trusted_schema = OFF")
    missing = _missing_tables(connection, path)
    connection.execute("PRAGMA busy_timeout = 5000")
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    # FULL syncs the log at every commit; WAL's usual NORMAL loses the last events when
    # the power goes.
    connection.execute("PRAGMA synchronous = FULL")
    # Newest pages in memory: what a damaged file can still be rescued from.
    connection.execute("PRAGMA cache_size = -16384")
    if not missing:  # and then nothing is written
        return
    with transaction(connection):
        for table in missing:
            connection.execute(_TABLES[table])
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {STORE_VERSION}")


def _missing_tables(connection: sqlite3.Connection, path: Path) -> list[str]:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    schema = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    if schema and (application, version) != (APPLICATION_ID, STORE_VERSION):
        raise unreadable(path, f"a database of kind {application}.{version}")
    tables = {name: sql for kind, name, sql in schema if kind == "table"}
    if schema and "events" not in tables:
        raise unreadable(path, "a database without a table of events")
    for kind, name, sql in schema:
        # A view or trigger would run foreign SQL.
        odd = kind not in ("table", "index") or (
            name in _TABLES and kind == "table" and sql != _TABLES[name]
        )
        if odd:
            raise unreadable(path, f"{name!r}, a {kind} of another making")
    return [name for name in _TABLES if name not in tables]


def count_rows(connection: sqlite3.Connection) -> int:
    """Number of rows in the table of events, readable or not."""
    (count,) = connection.execute("SELECT count(*) FROM events").fetchone()
    return int(count)


def rows_after(
    connection: sqlite3.Connection, rowid: int, limit: int
) -> tuple[list[Row], int] | None:
    """The next rows that are events, and the last rowid seen; `None` at the end."""
    query = (
        "SELECT rowid, user_id, item_id, timestamp_ms, label FROM events"
        f" WHERE rowid > ? AND {READABLE} ORDER BY rowid LIMIT {limit}"
    )
    try:
        rows = connection.execute(query, (rowid,)).fetchall()
        return (rows, rows[-1][0]) if rows else None
    except sqlite3.OperationalError as error:
        if "UTF-8" not in str(error):
            raise
    connection.text_factory = bytes
    try:
        raw = connection.execute(query, (rowid,)).fetchall()
    finally:
        connection.text_factory = str
    return [row for row in map(_decoded, raw) if row is not None], raw[-1][0]


def _decoded(row: tuple[Any, ...]) -> Row | None:
    try:
        return tuple(x.decode() if isinstance(x, bytes) else x for x in row)
    except UnicodeDecodeError:
        return None


def copy_readable(connection: sqlite3.Connection, path: Path) -> int:
    """Copies what can be read of a damaged store into an empty file.

    Returns:
        The number of events copied.
    """
    with contextlib.closing(connect(path)) as copy:
        prepare(copy, path)
        copied = 0
        with transaction(copy), contextlib.suppress(sqlite3.Error):
            for row in connection.execute("SELECT * FROM events ORDER BY rowid"):
                copy.execute("INSERT INTO events VALUES (?, ?, ?, ?)", row)
                copied += 1
            for row in connection.execute("SELECT * FROM event_ids"):
                copy.execute("INSERT INTO event_ids VALUES (?, ?)", row)
    return copied


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turns SQLite's errors into ours.

    Raises:
        ResourceError: it could not be written (`events-not-stored`).
        ArtifactError: it is no event store (`events-unreadable`).
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        raise ResourceError(
            "events-not-stored",
            "Events must be written to the disk before they are acknowledged."
            f" SQLite said: {error}. Check space, permissions and other users of"
            " the file, and send the events again.",
            file=path,
        ) from error
    except sqlite3.DatabaseError as error:
        raise unreadable(path, str(error)) from error


def unreadable(path: Path, found: str) -> ArtifactError:
    """The error for a file that is no event store."""
    return ArtifactError(
        "events-unreadable",
        "An event store must be a file that this version of Shortlist made."
        f" Found: {found}. Restore it, or name another file.",
        file=path,
    )

"""Checks that an SQLite file is ours, and removal of such files."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from pathlib import Path

from shortlist.errors import InputError

ENDINGS = ("", "-journal", "-wal", "-shm")
_HEADER = b"SQLite format 3\0"


def check_database(file: Path, query: str, expected: object) -> None:
    """Checks that a file is not a database of another program.

    A file that is missing, has no tables or cannot be read is accepted.

    Args:
        file: the database.
        query: a query that our databases answer.
        expected: the only value of its first column.

    Raises:
        InputError: it is a database of another program (`output-foreign`).
    """
    if not _is_database(file):
        return
    name = f"{file.resolve().as_uri()}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(name, uri=True, timeout=0)) as opened:
            tables = opened.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if not tables:
                return
            with contextlib.suppress(sqlite3.OperationalError):  # no such table
                if {row[0] for row in opened.execute(query)} <= {expected}:
                    return
            opened.execute("SELECT name FROM sqlite_master")  # in use: says so again
    except sqlite3.Error:
        return
    raise InputError(
        "output-foreign",
        f"A database must be one that Shortlist made. Found {str(file)!r}, which has"
        " the tables of another program. Nothing was changed. Move it elsewhere, or"
        " choose another folder.",
        file=file,
    )


def remove_database(file: Path) -> None:
    """Removes a database; a file that is not a database is renamed instead."""
    if file.exists() and not _is_database(file):
        os.replace(file, file.with_name(f"{file.name}.kept-{secrets.token_hex(4)}"))
    for end in ENDINGS:
        file.with_name(file.name + end).unlink(missing_ok=True)


def _is_database(file: Path) -> bool:
    """Whether a regular file has the header of a database."""
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(len(_HEADER)) == _HEADER

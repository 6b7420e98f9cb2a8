"""SQLite files beside runs: which are ours, and what happens to those that are not."""

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
    """Checks that nobody else keeps a database in a file.

    A file that is missing, has no table or cannot be read passes.

    Args:
        file: the database.
        query: what a database of ours answers.
        expected: the only value of its first column.

    Raises:
        InputError: it has tables and answers something else (`output-foreign`).
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
    """Removes a database; a file that is none is kept under another name."""
    if file.exists() and not _is_database(file):
        os.replace(file, file.with_name(f"{file.name}.kept-{secrets.token_hex(4)}"))
    for end in ENDINGS:
        file.with_name(file.name + end).unlink(missing_ok=True)


def _is_database(file: Path) -> bool:
    """Whether a regular file begins as a database does."""
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(len(_HEADER)) == _HEADER

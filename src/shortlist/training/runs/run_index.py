"""The SQLite index of a run store: rows of its run folders, for searches.

The folders are authoritative. Every read first updates the index from them, so the file
may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from shortlist.data.kernels.ids import hash_bytes
from shortlist.errors import InputError, ResourceError
from shortlist.training.runs.databases import check_database, remove_database
from shortlist.training.runs.records import FAILURE_FILE, Record, read_record
from shortlist.training.runs.run import EVALUATION_FILE, RECIPE_FILE, RUN_FILE

INDEX_FILE = "index.sqlite"
INDEX_VERSION = 2
STAMPED = (RUN_FILE, FAILURE_FILE, RECIPE_FILE, EVALUATION_FILE)
CONDITION = re.compile(r"\s*([^<>=\s]+)\s*(>=|<=|>|<|=)\s*([^<>=\s]+)\s*")
FIELDS = Record.__struct_fields__
METRIC_FIELDS = ("validation", "test")


class RunIndex:
    """The index of a folder of runs.

    Args:
        path: the folder.
        timeout: seconds to wait for another process that writes the index.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self.path = path
        self.timeout = timeout

    def select(
        self,
        *,
        sort: str,
        ascending: bool,
        where: list[str],
        state: str | None,
        limit: int | None,
    ) -> list[Record]:
        """The runs, as `RunStore.records` returns them."""
        clauses: list[str] = ["1"]
        values: list[Any] = []
        if state is not None:
            clauses.append("state = ?")
            values.append(state)
        for condition in where:
            clause, wanted = _condition(condition)
            clauses.append(clause)
            values.append(wanted)
        key, order = _column(sort), "ASC" if ascending else "DESC"
        query = (
            f"SELECT * FROM runs WHERE {' AND '.join(clauses)}"
            f" ORDER BY {key} IS NULL, {key} {order}, id {order} LIMIT ?"
        )
        values.append(-1 if limit is None else limit)
        with self._open() as index:
            return [_record(row) for row in index.execute(query, values)]

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection to the index, updated from the folders."""
        try:
            with contextlib.closing(self._updated()) as index:
                yield index
        except sqlite3.OperationalError as error:
            raise ResourceError(
                "store-busy",
                f"The index of the run store was locked for {self.timeout:g} s (SQLite:"
                f" {error}). Try again, or delete the index: it is rebuilt from the"
                " runs.",
                file=self.path / INDEX_FILE,
            ) from error

    def _updated(self) -> sqlite3.Connection:
        """A connection to the index, rebuilt if it cannot be read."""
        file = self.path / INDEX_FILE
        if file.is_file():
            query = "SELECT name FROM sqlite_master WHERE type = 'table'"
            check_database(file, query, "runs")
        try:
            return self._connect()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:  # damaged: rebuilt from the folders
            remove_database(file)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        file = self.path / INDEX_FILE
        writable = self.path.is_dir() and os.access(self.path, os.W_OK)
        # A folder without runs gets no index. What exists but is no regular file, such
        # as a pipe, is not the index; opening it could block.
        is_there = os.path.lexists(file)
        is_ours = file.is_file() if is_there else bool(_stamps(self.path))
        place = file if writable and is_ours else ":memory:"
        index = sqlite3.connect(place, timeout=self.timeout, isolation_level=None)
        try:
            _prepare(index)
            self._update(index)
        except BaseException:
            index.close()
            raise
        return index

    def _update(self, index: sqlite3.Connection) -> None:
        """Reads folders that are new or changed, and drops those that are gone."""
        found = _stamps(self.path)
        if found == _known(index):
            return
        index.execute("BEGIN IMMEDIATE")
        with index:  # commits, or rolls back
            found = _stamps(self.path)  # another process may have written
            known = _known(index)
            gone = [
                (name,)
                for (name,) in index.execute("SELECT id FROM runs")
                if name not in found
            ]
            index.executemany("DELETE FROM runs WHERE id = ?", gone)
            rows = [
                _row(read_record(self.path / name), stamp)
                for name, stamp in found.items()
                if known.get(name) != stamp
            ]
            places = ", ".join("?" * (len(FIELDS) + 2))
            index.executemany(f"INSERT OR REPLACE INTO runs VALUES ({places})", rows)


def _prepare(index: sqlite3.Connection) -> None:
    # Readers do not wait for a writer. Where that is not possible, it has no effect.
    index.execute("PRAGMA journal_mode = WAL")
    columns = ", ".join(f"{name} BLOB" for name in FIELDS[1:])
    if index.execute("PRAGMA user_version").fetchone()[0] != INDEX_VERSION:
        index.execute("BEGIN IMMEDIATE")
        with index:
            index.execute("DROP TABLE IF EXISTS runs")
            index.execute(
                f"CREATE TABLE runs (id TEXT PRIMARY KEY, {columns}, stamp TEXT,"
                " xxh64 TEXT)"
            )
            index.execute(f"PRAGMA user_version = {INDEX_VERSION}")


def _known(index: sqlite3.Connection) -> dict[str, str]:
    """Stamps of the runs whose rows still have their checksum."""
    rows = index.execute("SELECT * FROM runs").fetchall()
    return {row[0]: row[-2] for row in rows if _row_sum(row[:-1]) == row[-1]}


def _row_sum(row: tuple[Any, ...]) -> str:
    return hash_bytes(repr(row).encode(errors="surrogateescape"))


def _stamps(path: Path) -> dict[str, str]:
    """Inodes, sizes and times of the files of each run, which show changes."""
    stamps = {}
    for folder in sorted(path.iterdir()) if path.is_dir() else []:
        if not folder.name.startswith(".") and (stamp := _stamp(folder)):
            stamps[folder.name] = stamp
    return stamps


def _stamp(folder: Path) -> str:
    """Empty for a folder without a run."""
    parts = []
    for name in STAMPED:
        with contextlib.suppress(OSError):
            file = (folder / name).stat()
            parts.append(f"{name} {file.st_ino} {file.st_size} {file.st_mtime_ns}")
    is_run = any(part.startswith((RUN_FILE, FAILURE_FILE)) for part in parts)
    return "; ".join(parts) if is_run else ""


def _row(record: Record, stamp: str) -> tuple[Any, ...]:
    values = [getattr(record, name) for name in FIELDS]
    row = (
        *(
            msgspec.json.encode(v).decode() if isinstance(v, dict) else v
            for v in values
        ),
        stamp,
    )
    return (*row, _row_sum(row))


def _record(row: tuple[Any, ...]) -> Record:
    values = dict(zip(FIELDS, row, strict=False))
    for name in METRIC_FIELDS:
        values[name] = msgspec.json.decode(values[name])
    return msgspec.convert(values, Record)


def _column(name: str) -> str:
    """A column, or a metric in one, as SQL."""
    if name in ("created_at", "seconds", "name"):
        return name
    part, dot, metric = name.partition(".")
    if part not in METRIC_FIELDS or not dot:
        part, metric = "validation", name
    if not re.fullmatch(r"[\w@./ -]+", metric):
        raise InputError(
            "runs-query",
            "A metric must be a name such as ndcg@10, validation.ndcg@10 or"
            f" test.ndcg@10. Received: {name!r}.",
        )
    return f"json_extract({part}, '$.\"{metric}\"')"


def _condition(text: str) -> tuple[str, float]:
    found = CONDITION.fullmatch(text)
    try:
        if found:
            return f"{_column(found[1])} {found[2]} ?", float(found[3])
    except ValueError:
        pass
    raise InputError(
        "runs-query",
        "A condition must be a metric, one of > >= < <= = and a number, such as"
        f" test.ndcg@10>=0.3. Received: {text!r}.",
    )

"""A folder of runs, and an index of it in SQLite.

    runs/
      20260102-030405-1a2b3c4d/  a run as `training.runs` reads it, or the record of a
                                 failed training: `failure.json` and `recipe.json`
      index.sqlite               what the folders say, for searches; may be deleted

The folders are the truth: every reading brings the index up to date with them, so they
may be added, copied and removed by hand. Knows nothing of Keras.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from shortlist.atomic import atomic_directory, atomic_file, disk_errors
from shortlist.data.kernels.ids import hash_bytes
from shortlist.data.store.checksums import FileSum, content_problem, sum_files
from shortlist.errors import ArtifactError, InputError, ResourceError, did_you_mean
from shortlist.outputs import (
    FAILURE,
    RUN,
    check_replaceable,
    contents_of,
    remove_ours,
)
from shortlist.training.runs.databases import check_database, remove_database
from shortlist.training.runs.run import (
    EVALUATION_FILE,
    RECIPE_FILE,
    RUN_FILE,
    Run,
    RunInfo,
    damaged,
    now,
    read_sealed,
    write_json,
    write_sealed,
)

INDEX_FILE = "index.sqlite"
FAILURE_FILE = "failure.json"
INDEX_VERSION = 2
STAMPED = (RUN_FILE, FAILURE_FILE, RECIPE_FILE, EVALUATION_FILE)
SYMBOLS = {">": ">", ">=": ">=", "<": "<", "<=": "<=", "=": "="}
CONDITION = re.compile(r"\s*([^<>=\s]+)\s*(>=|<=|>|<|=)\s*([^<>=\s]+)\s*")

State = Literal["finished", "pruned", "failed", "interrupted", "damaged"]
STATES = get_args(State)


class Pruned(Exception):
    """Raised by a watch: the training is not worth going on, which is no failure."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a store.

    Args:
        id: name of its folder.
        name: of the recipe.
        created_at: when it ended, UTC, ISO text.
        state: `finished`; `pruned`, `failed` or `interrupted` without models;
            `damaged` when its files cannot be read.
        dataset_fingerprint: of what it was trained on.
        recipe_hash: 16 hexadecimal digits; equal for runs of equal recipes.
        backend: of Keras.
        seconds: of the whole training.
        validation: metrics on the validation part.
        test: metrics on the test part, once `shortlist evaluate` ran.
        error: why it did not finish.
        path: the folder.
    """

    id: str
    name: str = ""
    created_at: str = ""
    state: State = "finished"
    dataset_fingerprint: str = ""
    recipe_hash: str = ""
    backend: str = ""
    seconds: float = 0.0
    validation: dict[str, float] = {}
    test: dict[str, float] = {}
    error: str | None = None
    path: str = ""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """What `failure.json` holds."""

    created_at: str
    state: Literal["pruned", "failed", "interrupted"]
    dataset_fingerprint: str
    backend: str
    seconds: float
    error: str
    files: dict[str, FileSum] = {}
    """Checksum of the recipe."""
    checksum: str = ""
    """Of all the other fields."""


FIELDS = Record.__struct_fields__
METRIC_FIELDS = ("validation", "test")


class RunStore:
    """A folder of runs.

    Several processes may write and read it at once.

    Args:
        path: the folder; made by the first writer.
        timeout: seconds to wait for another process that writes the index.
    """

    def __init__(self, path: str | Path, *, timeout: float = 30.0) -> None:
        self.path = Path(path)
        self.timeout = timeout

    def add(self, run: Run) -> Record:
        """Keeps a finished run; once more, takes over what was measured since.

        The files of its checkpoints are shared with the run where the disk allows it
        (hard links), as both replace files whole and never write into them.

        Raises:
            ResourceError: the disk is full or cannot be written.
        """
        if run.path.resolve().parent == self.path.resolve():
            return self.get(run.path.name)
        name = _name(run.info.created_at, _digest(run.path, RUN_FILE, RECIPE_FILE))
        kept = self.path / name
        if (kept / RUN_FILE).is_file():
            _take_over(run.path, kept)
        else:
            with atomic_directory(kept, overwrite=True, kind=RUN) as folder:
                _share_ours(run.path, folder)
                _take_over(run.path, folder)
        return self.get(name)

    def add_failure(self, failure: Failure, recipe: dict[str, Any]) -> Record:
        """Keeps the record of a training that did not finish."""
        said = msgspec.json.encode((failure, recipe, os.getpid()))
        name = _name(failure.created_at, hashlib.sha256(said).hexdigest()[:8])
        with atomic_directory(self.path / name, overwrite=True, kind=FAILURE) as folder:
            write_json(folder / RECIPE_FILE, recipe)
            sums = sum_files(folder, [RECIPE_FILE])
            sealed = msgspec.structs.replace(failure, files=sums)
            write_sealed(folder / FAILURE_FILE, sealed)
        return self.get(name)

    def records(
        self,
        *,
        sort: str | None = None,
        ascending: bool = False,
        where: list[str] | None = None,
        state: str | None = None,
        limit: int | None = None,
    ) -> list[Record]:
        """The runs, newest first.

        Args:
            sort: `created_at`, `seconds`, `name` or a metric: `ndcg@10` on the
                validation part, `test.ndcg@10` on the test part. Runs without it
                come last.
            ascending: smallest first.
            where: conditions, such as `test.ndcg@10>=0.3`.
            state: only runs in this state.
            limit: at most so many.

        Raises:
            InputError: `where` is no condition, or `sort` no name.
        """
        clauses: list[str] = ["1"]
        values: list[Any] = []
        if state is not None:
            clauses.append("state = ?")
            values.append(state)
        for condition in where or []:
            clause, wanted = _condition(condition)
            clauses.append(clause)
            values.append(wanted)
        key = _column(sort or "created_at")
        order = "ASC" if ascending else "DESC"
        query = (
            f"SELECT * FROM runs WHERE {' AND '.join(clauses)}"
            f" ORDER BY {key} IS NULL, {key} {order}, id {order} LIMIT ?"
        )
        values.append(-1 if limit is None else limit)
        with self._index() as index:
            return [_record(row) for row in index.execute(query, values)]

    def get(self, name: str) -> Record:
        """One run by its id, or by what only its id begins with.

        Raises:
            ArtifactError: there is none, or several.
        """
        records = {record.id: record for record in self.records()}
        if name in records:
            return records[name]
        found = [record for record in records.values() if record.id.startswith(name)]
        if name and len(found) == 1:
            return found[0]
        several = [record.id for record in found][:5] if name else []
        raise ArtifactError(
            "run-unknown",
            f"A run must be named by its id, or by what only its id begins with, of"
            f" {str(self.path)!r}. Received: {name!r}"
            + (f", which may be any of {several}." if several else ".")
            + did_you_mean(name, records)
            + " `shortlist runs` lists them.",
            file=self.path,
        )

    def remove(self, name: str) -> Record:
        """Deletes one run, found as by `get`, with its models.

        Raises:
            InputError: files of somebody else are in its folder (`output-foreign`).
        """
        record = self.get(name)
        folder = self.path / record.id
        kind = RUN if (folder / RUN_FILE).is_file() else FAILURE
        with disk_errors(self.path):
            check_replaceable(folder, kind)
            # Hidden in one step: a reader sees the whole run or none.
            gone = Path(tempfile.mkdtemp(prefix=".removed.", dir=self.path))
            os.replace(folder, gone)
            remove_ours(gone, kind)
        self.records(limit=0)
        return record

    @contextlib.contextmanager
    def _index(self) -> Iterator[sqlite3.Connection]:
        """The index, up to date with the folders."""
        try:
            with contextlib.closing(self._updated()) as index:
                yield index
        except sqlite3.OperationalError as error:
            raise ResourceError(
                "store-busy",
                f"The index of a run store must be free within {self.timeout:g} s."
                f" SQLite said: {error}. Try again, or delete the index: it is made"
                " anew.",
                file=self.path / INDEX_FILE,
            ) from error

    def _updated(self) -> sqlite3.Connection:
        """A connection to the index, written again if it cannot be read."""
        file = self.path / INDEX_FILE
        if file.is_file():
            query = "SELECT name FROM sqlite_master WHERE type = 'table'"
            check_database(file, query, "runs")
        try:
            return self._connect()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:  # damaged: the folders say it all
            remove_database(file)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        file = self.path / INDEX_FILE
        writable = self.path.is_dir() and os.access(self.path, os.W_OK)
        # Nothing is written to a folder without runs. What is there and no file is not
        # the index, and may be waited for without end.
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
        """Reads the folders that are new or changed, forgets those that are gone."""
        found = _stamps(self.path)
        if found == _known(index):
            return
        index.execute("BEGIN IMMEDIATE")
        with index:  # commits, or rolls back
            found = _stamps(self.path)  # another process may have written meanwhile
            known = _known(index)
            gone = [
                (name,)
                for (name,) in index.execute("SELECT id FROM runs")
                if name not in found
            ]
            index.executemany("DELETE FROM runs WHERE id = ?", gone)
            rows = [
                _row(_read(self.path / name), stamp)
                for name, stamp in found.items()
                if known.get(name) != stamp
            ]
            places = ", ".join("?" * (len(FIELDS) + 2))
            index.executemany(f"INSERT OR REPLACE INTO runs VALUES ({places})", rows)


def recipe_hash(recipe: dict[str, Any]) -> str:
    """16 hexadecimal digits that name what a recipe says, whatever the order."""
    encoded = msgspec.json.encode(recipe, order="deterministic")
    return hashlib.sha256(encoded).hexdigest()[:16]


def best_metrics(info: RunInfo) -> dict[str, float]:
    """Validation metrics of what a run serves: its pipeline, else retrieval alone."""
    validation = info.validation
    return _numbers(validation.get("pipeline") or validation.get("retrieval"))


def _prepare(index: sqlite3.Connection) -> None:
    # Readers go on while one writes. Says so where it cannot, and goes on.
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
    """Stamps of the runs whose rows are as they were written."""
    rows = index.execute("SELECT * FROM runs").fetchall()
    return {row[0]: row[-2] for row in rows if _row_sum(row[:-1]) == row[-1]}


def _row_sum(row: tuple[Any, ...]) -> str:
    return hash_bytes(repr(row).encode(errors="surrogateescape"))


def _stamps(path: Path) -> dict[str, str]:
    """Of each run's folder, what tells that its files changed."""
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


def _read(folder: Path) -> Record:
    """The record of one folder; `damaged` if its files cannot be read."""
    try:
        if (folder / RUN_FILE).is_file():
            return _finished(Run.open(folder))
        return _failed(folder)
    except (ArtifactError, msgspec.MsgspecError, OSError, UnicodeError) as error:
        return Record(
            id=folder.name, state="damaged", error=str(error), path=str(folder)
        )


def _finished(run: Run) -> Record:
    measured = (run.evaluation() or {}).get("metrics")
    test = measured.get("model") if isinstance(measured, dict) else None
    return Record(
        id=run.path.name,
        name=str(run.recipe.get("name", "")),
        created_at=run.info.created_at,
        dataset_fingerprint=run.info.dataset_fingerprint,
        recipe_hash=recipe_hash(run.recipe),
        backend=run.info.backend,
        seconds=run.info.seconds.get("total", 0.0),
        validation=best_metrics(run.info),
        test=_numbers(test),
        path=str(run.path),
    )


def _failed(folder: Path) -> Record:
    failure = read_sealed(folder / FAILURE_FILE, Failure)
    if problem := content_problem(folder, RECIPE_FILE, failure.files.get(RECIPE_FILE)):
        raise damaged(folder / RECIPE_FILE, problem)
    recipe = read_sealed(folder / RECIPE_FILE, dict[str, Any])
    return Record(
        id=folder.name,
        name=str(recipe.get("name", "")),
        created_at=failure.created_at,
        state=failure.state,
        dataset_fingerprint=failure.dataset_fingerprint,
        recipe_hash=recipe_hash(recipe),
        backend=failure.backend,
        seconds=failure.seconds,
        error=failure.error,
        path=str(folder),
    )


def _numbers(values: Any) -> dict[str, float]:
    if not isinstance(values, dict):
        return {}
    kept = {name: v for name, v in values.items() if isinstance(v, int | float)}
    return {str(name): float(value) for name, value in kept.items()}


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
    """A column, or a metric inside one, as SQL."""
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
            return f"{_column(found[1])} {SYMBOLS[found[2]]} ?", float(found[3])
    except ValueError:
        pass
    raise InputError(
        "runs-query",
        "A condition must be a metric, one of > >= < <= = and a number, such as"
        f" test.ndcg@10>=0.3. Received: {text!r}.",
    )


def _name(created_at: str, digest: str) -> str:
    digits = re.sub(r"\D", "", created_at[:19])  # a run may come from anybody
    return f"{digits[:8]}-{digits[8:]}-{digest}"


def _digest(folder: Path, *names: str) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:8]


def _share_ours(source: Path, target: Path) -> None:
    """Links or copies the files of a run; what others put beside them stays there."""
    found = contents_of(source, RUN)
    for name in found.ours if found is not None else []:
        if not name.endswith("/"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            _share(source / name, target / name)


def _share(source: Path, target: Path) -> None:
    """Links a file, or copies it to another disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _take_over(source: Path, target: Path) -> None:
    """Copies the files of a run's own folder, which later commands write."""
    found = contents_of(source, RUN)
    for name in found.ours if found is not None else []:
        if "/" not in name and not name.startswith("."):
            with atomic_file(target / name) as temporary:
                shutil.copy2(source / name, temporary)


def failure_now(
    error: BaseException, *, fingerprint: str, backend: str, seconds: float
) -> Failure:
    """The record of a training that just ended with an error."""
    state: Literal["pruned", "failed", "interrupted"] = "interrupted"
    if isinstance(error, Exception):
        state = "pruned" if isinstance(error, Pruned) else "failed"
    return Failure(
        created_at=now(),
        state=state,
        dataset_fingerprint=fingerprint,
        backend=backend,
        seconds=round(seconds, 3),
        error=f"{type(error).__name__}: {error}".removesuffix(": "),
    )

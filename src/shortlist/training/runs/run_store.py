"""A folder of runs, and an index of it in SQLite.

    runs/
      20260102-030405-1a2b3c4d/  a run as `runs.run` reads it, or the record of a failed
                                 training: `failure.json` and `recipe.json`
      index.sqlite               rows of the folders, for searches; may be deleted

The index is updated from the folders at every read, so folders may be added, copied and
removed by hand.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from shortlist.atomic import atomic_directory, atomic_file, disk_errors
from shortlist.data.store.checksums import sum_files
from shortlist.errors import ArtifactError, did_you_mean
from shortlist.outputs import (
    FAILURE,
    RUN,
    check_replaceable,
    contents_of,
    remove_ours,
)
from shortlist.training.runs.records import FAILURE_FILE, Failure, Record
from shortlist.training.runs.run import (
    RECIPE_FILE,
    RUN_FILE,
    Run,
    write_json,
    write_sealed,
)
from shortlist.training.runs.run_index import RunIndex


class RunStore:
    """A folder of runs.

    Several processes may read and write it at the same time.

    Args:
        path: the folder; created by the first writer.
        timeout: seconds to wait for another process that writes the index.
    """

    def __init__(self, path: str | Path, *, timeout: float = 30.0) -> None:
        self.path = Path(path)
        self.index = RunIndex(self.path, timeout)

    def add(self, run: Run) -> Record:
        """Adds a finished run; if it is there already, updates its measurements.

        The files of its checkpoints are hard links to those of the run where the disk
        allows it: files are only ever replaced, never written in place.

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
        """Adds the record of a training that did not finish."""
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
            limit: return at most this many.

        Raises:
            InputError: `where` is no condition, or `sort` no name (`runs-query`).
        """
        return self.index.select(
            sort=sort or "created_at",
            ascending=ascending,
            where=where or [],
            state=state,
            limit=limit,
        )

    def get(self, name: str) -> Record:
        """One run by its id, or by a unique prefix of it.

        Raises:
            ArtifactError: no run has it, or several do (`run-unknown`).
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
            (
                f"{name!r} is the beginning of several runs in {str(self.path)!r}:"
                f" {several}. Give more of the id."
                if several
                else f"No run {name!r} in {str(self.path)!r}. Give the id of a run, or"
                f" a unique prefix of it.{did_you_mean(name, records)} `shortlist runs`"
                " lists them."
            ),
            file=self.path,
        )

    def remove(self, name: str) -> Record:
        """Deletes one run, found as by `get`, with its models.

        Raises:
            InputError: its folder has files that Shortlist did not write
                (`output-foreign`).
        """
        record = self.get(name)
        folder = self.path / record.id
        kind = RUN if (folder / RUN_FILE).is_file() else FAILURE
        with disk_errors(self.path):
            check_replaceable(folder, kind)
            # Renamed in one step: a reader sees the whole run or none.
            gone = Path(tempfile.mkdtemp(prefix=".removed.", dir=self.path))
            os.replace(folder, gone)
            remove_ours(gone, kind)
        self.records(limit=0)
        return record


def _name(created_at: str, digest: str) -> str:
    digits = re.sub(r"\D", "", created_at[:19])  # a run may come from another machine
    return f"{digits[:8]}-{digits[8:]}-{digest}"


def _digest(folder: Path, *names: str) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:8]


def _share_ours(source: Path, target: Path) -> None:
    """Links or copies the files of a run, but no other files in its folder."""
    found = contents_of(source, RUN)
    for name in found.ours if found is not None else []:
        if not name.endswith("/"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            _share(source / name, target / name)


def _share(source: Path, target: Path) -> None:
    """Links a file, or copies it if it is on another disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _take_over(source: Path, target: Path) -> None:
    """Copies the top-level files of a run, which later commands write."""
    found = contents_of(source, RUN)
    for name in found.ours if found is not None else []:
        if "/" not in name and not name.startswith("."):
            with atomic_file(target / name) as temporary:
                shutil.copy2(source / name, temporary)

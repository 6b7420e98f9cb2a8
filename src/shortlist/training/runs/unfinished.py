"""A training that is not finished, in a hidden folder beside the run it will become.

    .NAME.training/
      lock              who trains; see `training_lock`
      state.json        what is done and what is under way; replaced whole
      run/              files of the run that are finished; becomes NAME in one rename
      e00003-b000000/   the model under way after 3 epochs and 0 batches of the next one

`state.json` names every folder that counts, so a process may be killed at any moment:
what it does not name is not there. The run that is to be replaced stays until then.

Knows nothing of Keras, nor of what is in the folders.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Any, Literal

import msgspec

from shortlist import interrupts
from shortlist.atomic import check_absent, disk_errors, publish_directory, resolved
from shortlist.data.store.checksums import (
    FileSum,
    files_in,
    first_problem,
    seal_problem,
    sum_files,
)
from shortlist.errors import ArtifactError, InputError, ResourceError
from shortlist.lock import Lock
from shortlist.outputs import (
    RUN,
    TRAINING,
    check_replaceable,
    is_temporary,
    remove_ours,
)
from shortlist.training.runs.run import RUN_FILE, write_sealed

FORMAT_VERSION = 1
STATE_FILE = "state.json"
# What may differ when a training goes on: it decides when one ends, if anything.
FREE_FIELDS = ("evaluation", "log", "name", "output", "serving", "tracking", "tune")
FREE_TRAINING = ("checkpoint_minutes", "price_per_hour", "time_budget")


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """A stage that is done; its model lies in the run's folder."""

    epochs: int
    random: dict[str, Any]
    seconds: float
    """Since the training began."""
    files: dict[str, FileSum] = {}
    """Checksums of the model, by path in the run's folder."""
    note: str = ""
    """What is said of how it ended."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The stage under way: where it stands, and the best so far."""

    stage: str
    epoch: int
    """Epochs that are done."""
    batch: int
    """Batches of the next one that are done."""
    folder: str
    random: dict[str, Any]
    is_last: bool = False
    """Whether training ended with this epoch."""
    memory: dict[str, Any] = {}
    """What the stops need of the epochs done, by the names they chose."""
    best_epoch: int | None = None
    best_folder: str | None = None
    files: dict[str, FileSum] = {}
    """Checksums of both folders, by path in the training's."""


class _Header(msgspec.Struct, kw_only=True):
    format: Literal["shortlist-training"] = "shortlist-training"
    format_version: int = FORMAT_VERSION


class State(_Header, kw_only=True):
    """What `state.json` holds."""

    recipe: dict[str, Any]
    dataset_fingerprint: str
    backend: str
    overwrite: bool = False
    warm_start: str = ""
    """Path of the run whose weights this one begins with."""
    new_files: list[str] = []
    """Files of the only events to train on; all without any."""
    seconds: float = 0.0
    """Time spent by earlier processes."""
    metrics_bytes: int = 0
    """Length of `metrics.jsonl` at that moment."""
    stages: dict[str, Finished] = {}
    checkpoint: Checkpoint | None = None
    run_sha256: str = ""
    """Of the finished `run.json`, once the run may take its place."""
    checksum: str = ""
    """Of all the other fields."""


class Unfinished:
    """The folder of a training, locked until `close`.

    Args:
        out: where the run will be.
        begun: what is to be trained, with nothing done yet.
        overwrite: begin anew, and replace a run at `out`.
        resume: go on with what is there, if anything is.

    Raises:
        InputError: `training-unfinished`, `resume-mismatch`, `output-exists`,
            `output-foreign` or `output-path`.
        ArtifactError: `training-newer` or `training-damaged`.
        ResourceError: `training-locked`, `no-space`, `read-only` or `no-permission`.
    """

    def __init__(
        self, out: Path, begun: State, *, overwrite: bool = False, resume: bool = False
    ) -> None:
        self.out = out
        self.folder = unfinished_folder(out)
        self.state = begun
        self._started = time.monotonic()
        with disk_errors(out):
            if not resume:
                _check_ours(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = training_lock(self.folder)
        try:
            self._open(overwrite, resume)
        except BaseException:
            self.close()
            raise

    @property
    def run_folder(self) -> Path:
        """Where the files of the run are until it is finished."""
        return self.folder / "run"

    @property
    def seconds(self) -> float:
        """Time spent so far, by earlier processes too."""
        return self.state.seconds + time.monotonic() - self._started

    @property
    def stages(self) -> dict[str, Finished]:
        """The stages that are done."""
        return self.state.stages

    @property
    def is_published(self) -> bool:
        """Whether the finished run has taken its place already."""
        return is_run(self.out, self.state.run_sha256)

    def checkpoint_of(self, stage: str) -> Checkpoint | None:
        """Where a stage stands; `None` if it was not begun."""
        found = self.state.checkpoint
        return found if found is not None and found.stage == stage else None

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Makes a checkpoint, whose folder is complete, the one to go on from."""
        folders = {checkpoint.folder, checkpoint.best_folder} - {None}
        names = [name for f in folders for name in files_in(self.folder, str(f))]
        sums = sum_files(self.folder, names)
        self._write(checkpoint=msgspec.structs.replace(checkpoint, files=sums))
        self._remove_others()

    def finish_stage(
        self, stage: str, epochs: int, random: dict[str, Any], note: str = ""
    ) -> None:
        """A stage, whose model is in the run's folder, need not be trained again."""
        sums = sum_files(self.run_folder, files_in(self.run_folder, stage))
        finished = Finished(
            epochs=epochs, random=random, seconds=self.seconds, note=note, files=sums
        )
        self._write(checkpoint=None, stages={**self.state.stages, stage: finished})
        self._remove_others()

    def publish(self) -> None:
        """The finished run, with its `run.json`, takes its place."""
        digest = hashlib.sha256((self.run_folder / RUN_FILE).read_bytes()).hexdigest()
        self._write(run_sha256=digest)
        check_absent(self.out, overwrite=self.state.overwrite, kind=RUN)
        with disk_errors(self.out):
            publish_directory(self.run_folder, self.out, RUN)
        self.remove()

    def remove(self) -> None:
        """Removes the folder, the lock last."""
        self._empty()
        remove_ours(self.folder, TRAINING)

    def close(self) -> None:
        """Lets others go on; removes the folder if there is nothing to go on from."""
        if self.folder.is_dir() and not _is_begun(self.folder):
            self.remove()
        self._lock.release()

    def __enter__(self) -> Unfinished:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        is_interrupted = kind in (KeyboardInterrupt, SystemExit)
        is_interrupted |= interrupts.received() is not None
        if not _is_worth(self.state) and not (is_interrupted and self.state.overwrite):
            (self.folder / STATE_FILE).unlink(missing_ok=True)
        self.close()

    def _open(self, overwrite: bool, resume: bool) -> None:
        if overwrite and not resume:
            self._begin(overwrite)
            return
        found = _read(self.folder / STATE_FILE)
        if found is None:
            self._begin(overwrite)
        elif not _is_worth(found):
            self._begin(overwrite or (resume and found.overwrite))
        elif is_run(self.out, found.run_sha256):
            self.state = found
            if not resume:
                self._begin(overwrite)
        elif not resume:
            raise InputError(
                "training-unfinished",
                "A training must be finished or given up before another begins at the"
                f" same place. Found one that was interrupted: {_standing(found)}. Go"
                " on with --resume, or start anew with --overwrite.",
                file=self.out,
            )
        else:
            _check_same(found, self.state, self.out)
            self._check_files(found)
            self.state = found
            self.state.overwrite |= overwrite
            self._truncate_metrics()
            self._remove_others()

    def _check_files(self, state: State) -> None:
        """Checks what a training is to go on from, before anything is removed."""
        kept = [(self.run_folder, stage.files) for stage in state.stages.values()]
        if state.checkpoint is not None:
            kept.append((self.folder, state.checkpoint.files))
        for folder, files in kept:
            if found := first_problem(folder, files, files):
                raise _damaged(folder / found[0], found[1])

    def _begin(self, overwrite: bool) -> None:
        check_absent(self.out, overwrite=overwrite, kind=RUN)
        self.state.overwrite = overwrite
        with disk_errors(self.out):
            self._empty()
            self.run_folder.mkdir()
            # So that --resume alone knows that the older run may be replaced.
            self._write()

    def _write(self, **changes: Any) -> None:
        metrics = self.run_folder / "metrics.jsonl"
        length = metrics.stat().st_size if metrics.is_file() else 0
        self.state = msgspec.structs.replace(
            self.state, seconds=self.seconds, metrics_bytes=length, **changes
        )
        self._started = time.monotonic()
        write_sealed(self.folder / STATE_FILE, self.state)

    def _truncate_metrics(self) -> None:
        """Forgets epochs that no checkpoint knows."""
        metrics = self.run_folder / "metrics.jsonl"
        if metrics.is_file():
            os.truncate(metrics, self.state.metrics_bytes)

    def _remove_others(self) -> None:
        """Removes what the state does not name."""
        named = {"lock", STATE_FILE, "run"}
        if self.state.checkpoint is not None:
            named |= {self.state.checkpoint.folder}
            named |= {self.state.checkpoint.best_folder or "run"}
        remove_ours(self.folder, TRAINING, keep=named)
        for path in self.run_folder.iterdir():
            if is_temporary(path.name):  # half-written by a killed process
                _remove(path)

    def _empty(self) -> None:
        """The state goes first: without it the rest counts for nothing."""
        (self.folder / STATE_FILE).unlink(missing_ok=True)
        remove_ours(self.folder, TRAINING, keep={"lock"})


def _check_ours(folder: Path) -> None:
    """Raises `InputError` (`output-foreign`) if others have put something there."""
    if folder.is_symlink() or folder.is_dir():
        check_replaceable(folder, None if folder.is_symlink() else TRAINING)


def training_lock(folder: Path) -> Lock:
    """The lock of the one process that trains in a folder.

    Raises:
        ResourceError: `training-locked`, another process does.
    """
    path = folder / "lock"

    def busy(who: str) -> ResourceError:
        return ResourceError(
            "training-locked",
            f"Only one process may train a run at a time. Found that {who} is training"
            " it. Wait for it, end it (SIGTERM saves what it has done), or choose"
            " another output.",
            file=path,
        )

    return Lock(path, busy)


def unfinished_folder(out: Path) -> Path:
    """Where the training of the run at `out` keeps its state: on the run's own disk."""
    out = resolved(out)
    return out.with_name(f".{out.name}.training")


def begun_recipe(out: Path) -> dict[str, Any] | None:
    """The recipe of the training that was interrupted at `out`, if one was."""
    found = _read(unfinished_folder(out) / STATE_FILE)
    return None if found is None or not _is_worth(found) else found.recipe


def is_run(out: Path, run_sha256: str) -> bool:
    """Whether the run at `out` has a `run.json` of this digest."""
    file = out / RUN_FILE
    if not run_sha256 or not file.is_file():
        return False
    return hashlib.sha256(file.read_bytes()).hexdigest() == run_sha256


def differing_fields(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Fields of two recipes that differ and that the weights depend on."""
    # As JSON has them: lists in place of tuples.
    one, other = (msgspec.json.decode(msgspec.json.encode(r)) for r in (one, other))
    names = []
    # What is measured decides which epoch is best. Earlier versions have no such field.
    if _repeats(one) != _repeats(other):
        names.append("evaluation.repeats")
    for section in sorted(set(one) | set(other)):
        left, right = one.get(section), other.get(section)
        if section in FREE_FIELDS or left == right:
            continue
        if not (isinstance(left, dict) and isinstance(right, dict)):
            names.append(section)
            continue
        free = FREE_TRAINING if section == "training" else ()
        names += [
            f"{section}.{name}"
            for name in sorted(set(left) | set(right))
            if left.get(name) != right.get(name) and name not in free
        ]
    return names


def _repeats(recipe: dict[str, Any]) -> bool:
    return bool(recipe.get("evaluation", {}).get("repeats", False))


def _check_same(found: State, wanted: State, out: Path) -> None:
    differing = [
        name.replace("_", " ")
        for name in ("dataset_fingerprint", "backend")
        if getattr(found, name) != getattr(wanted, name)
    ]
    # Not asked for again, they are those of the beginning.
    if wanted.warm_start not in ("", found.warm_start):
        differing.append("warm start")
    if wanted.new_files and wanted.new_files != found.new_files:
        differing.append("new days")
    differing += differing_fields(found.recipe, wanted.recipe)
    if differing:
        raise InputError(
            "resume-mismatch",
            "A training goes on with the dataset, the backend and the recipe it was"
            f" begun with. These differ: {', '.join(differing)}. Set them back, or"
            " start anew with --overwrite.",
            file=out,
        )


def _standing(state: State) -> str:
    done = [f"{name} is trained" for name in state.stages]
    if (point := state.checkpoint) is not None:
        batches = f" and {point.batch} batches" if point.batch else ""
        done.append(f"{point.stage} has done {point.epoch} epochs{batches}")
    return ", ".join(done)


def _is_worth(state: State) -> bool:
    return bool(state.stages) or state.checkpoint is not None


def _is_begun(folder: Path) -> bool:
    """Whether a state was written; only those worth something are."""
    return (folder / STATE_FILE).is_file()


def _read(file: Path) -> State | None:
    if not file.is_file():
        return None
    try:
        text = file.read_bytes()
        version = msgspec.json.decode(text, type=_Header).format_version
        if version <= FORMAT_VERSION:
            state = msgspec.json.decode(text, type=State)
            if problem := seal_problem(text, required=_has_sums(state)):
                raise _damaged(file, problem)
            return state
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(file, error) from error
    raise ArtifactError(
        "training-newer",
        f"The format of an unfinished training must be at most {FORMAT_VERSION}."
        f" Received: {version}. Update shortlist, or start anew with --overwrite.",
        file=file,
    )


def _has_sums(state: State) -> bool:
    """Whether a state has checksums, as all have but those of an earlier version."""
    parts = (state.checkpoint, *state.stages.values())
    return any(part.files for part in parts if part is not None)


def _damaged(file: Path, problem: object) -> ArtifactError:
    return ArtifactError(
        "training-damaged",
        "The state of a training must be what Shortlist wrote. Reading it failed:"
        f" {problem}. Start anew with --overwrite.",
        file=file,
    )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def kept(error: ResourceError, unfinished: Unfinished) -> ResourceError:
    """An error of the disk, told with the names the user gave and what is left."""
    told = error.message.replace(str(unfinished.run_folder), str(unfinished.out))
    told = told.replace(str(unfinished.folder), str(unfinished.out))
    if _is_worth(unfinished.state):
        told = told.replace("nothing was left behind", "--resume then goes on")
    return ResourceError(error.code, told, file=unfinished.out)

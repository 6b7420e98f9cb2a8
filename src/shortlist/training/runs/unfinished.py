"""The state of an unfinished training, in a hidden folder next to its run.

    .NAME.training/
      lock              locked by the process that trains; see `training_lock`
      state.json        finished stages and the last checkpoint; replaced atomically
      run/              finished files of the run; renamed to NAME at the end
      e00003-b000000/   checkpoint after 3 epochs and 0 batches of the next one

A process may be killed at any moment: folders that `state.json` does not name are
ignored. A run that is to be replaced stays until the rename. This module does not
import Keras.
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
from shortlist.atomic import (
    NOTHING_LEFT,
    check_absent,
    disk_errors,
    publish_directory,
    resolved,
)
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
# What may differ on resuming: it does not change the weights of an epoch.
FREE_FIELDS = ("evaluation", "log", "name", "output", "serving", "tracking", "tune")
FREE_TRAINING = ("checkpoint_minutes", "price_per_hour", "time_budget")


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """A finished stage; its model is in the run folder."""

    epochs: int
    random: dict[str, Any]
    seconds: float
    """Since the start of the training."""
    files: dict[str, FileSum] = {}
    """Checksums of the model, by path in the run's folder."""
    note: str = ""
    """How its fit ended, as text."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The last checkpoint of the unfinished stage, and the best epoch so far."""

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
    """The state of the stops, by name."""
    best_epoch: int | None = None
    best_folder: str | None = None
    files: dict[str, FileSum] = {}
    """Checksums of both folders, by path in the training folder."""


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
    """Path of the run of a warm start."""
    new_files: list[str] = []
    """Files of the events to train on; all if empty."""
    seconds: float = 0.0
    """Time spent by earlier processes."""
    metrics_bytes: int = 0
    """Length of `metrics.jsonl` when this was written."""
    stages: dict[str, Finished] = {}
    checkpoint: Checkpoint | None = None
    run_sha256: str = ""
    """SHA-256 of the finished `run.json`, once the run is being published."""
    checksum: str = ""
    """Checksum of all other fields."""


class Unfinished:
    """The folder of an unfinished training, locked until `close`.

    Args:
        out: where the run will be.
        begun: the initial state of the training.
        overwrite: start again, and replace a run at `out`.
        resume: resume an unfinished training, if there is one.

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
        """The folder of the run until it is finished."""
        return self.folder / "run"

    @property
    def seconds(self) -> float:
        """Seconds spent so far, including earlier processes."""
        return self.state.seconds + time.monotonic() - self._started

    @property
    def stages(self) -> dict[str, Finished]:
        """The finished stages."""
        return self.state.stages

    @property
    def is_published(self) -> bool:
        """Whether the finished run is at `out` already."""
        return is_run(self.out, self.state.run_sha256)

    def checkpoint_of(self, stage: str) -> Checkpoint | None:
        """The checkpoint of a stage; `None` if it was not started."""
        found = self.state.checkpoint
        return found if found is not None and found.stage == stage else None

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Makes a complete checkpoint folder the one to resume from."""
        folders = {checkpoint.folder, checkpoint.best_folder} - {None}
        names = [name for f in folders for name in files_in(self.folder, str(f))]
        sums = sum_files(self.folder, names)
        self._write(checkpoint=msgspec.structs.replace(checkpoint, files=sums))
        self._remove_others()

    def finish_stage(
        self, stage: str, epochs: int, random: dict[str, Any], note: str = ""
    ) -> None:
        """Marks a stage as finished, whose model is in the run folder."""
        sums = sum_files(self.run_folder, files_in(self.run_folder, stage))
        finished = Finished(
            epochs=epochs, random=random, seconds=self.seconds, note=note, files=sums
        )
        self._write(checkpoint=None, stages={**self.state.stages, stage: finished})
        self._remove_others()

    def publish(self) -> None:
        """Moves the finished run, with its `run.json`, to `out`."""
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
        """Releases the lock; removes the folder if there is nothing to resume."""
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
                f"There is an interrupted training: {_standing(found)}. Continue it"
                " with --resume, or start again with --overwrite.",
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
        """Checks the files to resume from, before anything is removed."""
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
            # So that a later --resume knows that the older run may be replaced.
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
        """Removes the metrics of epochs after the last checkpoint."""
        metrics = self.run_folder / "metrics.jsonl"
        if metrics.is_file():
            os.truncate(metrics, self.state.metrics_bytes)

    def _remove_others(self) -> None:
        """Removes folders that the state does not name."""
        named = {"lock", STATE_FILE, "run"}
        if self.state.checkpoint is not None:
            named |= {self.state.checkpoint.folder}
            named |= {self.state.checkpoint.best_folder or "run"}
        remove_ours(self.folder, TRAINING, keep=named)
        for path in self.run_folder.iterdir():
            if is_temporary(path.name):  # partly written by a killed process
                _remove(path)

    def _empty(self) -> None:
        """Removes the state first: without it the rest is ignored."""
        (self.folder / STATE_FILE).unlink(missing_ok=True)
        remove_ours(self.folder, TRAINING, keep={"lock"})


def _check_ours(folder: Path) -> None:
    """Raises `InputError` (`output-foreign`) if the folder has other files."""
    if folder.is_symlink() or folder.is_dir():
        check_replaceable(folder, None if folder.is_symlink() else TRAINING)


def training_lock(folder: Path) -> Lock:
    """The lock of the one process that trains in a folder.

    Raises:
        ResourceError: `training-locked`, another process trains there.
    """
    path = folder / "lock"

    def busy(who: str) -> ResourceError:
        return ResourceError(
            "training-locked",
            f"The run is being trained by {who}. Wait for it, stop it (SIGTERM saves a"
            " checkpoint), or choose another output.",
            file=path,
        )

    return Lock(path, busy)


def unfinished_folder(out: Path) -> Path:
    """The state folder of the training of `out`, on the same disk."""
    out = resolved(out)
    return out.with_name(f".{out.name}.training")


def begun_recipe(out: Path) -> dict[str, Any] | None:
    """The recipe of the interrupted training at `out`, if there is one."""
    found = _read(unfinished_folder(out) / STATE_FILE)
    return None if found is None or not _is_worth(found) else found.recipe


def is_run(out: Path, run_sha256: str) -> bool:
    """Whether the run at `out` has a `run.json` of this digest."""
    file = out / RUN_FILE
    if not run_sha256 or not file.is_file():
        return False
    return hashlib.sha256(file.read_bytes()).hexdigest() == run_sha256


def differing_fields(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Differing fields of two recipes that the weights depend on."""
    # As JSON has them: lists in place of tuples.
    one, other = (msgspec.json.decode(msgspec.json.encode(r)) for r in (one, other))
    names = []
    # The metric decides which epoch is best. Earlier versions have no such field.
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
    # If not given again, they are those of the start.
    if wanted.warm_start not in ("", found.warm_start):
        differing.append("warm start")
    if wanted.new_files and wanted.new_files != found.new_files:
        differing.append("new days")
    differing += differing_fields(found.recipe, wanted.recipe)
    if differing:
        raise InputError(
            "resume-mismatch",
            "A training is resumed with the dataset, backend and recipe it was started"
            f" with. These differ: {', '.join(differing)}. Restore them, or start again"
            " with --overwrite.",
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
    """Whether there is something to resume; other states are removed."""
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
        f" Received: {version}. Update shortlist, or start again with --overwrite.",
        file=file,
    )


def _has_sums(state: State) -> bool:
    """Whether a state has checksums; those of earlier versions have none."""
    parts = (state.checkpoint, *state.stages.values())
    return any(part.files for part in parts if part is not None)


def _damaged(file: Path, problem: object) -> ArtifactError:
    return ArtifactError(
        "training-damaged",
        f"The state of the training is damaged: {problem}. Start again with"
        " --overwrite.",
        file=file,
    )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def kept(error: ResourceError, unfinished: Unfinished) -> ResourceError:
    """A disk error with the path of the run, and how to resume."""
    message = error.message.replace(str(unfinished.run_folder), str(unfinished.out))
    message = message.replace(str(unfinished.folder), str(unfinished.out))
    if _is_worth(unfinished.state):
        message = message.replace(NOTHING_LEFT, "--resume then continues.")
    return ResourceError(error.code, message, file=unfinished.out)

"""A run on disk: what was trained, from what, how, and how well.

    run/
      run.json          dataset fingerprint, chosen weight, validation metrics, and the
                        checksums of all files of the training
      recipe.json       the recipe that was used
      schema.json       the schema of the dataset
      environment.json  versions and machine
      metrics.jsonl     one line per model and epoch
      trace.json        the trace of a training with --profile
      vocabularies/     the ids of its rows, for a warm start from it
      evaluation.json   written by `shortlist evaluate`
      retrieval/ ranker/  checkpoints

This module does not import Keras.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from shortlist.atomic import atomic_file
from shortlist.data.schema import Schema
from shortlist.data.store.checksums import (
    CHECKSUM,
    MISSING,
    FileSum,
    files_in,
    first_problem,
    place_problem,
    seal_problem,
    sealed,
    sum_files,
)
from shortlist.data.store.dataset import Dataset
from shortlist.data.store.vocabulary import vocabulary_file
from shortlist.errors import ArtifactError
from shortlist.processors import usable_processors

FORMAT_VERSION = 1
FILES = "files"
RECIPE_FILE = "recipe.json"
SCHEMA_FILE = "schema.json"
ENVIRONMENT_FILE = "environment.json"
EVALUATION_FILE = "evaluation.json"
VOCABULARIES = "vocabularies"
Decoded = TypeVar("Decoded")
RUN_FILE = "run.json"
PACKAGES = (
    "shortlist",
    "numpy",
    "polars",
    "keras",
    "keras-rs",
    "jax",
    "tensorflow-cpu",
    "tensorflow",
    "torch",
)


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first fields of every version of `run.json`."""

    format: Literal["shortlist-run"] = "shortlist-run"
    format_version: int = FORMAT_VERSION


class TrainedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of events that a run was trained on."""

    file: str
    """Its path in the dataset."""
    events: int
    last_timestamp_ms: int | None = None
    """Time of the latest event."""
    xxh64: str
    """Checksum of its bytes, in hexadecimal digits."""


class RunInfo(_Header, frozen=True, kw_only=True):
    """What `run.json` holds."""

    created_at: str
    dataset: str
    dataset_fingerprint: str
    backend: str
    retrieval_history: int
    ranker_history: int = 0
    ranker_weight: float = 0.0
    candidates: int = 100
    objective: str | None = None
    epochs: dict[str, int] = {}
    validation: dict[str, Any] = {}
    """Metrics on the validation part of `retrieval` and `pipeline`."""
    popularity: dict[str, float] = {}
    """Metrics of popularity, for the same users."""
    notes: tuple[str, ...] = ()
    """Notes on fits that ended too early, and what to change."""
    seconds: dict[str, float] = {}
    profile: dict[str, dict[str, float]] = {}
    """For each profiled model its steps, their time and the shares of it."""
    cost: float = 0.0
    """Cost of the training, in the currency of the recipe's `price_per_hour`."""
    warm_start: str = ""
    """Path of the run of a warm start."""
    trained_on: tuple[TrainedFile, ...] = ()
    """The files of the training part."""
    new_files: tuple[str, ...] = ()
    """The files that a run on new days was trained on."""
    files: dict[str, FileSum] = {}
    """Size and checksum of every file of the training, by its path in the run."""
    checksum: str = ""
    """Checksum of all other fields."""


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What `environment.json` holds."""

    python: str
    platform: str
    processors: int | None
    backend: str
    packages: dict[str, str]


class Run:
    """A finished run, opened with `Run.open`."""

    def __init__(self, path: Path, info: RunInfo, recipe: dict[str, Any]) -> None:
        self.path = path
        self.info = info
        self.recipe = recipe

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Opens a run directory.

        Raises:
            ArtifactError: there is no run, its format is newer, or it is damaged.
        """
        path = Path(path)
        file = path / RUN_FILE
        if place_problem(path, RUN_FILE, None) == MISSING:
            raise ArtifactError(
                "run-missing",
                f"There is no finished run at {str(path)!r} (no run.json). Run"
                " `shortlist train` first, or give the folder of a run.",
                file=path,
            )
        version = _decode(file, _Header).format_version
        if version > FORMAT_VERSION:
            raise ArtifactError(
                "run-newer",
                f"The run's format must be at most {FORMAT_VERSION}. Received:"
                f" {version}. Update shortlist or train again.",
                file=file,
            )
        info = _decode(file, RunInfo)
        _check_seal(file, required=bool(info.files))
        for name, recorded in info.files.items():
            if problem := place_problem(path, name, recorded):
                raise damaged(path / name, problem)
        # The files of models and vocabularies may be large: `verify` checks them.
        _check_files(path, [n for n in info.files if "/" not in n], info.files)
        run = cls(path, info, _decode(path / RECIPE_FILE, dict[str, Any]))
        run.read_schema()
        run.read_environment()
        return run

    def read_schema(self) -> Schema | None:
        """The schema of the dataset; `None` for a run without it.

        Raises:
            ArtifactError: `run-damaged`.
        """
        file = self.path / SCHEMA_FILE
        return _decode(file, Schema) if self._holds(SCHEMA_FILE) else None

    def read_environment(self) -> Environment | None:
        """Versions and machine; `None` for a run without them.

        Raises:
            ArtifactError: `run-damaged`.
        """
        file = self.path / ENVIRONMENT_FILE
        return _decode(file, Environment) if self._holds(ENVIRONMENT_FILE) else None

    def verify(self, folder: str) -> None:
        """Checks the checksums of a folder of the run, before it is read.

        Args:
            folder: `retrieval`, `ranker` or `vocabularies`; may be missing.

        Raises:
            ArtifactError: `run-damaged`, a file changed or is missing.
        """
        listed = {n for n in self.info.files if n.startswith(f"{folder}/")}
        there = files_in(self.path, folder)
        _check_files(self.path, sorted(listed.union(there)), self.info.files)

    def check_contents(self, dataset: Dataset) -> None:
        """Checks that the run belongs to a dataset and has its schema and ids.

        Raises:
            ArtifactError: `dataset-mismatch` or `run-damaged`.
        """
        self.check_dataset(dataset.info.fingerprint)
        schema = self.read_schema()
        if schema is not None and schema != dataset.schema:
            problem = "It is not the schema of the dataset"
            raise damaged(self.path / SCHEMA_FILE, problem)
        self.verify(VOCABULARIES)
        if not (self.path / VOCABULARIES).is_dir():
            return
        for name, file in dataset.info.vocabularies.items():
            kept = f"{VOCABULARIES}/{vocabulary_file(name)}"
            recorded = FileSum(
                size=(dataset.path / file).stat().st_size, xxh64=dataset.xxh64(file)
            )
            _check_files(self.path, [kept], {kept: recorded})

    def _holds(self, name: str) -> bool:
        """Whether a file exists; raises if it should, or if it is no regular file."""
        problem = place_problem(self.path, name, self.info.files.get(name))
        if problem is None:
            return True
        if problem == MISSING and name not in self.info.files:
            return False
        raise damaged(self.path / name, problem)

    def check_dataset(self, fingerprint: str) -> None:
        """Raises `ArtifactError` unless the run was trained on this dataset."""
        if fingerprint != self.info.dataset_fingerprint:
            raise ArtifactError(
                "dataset-mismatch",
                "The run was trained on another dataset, with fingerprint"
                f" {self.info.dataset_fingerprint}; this one has {fingerprint}. Use"
                " that dataset, or train again.",
                file=self.path,
            )

    def evaluation(self) -> dict[str, Any] | None:
        """The report of `shortlist evaluate`; `None` before it ran."""
        if not self._holds(EVALUATION_FILE):
            return None
        file = self.path / EVALUATION_FILE
        found = _decode(file, dict[str, Any])
        _check_seal(file, required=FILES in found)
        return {k: v for k, v in found.items() if k not in (FILES, CHECKSUM)}


def damaged(file: Path, problem: object) -> ArtifactError:
    """The error for a damaged file of a run."""
    return ArtifactError(
        "run-damaged",
        f"{file.name} is damaged: {problem}. Train or evaluate again.",
        file=file,
    )


def read_sealed(file: Path, kind: type[Decoded], *, required: bool = False) -> Decoded:
    """Reads what `write_sealed` wrote.

    Args:
        file: a JSON object.
        kind: the type to decode it as.
        required: whether it must have a checksum.

    Raises:
        ArtifactError: `run-damaged`.
    """
    found = _decode(file, kind)
    _check_seal(file, required=required)
    return found


def _decode(file: Path, kind: type[Decoded]) -> Decoded:
    if problem := place_problem(file.parent, file.name, None):
        raise damaged(file, problem)
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (
        msgspec.MsgspecError,
        UnicodeDecodeError,
        RecursionError,
        OSError,
    ) as error:
        raise damaged(file, error) from error


def _check_seal(file: Path, *, required: bool) -> None:
    if problem := seal_problem(file.read_bytes(), required=required):
        raise damaged(file, problem)


def _check_files(
    path: Path, names: Sequence[str], recorded: Mapping[str, FileSum]
) -> None:
    if found := first_problem(path, names, recorded):
        raise damaged(path / found[0], found[1])


def write_run(folder: Path, info: RunInfo) -> None:
    """Writes `run.json`, the last file, with the checksums of all others."""
    names = [name for name in files_in(folder) if name != RUN_FILE]
    sums = sum_files(folder, names)
    write_sealed(folder / RUN_FILE, msgspec.structs.replace(info, files=sums))


def write_sealed(path: Path, value: Any) -> None:
    """Writes an object as JSON with a checksum, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(sealed(value))


def write_json(path: Path, value: Any) -> None:
    """Writes plain values as indented JSON, whole or not at all."""
    with atomic_file(path) as temporary:
        encoded = msgspec.json.encode(value)
        temporary.write_bytes(msgspec.json.format(encoded, indent=2) + b"\n")


def now() -> str:
    """The current moment in UTC as ISO text with seconds."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def environment(backend: str) -> dict[str, Any]:
    """Versions and machine, for the record of a run or bundle."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processors": usable_processors(),
        "backend": backend,
        "packages": versions,
    }

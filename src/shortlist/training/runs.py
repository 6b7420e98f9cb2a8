"""A run on disk: what was trained, from what, how, and how well.

    run/
      run.json          state, dataset fingerprint, chosen weight, validation metrics
      recipe.json       the recipe that was used
      schema.json       the schema of the dataset
      environment.json  versions and machine
      metrics.jsonl     one line per model and epoch
      trace.json        of a training with --profile: its steps in time
      vocabularies/     the ids of its rows, for a warm start from it
      evaluation.json   written by `shortlist evaluate`
      retrieval/ ranker/  checkpoints

Knows nothing of Keras.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from shortlist.atomic import atomic_file
from shortlist.errors import ArtifactError

FORMAT_VERSION = 1
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
    """What every version of `run.json` begins with."""

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
    """Of its bytes, in hexadecimal digits."""


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
    """Those of what is popular, for the same users."""
    notes: tuple[str, ...] = ()
    """What is said of trainings that ended too early, and what to change."""
    seconds: dict[str, float] = {}
    profile: dict[str, dict[str, float]] = {}
    """Of each model that was profiled its steps, their time, and where it went."""
    cost: float = 0.0
    """Of the training, in the currency of the recipe's `price_per_hour`."""
    warm_start: str = ""
    """Path of the run whose weights it began with."""
    trained_on: tuple[TrainedFile, ...] = ()
    """The training part, with what the older run of a warm start has seen of it."""
    new_files: tuple[str, ...] = ()
    """Those of it that this run alone was trained on, if it was on new days."""


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
            ArtifactError: no run there, a newer format, or damaged.
        """
        path = Path(path)
        file = path / RUN_FILE
        if not file.is_file():
            raise ArtifactError(
                "run-missing",
                f"A finished run must be at {str(path)!r}; it has no run.json. Run"
                " `shortlist train` first or give its folder.",
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
        recipe = _decode(path / "recipe.json", dict[str, Any])
        return cls(path, _decode(file, RunInfo), recipe)

    def check_dataset(self, fingerprint: str) -> None:
        """Raises `ArtifactError` unless the run was trained on this dataset."""
        if fingerprint != self.info.dataset_fingerprint:
            raise ArtifactError(
                "dataset-mismatch",
                "A run belongs to the dataset it was trained on, with fingerprint"
                f" {self.info.dataset_fingerprint}. Received a dataset with"
                f" {fingerprint}. Name the right dataset or train again.",
                file=self.path,
            )

    def evaluation(self) -> dict[str, Any] | None:
        """What `shortlist evaluate` measured, or `None` before it ran."""
        file = self.path / "evaluation.json"
        return _decode(file, dict[str, Any]) if file.is_file() else None


def _decode(file: Path, kind: type[Decoded]) -> Decoded:
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, OSError) as error:
        raise ArtifactError(
            "run-damaged",
            f"{file.name} must be what Shortlist wrote. Reading it failed: {error}."
            " Train or evaluate again.",
            file=file,
        ) from error


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
        "processors": os.cpu_count(),
        "backend": backend,
        "packages": versions,
    }

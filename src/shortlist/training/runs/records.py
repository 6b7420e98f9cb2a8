"""One run of a store as a record, read from its folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from shortlist.data.store.checksums import FileSum, content_problem
from shortlist.errors import ArtifactError
from shortlist.training.runs.run import (
    RECIPE_FILE,
    RUN_FILE,
    Run,
    RunInfo,
    damaged,
    now,
    read_sealed,
)

FAILURE_FILE = "failure.json"

State = Literal["finished", "pruned", "failed", "interrupted", "damaged"]
STATES = get_args(State)


class Pruned(Exception):
    """Raised by a callback to end a training early; not a failure."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a store.

    Args:
        id: name of its folder.
        name: of the recipe.
        created_at: when it ended, UTC, ISO text.
        state: `finished`; `pruned`, `failed` or `interrupted`, without models;
            `damaged` if its files cannot be read.
        dataset_fingerprint: of the dataset it was trained on.
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
    """Checksum of all other fields."""


def recipe_hash(recipe: dict[str, Any]) -> str:
    """A hash of a recipe, 16 hexadecimal digits; the order of fields is ignored."""
    encoded = msgspec.json.encode(recipe, order="deterministic")
    return hashlib.sha256(encoded).hexdigest()[:16]


def best_metrics(info: RunInfo) -> dict[str, float]:
    """Validation metrics of what a run serves: its pipeline, else retrieval alone."""
    validation = info.validation
    return _numbers(validation.get("pipeline") or validation.get("retrieval"))


def failure_now(
    error: BaseException, *, fingerprint: str, backend: str, seconds: float
) -> Failure:
    """The record of a training that has just ended with an error."""
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


def read_record(folder: Path) -> Record:
    """The record of a run folder; `damaged` if its files cannot be read."""
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

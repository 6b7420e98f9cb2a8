"""A fitted scorer on disk: `scorer.json` and `scorer.safetensors`, and no code.

The class is chosen by `kind` among the modules of this folder, never by the file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from shortlist.atomic import atomic_directory
from shortlist.errors import ArtifactError, InputError, did_you_mean
from shortlist.models.scorers.blend import Blend
from shortlist.models.scorers.scorer import Scorer
from shortlist.models.scorers.vectors import TWO_TOWER
from shortlist.outputs import CHECKPOINT

CONFIG_FILE = "scorer.json"
ARRAYS_FILE = "scorer.safetensors"


def _scorers() -> dict[str, type[Scorer]]:
    """The class of each kind that is fitted here, from the modules beside this one."""
    package = __name__.rpartition(".")[0]
    (folder,) = importlib.import_module(package).__path__
    found = {}
    for module in pkgutil.iter_modules([folder]):
        if f"{package}.{module.name}" == __name__:
            continue
        for value in vars(importlib.import_module(f"{package}.{module.name}")).values():
            is_scorer = isinstance(value, type) and issubclass(value, Scorer)
            if is_scorer and "kind" in vars(value):
                found[value.kind] = value
    return {k: found[k] for k in sorted(found) if k not in (TWO_TOWER, Blend.kind)}


SCORERS = _scorers()
"""Class of each kind but the two-tower model and the blend."""
KINDS = (TWO_TOWER, *SCORERS, Blend.kind)
"""What `[retrieval] kind` may be."""

UNUSABLE = (
    OSError,
    msgspec.MsgspecError,
    InputError,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
)
"""Errors raised where a configuration and arrays do not fit together."""


class _Stored(msgspec.Struct, frozen=True):
    kind: str
    config: dict[str, Any]


def make_scorer(kind: str, options: Mapping[str, Any]) -> Scorer:
    """A new scorer of one of `SCORERS`.

    Raises:
        InputError: an unknown kind (`retrieval-kind`) or unusable options.
    """
    return _class_of(kind)(**options)


def restore(
    kind: str,
    config: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    towers: Mapping[str, Scorer] | None = None,
) -> Scorer:
    """The scorer of a kind, its configuration and its arrays.

    Args:
        kind: of the scorer.
        config: what `get_config` returned.
        arrays: what `arrays` returned.
        towers: the two-tower models in it, as `Scorer.towers` names them.

    Raises:
        InputError: they fit no scorer.
    """
    towers = towers or {}
    if kind == TWO_TOWER:
        return towers[TWO_TOWER]
    if kind != Blend.kind:
        return _class_of(kind).from_arrays(config, arrays)
    if set(config) != {"members", "weights"}:
        raise InputError(
            "invalid-argument",
            "A blend must have members and weights alone. Received:"
            f" {sorted(config)}. Train again.",
        )
    members = {}
    for name, entry in config["members"].items():
        own = {
            key.removeprefix(f"{name}/"): array
            for key, array in arrays.items()
            if key.startswith(f"{name}/")
        }
        tower = {TWO_TOWER: towers[name]} if name in towers else {}
        config_of = entry["config"] if not tower else {}
        members[name] = restore(entry["kind"], config_of, own, tower)
    return Blend.of_members(members, config["weights"], arrays["counts"])


def save_scorer(path: str | Path, scorer: Scorer) -> None:
    """Writes a scorer into a directory, whole or not at all; its towers are left out.

    Raises:
        ResourceError: the disk is full or not writable.
    """
    from safetensors.numpy import save

    arrays = {k: np.ascontiguousarray(v) for k, v in scorer.arrays().items()}
    with atomic_directory(path, overwrite=True, kind=CHECKPOINT) as folder:
        stored = msgspec.json.encode(_Stored(scorer.kind, scorer.get_config()))
        (folder / CONFIG_FILE).write_bytes(msgspec.json.format(stored, indent=2))
        (folder / ARRAYS_FILE).write_bytes(save(arrays))


def towers_in(path: str | Path) -> list[str]:
    """Names of the two-tower members of a saved blend; none in another scorer.

    Raises:
        ArtifactError: it is missing or damaged (`checkpoint-unreadable`).
    """
    path = Path(path)
    try:
        members = _read_config(path).config.get("members", {})
        return [name for name, entry in members.items() if entry["kind"] == TWO_TOWER]
    except UNUSABLE as error:
        raise _unreadable(path, error) from error


def load_scorer(path: str | Path, towers: Mapping[str, Scorer] | None = None) -> Scorer:
    """Reads what `save_scorer` wrote.

    Args:
        path: directory of the scorer.
        towers: the models of `towers_in`, by name.

    Raises:
        ArtifactError: it is missing or damaged (`checkpoint-unreadable`).
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = Path(path)
    try:
        stored = _read_config(path)
        arrays = load_file(path / ARRAYS_FILE)
        return restore(stored.kind, stored.config, arrays, towers)
    except (*UNUSABLE, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _class_of(kind: str) -> type[Scorer]:
    if kind not in SCORERS:
        raise InputError(
            "retrieval-kind",
            f"A kind of retrieval must be one of {KINDS}. Received:"
            f" {kind!r}.{did_you_mean(kind, KINDS)}",
        )
    return SCORERS[kind]


def _read_config(path: Path) -> _Stored:
    return msgspec.json.decode((path / CONFIG_FILE).read_bytes(), type=_Stored)


def _unreadable(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(
        "checkpoint-unreadable",
        f"The fitted scorer at {str(path)!r} cannot be read: {error}. Train again.",
        file=path,
    )

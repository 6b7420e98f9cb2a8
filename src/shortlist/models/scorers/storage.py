"""A fitted scorer on disk: `scorer.json` and `scorer.safetensors`, and no code.

The class is chosen by `kind` among those known here, never by the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from shortlist.atomic import atomic_directory
from shortlist.errors import ArtifactError, InputError, did_you_mean
from shortlist.models.scorers.als import ImplicitAls
from shortlist.models.scorers.blend import Blend, Member
from shortlist.models.scorers.burst_als import BurstAls
from shortlist.models.scorers.ease import Ease
from shortlist.models.scorers.factorization import Factorization
from shortlist.models.scorers.item_knn import ItemKnn
from shortlist.models.scorers.popularity import Popularity
from shortlist.models.scorers.scorer import Scorer
from shortlist.outputs import CHECKPOINT

CONFIG_FILE = "scorer.json"
ARRAYS_FILE = "scorer.safetensors"
TWO_TOWER = "two_tower"

SCORERS: dict[str, type[Scorer]] = {
    scorer.kind: scorer
    for scorer in (BurstAls, Ease, Factorization, ImplicitAls, ItemKnn, Popularity)
}
KINDS = (TWO_TOWER, *sorted(SCORERS), Blend.kind)
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
"""What goes wrong where a configuration and arrays do not fit."""


class _Stored(msgspec.Struct, frozen=True):
    kind: str
    config: dict[str, Any]


def make_scorer(kind: str, options: Mapping[str, Any]) -> Scorer:
    """A new scorer of a kind other than a blend.

    Raises:
        InputError: an unknown kind (`retrieval-kind`) or unusable options.
    """
    if kind not in SCORERS:
        raise InputError(
            "retrieval-kind",
            f"A kind of retrieval must be one of {KINDS}. Received:"
            f" {kind!r}.{did_you_mean(kind, KINDS)}",
        )
    return SCORERS[kind](**options)


def restore(
    kind: str,
    config: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    towers: Mapping[str, Member] | None = None,
) -> Scorer:
    """The scorer of a kind, its configuration and its arrays.

    Args:
        kind: of the scorer.
        config: what `get_config` returned.
        arrays: what `arrays` returned.
        towers: members of a blend that are no scorers, by name.

    Raises:
        InputError: they fit no scorer.
    """
    if kind != Blend.kind:
        make_scorer(kind, {})  # refuses an unknown kind
        return SCORERS[kind].from_arrays(config, arrays)
    if set(config) != {"members", "weights"}:
        raise InputError(
            "invalid-argument",
            "A blend must have members and weights alone. Received:"
            f" {sorted(config)}. Train again.",
        )
    members: dict[str, Member] = {}
    for name, entry in config["members"].items():
        if entry["kind"] == TWO_TOWER:
            members[name] = (towers or {})[name]
        else:
            own = {
                key.removeprefix(f"{name}/"): array
                for key, array in arrays.items()
                if key.startswith(f"{name}/")
            }
            members[name] = restore(entry["kind"], entry["config"], own)
    return Blend.of_members(members, config["weights"], arrays["counts"])


def save_scorer(path: str | Path, scorer: Scorer) -> None:
    """Writes a scorer into a directory, whole or not at all."""
    from safetensors.numpy import save

    arrays = {k: np.ascontiguousarray(v) for k, v in scorer.arrays().items()}
    with atomic_directory(path, overwrite=True, kind=CHECKPOINT) as folder:
        stored = msgspec.json.encode(_Stored(scorer.kind, scorer.get_config()))
        (folder / CONFIG_FILE).write_bytes(msgspec.json.format(stored, indent=2))
        (folder / ARRAYS_FILE).write_bytes(save(arrays))


def members_of(path: str | Path) -> dict[str, str]:
    """Kinds of the members of a saved blend, by name; none of another scorer.

    Raises:
        ArtifactError: it is missing or damaged (`checkpoint-unreadable`).
    """
    path = Path(path)
    try:
        stored = _read_config(path)
        members = stored.config.get("members", {})
        return {name: str(entry["kind"]) for name, entry in members.items()}
    except UNUSABLE as error:
        raise _unreadable(path, error) from error


def load_scorer(path: str | Path, towers: Mapping[str, Member] | None = None) -> Scorer:
    """Reads what `save_scorer` wrote.

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


def _read_config(path: Path) -> _Stored:
    return msgspec.json.decode((path / CONFIG_FILE).read_bytes(), type=_Stored)


def _unreadable(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(
        "checkpoint-unreadable",
        f"A fitted scorer must be at {str(path)!r}. Reading it failed: {error}."
        " Train again.",
        file=path,
    )

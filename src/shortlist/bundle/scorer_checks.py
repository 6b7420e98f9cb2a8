"""The check that the arrays of a scorer are those its kind needs, shape by shape.

A bundle may come from anywhere: nothing of a scorer is used before it stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from shortlist.bundle.checks import check_finite, refuse
from shortlist.errors import InputError
from shortlist.models.scorers.storage import KINDS, SCORERS, TWO_TOWER, make_scorer

Arrays = Mapping[str, np.ndarray]
Sizes = tuple[int, int]  # rows of the users and of the items

PLACE = "scorer"
LARGEST = 1e30
"""Beyond it sums of finite numbers leave the range of float32."""


def check_scorer(
    kind: str,
    config: Mapping[str, Any],
    arrays: Arrays,
    *,
    towers: Collection[str],
    sizes: Sizes,
) -> None:
    """Raises `ArtifactError` unless a scorer can be restored and asked.

    Args:
        kind: of the scorer.
        config: its constructor arguments.
        arrays: what it learned.
        towers: names of the two-tower members that are there.
        sizes: rows of the users and of the items.
    """
    if kind == "blend":
        _check_blend(config, arrays, towers, sizes)
        return
    if kind not in SCORERS:
        refuse(PLACE, f"must be of a kind in {KINDS[1:]}", repr(kind))
    if towers:
        refuse(PLACE, "must have towers in a blend alone", str(sorted(towers)))
    try:
        make_scorer(kind, config)
    except (InputError, TypeError) as error:
        refuse(PLACE, f"must have the arguments of kind {kind!r}", str(error))
    try:
        shapes = SHAPES[kind](config, arrays, sizes)
    except (KeyError, TypeError) as error:
        refuse(PLACE, f"must have all arguments of kind {kind!r}", f"no {error}")
    shapes["counts"] = (np.float32, (sizes[1],))
    if set(arrays) != set(shapes):
        refuse(PLACE, f"must have the arrays {sorted(shapes)}", str(sorted(arrays)))
    for name, (dtype, shape) in shapes.items():
        array = arrays[name]
        if array.dtype != dtype or array.shape != shape:
            rule = f"must have {name!r} as {np.dtype(dtype).name} of shape {shape}"
            refuse(PLACE, rule, f"{array.dtype} of shape {array.shape}")
        check_finite(f"{PLACE} array {name!r}", array)
        if array.size and np.abs(array).max() > LARGEST:
            refuse(PLACE, f"must have no number above {LARGEST} in {name!r}", "one")
    _check_counts(arrays["counts"])
    if kind in RANGES:
        RANGES[kind](arrays)


def _check_counts(counts: np.ndarray) -> None:
    if (counts < 0).any() or counts[0] != 0:
        rule = "must have counts of at least 0 and none in row 0"
        refuse(PLACE, rule, f"{counts.min()} and {counts[0]}")


def _check_blend(
    config: Mapping[str, Any], arrays: Arrays, towers: Collection[str], sizes: Sizes
) -> None:
    members, weights = config.get("members"), config.get("weights")
    if set(config) != {"members", "weights"} or not isinstance(members, dict):
        refuse(PLACE, "must have members and weights, being a blend", str([*config]))
    if not isinstance(weights, dict) or not members or set(weights) != set(members):
        refuse(PLACE, "must have a weight for every member", repr(weights)[:200])
    for weight in weights.values():
        if not isinstance(weight, int | float) or not 0 <= weight <= LARGEST:
            refuse(PLACE, "must have finite weights of at least 0", repr(weight)[:80])
    left = set(arrays) - {"counts"}
    counts = arrays.get("counts")
    if counts is None or counts.dtype != np.float32 or counts.shape != (sizes[1],):
        refuse(PLACE, f"must have {sizes[1]} float32 counts", "others")
    check_finite(f"{PLACE} array 'counts'", counts)
    _check_counts(counts)
    needed = set()
    for name, entry in members.items():
        kind = entry.get("kind") if isinstance(entry, dict) else None
        if "/" in name or not isinstance(kind, str) or kind == "blend":
            refuse(PLACE, "must have members with plain names and kinds", repr(name))
        if kind == TWO_TOWER:
            needed.add(name)
            continue
        if not isinstance(entry.get("config"), dict):
            refuse(PLACE, "must have a config for every member", repr(name))
        own = {key for key in left if key.startswith(f"{name}/")}
        left -= own
        stored = {key.removeprefix(f"{name}/"): arrays[key] for key in own}
        check_scorer(kind, entry["config"], stored, towers=(), sizes=sizes)
    if left or needed != set(towers):
        found = f"arrays {sorted(left)} and towers {sorted(towers)}"
        refuse(PLACE, "must have arrays and towers of its members alone", found)


Shapes = dict[str, tuple[type[np.number], tuple[int, ...]]]


def _popularity(config: Mapping[str, Any], arrays: Arrays, sizes: Sizes) -> Shapes:
    by_segment = config.get("segment") is not None
    scores = arrays.get("scores")
    segments = len(scores) if by_segment and scores is not None and scores.ndim else 1
    return {
        "scores": (np.float32, (segments, sizes[1])),
        "segments": (np.int32, (sizes[0] if by_segment else 0,)),
    }


def _item_knn(config: Mapping[str, Any], arrays: Arrays, sizes: Sizes) -> Shapes:
    indices = arrays.get("indices")
    size = 0 if indices is None else indices.size
    return {
        "offsets": (np.int32, (sizes[1] + 1,)),
        "indices": (np.int32, (size,)),
        "similarities": (np.float32, (size,)),
    }


def _ease(config: Mapping[str, Any], arrays: Arrays, sizes: Sizes) -> Shapes:
    return {"weights": (np.float32, (sizes[1], sizes[1]))}


def _als(config: Mapping[str, Any], arrays: Arrays, sizes: Sizes) -> Shapes:
    return {
        "item_factors": (np.float32, (sizes[1], config["factors"])),
        "mean_confidence": (np.float32, (1,)),
    }


def _burst_als(config: Mapping[str, Any], arrays: Arrays, sizes: Sizes) -> Shapes:
    return {
        "item_factors": (np.float32, (sizes[1], config["factors"])),
        "label": (np.float32, (2,)),
    }


def _factorization(config: Mapping[str, Any], arrays: Arrays, sizes: Sizes) -> Shapes:
    width = config["factors"] + 1
    return {
        "users": (np.float32, (sizes[0], width)),
        "items": (np.float32, (sizes[1], width)),
        "label": (np.float32, (3,)),
    }


def _popularity_ranges(arrays: Arrays) -> None:
    segments = arrays["segments"]
    if ((segments < 0) | (segments >= len(arrays["scores"]))).any():
        refuse(PLACE, f"must have segments below {len(arrays['scores'])}", "others")


def _item_knn_ranges(arrays: Arrays) -> None:
    offsets, indices = arrays["offsets"], arrays["indices"]
    ends = offsets[0] == 0 and offsets[-1] == len(indices)
    if not ends or (np.diff(offsets) < 0).any():
        refuse(PLACE, f"must have offsets rising from 0 to {len(indices)}", "others")
    if ((indices < 0) | (indices >= len(arrays["counts"]))).any():
        refuse(PLACE, "must have rows of items as indices", "others")


def _als_ranges(arrays: Arrays) -> None:
    if arrays["mean_confidence"][0] <= 0:
        refuse(PLACE, "must have a mean confidence above 0", "another")


def _burst_als_ranges(arrays: Arrays) -> None:
    if arrays["label"][1] < 0:
        refuse(PLACE, "must have a deviation of labels of at least 0", "another")


def _factorization_ranges(arrays: Arrays) -> None:
    if arrays["label"][1] > arrays["label"][2]:
        refuse(PLACE, "must have a least label up to the greatest", "another")


SHAPES: dict[str, Callable[[Mapping[str, Any], Arrays, Sizes], Shapes]] = {
    "als": _als,
    "burst_als": _burst_als,
    "ease": _ease,
    "factorization": _factorization,
    "item_knn": _item_knn,
    "popularity": _popularity,
}
RANGES: dict[str, Callable[[Arrays], None]] = {
    "als": _als_ranges,
    "burst_als": _burst_als_ranges,
    "factorization": _factorization_ranges,
    "item_knn": _item_knn_ranges,
    "popularity": _popularity_ranges,
}

"""The check that the arrays of a scorer have the shapes and values of its kind.

A bundle may come from anywhere: no array is used before it passed this check.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from shortlist.bundle.checks import check_finite, refuse
from shortlist.errors import InputError
from shortlist.models.scorers.storage import KINDS, SCORERS, make_scorer
from shortlist.models.scorers.vectors import TWO_TOWER

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
    """Raises `ArtifactError` unless a scorer can be restored and gives scores.

    Args:
        kind: of the scorer.
        config: its constructor arguments.
        arrays: what it learned.
        towers: names of the two-tower models that are present.
        sizes: rows of the users and of the items.

    Raises:
        ArtifactError: `bundle-inconsistent` or `bundle-not-finite`.
    """
    if kind == "blend":
        _check_blend(config, arrays, towers, sizes)
        return
    if kind == TWO_TOWER:
        if config or arrays or set(towers) != {TWO_TOWER}:
            found = f"{sorted(towers)}, config {sorted(config)}, {sorted(arrays)}"
            refuse(PLACE, "must be one two-tower model and nothing else", found)
        return
    if kind not in SCORERS:
        refuse(PLACE, f"must be of a kind in {KINDS[1:]}", repr(kind))
    if towers:
        refuse(PLACE, "must have towers in a blend alone", str(sorted(towers)))
    try:
        scorer = make_scorer(kind, config)
    except (InputError, TypeError) as error:
        refuse(PLACE, f"must have the arguments of kind {kind!r}", str(error))
    shapes = scorer.shapes(arrays, *sizes) | {"counts": (np.float32, (sizes[1],))}
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
    if (problem := scorer.value_problem(arrays)) is not None:
        refuse(PLACE, *problem)


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

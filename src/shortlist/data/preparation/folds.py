"""Folds of a log for cross-validation, of the events outside the test part.

The test part itself is in no fold, so that what is chosen by cross-validation can still
be tested on it. A split by time has rolling origins: the newest fold is the split taken
once more of what its test part leaves, the fold before it the split of what that one's
leaves, and so on; events after a fold's own are left out of it. Of a random split each
event that is left is tested in exactly one fold.

References:
    Tashman, 2000, "Out-of-sample tests of forecasting accuracy",
        https://doi.org/10.1016/S0169-2070(00)00065-0 (rolling origins)
    Stone, 1974, "Cross-validatory choice and assessment of statistical predictions",
        https://doi.org/10.1111/j.2517-6161.1974.tb00994.x
"""

from __future__ import annotations

import dataclasses

import numpy as np

from shortlist.data.split import (
    TEST,
    TRAIN,
    VALIDATION,
    Split,
    assign_parts,
    random_rows,
)

LEFT_OUT = -1


def assign_fold(user: np.ndarray, timestamp_ms: np.ndarray, split: Split) -> np.ndarray:
    """Part of every event in fold `split.fold` of `split.folds`; the last is the
    newest.

    Args:
        user: any integer key of the user, `(n,)`, in file order.
        timestamp_ms: `(n,)` int64.
        split: how the events are split.

    Returns: `(n,)` int8: 0 training, 1 validation, 2 test, -1 in no part of this fold.
    """
    plain = dataclasses.replace(split, folds=0, fold=0)
    parts = np.full(len(user), LEFT_OUT, np.int8)
    rows = np.flatnonzero(assign_parts(user, timestamp_ms, plain) != TEST)
    if split.kind == "random":
        parts[rows] = _random(len(rows), split)
        return parts
    shares = _by_shares(user, timestamp_ms, plain)
    for _ in range(split.folds - split.fold):
        newest = assign_parts(user[rows], timestamp_ms[rows], shares) == TEST
        rows = rows[~newest]
    parts[rows] = assign_parts(user[rows], timestamp_ms[rows], shares)
    return parts


def _random(n: int, split: Split) -> np.ndarray:
    """Parts of n events, every `folds`-th of their random order tested."""
    order = np.random.default_rng([split.seed, 2]).permutation(n)
    parts = np.full(n, TRAIN, np.int8)
    parts[order[split.fold - 1 :: split.folds]] = TEST
    rest = np.flatnonzero(parts == TRAIN)
    drawn = random_rows(len(rest), split.validation, [split.seed, 1])
    parts[rest[drawn]] = VALIDATION
    return parts


def _by_shares(user: np.ndarray, timestamp_ms: np.ndarray, split: Split) -> Split:
    """The split with its moments replaced by the shares of events they cut off."""
    if split.test_from is None and split.validation_from is None:
        return split
    parts = assign_parts(user, timestamp_ms, split)
    rest = parts != TEST
    return dataclasses.replace(
        split,
        test=split.test if split.test_from is None else _share(~rest),
        validation=split.validation
        if split.validation_from is None
        else _share(parts[rest] == VALIDATION),
        test_from=None,
        validation_from=None,
    )


def _share(held: np.ndarray) -> float:
    """Share of true values; below 1, as `Split` requires."""
    return min(float(np.count_nonzero(held)) / max(len(held), 1), 1.0 - 2.0**-30)

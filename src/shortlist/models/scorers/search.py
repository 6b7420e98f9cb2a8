"""The best items of rows of scores, exactly. Knows arrays only."""

from __future__ import annotations

import numpy as np


def best_items(
    scores: np.ndarray, k: int, exclude: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The k highest scores of every row, ties by lower item row.

    Args:
        scores: `(n, num_items)` float32; changed where items are excluded.
        k: number of items.
        exclude: offsets `(n + 1,)` and item rows that a row must not get. Row 0 is
            never returned.

    Returns: scores `(n, k)` float32, descending, and item rows `(n, k)` int32; -inf
    and -1 where fewer are left.
    """
    offsets, excluded = exclude
    num_rows, num_items = scores.shape
    scores[:, 0] = -np.inf
    scores[np.repeat(np.arange(num_rows), np.diff(offsets)), excluded] = -np.inf
    width = min(k, num_items)
    found = np.argpartition(scores, num_items - width, axis=1)[:, num_items - width :]
    lowest = np.take_along_axis(scores, found, axis=1).min(axis=1, initial=np.inf)
    # If more items tie at the end than fit, the lowest rows are kept.
    for row in np.flatnonzero((scores >= lowest[:, None]).sum(axis=1) > width):
        tied = np.flatnonzero(scores[row] >= lowest[row])
        order = np.argsort(-scores[row, tied], kind="stable")
        found[row] = tied[order[:width]]
    best = np.take_along_axis(scores, found, axis=1)
    order = np.lexsort((found, -best), axis=-1)
    best = np.take_along_axis(best, order, axis=1)
    items = np.take_along_axis(found, order, axis=1)
    items = np.where(np.isneginf(best), -1, items)
    filled = np.full((num_rows, k - width), -np.inf, np.float32)
    return (
        np.hstack([best, filled]).astype(np.float32),
        np.hstack([items, np.full(filled.shape, -1)]).astype(np.int32),
    )


def nothing_seen(num_users: int) -> tuple[np.ndarray, np.ndarray]:
    """Offsets `(n + 1,)` and item rows of users without excluded items."""
    return np.zeros(num_users + 1, np.int64), np.zeros(0, np.int32)

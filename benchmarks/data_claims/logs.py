"""A log of MovieLens-25M's size, or of another length by the same law.

Users and items by Zipf's law with ids that do not tell their rank, uniform times
between MovieLens-25M's first and last, rows in random order. Only the counts are
MovieLens-25M's, not the shape of its popularity: every user and item has dozens of
events at its size.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl

from data_claims.workers import DATA
from shortlist.data import Schema

EVENTS, NUM_USERS, NUM_ITEMS = 25_000_095, 162_541, 59_047
LARGEST_ITEM_ID = 209_171
FIRST_SECOND, LAST_SECOND = 789_652_004, 1_574_327_703
USER_EXPONENT, ITEM_EXPONENT = 0.5, 0.8
SCHEMA = Schema(
    user_id="userId",
    item_id="movieId",
    timestamp="timestamp",
    label="rating",
    label_kind="explicit",
    positive_from=4.0,
)
_CHUNK = 1 << 20


def log(events: int) -> Path:
    """`build/bench-data/log-<events>.csv`, written when it is missing."""
    path = DATA / f"log-{events}.csv"
    if path.exists():
        return path
    DATA.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    generator = np.random.default_rng(25)
    user_ids = 1 + generator.permutation(NUM_USERS)
    item_ids = 1 + generator.permutation(LARGEST_ITEM_ID)[:NUM_ITEMS]
    users, items = _zipf(NUM_USERS, USER_EXPONENT), _zipf(NUM_ITEMS, ITEM_EXPONENT)
    with temporary.open("wb") as stream:
        for start in range(0, events, _CHUNK):
            size = min(_CHUNK, events - start)
            chunk = pl.DataFrame(
                {
                    "userId": user_ids[_draw(generator, users, size)],
                    "movieId": item_ids[_draw(generator, items, size)],
                    "rating": generator.integers(1, 11, size) / 2,
                    "timestamp": generator.integers(
                        FIRST_SECOND, LAST_SECOND, size, endpoint=True
                    ),
                }
            )
            chunk.write_csv(stream, include_header=start == 0)
        # Else the disk is still busy with it when the first side is measured.
        stream.flush()
        os.fsync(stream.fileno())
    temporary.rename(path)
    return path


def _zipf(count: int, exponent: float) -> np.ndarray:
    """Cumulative shares of the ranks `(count,)` float64."""
    cumulative = np.cumsum(np.arange(1, count + 1) ** -exponent)
    shares: np.ndarray = cumulative / cumulative[-1]
    return shares


def _draw(
    generator: np.random.Generator, cumulative: np.ndarray, size: int
) -> np.ndarray:
    """Ranks `(size,)` int64, from 0."""
    return np.searchsorted(cumulative, generator.random(size), side="right")

"""The shop of docs/data.md: a Parquet log, its users and items, and the next day."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

NUM_USERS, NUM_ITEMS, DAYS = 40, 30, 20
FIRST_DAY_MS = 1_700_000_000_000 // 86_400_000 * 86_400_000


def write_shop(folder: Path) -> None:
    """Writes events.parquet, users.parquet, items.parquet and monday.parquet."""
    events(range(DAYS), NUM_USERS, NUM_ITEMS).write_parquet(folder / "events.parquet")
    # The new day has two users and two items that nobody saw before.
    events(range(DAYS, DAYS + 1), NUM_USERS + 2, NUM_ITEMS + 2).write_parquet(
        folder / "monday.parquet"
    )
    user = np.arange(NUM_USERS + 2)
    pl.DataFrame(
        {
            "user_id": [f"u{n}" for n in user],
            "country": [("de", "fr", "it", "pt")[n % 4] for n in user],
            "age": [None if n % 7 == 0 else float(18 + n) for n in user],
        }
    ).write_parquet(folder / "users.parquet")
    item = np.arange(NUM_ITEMS + 2)
    pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in item],
            "title": [f"Song {n}" for n in item],
            "genres": [["rock", "pop", "jazz"][: 1 + n % 3] for n in item],
            "tags": [f"t{n % 5}|t{n % 3}" for n in item],
            "artist": [f"artist {n % 11}" for n in item],
            "price": [0.5 + n % 9 for n in item],
            "seconds": [100.0 + 10 * n for n in item],
        }
    ).write_parquet(folder / "items.parquet")


def events(days: range, num_users: int, num_items: int) -> pl.DataFrame:
    """A few events of every user on every day, the first items being the favourites."""
    generator = np.random.default_rng(days.start)
    day = np.repeat(days, 2 * num_users)
    user = np.tile(np.arange(num_users), 2 * len(days))
    item = np.minimum(generator.geometric(0.1, len(day)) - 1, num_items - 1)
    if days.start:
        item[-2:] = num_items - 2, num_items - 1  # the new ones
    second = generator.integers(0, 86_400, len(day))
    return pl.DataFrame(
        {
            "user_id": [f"u{n}" for n in user],
            "item_id": [f"i{n}" for n in item],
            "time": FIRST_DAY_MS + 86_400_000 * day + 1_000 * second,
            "plays": generator.integers(0, 6, len(day)),
            "device": [("phone", "web", "tv")[n % 3] for n in user + item],
            "hour": (second // 3_600).astype(float),
        }
    ).sort("time")

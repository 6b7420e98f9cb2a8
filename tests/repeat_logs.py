"""Grocery logs: users who take the same items again and again."""

from __future__ import annotations

import functools
from pathlib import Path

import polars as pl

from shortlist.data import Dataset, Schema, Split, prepare

GROCERY_SCHEMA = Schema(user_id="user", item_id="item", timestamp="time")
USERS, OWN, EVENTS = 30, 4, 20


def write_groceries(file: Path, *, new_every: int = 0) -> None:
    """Each user takes 4 items of 10 in turn, 20 times.

    Args:
        file: the CSV file.
        new_every: of every so many users the last but one and the last but three items
            are items that they never took before; 0 for nobody.
    """
    rows = []
    for user in range(USERS):
        items = [3 * (user % 3) + place for place in range(OWN)]
        taken = [items[n % OWN] for n in range(EVENTS)]
        if new_every and user % new_every == 0:
            others = 3 * ((user + 1) % 3)
            taken[-2], taken[-4] = others + 1, others + 2
        rows += [
            (f"u{user}", f"i{item}", 1_700_000_000 + 1000 * n + user)
            for n, item in enumerate(taken)
        ]
    names = ["user", "item", "time"]
    pl.DataFrame(rows, schema=names, orient="row").write_csv(file)


def repeats_in_the_test_part(folder: Path) -> Dataset:
    """Groceries in which only the validation part has items that are new to users."""
    rows = []
    for user in range(USERS):
        items = [3 * (user % 3) + n % OWN for n in range(EVENTS)]
        items[-4] = 3 * ((user + 1) % 3) + 2
        rows += [(f"u{user}", f"i{i}", 1000 * n + user) for n, i in enumerate(items)]
    file = folder / "late.csv"
    log = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    log.with_columns(pl.col("time") + 1_700_000_000).write_csv(file)
    split = Split(kind="last_n", test=2, validation=2)
    return prepare(file, GROCERY_SCHEMA, folder / "late", split=split)


def groceries(base: Path, new_every: int = 0) -> Dataset:
    """The log prepared once; the last two events test, two before them validate."""
    return _prepared(base, new_every)


@functools.cache
def _prepared(base: Path, new_every: int) -> Dataset:
    file = base / f"groceries-{new_every}.csv"
    write_groceries(file, new_every=new_every)
    split = Split(kind="last_n", test=2, validation=2)
    out = base / f"groceries-{new_every}"
    return prepare(file, GROCERY_SCHEMA, out, split=split)

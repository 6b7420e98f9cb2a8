"""Which columns are attributes: the agreement of rows of one id, beyond chance."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.data.guess.owners import _agreement, newest_rows, owner_of

ITEMS = pl.Series("item", [n % 12 for n in range(240)])
USERS = pl.Series("user", [n * 7 % 31 for n in range(240)])
IDS = {"user": USERS, "item": ITEMS}


def column(name: str, values) -> pl.Series:
    return pl.Series(name, list(values))


@pytest.mark.parametrize(
    ("values", "owner"),
    [
        (column("brand", (f"b{i % 4}" for i in ITEMS)), "item"),
        (column("price", (i * 1.5 for i in ITEMS)), "item"),
        (column("tags", ([f"t{i % 3}"] for i in ITEMS)), "item"),
        (column("town", (f"t{u % 5}" for u in USERS)), "user"),
        (column("token", (f"x{n}" for n in range(240))), None),
        (column("same", ("x" for _ in ITEMS)), None),
        (column("mostly", ("x" if n % 20 else "y" for n in range(240))), None),
        (column("coin", (n * n % 7 for n in range(240))), None),
    ],
)
def test_whose_attribute_a_column_is(values: pl.Series, owner: str | None) -> None:
    found = owner_of(values, IDS)
    assert (found[0] if found else None) == owner


def test_a_value_that_is_missing_says_nothing() -> None:
    brand = column(
        "brand", (f"b{i % 4}" if n % 3 else None for n, i in enumerate(ITEMS))
    )
    assert owner_of(brand, IDS) == ("item", 1.0)
    nearly = column(
        "brand", ("?" if n == 7 else f"b{i % 4}" for n, i in enumerate(ITEMS))
    )
    found = owner_of(nearly, IDS)
    assert found is not None and 0.9 < found[1] < 1


def test_a_price_that_moves_a_little_is_still_of_the_item() -> None:
    generator = np.random.default_rng(0)
    moving = column("price", (10 * i + generator.normal() for i in ITEMS))
    assert owner_of(moving, IDS)[0] == "item"
    played = column("hours", generator.exponential(5, 240))
    assert owner_of(played, IDS) is None


def test_too_few_repeats_show_nothing() -> None:
    ids = pl.Series("item", [*range(200), *range(9)])
    values = pl.Series("brand", [f"b{n % 5}" for n in ids])
    assert owner_of(values, {"item": ids}) is None


def test_a_column_of_both_is_told_by_its_name() -> None:
    ids = pl.Series([n % 9 for n in range(90)])
    for name, owner in (("age", "user"), ("color", "item")):
        values = pl.Series(name, [n % 3 for n in ids])
        assert owner_of(values, {"user": ids, "item": ids}) == (owner, 1.0)


def test_an_item_of_very_many_rows_counts_as_any_other() -> None:
    ids = pl.Series([0] * 80_000 + [n % 50 for n in range(1_000)])
    values = pl.Series("brand", [f"b{n % 4}" for n in ids])
    assert owner_of(values, {"item": ids}) == ("item", 1.0)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from("abc")), min_size=16, max_size=40
    )
)
def test_the_agreement_is_that_of_all_pairs(rows) -> None:
    by_id: dict[int, list[str]] = {}
    for key, value in rows:
        by_id.setdefault(key, []).append(value)
    again = {key: values for key, values in by_id.items() if len(values) > 1}
    total = sum(map(len, again.values()))
    shares = 0.0
    for values in again.values():
        pairs = list(itertools.combinations(values, 2))
        shares += len(values) * sum(a == b for a, b in pairs) / len(pairs)
    counts = Counter(v for values in again.values() for v in values)
    chance = sum((count / total) ** 2 for count in counts.values())
    ids, values = (pl.Series(c) for c in zip(*rows, strict=True))
    found = _agreement(values.alias("x"), ids)
    if sum(len(values) - 1 for values in again.values()) < 10 or len(counts) == 1:
        assert found is None
    else:
        assert found == pytest.approx((shares / total - chance) / (1 - chance))


def test_the_newest_value_that_is_there_stands_for_an_id() -> None:
    table = pl.DataFrame(
        {"item": ["a", "b", "a", "a"], "x": [1, 2, 3, None], "y": ["p", "q", None, "r"]}
    )
    rows = newest_rows(table, "item", ["x", "y"], pl.Series([5, 1, 2, 9]))
    assert dict(zip(rows["item"], rows.select("x", "y").rows(), strict=True)) == {
        "a": (1, "r"),
        "b": (2, "q"),
    }

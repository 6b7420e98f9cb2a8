"""Tables, bags and gradients for the tests of host tables, and how to compare them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from shortlist import native
from shortlist.embeddings.host.reference import to_float32
from shortlist.embeddings.rules import Rule
from shortlist.embeddings.table import Bags, Combiner, Gradients, RowType, Table

needs_core = pytest.mark.skipif(
    native.core() is None,
    reason="the compiled core is missing: install a C++17 compiler, then make clean",
)

# Every part of a rule that is off by default.
EVERYTHING: dict[str, Any] = {
    "clip": 0.4,
    "l2": 0.01,
    "weight_decay": 0.02,
    "l1": 0.05,
    "l2_ftrl": 0.1,
    "l2_shrinkage": 0.1,
    "beta": 0.1,
    "learning_rate_power": -0.4,
    "beta_1": 0.8,
}


def table_of(rows: Any, **rule: Any) -> Table:
    """A table of these float32 rows."""
    rows = np.array(rows, np.float32)
    table = Table.allocate("t", *rows.shape, Rule(**rule))
    table.rows[...] = rows
    return table


def random_table(
    rng: np.random.Generator, rule: Rule, num_rows: int, dim: int, row_type: RowType
) -> Table:
    table = Table.allocate("t", num_rows, dim, rule, row_type=row_type, seed=5)
    table.fill(lambda a, b: rng.standard_normal((b - a, dim)).astype(np.float32))
    return table


def random_bags(
    rng: np.random.Generator, num_rows: int = 60, *, combiner: Combiner = "sum"
) -> Iterator[Bags]:
    """Bags of every form, with and without weights; -1 is padding."""
    for dtype in (np.int32, np.int64):
        for shape in ((40,), (25, 3)):
            ids = rng.integers(-1, num_rows, shape).astype(dtype)
            yield Bags(table=0, ids=ids, combiner=combiner)
            weights = rng.random(shape, np.float32)
            yield Bags(table=0, ids=ids, weights=weights, combiner=combiner)
        offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 4, 30))])
        ids = rng.integers(0, num_rows, offsets[-1]).astype(dtype)
        yield Bags(table=0, ids=ids, offsets=offsets, combiner=combiner)


def random_gradients(
    rng: np.random.Generator, features: list[Bags], dim: int, scale: float = 1.0
) -> Gradients:
    gradients = tuple(
        rng.standard_normal((bags.num_bags, dim), np.float32) for bags in features
    )
    return Gradients(features=tuple(features), gradients=gradients, scale=scale)


def assert_same_table(table: Table, twin: Table) -> None:
    """Equal but for the last bits of float32, and what rounding makes of them.

    Then takes over the rows of the twin, so that a last bit does not grow.
    """
    assert table.step == twin.step
    for name, state in twin.slots.items():
        # `linear` of FTRL is what is left of terms a hundred times as large.
        atol = 5e-4 if name == "linear" else 1e-5
        np.testing.assert_allclose(
            table.slots[name], state, rtol=2e-5, atol=atol, err_msg=name
        )
        table.slots[name][...] = state
    if table.row_type == "float32":
        # Adam divides a gradient that nearly cancels out by its own size.
        np.testing.assert_allclose(table.rows, twin.rows, rtol=2e-5, atol=1e-4)
    else:
        apart = np.abs(table.rows.view(np.int16).astype(int) - twin.rows.view(np.int16))
        # Near zero a last bit of float32 is many of float16, and may change the sign.
        near = np.abs(to_float32(table.rows) - to_float32(twin.rows)) <= 1e-4
        assert ((apart <= 1) | near).all()
        # A share means something only where there are rows enough.
        assert apart.size < 1000 or np.mean((apart > 0) & ~near) < 0.02
    table.rows[...] = twin.rows

"""One step of each rule by hand: the formulas of the papers and of keras.optimizers."""

from __future__ import annotations

import numpy as np
import pytest

from shortlist.embeddings.host import kernels, reference
from shortlist.embeddings.rules import Rule
from shortlist.embeddings.table import Bags, Gradients, Table
from table_cases import table_of

pytestmark = pytest.mark.usefixtures("way")


def step(table, ids, gradient, rate=0.5, **bags):
    """One update of one feature."""
    feature = Bags(table=0, ids=np.array(ids, np.int32), **bags)
    gradients = (np.array(gradient, np.float32),)
    kernels.update(
        [table], [Gradients(features=(feature,), gradients=gradients)], [rate]
    )


def test_duplicates_add_up_before_the_rule():
    table = table_of([[1, 1], [2, 2], [3, 3]], kind="adagrad", initial_accumulator=0.0)
    step(table, [1, 0, 1], [[1, 2], [0, 0], [2, 2]])
    a = np.float32([9, 16])  # (1 + 2)^2 and (2 + 2)^2
    np.testing.assert_allclose(table.rows[1], 2 - 0.5 * np.sqrt(a) / np.sqrt(a + 1e-7))
    np.testing.assert_allclose(table.slots["accumulator"][1], a)
    np.testing.assert_array_equal(table.rows[[0, 2]], [[1, 1], [3, 3]])


def test_sgd_by_hand():
    table = table_of([[1, -1]], kind="sgd", l2=0.5, weight_decay=0.25)
    step(table, [0], [[2, 4]])
    w, g = np.array([1.0, -1.0]), np.array([2.5, 3.5])  # l2 adds half the row
    np.testing.assert_allclose(table.rows[0], w - 0.5 * 0.25 * w - 0.5 * g)


def test_clip_shortens_the_gradient_of_one_row():
    table = table_of([[0, 0], [0, 0]], kind="sgd", clip=1.0)
    step(table, [0, 1], [[3, 4], [0.3, 0.4]], rate=1.0)
    np.testing.assert_allclose(table.rows, [[-0.6, -0.8], [-0.3, -0.4]], rtol=1e-6)


def test_rowwise_adagrad_by_hand():
    table = table_of([[1, 1]], kind="rowwise_adagrad", epsilon=0.5)
    step(table, [0], [[3, 1]])
    accumulator = 0.1 + (9 + 1) / 2
    expected = 1 - 0.5 * np.array([3, 1]) / (accumulator**0.5 + 0.5)
    np.testing.assert_allclose(table.rows[0], expected, rtol=1e-6)
    np.testing.assert_allclose(table.slots["accumulator"], [accumulator], rtol=1e-6)


def test_adam_without_catch_up_is_lazy():
    table = table_of([[1, 2]], kind="adam", catch_up=False)
    w, m, v = np.array([1.0, 2.0]), 0.0, 0.0
    for t, g in enumerate([[1, -2], None, [0.5, 3]], start=1):
        step(table, [0] if g else [], [g] if g else np.zeros((0, 2)), rate=0.1)
        if g:
            m, v = 0.9 * m + 0.1 * np.array(g), 0.999 * v + 0.001 * np.square(g)
            rate = 0.1 * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t)
            w = w - rate * m / (np.sqrt(v) + 1e-7)
    np.testing.assert_allclose(table.rows[0], w, rtol=1e-5)
    assert "last_step" not in table.slots


@pytest.mark.parametrize("skipped", [1, 4, 40, 400])
def test_adam_with_catch_up_is_dense_adam(skipped):
    """Rows untouched by a step moved all the same, as keras.optimizers.Adam does."""
    table = table_of([[1, 2], [0, 0]], kind="adam")
    w, m, v = np.array([1.0, 2.0]), 0.0, 0.0
    touching = {1: [1.0, -2.0], 2 + skipped: [0.5, 3.0], 4 + skipped: [1.0, 1.0]}
    for t in range(1, 5 + skipped):
        g = touching.get(t)
        step(table, [0] if g else [1], [g or [1, 1]], rate=0.1 / t)
        g = np.array(g or [0.0, 0.0])
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        rate = 0.1 / t * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t)
        w = w - rate * m / (np.sqrt(v) + 1e-7)
    np.testing.assert_allclose(table.rows[0], w, rtol=1e-5)
    np.testing.assert_allclose(table.slots["momentum"][0], m, rtol=1e-5)
    np.testing.assert_allclose(table.slots["velocity"][0], v, rtol=1e-5)


@pytest.mark.parametrize("power", [-0.5, -0.3])
def test_ftrl_by_hand(power):
    table = table_of(
        [[1, -2]],
        kind="ftrl",
        learning_rate_power=power,
        l1=0.2,
        l2_ftrl=0.3,
        l2_shrinkage=0.1,
        beta=0.4,
    )
    w, n, z, lr = np.array([1.0, -2.0]), 0.1, 0.0, 0.5
    for g in np.array([[0.5, 2.0], [-1.0, 0.1]]):
        step(table, [0], [g], rate=lr)
        grown = n + g * g
        z = z + (g + 2 * 0.1 * w) - (grown**-power - n**-power) / lr * w
        quadratic = grown**-power / lr + 2 * (0.3 + 0.4 / (2 * lr))
        w, n = (np.clip(z, -0.2, 0.2) - z) / quadratic, grown
    np.testing.assert_allclose(table.rows[0], w, rtol=1e-5)
    np.testing.assert_allclose(table.slots["linear"][0], z, rtol=1e-5)


def test_frozen_tables_stay_and_scales_apply():
    frozen, moving = table_of([[1, 1]], kind="sgd"), table_of([[1, 1]], kind="sgd")
    frozen.trainable = False
    features = tuple(Bags(table=t, ids=np.zeros(1, np.int32)) for t in (0, 1))
    gradients = (np.ones((1, 2), np.float32),) * 2
    batches = [
        Gradients(features=features, gradients=gradients, scale=scale)
        for scale in (0.25, 0.5)
    ]
    kernels.update([frozen, moving], batches, [1.0, 1.0])
    np.testing.assert_array_equal(frozen.rows, [[1, 1]])
    np.testing.assert_array_equal(moving.rows, [[0.25, 0.25]])
    assert (frozen.step, moving.step) == (0, 1)


@pytest.mark.parametrize("row_type", ["float16", "bfloat16"])
def test_moves_too_small_for_two_bytes_count_on_average(row_type):
    rule = Rule(kind="sgd")
    table = Table.allocate("t", 2000, 8, rule, row_type=row_type, seed=1)
    table.fill(lambda a, b: np.ones((b - a, 8), np.float32))
    ids = np.arange(2000, dtype=np.int32)
    for _ in range(5):
        step(table, ids, np.full((2000, 8), -1), rate=1e-4)
    moved = reference.to_float32(table.rows).mean() - 1
    assert moved == pytest.approx(5e-4, rel=0.1)

"""Tables under loss scaling: a step that Keras skips moves no table."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from embeddings.matrix import (
    PLACEMENTS,
    check_training,
    make_data,
    make_model,
    refused,
    to_numpy,
)
from embeddings.matrix_twin import DIM, LOOKUPS, ROWS, DenseRule, Lookups, Scaling, Twin

pytestmark = pytest.mark.backend

BATCH_SIZE = 4
BIG = ROWS - 1  # the row whose vector makes the dense gradient overflow alone


@pytest.fixture(params=[pytest.param("one", marks=pytest.mark.slow), "shared"])
def lookups(request: Any) -> Any:
    return LOOKUPS[request.param]


@pytest.fixture(params=PLACEMENTS)
def placement(request: Any) -> Any:
    return request.param


def half(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.asarray(array, np.float16).astype(np.float32)


def overflowing_data(lookups: Lookups) -> Any:
    """Rows, kernel, batch and labels; steps 2, 6 and 10 of 12 overflow float16.

    At a scale of 1024: the gradient of a prediction is 512 times its error. The kernel
    of feature `a` is 8 and most rows are small, so an error of 45 overflows the
    gradient of the vectors alone; an error of 6.4 at the row of 50s that of the kernel
    alone; an error of 500 both.
    """
    rng = np.random.default_rng(7)
    rows = {
        name: rng.normal(scale=0.1, size=(ROWS, DIM)).astype(np.float32)
        for name in lookups.tables
    }
    rows["moving"][BIG] = 50
    kernel = np.concatenate(
        [np.full((DIM, 1), 8 if name == "a" else 0.5) for name in lookups.features]
    ).astype(np.float32)
    batch, labels = make_data(lookups, 12 * BATCH_SIZE)
    batch = {name: np.where(ids == BIG, 0, ids) for name, ids in batch.items()}
    batch["a"][2 * BATCH_SIZE] = BIG
    labels[2 * BATCH_SIZE] = 50 * 8 * DIM - 6.4
    labels[6 * BATCH_SIZE] = -45
    labels[10 * BATCH_SIZE] = -500
    return rows, kernel, (batch, labels)


def start(model: Any, twin: Twin, rows: dict[str, np.ndarray], kernel: Any) -> None:
    model.layer.set_embedding_tables(rows)
    model.head.kernel.assign(kernel)
    twin.kernel = kernel
    for table in twin.tables:
        table.rows[:] = rows[table.name]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_dynamic_scaling(lookups: Any, placement: str, accumulate: int) -> None:
    """Steps skipped for the tables, the kernel or both; and a scale that grows."""
    steps = accumulate if accumulate > 1 else None
    inner = keras.optimizers.SGD(0.01, gradient_accumulation_steps=steps)
    optimizer = keras.optimizers.LossScaleOptimizer(
        inner, initial_scale=1024.0, dynamic_growth_steps=3
    )
    model = make_model(lookups, optimizer, placement=placement, policy="mixed_float16")
    scaling = Scaling(1024.0, growth=3)
    twin = Twin(
        lookups,
        dense=DenseRule(0.01),
        scaling=scaling,
        cast=half,
        accumulate=accumulate,
    )
    rows, kernel, data = overflowing_data(lookups)
    start(model, twin, rows, kernel)
    if placement == "device" and steps:
        with refused("accumulation-unsupported", 'placement="host"'):
            check_training(model, twin, data=data, batch_size=BATCH_SIZE)
        return
    check_training(model, twin, data=data, batch_size=BATCH_SIZE, rtol=1e-4, atol=5e-3)
    assert scaling.skipped.count((True, False)) >= 1
    assert scaling.skipped.count((False, True)) >= 1
    assert scaling.skipped.count((True, True)) >= 1
    assert scaling.grown >= 2
    assert float(to_numpy(optimizer.dynamic_scale)) == scaling.scale


def test_scaling_that_the_policy_brings(placement: str) -> None:
    """Under mixed_float16 Keras wraps the optimizer itself."""
    lookups = LOOKUPS["one"]
    model = make_model(lookups, placement=placement, policy="mixed_float16")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    twin = Twin(lookups, scaling=Scaling(2.0**15, growth=2000), cast=half)
    check_training(model, twin, size=16, epochs=1, rtol=5e-3, atol=5e-3)


def test_a_fixed_scale(lookups: Any, placement: str) -> None:
    optimizer = keras.optimizers.SGD(0.1, loss_scale_factor=64.0)
    model = make_model(lookups, optimizer, placement=placement)
    check_training(model, Twin(lookups, scaling=Scaling(64.0)), size=12)


def test_overflow_under_a_fixed_scale_is_refused() -> None:
    """Keras would go on with infinite weights; a table says so."""
    lookups = LOOKUPS["one"]
    optimizer = keras.optimizers.SGD(0.01, loss_scale_factor=1024.0)
    model = make_model(
        lookups, optimizer, policy="mixed_float16", auto_scale_loss=False
    )
    twin = Twin(lookups)
    rows, kernel, (batch, labels) = overflowing_data(lookups)
    start(model, twin, rows, kernel)
    with refused("gradient-not-finite", "Lower the factor"):
        model.fit(batch, labels, batch_size=4, shuffle=False, verbose=0)
        model.layer.sync()
    for table in model.layer.host_tables.tables:
        assert np.isfinite(table.rows).all()
    assert model.layer.host_tables.num_updates == 3


def test_gradients_that_are_not_finite_move_nothing(placement: str) -> None:
    """Without a loss scale the step counts as refused and training goes on."""
    lookups = LOOKUPS["one"]
    model = make_model(lookups, placement=placement)
    twin = Twin(lookups)
    rows = {"moving": np.zeros((ROWS, DIM), np.float32)}
    kernel = np.full((DIM, 1), 1e38, np.float32)
    start(model, twin, rows, kernel)
    batch = {"a": np.arange(4, dtype=np.int32)}
    labels = np.full((4, 1), 100, np.float32)
    model.fit(batch, labels, batch_size=4, verbose=0)
    np.testing.assert_array_equal(model.layer.get_embedding_tables()["moving"], 0)
    if model.layer.host_tables is not None:
        assert model.layer.host_tables.num_refused == 1
        assert model.layer.host_tables.num_updates == 0
    np.testing.assert_array_equal(to_numpy(model.head.kernel), kernel)
    fresh = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)
    start(model, twin, {"moving": fresh}, np.ones((DIM, 1), np.float32))
    check_training(model, twin, size=12)

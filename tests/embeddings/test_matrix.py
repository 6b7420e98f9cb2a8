"""What tables do under the ways in which Keras trains: exact, whatever it is."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from embeddings.matrix import (
    BACKEND,
    PLACEMENTS,
    check_equal,
    check_training,
    make_data,
    make_model,
    refused,
    to_numpy,
)
from embeddings.matrix_twin import LOOKUPS, DenseRule, Twin
from shortlist.errors import InputError

pytestmark = pytest.mark.backend


@pytest.fixture(params=[pytest.param("one", marks=pytest.mark.slow), "shared"])
def lookups(request: Any) -> Any:
    return LOOKUPS[request.param]


@pytest.fixture(params=PLACEMENTS)
def placement(request: Any) -> Any:
    return request.param


def test_plain_training(lookups: Any, placement: str) -> None:
    model = make_model(lookups, placement=placement)
    check_training(model, Twin(lookups))


def test_a_partial_last_batch(lookups: Any, placement: str) -> None:
    model = make_model(lookups, placement=placement)
    check_training(model, Twin(lookups), size=11)


def test_batches_of_one(lookups: Any, placement: str) -> None:
    model = make_model(lookups, placement=placement)
    check_training(model, Twin(lookups), size=5, batch_size=1)


def test_eager_training(lookups: Any, placement: str) -> None:
    model = make_model(lookups, placement=placement, run_eagerly=True)
    check_training(model, Twin(lookups), size=12)


@pytest.mark.parametrize("size", [24, 20])
def test_gradient_accumulation(lookups: Any, placement: str, size: int) -> None:
    """Gradients left over by an epoch or a `fit` go into the next update."""
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)
    model = make_model(lookups, optimizer, placement=placement)
    twin = Twin(lookups, accumulate=3)
    if placement == "device":
        with refused("accumulation-unsupported", 'placement="host"'):
            check_training(model, twin, size=size)
        return
    check_training(model, twin, size=size)
    assert bool(twin.waiting) == (size == 20)
    check_training(model, twin, size=size, epochs=1)


def test_clipping_of_the_dense_gradients(lookups: Any, placement: str) -> None:
    optimizer = keras.optimizers.SGD(0.1, global_clipnorm=0.3)
    model = make_model(lookups, optimizer, placement=placement)
    check_training(model, Twin(lookups, dense=DenseRule(clip=0.3)))


def test_weight_decay_of_the_dense_weights(lookups: Any, placement: str) -> None:
    optimizer = keras.optimizers.AdamW(0.02, weight_decay=0.3)
    model = make_model(lookups, optimizer, placement=placement)
    check_training(model, Twin(lookups, dense=DenseRule(0.02, weight_decay=0.3)))


def test_average_of_the_dense_weights(lookups: Any, placement: str) -> None:
    """Tables keep their newest rows; the average is of the dense weights."""
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.7)
    model = make_model(lookups, optimizer, placement=placement)
    twin = Twin(lookups, dense=DenseRule(ema=0.7))
    if BACKEND == "tensorflow":  # Keras would assign None, the average it has not
        with refused("average-unsupported", "TableCheckpoint"):
            check_training(model, twin)
        return
    check_training(model, twin)


def test_average_written_back(lookups: Any, placement: str) -> None:
    optimizer = keras.optimizers.SGD(
        0.1, use_ema=True, ema_momentum=0.7, ema_overwrite_frequency=2
    )
    model = make_model(lookups, optimizer, placement=placement)
    twin = Twin(lookups, dense=DenseRule(ema=0.7, ema_every=2))
    if BACKEND == "tensorflow":
        with refused("average-unsupported", "TableCheckpoint"):
            check_training(model, twin)
        return
    if BACKEND == "jax":  # Keras may fail once more on the way out of `fit`
        with pytest.raises((TypeError, InputError)) as caught:
            check_training(model, twin)
        error = caught.value
        with refused("average-unsupported", "TableCheckpoint"):
            raise error if isinstance(error, InputError) else error.__context__
        return
    check_training(model, twin)


def test_bfloat16(lookups: Any, placement: str) -> None:
    def cast(array: np.ndarray) -> np.ndarray:
        return to_numpy(keras.ops.cast(keras.ops.cast(array, "bfloat16"), "float32"))

    model = make_model(lookups, placement=placement, policy="mixed_bfloat16")
    twin = Twin(lookups, cast=cast)
    check_training(model, twin, size=12, rtol=0.05, atol=0.02, epochs=1)


@pytest.mark.parametrize("steps", [3])
def test_several_steps_per_execution(lookups: Any, placement: str, steps: int) -> None:
    model = make_model(lookups, placement=placement, steps_per_execution=steps)
    if BACKEND == "torch":
        with pytest.raises(ValueError, match="must be 1 with the PyTorch backend"):
            check_training(model, Twin(lookups))
        return
    check_training(model, Twin(lookups), size=28)


def test_compiled_training(lookups: Any, placement: str) -> None:
    if BACKEND == "jax":
        model = make_model(lookups, placement=placement, jit_compile=True)
    else:
        with pytest.warns(UserWarning, match="doesn't support `jit_compile=True`"):
            model = make_model(lookups, jit_compile=True)
    check_training(model, Twin(lookups), size=12)


def test_a_frozen_table(placement: str) -> None:
    lookups = LOOKUPS["shared"]
    for frozen in (["moving"], ["plain"], ["moving", "plain"]):
        model = make_model(lookups, placement=placement, frozen=frozen)
        check_training(model, Twin(lookups, frozen=frozen), size=12, epochs=1)


def test_a_frozen_layer(lookups: Any, placement: str) -> None:
    model = make_model(lookups, placement=placement)
    model.layer.trainable = False
    model.compile(keras.optimizers.SGD(0.1), "mse")
    twin = Twin(lookups, frozen=lookups.tables)
    check_training(model, twin, size=12, epochs=1)
    model.layer.trainable = True
    model.compile(keras.optimizers.SGD(0.1), "mse")
    for table in twin.tables:
        table.trainable = True
    check_training(model, twin, size=12, epochs=1)


def test_evaluate_and_predict_between(lookups: Any, placement: str) -> None:
    model = make_model(lookups, placement=placement)
    twin = Twin(lookups)
    batch, labels = make_data(lookups, 10, seed=5)
    for _ in range(2):
        check_training(model, twin, size=8, epochs=1)
        predicted = twin.predict(batch)
        found = model.predict(batch, batch_size=4, verbose=0)
        np.testing.assert_allclose(found, predicted, 1e-5, 1e-6)
        loss = model.evaluate(batch, labels, batch_size=5, verbose=0)
        expected = np.mean((predicted - labels) ** 2)
        np.testing.assert_allclose(loss, expected, 1e-5)
        check_equal(model, twin)


def test_validation_during_fit(lookups: Any, placement: str) -> None:
    model = make_model(lookups, placement=placement)
    batch, labels = make_data(lookups, 10, seed=5)
    history = model.fit(
        *make_data(lookups, 12),
        batch_size=4,
        epochs=3,
        shuffle=False,
        verbose=0,
        validation_data=(batch, labels),
    )
    twin = Twin(lookups)
    losses = []
    for _ in range(3):
        twin.fit(*make_data(lookups, 12), 4)
        losses.append(np.mean((twin.predict(batch) - labels) ** 2))
    np.testing.assert_allclose(history.history["val_loss"], losses, 1e-5)
    check_equal(model, twin)

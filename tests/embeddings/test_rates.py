"""Rates that a callback sets reach the tables that follow, and others say so."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from embeddings.matrix import BACKEND, refused
from shortlist.embeddings.config import FeatureConfig, TableConfig
from shortlist.embeddings.layer import DistributedEmbedding
from shortlist.embeddings.storage.saving import table_layers
from shortlist.errors import InputError

pytestmark = pytest.mark.backend

ROWS, DIM = 4, 2
IDS = np.arange(ROWS, dtype=np.int32)
FOLLOWS = "optimizer"


def make(rate: Any = FOLLOWS, optimizer: Any = None, table: Any = "sgd") -> keras.Model:
    """The vectors themselves; the loss is their mean, so each gradient is 1/8."""
    config = TableConfig(
        "t",
        ROWS,
        DIM,
        initializer="zeros",
        optimizer=table,
        learning_rate=rate,
        placement="host",
    )
    ids = keras.Input((), dtype="int32")
    vectors = DistributedEmbedding(FeatureConfig("f", config))(ids)
    model = keras.Model(ids, vectors)
    model.compile(optimizer or keras.optimizers.SGD(0.5), loss=mean, jit_compile=False)
    return model


def mean(_: Any, vectors: Any) -> Any:
    return keras.ops.mean(vectors)


def fit(model: keras.Model, epochs: int, *callbacks: Any) -> None:
    """One step an epoch."""
    model.fit(
        IDS,
        np.zeros((ROWS, DIM), np.float32),
        batch_size=ROWS,
        epochs=epochs,
        verbose=0,
        callbacks=list(callbacks),
    )


def moved(model: keras.Model) -> float:
    """The sum of the rates of all steps."""
    (layer,) = table_layers(model)
    rows = layer.get_embedding_tables()["t"]
    assert (rows == rows[0, 0]).all()
    return float(-rows[0, 0] * ROWS * DIM)


class Sets(keras.callbacks.Callback):
    """Sets the rate by hand before each epoch."""

    def __init__(self, *rates: float) -> None:
        super().__init__()
        self.rates = rates

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.model.optimizer.learning_rate = self.rates[epoch]


def test_rates_of_a_scheduler_reach_a_table_that_follows() -> None:
    rates = [1.0, 0.25, 0.125]
    model = make()
    fit(model, 3, keras.callbacks.LearningRateScheduler(lambda epoch: rates[epoch]))
    assert moved(model) == 1.375


def test_a_rate_reduced_on_a_plateau_reaches_it() -> None:
    class Flat(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["flat"] = 1.0

    model = make()
    reduce = keras.callbacks.ReduceLROnPlateau("flat", 0.5, patience=1, mode="min")
    fit(model, 3, Flat(), reduce)
    assert moved(model) == 0.5 + 0.5 + 0.25


def test_a_rate_set_by_hand_reaches_it() -> None:
    model = make()
    fit(model, 2, Sets(2.0, 0.5))
    model.optimizer.learning_rate = 0.25
    fit(model, 1)
    model.train_on_batch(IDS, np.zeros((ROWS, DIM), np.float32))
    assert moved(model) == 2.0 + 0.5 + 0.25 + 0.25


def test_a_rate_under_loss_scaling_and_accumulation() -> None:
    inner = keras.optimizers.SGD(0.5)
    scaled = keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0)
    model = make(optimizer=scaled)
    fit(model, 2, Sets(2.0, 0.5))
    assert moved(model) == 2.5
    waits = make(optimizer=keras.optimizers.SGD(0.5, gradient_accumulation_steps=2))
    fit(waits, 4, Sets(1.0, 2.0, 4.0, 8.0))
    assert moved(waits) == 2.0 + 8.0  # the mean of two equal gradients, the last rate


def test_a_schedule_of_the_optimizer_is_that_of_the_table() -> None:
    halves = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], [1.0, 0.5, 0.25])
    model = make(optimizer=keras.optimizers.SGD(halves))
    fit(model, 3)
    assert moved(model) == 1.75


def test_it_follows_in_a_loaded_model(tmp_path: Any) -> None:
    model = make()
    fit(model, 1)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras", {"mean": mean})
    fit(again, 2, Sets(0.25, 0.125))
    assert moved(again) == 0.5 + 0.375


@pytest.mark.parametrize("rate", [0.5, None])
def test_a_table_with_its_own_rate_warns_once(rate: float | None) -> None:
    model = make(rate, table=keras.optimizers.SGD(0.5))
    with pytest.warns(UserWarning, match="do not follow it: 't'. Pass Tab") as caught:
        fit(model, 3, Sets(0.5, 0.25, 0.125))
        fit(model, 1, Sets(4.0))
    assert len([one for one in caught if "learning rate" in str(one.message)]) == 1
    assert moved(model) == 2.0


def test_no_warning_while_the_rate_stays_or_a_schedule_was_chosen() -> None:
    fit(make(0.5), 2, Sets(0.5, 0.5))  # warnings are errors
    decay = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 1.0)
    fit(make(decay), 2, Sets(0.5, 0.25))


def test_a_training_without_an_optimizer_is_refused() -> None:
    (layer,) = table_layers(make())
    with refused("optimizer-unknown", "must be trained by fit()"):
        layer.host_tables.followed_rate()
    by_path = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.5))
    two = keras.optimizers.MultiOptimizer(by_path)
    model = make(optimizer=two)
    with refused("optimizer-unknown", "whose optimizer has one rate"):
        fit(model, 1)
    assert moved(model) == 0


def test_a_table_on_a_device_cannot_follow() -> None:
    if BACKEND != "jax":
        return
    table = TableConfig("t", ROWS, DIM, learning_rate=FOLLOWS, placement="device")
    with pytest.raises(InputError, match="cannot follow the rate") as caught:
        DistributedEmbedding(FeatureConfig("f", table)).build()
    assert caught.value.code == "placement-unsupported"


def test_another_word_is_refused() -> None:
    table = TableConfig("t", ROWS, DIM, learning_rate="model", placement="host")
    with pytest.raises(InputError, match="`learning_rate` must be a finite number"):
        DistributedEmbedding(FeatureConfig("f", table))

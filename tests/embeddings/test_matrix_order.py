"""Every update happens once, before the next lookup; and in loops written by hand."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from embeddings.matrix import (
    BACKEND,
    check_equal,
    check_training,
    make_data,
    make_model,
    refused,
)
from embeddings.matrix_twin import LOOKUPS, Twin, start_kernel
from shortlist.embeddings.host import kernels
from shortlist.embeddings.host.host_tables import HostTables

pytestmark = pytest.mark.backend


@pytest.fixture(params=[pytest.param("one", marks=pytest.mark.slow), "shared"])
def lookups(request: Any) -> Any:
    return LOOKUPS[request.param]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the host tables do, in order: lookup, append, apply."""
    seen: list[str] = []

    def recorded(name: str, call: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            seen.append(name)
            return call(*args, **kwargs)

        return wrapped

    look_up, update = kernels.lookup_checked, kernels.update
    monkeypatch.setattr(kernels, "lookup_checked", recorded("lookup", look_up))
    monkeypatch.setattr(kernels, "update", recorded("apply", update))
    append = recorded("append", HostTables.append)
    monkeypatch.setattr(HostTables, "append", append)
    return seen


def test_updates_come_once_and_before_the_next_lookup(
    lookups: Any, events: list[str]
) -> None:
    model = make_model(lookups)
    batch, labels = make_data(lookups, 20)
    events.clear()
    model.fit(batch, labels, batch_size=4, epochs=2, verbose=0)
    model.layer.sync()
    step = ["lookup", "append", "apply"]
    assert events == step * 10
    tables = model.layer.host_tables
    assert tables.num_updates == 10
    assert tables.num_lookups == events.count("lookup")
    assert tables.num_refused == 0
    events.clear()
    model.layer.sync()
    model.predict(batch, batch_size=10, verbose=0)
    assert events == ["lookup"] * 2


def test_accumulated_gradients_wait(lookups: Any, events: list[str]) -> None:
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)
    model = make_model(lookups, optimizer)
    batch, labels = make_data(lookups, 28)
    events.clear()
    model.fit(batch, labels, batch_size=4, verbose=0)
    model.layer.sync()
    waiting = ["lookup", "append"]
    assert events == (waiting * 3 + ["apply"]) * 2 + waiting
    assert model.layer.host_tables.num_updates == 2


def batches(data: Any, size: int) -> Any:
    batch, labels = data
    for first in range(0, len(labels), size):
        rows = slice(first, first + size)
        yield {name: ids[rows] for name, ids in batch.items()}, labels[rows]


def train_by_hand(model: Any, data: Any, with_losses: bool) -> None:
    steps = {"jax": jax_loop, "tensorflow": tensorflow_loop, "torch": torch_loop}
    model.optimizer.build(model.trainable_variables)
    steps[BACKEND](model, batches(data, 4), with_losses)


def jax_loop(model: Any, data: Any, with_losses: bool) -> None:
    import jax

    def loss_of(trainable: Any, rest: Any, x: Any, y: Any) -> Any:
        found, _, losses = model.stateless_call(trainable, rest, x, return_losses=True)
        loss = keras.ops.mean((found - y) ** 2)
        return loss + sum(losses) if with_losses else loss

    @jax.jit
    def step(trainable: Any, rest: Any, state: Any, x: Any, y: Any) -> Any:
        gradients = jax.grad(loss_of)(trainable, rest, x, y)
        return model.optimizer.stateless_apply(state, gradients, trainable)

    trainable = [v.value for v in model.trainable_variables]
    rest = [v.value for v in model.non_trainable_variables]
    state = [v.value for v in model.optimizer.variables]
    for x, y in data:
        trainable, state = step(trainable, rest, state, x, y)
    for variable, value in zip(model.trainable_variables, trainable, strict=True):
        variable.assign(value)


def tensorflow_loop(model: Any, data: Any, with_losses: bool) -> None:
    import tensorflow as tf

    for x, y in data:
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((model(x) - y) ** 2)
            if with_losses:
                loss = loss + sum(model.losses)
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)


def torch_loop(model: Any, data: Any, with_losses: bool) -> None:
    import torch

    for x, y in data:
        model.zero_grad()
        loss = ((model(x) - torch.from_numpy(y)) ** 2).mean()
        if with_losses:
            loss = loss + sum(model.losses)
        loss.backward()
        variables = model.trainable_variables
        with torch.no_grad():
            model.optimizer.apply([v.value.grad for v in variables], variables)


@pytest.mark.parametrize("loss_scale", [None, 1.0])
def test_a_loop_by_hand(lookups: Any, loss_scale: float | None) -> None:
    """With the losses of the model, or with a layer that knows the scale."""
    model = make_model(lookups, layer_options={"loss_scale": loss_scale})
    data = make_data(lookups, 20)
    train_by_hand(model, data, with_losses=loss_scale is None)
    twin = Twin(lookups)
    twin.fit(*data, 4)
    check_equal(model, twin)


def test_a_loop_that_leaves_the_losses_out(lookups: Any) -> None:
    model = make_model(lookups)
    with refused("loss-term-missing", "create the layer with loss_scale=1.0"):
        train_by_hand(model, make_data(lookups, 8), with_losses=False)
        model.layer.sync()
    assert model.layer.host_tables.num_updates == 0
    np.testing.assert_array_equal(
        model.layer.get_embedding_tables()["moving"],
        Twin(lookups).tables[0].rows,
    )
    # The dense weights took their steps; from here on all train together.
    model.head.kernel.assign(start_kernel(lookups))
    check_training(model, Twin(lookups), size=12)


def test_weights_set_back_by_a_step_take_its_gradients_back(lookups: Any) -> None:
    model, twin = make_model(lookups), Twin(lookups)
    batch, labels = make_data(lookups, 12)
    parts = [
        ({name: ids[i : i + 4] for name, ids in batch.items()}, labels[i : i + 4])
        for i in (0, 4, 8)
    ]
    for number, part in enumerate(parts):
        before = model.get_weights()
        model.fit(*part, batch_size=4, verbose=0)
        if number == 1:
            model.set_weights(before)
        else:
            twin.step(*part)
    model.layer.sync()
    check_equal(model, twin)

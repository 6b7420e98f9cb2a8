"""A small model around `DistributedEmbedding`, trained as its twin is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import pytest

from embeddings.matrix_twin import (
    DECAY,
    DIM,
    LENGTH,
    ROWS,
    Batch,
    Lookups,
    Twin,
    start_kernel,
    start_rows,
)
from shortlist.embeddings.config import FeatureConfig, TableConfig
from shortlist.embeddings.layer import DistributedEmbedding
from shortlist.errors import ShortlistError

BACKEND = keras.backend.backend()

PLACEMENTS = ["host", *(["device"] if BACKEND == "jax" else [])]


def table_configs(
    placement: str = "host", frozen: Sequence[str] = ()
) -> dict[str, TableConfig]:
    """Adam that catches up, and SGD with a schedule."""
    initial, steps, rate = DECAY
    schedule = keras.optimizers.schedules.ExponentialDecay(initial, steps, rate)
    optimizers = {
        "moving": keras.optimizers.Adam(0.05),
        "plain": keras.optimizers.SGD(schedule),
    }
    return {
        name: TableConfig(
            name,
            ROWS,
            DIM,
            optimizer=optimizer,
            combiner="mean",
            placement=placement,
            trainable=name not in frozen,
        )
        for name, optimizer in optimizers.items()
    }


def make_layer(
    lookups: Lookups,
    placement: str = "host",
    frozen: Sequence[str] = (),
    **options: Any,
) -> DistributedEmbedding:
    tables = table_configs(placement, frozen)
    return DistributedEmbedding(
        {
            name: FeatureConfig(
                name, tables[table], (None, LENGTH) if name in lookups.bags else (None,)
            )
            for name, table in lookups.features.items()
        },
        **options,
    )


class Model(keras.Model):
    """The vectors of all features side by side, times a kernel."""

    def __init__(self, layer: Any, *, calls: int = 1, dtype: Any = None) -> None:
        super().__init__(dtype=dtype)
        self.layer = layer
        self.calls = calls
        self.head = keras.layers.Dense(1, use_bias=False, dtype=dtype)

    def build(self, shapes: Any = None) -> None:
        if self.built:
            return
        self.layer.build()
        self.head.build((None, DIM * len(keras.tree.flatten(shapes))))
        self.built = True

    def embed(self, batch: Any, training: bool) -> Any:
        return self.layer(batch, training=training)

    def call(self, batch: Any, training: bool = False) -> Any:
        vectors = self.embed(batch, training)
        for _ in range(1, self.calls):
            again = self.layer(batch, training=training)
            vectors = {name: v + again[name] for name, v in vectors.items()}
        return self.head(keras.ops.concatenate(list(vectors.values()), axis=-1))


def make_data(lookups: Lookups, size: int, seed: int = 0) -> tuple[Batch, np.ndarray]:
    rng = np.random.default_rng(seed)
    batch = {}
    for name in lookups.features:
        shape = (size, LENGTH) if name in lookups.bags else (size,)
        batch[name] = rng.integers(0, ROWS, shape).astype(np.int32)
        if name in lookups.bags:
            batch[name][rng.random(shape) < 0.4] = -1
            batch[name][0] = -1
    return batch, rng.normal(size=(size, 1)).astype(np.float32)


class Losses(keras.callbacks.Callback):
    """The loss of each batch, out of the running mean that Keras reports."""

    def __init__(self, batch_size: int, size: int) -> None:
        super().__init__()
        self.sizes = [
            min(batch_size, size - first) for first in range(0, size, batch_size)
        ]
        self.totals: list[tuple[int, float]] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        seen = sum(self.sizes[: batch + 1])
        self.totals.append((batch, float(logs["loss"]) * seen))

    def check(self, losses: Sequence[float], rtol: float, atol: float) -> None:
        """Against the losses of all steps, epoch after epoch."""
        assert self.totals
        epoch, last = -1, len(self.sizes)
        for batch, total in self.totals:
            epoch += batch <= last
            last = batch
            first = epoch * len(self.sizes)
            sizes = self.sizes[: batch + 1]
            expected = np.dot(losses[first : first + len(sizes)], sizes)
            np.testing.assert_allclose(
                total, expected, rtol=rtol, atol=atol, err_msg=f"{epoch}, {batch}"
            )


def make_model(
    lookups: Lookups,
    optimizer: Any = None,
    *,
    placement: str = "host",
    frozen: Sequence[str] = (),
    layer_options: dict[str, Any] | None = None,
    kind: type[Model] = Model,
    calls: int = 1,
    policy: str | None = None,
    layer: Any = None,
    **compile_options: Any,
) -> Any:
    """A compiled model that begins where `Twin` begins."""
    options = dict(layer_options or {})
    if policy is not None:
        options["dtype"] = policy
    if layer is None:
        layer = make_layer(lookups, placement, frozen, **options)
    model = kind(layer, calls=calls, dtype=policy)
    set_start(model, lookups)
    model.compile(
        optimizer=keras.optimizers.SGD(0.1) if optimizer is None else optimizer,
        loss="mse",
        **compile_options,
    )
    return model


def set_start(model: Any, lookups: Lookups) -> None:
    model.build(dict.fromkeys(lookups.features, 0))
    model.layer.set_embedding_tables(start_rows(lookups))
    model.head.kernel.assign(start_kernel(lookups))


@contextmanager
def refused(code: str, words: str) -> Iterator[None]:
    """Expects our error; a graph of TensorFlow keeps its code and words only."""
    with pytest.raises(Exception) as caught:
        yield
    error = caught.value
    assert words in str(error), repr(error)
    if isinstance(error, ShortlistError):
        assert error.code == code
    else:
        assert BACKEND == "tensorflow" and f"(code {code!r})" in str(error)


def to_numpy(value: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(value))


def check_equal(model: Any, twin: Twin, rtol: float = 1e-5, atol: float = 2e-6) -> None:
    """Kernel, rows and the state of the tables."""
    found = model.layer.get_embedding_tables()
    for table in twin.tables:
        np.testing.assert_allclose(
            found[table.name], table.rows, rtol, atol, err_msg=table.name
        )
    np.testing.assert_allclose(
        to_numpy(model.head.kernel), twin.kernel, rtol, atol, err_msg="kernel"
    )
    host = model.layer.host_tables
    for table, expected in zip(host.tables if host else (), twin.tables):
        assert table.name == expected.name
        assert table.step == expected.step, table.name
        for name, slot in expected.slots.items():
            np.testing.assert_allclose(
                table.slots[name], slot, rtol, atol, err_msg=f"{table.name} {name}"
            )


def check_training(
    model: Any,
    twin: Twin,
    *,
    size: int = 24,
    batch_size: int = 4,
    epochs: int = 2,
    rtol: float = 1e-5,
    atol: float = 2e-6,
    data: tuple[Batch, np.ndarray] | None = None,
    callbacks: Sequence[Any] = (),
) -> None:
    """Stock `fit` ends where the twin ends, over the same losses."""
    batch, labels = data or make_data(twin.lookups, size)
    losses = Losses(batch_size, len(labels))
    before = model.layer.get_embedding_tables()
    before = {name: rows.copy() for name, rows in before.items()}
    model.fit(
        batch,
        labels,
        batch_size=batch_size,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[losses, *callbacks],
    )
    first = len(twin.losses)
    for _ in range(epochs):
        twin.fit(batch, labels, batch_size)
    twin.end_fit()
    losses.check(twin.losses[first:], rtol, atol)
    check_equal(model, twin, rtol, atol)
    for table in twin.tables:  # the comparison must not be one of tables at rest
        moved = np.abs(table.rows - before[table.name]).max()
        assert moved > 5 * atol if table.trainable else moved == 0, table.name

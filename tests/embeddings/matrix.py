"""A small model around `DistributedEmbedding`, and the same training in NumPy.

`Twin` knows nothing of Keras: forward pass, gradients, the dense optimizer, loss
scaling and gradient accumulation are written out, and tables move by
`reference.update`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
import pytest

from shortlist.embeddings import reference
from shortlist.embeddings.config import FeatureConfig, TableConfig
from shortlist.embeddings.layer import DistributedEmbedding
from shortlist.embeddings.rules import Rule
from shortlist.embeddings.table import Bags, Gradients, Table
from shortlist.errors import ShortlistError

BACKEND = keras.backend.backend()
PLACEMENTS = ["host"]
ROWS, DIM, LENGTH = 9, 3, 4
DECAY = (0.5, 2, 0.8)  # of the learning rate of the `plain` table

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Lookups:
    """Which features a model has: their tables, and whether they are bags."""

    features: dict[str, str]
    bags: tuple[str, ...] = ()

    @property
    def tables(self) -> list[str]:
        return list(dict.fromkeys(self.features.values()))


LOOKUPS = {
    "one": Lookups({"a": "moving"}),
    "shared": Lookups({"a": "moving", "bag": "moving", "c": "plain"}, ("bag",)),
}
RULES = {
    "moving": Rule(kind="adam", learning_rate=0.05),
    "plain": Rule(kind="sgd", learning_rate=0.0),
}


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

    def embed(self, batch: Any) -> Any:
        return self.layer(batch)

    def call(self, batch: Any) -> Any:
        vectors = self.embed(batch)
        for _ in range(1, self.calls):
            again = self.layer(batch)
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


def start_rows(lookups: Lookups, seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=(ROWS, DIM)).astype(np.float32) for name in lookups.tables
    }


def start_kernel(lookups: Lookups, seed: int = 2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(DIM * len(lookups.features), 1)).astype(np.float32)


@dataclass
class DenseRule:
    """The optimizer of the kernel: SGD, or AdamW with a weight decay."""

    learning_rate: float = 0.1
    weight_decay: float | None = None
    clip: float | None = None
    ema: float | None = None
    ema_every: int | None = None
    step: int = 0
    m: Any = 0.0
    v: Any = 0.0
    average: Any = 0.0

    def __call__(self, w: np.ndarray, g: np.ndarray) -> np.ndarray:
        if self.clip is not None:
            g = g * min(1.0, self.clip / np.sqrt(np.sum(g * g)))
        t = self.step + 1
        if self.weight_decay is None:
            w = w - self.learning_rate * g
        else:
            w = w - w * self.weight_decay * self.learning_rate
            self.m = self.m + (g - self.m) * (1 - 0.9)
            self.v = self.v + (g * g - self.v) * (1 - 0.999)
            rate = self.learning_rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            w = w - rate * self.m / (np.sqrt(self.v) + 1e-7)
        if self.ema is not None:
            momentum = self.ema if self.step else 0.0
            self.average = momentum * self.average + (1 - momentum) * w
            if self.ema_every is not None and t % self.ema_every == 0:
                w = self.average
        self.step = t
        return np.asarray(w, np.float32)


@dataclass
class Scaling:
    """The dynamic loss scale, and how many steps it skipped for what."""

    scale: float = 1.0
    growth: int | None = None
    counter: int = 0
    grown: int = 0
    skipped: list[tuple[bool, bool]] = field(default_factory=list)  # dense, tables

    def admits(self, dense: np.ndarray, tables: Sequence[np.ndarray]) -> bool:
        if self.growth is None:
            return True
        bad_dense = not np.isfinite(dense).all()
        bad_tables = not all(np.isfinite(one).all() for one in tables)
        if bad_dense or bad_tables:
            self.skipped.append((bad_dense, bad_tables))
            self.scale, self.counter = self.scale / 2, 0
            return False
        return True

    def end_step(self) -> None:
        self.counter += 1
        if self.counter == self.growth:
            self.scale, self.counter = self.scale * 2, 0
            self.grown += 1


class Twin:
    """The same model and training, in NumPy."""

    def __init__(
        self,
        lookups: Lookups,
        *,
        dense: DenseRule | None = None,
        scaling: Scaling | None = None,
        accumulate: int = 1,
        cast: Callable[[np.ndarray], np.ndarray] = lambda array: array,
        frozen: Sequence[str] = (),
    ) -> None:
        self.lookups = lookups
        self.tables = [
            Table.allocate(name, ROWS, DIM, RULES[name], trainable=name not in frozen)
            for name in lookups.tables
        ]
        for table, rows in zip(self.tables, start_rows(lookups).values(), strict=True):
            table.rows[:] = rows
        self.kernel = start_kernel(lookups)
        self.dense = dense or DenseRule()
        self.scaling = scaling or Scaling()
        self.accumulate = accumulate
        self.cast = cast
        self.waiting: list[tuple[np.ndarray, Gradients]] = []
        self.losses: list[float] = []

    def bags(self, batch: Batch) -> list[Bags]:
        tables = self.lookups.tables
        return [
            Bags(table=tables.index(table), ids=batch[name], combiner="mean")
            for name, table in self.lookups.features.items()
        ]

    def predict(self, batch: Batch) -> np.ndarray:
        return self._forward(self.bags(batch))[1]

    def _forward(self, bags: list[Bags]) -> tuple[np.ndarray, np.ndarray]:
        vectors = reference.lookup(self.tables, bags)
        wide = self.cast(np.concatenate(vectors, axis=1))
        return wide, self.cast(wide @ self.cast(self.kernel))

    def step(self, batch: Batch, labels: np.ndarray) -> None:
        bags = self.bags(batch)
        wide, predicted = self._forward(bags)
        self.losses.append(float(np.mean((predicted - labels) ** 2)))
        scale = self.scaling.scale
        upstream = self.cast(scale * 2 * (predicted - labels) / len(labels))
        with np.errstate(over="ignore", invalid="ignore"):
            g_kernel = self.cast(wide.T @ upstream)
            g_wide = self.cast(upstream @ self.cast(self.kernel).T)
        g_vectors = [
            np.ascontiguousarray(g_wide[:, i * DIM : (i + 1) * DIM], np.float32)
            for i in range(len(bags))
        ]
        if not self.scaling.admits(g_kernel, g_vectors):
            return
        gradients = Gradients(features=tuple(bags), gradients=tuple(g_vectors))
        self.waiting.append((g_kernel / scale, replace(gradients, scale=1 / scale)))
        self.scaling.end_step()
        if len(self.waiting) == self.accumulate:
            self.apply()

    def apply(self) -> None:
        n = len(self.waiting)
        self.kernel = self.dense(self.kernel, sum(g for g, _ in self.waiting) / n)
        batches = [replace(one, scale=one.scale / n) for _, one in self.waiting]
        reference.update(self.tables, batches, self.rates())
        self.waiting = []

    def rates(self) -> list[float]:
        initial, steps, rate = DECAY
        return [
            initial * rate ** (table.step / steps)
            if table.rule.kind == "sgd"
            else table.rule.learning_rate
            for table in self.tables
        ]

    def fit(self, batch: Batch, labels: np.ndarray, batch_size: int) -> None:
        for first in range(0, len(labels), batch_size):
            rows = slice(first, first + batch_size)
            self.step({name: v[rows] for name, v in batch.items()}, labels[rows])

    def end_fit(self) -> None:
        """Keras leaves the averaged weights in the model."""
        if self.dense.ema is not None:
            self.kernel = np.asarray(self.dense.average, np.float32)


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
    host = model.layer._host
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

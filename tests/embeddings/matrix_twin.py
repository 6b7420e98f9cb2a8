"""The training of `matrix.Model` in NumPy.

`Twin` knows nothing of Keras: forward pass, gradients, the dense optimizer, loss
scaling and gradient accumulation are written out, and tables move by
`reference.update`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from shortlist.embeddings.host import reference
from shortlist.embeddings.rules import Rule
from shortlist.embeddings.table import Bags, Gradients, Table

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

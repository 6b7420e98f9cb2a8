"""The model of `tests/golden/tables-v1`, which an older version trained and saved."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from shortlist.embeddings import DistributedEmbedding, FeatureConfig, TableConfig

ROWS, DIM, BATCH = 6, 3, 4
OPTIMIZERS = {"plain": keras.optimizers.SGD(0.5), "moving": keras.optimizers.Adam(0.25)}


def make(*, accumulates: bool = True) -> Any:
    """A compiled model with two tables; accumulates four steps."""
    features = {
        name: FeatureConfig(
            name,
            TableConfig(
                name,
                ROWS,
                DIM,
                initializer="ones",
                optimizer=optimizer,
                placement="host",
            ),
        )
        for name, optimizer in OPTIMIZERS.items()
    }
    inputs = {name: keras.Input((), dtype="int32", name=name) for name in features}
    vectors = DistributedEmbedding(features, name="tables")(inputs)
    joined = keras.layers.Concatenate(name="joined")(list(vectors.values()))
    head = keras.layers.Dense(1, kernel_initializer="ones", name="head")
    model = keras.Model(inputs, head(joined))
    steps = 4 if accumulates else None
    optimizer = keras.optimizers.SGD(0.125, gradient_accumulation_steps=steps)
    model.compile(optimizer, "mse", jit_compile=False)
    return model


def fit(model: Any, steps: int) -> None:
    """Some steps on batches that are always the same."""
    ids = np.arange(steps * BATCH, dtype=np.int32)
    batch = {"plain": ids % ROWS, "moving": ids * 5 % ROWS}
    labels = (ids % 7 - 3).astype(np.float32)[:, None]
    model.fit(batch, labels, batch_size=BATCH, shuffle=False, verbose=0)


def arrays(model: Any) -> dict[str, np.ndarray]:
    """Rows and state of the tables, and the dense weights."""
    layer = model.get_layer("tables")
    layer.sync()
    found = {}
    for table in layer.host_tables.tables:
        found[table.name] = table.rows.copy()
        for name, slot in table.slots.items():
            found[f"{table.name}.{name}"] = slot.copy()
        found[f"{table.name}.step"] = np.array(table.step)
    for weight in model.get_layer("head").weights:
        found[weight.name] = np.array(keras.ops.convert_to_numpy(weight.value))
    return found

"""One model over two kinds of tables: stock Keras' and Shortlist's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from shortlist.embeddings import DistributedEmbedding, FeatureConfig, TableConfig


class StockEmbedding(keras.layers.Layer):
    """A `keras.layers.Embedding` per feature; bags of several ids are averaged."""

    def __init__(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        super().__init__()
        self.tables = {
            name: keras.layers.Embedding(rows, dim, name=name)
            for name, (rows, dim) in shapes.items()
        }

    def call(self, ids: Mapping[str, Any]) -> dict[str, Any]:
        """`(batch_size, dim)` per feature."""
        vectors = {name: table(ids[name]) for name, table in self.tables.items()}
        return {
            name: ops.mean(value, axis=1) if len(value.shape) == 3 else value
            for name, value in vectors.items()
        }

    def set_embedding_tables(self, rows: Mapping[str, np.ndarray]) -> None:
        """Sets the rows of the tables."""
        for name, values in rows.items():
            self.tables[name].set_weights([values])

    def get_embedding_tables(self) -> dict[str, np.ndarray]:
        """The rows of the tables."""
        return {name: table.get_weights()[0] for name, table in self.tables.items()}


def shortlist_embedding(
    shapes: Mapping[str, tuple[int, int]],
    *,
    lengths: Mapping[str, int] | None = None,
    optimizer: Any = "adam",
    placement: str = "auto",
    **table: Any,
) -> DistributedEmbedding:
    """The same layer of Shortlist: one table per feature; `lengths` of bags above 1."""
    features = {}
    for name, (rows, dim) in shapes.items():
        config = TableConfig(
            name=name,
            vocabulary_size=rows,
            embedding_dim=dim,
            optimizer=optimizer,
            placement=placement,
            **table,
        )
        length = (lengths or {}).get(name)
        features[name] = FeatureConfig(
            name=name,
            table=config,
            input_shape=(None,) if length is None else (None, length),
            output_shape=(None, dim),
        )
    return DistributedEmbedding(features)


class Model(keras.Model):
    """The vectors of all features, and numeric columns if any, into a perceptron.

    With `wide`, a linear function of the same input is added.
    """

    def __init__(
        self, embedding: Any, widths: tuple[int, ...], *, wide: bool = False
    ) -> None:
        super().__init__()
        self.embedding = embedding
        layers = [keras.layers.Dense(width, activation="relu") for width in widths]
        self.perceptron = keras.Sequential([*layers, keras.layers.Dense(1)])
        self.wide = keras.layers.Dense(1) if wide else None

    def call(self, inputs: Mapping[str, Any]) -> Any:
        """One number per example."""
        ids = {name: value for name, value in inputs.items() if name != "numeric"}
        vectors = self.embedding(ids)
        columns = [vectors[name] for name in sorted(vectors)]
        if "numeric" in inputs:
            columns.append(inputs["numeric"])
        joined = ops.concatenate(columns, axis=-1)
        output = self.perceptron(joined)
        return output if self.wide is None else output + self.wide(joined)

    def dense_layers(self) -> list[keras.layers.Layer]:
        """The layers beside the tables."""
        return [self.perceptron, *([self.wide] if self.wide else [])]


class Factorization(keras.Model):
    """Dot product of the vectors of two features; their last columns are biases."""

    def __init__(self, embedding: Any) -> None:
        super().__init__()
        self.embedding = embedding

    def call(self, ids: Mapping[str, Any]) -> Any:
        """One number per example."""
        vectors = self.embedding(ids)
        left, right = (vectors[name] for name in sorted(vectors))
        product = ops.sum(left[:, :-1] * right[:, :-1], axis=-1, keepdims=True)
        return product + left[:, -1:] + right[:, -1:]


def equal_losses(
    models: list[Model],
    shapes: Mapping[str, tuple[int, int]],
    inputs: Mapping[str, np.ndarray],
    labels: np.ndarray,
    *,
    batch: int,
    epochs: int,
    tolerance: float,
) -> float:
    """Trains both from the same weights on the same batches and asserts equal losses.

    The tables must have moved alike too, up to a twentieth of their mean move: Adam
    turns the last digits of gradients near 0 into steps.

    Returns: the largest difference of the mean loss of an epoch, relative to that of
    the first model.
    """
    start = start_equal(models, shapes, inputs)
    rival, ours = (
        np.array(
            model.fit(
                inputs,
                labels,
                batch_size=batch,
                epochs=epochs,
                shuffle=False,
                verbose=0,
            ).history["loss"]
        )
        for model in models
    )
    np.testing.assert_allclose(ours, rival, rtol=tolerance)
    assert rival[-1] < rival[0], "the model learns nothing"
    tables = [model.embedding.get_embedding_tables() for model in models]
    for name, rows in start.items():
        first, second = (np.asarray(each[name]) for each in tables)
        move = np.mean(np.abs(first - rows))
        assert move > 0, f"table {name} does not move"
        apart = np.mean(np.abs(first - second))
        assert apart <= 0.05 * move, (name, apart, move)
    return float(np.max(np.abs(ours - rival) / rival))


def start_equal(
    models: list[Model],
    shapes: Mapping[str, tuple[int, int]],
    inputs: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Builds the models with equal dense layers and with the tables it returns."""
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    rows = {
        name: generator.uniform(-0.05, 0.05, shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    for model in models:
        model.predict_on_batch({name: values[:2] for name, values in inputs.items()})
        model.embedding.set_embedding_tables(rows)
        for own, first in zip(
            model.dense_layers(), models[0].dense_layers(), strict=True
        ):
            own.set_weights(first.get_weights())
    return rows

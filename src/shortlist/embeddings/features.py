"""All lookups of a model in one place: ids in, one vector per feature out.

Knows tables and features; knows nothing of towers, losses or data files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import msgspec
import numpy as np
from keras import ops

from shortlist.embeddings.config import FeatureConfig, TableConfig
from shortlist.embeddings.ids import containers
from shortlist.embeddings.inputs import Input, table_dims
from shortlist.embeddings.layer import DistributedEmbedding, Tensor
from shortlist.errors import InputError

# Shapes of the ids of a looked-up feature.
_LOOKUP_SHAPES = {
    "categorical": (None,),
    "multi_valued": (None, None),
    "sequence": (None, None, None),
}


@keras.saving.register_keras_serializable(package="shortlist")
class FeatureEmbedding(keras.layers.Layer):  # type: ignore[misc]
    """Looks up every feature of a batch; features of one table share its rows.

    All lookups are one call of a `DistributedEmbedding`, so the tables have their own
    optimizers and the cost of a step does not depend on their size.

    Args:
        inputs: the features and the tables they look up. A `sequence` is looked up
            position by position.
        table_rows: rows of each table, the out-of-vocabulary row 0 included.
        embeddings_initializer: Keras initializer of the tables.
        table_optimizer: of every table, a name or object as in `TableConfig`.
        table_learning_rate: replaces the learning rate of the optimizer.
        table_l2: adds `table_l2 * row` to the gradient of every touched row.

    Call arguments: a mapping from feature name to its values: categorical
    `(batch_size,)` int32, multi-valued and sequence `(batch_size, any length)` int32
    padded with -1, numeric `(batch_size,)` float32. Features that are missing in the
    mapping are omitted, so that one tower can be computed alone.

    Returns: a dict from feature name to `(batch_size, dim)` in the compute dtype. A
    multi-valued feature is the mean over its entries, zeros if it has none. A sequence
    is `(batch_size, length, dim + 1)`: its last `length` entries in order and
    right-aligned, each a vector and 1; the positions before them are zeros.
    """

    def __init__(
        self,
        inputs: Iterable[Input | Mapping[str, Any]],
        table_rows: Mapping[str, int],
        *,
        embeddings_initializer: str | Any = "glorot_uniform",
        table_optimizer: str | Any = "adam",
        table_learning_rate: float | None = None,
        table_l2: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.inputs = tuple(msgspec.convert(i, Input) for i in inputs)
        self.table_rows = dict(table_rows)
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.table_optimizer = table_optimizer
        self.table_learning_rate = table_learning_rate
        self.table_l2 = table_l2
        tables = {
            name: TableConfig(
                name,
                self._rows_of(name),
                dim,
                initializer=self.embeddings_initializer,
                optimizer=table_optimizer,
                learning_rate=table_learning_rate,
                l2=table_l2,
                combiner="mean",
            )
            for name, dim in table_dims(self.inputs).items()
        }
        self.looked_up = tuple(i for i in self.inputs if i.table is not None)
        self.embedding = DistributedEmbedding(
            [
                FeatureConfig(
                    i.feature,
                    tables[str(i.table)],
                    _LOOKUP_SHAPES[i.kind],
                )
                for i in self.looked_up
            ],
            name="embedding",
        )

    def build(self, input_shape: Any = None) -> None:
        """Creates the tables."""
        if not self.embedding.built:
            self.embedding.build()
        self.built = True

    def __call__(self, batch: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Checks ids before Keras and the backend convert them, then calls."""
        changed = {}
        for place, i in enumerate(self.looked_up):
            if i.feature in batch:
                given = batch[i.feature]
                ids, _ = containers.checked(given, None, self.embedding.expected(place))
                if ids is not given:
                    changed[i.feature] = ids
        return super().__call__(
            {**batch, **changed} if changed else batch, *args, **kwargs
        )

    def call(
        self, batch: Mapping[str, Tensor], training: Any = False
    ) -> dict[str, Tensor]:
        """Looks up the features present in `batch`."""
        last = {
            i.feature: last_ids(batch[i.feature], i.length)
            for i in self.inputs
            if i.length is not None and i.feature in batch
        }
        # Every position of a sequence is a bag of one id.
        ids = {**batch, **{name: ops.expand_dims(v, -1) for name, v in last.items()}}
        vectors = self.embedding.lookup(
            {
                place: ids[i.feature]
                for place, i in enumerate(self.looked_up)
                if i.feature in batch
            },
            training=training,
        )
        found = {self.looked_up[place].feature: one for place, one in vectors.items()}
        for name, kept in last.items():
            found[name] = with_mask(found[name], kept)
        for i in self.inputs:
            if i.table is None and i.feature in batch:
                column = ops.cast(batch[i.feature], self.compute_dtype)
                found[i.feature] = ops.expand_dims(column, -1)
        return {i.feature: found[i.feature] for i in self.inputs if i.feature in found}

    def compute_output_spec(
        self, batch: Mapping[str, Any], training: Any = False
    ) -> dict[str, Any]:
        """Symbolic tensors of the outputs; nothing is looked up."""
        shapes = self.compute_output_shape({k: v.shape for k, v in batch.items()})
        return {
            name: keras.KerasTensor(shape, dtype=self.compute_dtype)
            for name, shape in shapes.items()
        }

    def compute_output_shape(
        self, input_shape: Mapping[str, tuple[int | None, ...]]
    ) -> dict[str, tuple[int | None, ...]]:
        """Shape `(batch_size, dim)` per feature; see the call for a sequence."""
        return {
            i.feature: (
                (input_shape[i.feature][0], i.dim)
                if i.length is None
                else (input_shape[i.feature][0], i.length, i.dim + 1)
            )
            for i in self.inputs
            if i.feature in input_shape
        }

    def tables(self) -> dict[str, np.ndarray]:
        """The rows of every table by name, float32."""
        return self.embedding.get_embedding_tables()

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments as plain values."""
        initializer = keras.initializers.serialize(self.embeddings_initializer)
        optimizer = self.table_optimizer
        if isinstance(optimizer, keras.optimizers.Optimizer):
            optimizer = keras.saving.serialize_keras_object(optimizer)
        return {
            **super().get_config(),
            "inputs": msgspec.to_builtins(self.inputs),
            "table_rows": self.table_rows,
            "embeddings_initializer": initializer,
            "table_optimizer": optimizer,
            "table_learning_rate": self.table_learning_rate,
            "table_l2": self.table_l2,
        }

    def _rows_of(self, table: str) -> int:
        if table not in self.table_rows:
            raise InputError(
                "table-unknown",
                f"Every looked-up table needs its number of rows. Missing: {table!r}."
                f" Received table_rows for {sorted(self.table_rows)}.",
            )
        return self.table_rows[table]


def concatenate(inputs: Iterable[Input], vectors: Mapping[str, Tensor]) -> Tensor:
    """The looked-up vectors of `inputs`, concatenated to `(batch_size, width)`.

    A sequence is flattened, position after position.
    """
    flat = [
        vectors[i.feature]
        if i.length is None
        else ops.reshape(vectors[i.feature], (-1, i.width))
        for i in inputs
    ]
    return ops.concatenate(flat, axis=-1)


def last_ids(ids: Tensor, length: int) -> Tensor:
    """The last entries of padded lists, in order, right-aligned in each row.

    The newest entry is always in the last column, so a model can learn the meaning of
    each position.

    Args:
        ids: `(batch_size, any length)` integers, -1 for padding, anywhere.
        length: entries kept.

    Returns: `(batch_size, length)`, -1 before the first entry.
    """
    ids = ops.convert_to_tensor(ids)
    width = ids.shape[1]
    if width < length:
        ids = ops.pad(ids, ((0, 0), (length - width, 0)), constant_values=-1)
        width = length
    places = ops.arange(width, dtype="int32")
    # Padding sorts before all entries; no two keys are equal, so any sort will do.
    keys = ops.where(ids < 0, places, places + width)
    order = ops.argsort(keys, axis=1)[:, width - length :]
    return ops.take_along_axis(ids, ops.cast(order, "int32"), axis=1)


def with_mask(vectors: Tensor, ids: Tensor) -> Tensor:
    """Looked-up positions and a mask of those that are not padding.

    Args:
        vectors: `(batch_size, length, dim)`, zeros for padding.
        ids: `(batch_size, length)`, -1 for padding.

    Returns: `(batch_size, length, dim + 1)`.
    """
    mask = ops.cast(ops.expand_dims(ids, -1) >= 0, vectors.dtype)
    return ops.concatenate([vectors, mask], axis=-1)

"""All lookups of a model in one place: ids in, one vector per feature out.

Knows tables and features; knows nothing of towers, losses or data files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import msgspec
from keras import ops

from shortlist.embeddings.inputs import Input, table_dims
from shortlist.errors import InputError

Tensor = Any  # a tensor of the backend in use; Keras has no common type for it


@keras.saving.register_keras_serializable(package="shortlist")
class FeatureEmbedding(keras.layers.Layer):  # type: ignore[misc]
    """Looks up every feature of a batch; features of one table share its rows.

    Args:
        inputs: the features and the tables they look up.
        table_rows: rows of each table, the out-of-vocabulary row 0 included.
        embeddings_initializer: Keras initializer of the tables.

    Call arguments: a mapping from feature name to its values: categorical
    `(batch_size,)` int32, multi-valued `(batch_size, length)` int32 padded with -1,
    numeric `(batch_size,)` float32. Features absent from the mapping are left out,
    so that one tower can be computed alone.

    Returns: a dict from feature name to `(batch_size, dim)` float32. A multi-valued
    feature is the mean over its entries, zeros if it has none.
    """

    def __init__(
        self,
        inputs: Iterable[Input | Mapping[str, Any]],
        table_rows: Mapping[str, int],
        *,
        embeddings_initializer: str | Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.inputs = tuple(msgspec.convert(i, Input) for i in inputs)
        self.table_rows = dict(table_rows)
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.tables = {
            name: keras.layers.Embedding(
                self._rows_of(name),
                dim,
                embeddings_initializer=self.embeddings_initializer.clone(),
                name=f"{name}_table",
            )
            for name, dim in table_dims(self.inputs).items()
        }

    def build(self, input_shape: Any = None) -> None:
        """Creates the tables."""
        for table in self.tables.values():
            table.build()
        self.built = True

    def call(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Looks up the features present in `batch`."""
        return {
            i.feature: self._lookup(i, batch[i.feature])
            for i in self.inputs
            if i.feature in batch
        }

    def compute_output_shape(
        self, input_shape: Mapping[str, tuple[int | None, ...]]
    ) -> dict[str, tuple[int | None, int]]:
        """Shape `(batch_size, dim)` per feature present."""
        return {
            i.feature: (input_shape[i.feature][0], i.dim)
            for i in self.inputs
            if i.feature in input_shape
        }

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments as plain values."""
        initializer = keras.initializers.serialize(self.embeddings_initializer)
        return {
            **super().get_config(),
            "inputs": msgspec.to_builtins(self.inputs),
            "table_rows": self.table_rows,
            "embeddings_initializer": initializer,
        }

    def _rows_of(self, table: str) -> int:
        if table not in self.table_rows:
            raise InputError(
                "table-unknown",
                f"Every looked-up table needs its number of rows. Missing: {table!r}."
                f" Received table_rows for {sorted(self.table_rows)}.",
            )
        rows = self.table_rows[table]
        if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
            raise InputError(
                "invalid-argument",
                "`table_rows` must be positive integers. Received:"
                f" {rows!r} for table {table!r}. Pass the size of its vocabulary.",
            )
        return rows

    def _lookup(self, model_input: Input, values: Tensor) -> Tensor:
        if model_input.table is None:
            return ops.expand_dims(ops.cast(values, self.compute_dtype), -1)
        table = self.tables[model_input.table]
        if model_input.kind == "categorical":
            return table(values)
        present = ops.expand_dims(ops.cast(values >= 0, self.compute_dtype), -1)
        vectors = table(ops.maximum(values, 0))  # (batch_size, length, dim)
        total = ops.sum(vectors * present, axis=1)
        return total / ops.maximum(ops.sum(present, axis=1), 1.0)


def concatenate(inputs: Iterable[Input], vectors: Mapping[str, Tensor]) -> Tensor:
    """The looked-up vectors of `inputs` side by side, `(batch_size, width)`."""
    return ops.concatenate([vectors[i.feature] for i in inputs], axis=-1)

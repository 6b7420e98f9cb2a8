"""Ids as they come to a `DistributedEmbedding`, brought to dense or jagged arrays.

Works on the tensors of every backend, traced or not, and on NumPy arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from shortlist.errors import InputError


@dataclass(frozen=True)
class Jagged:
    """Bags of any length: bag i is `values[offsets[i]:offsets[i + 1]]`.

    For calls of a layer by hand; a Keras model is fed padded or ragged ids.

    Args:
        values: `(n,)` int32 or int64 ids.
        offsets: `(num_bags + 1,)` integers that rise from 0 to n.
        weights: `(n,)` float32, or `None`.
    """

    values: Any
    offsets: Any
    weights: Any = None


@dataclass(frozen=True)
class Ids:
    """The ids of one feature: `values` `(num_bags, length)`, `(num_bags,)` or jagged.

    `leading` is the shape of the feature's output without its width.
    """

    values: Any
    offsets: Any
    weights: Any
    leading: tuple[int | None, ...]


def to_ids(feature: str, ids: Any, weights: Any, combiner: str) -> Ids:
    """One feature's input as `Ids`.

    Args:
        feature: its name, for messages.
        ids: a dense integer tensor of one or more dimensions, padded with -1; a ragged
            or sparse tensor of TensorFlow; a BCOO matrix of JAX; a ragged NumPy array
            (of arrays); or `Jagged`.
        weights: of the same kind and shape, or `None`.
        combiner: of the table. With `mean` and `sqrtn` the weight of a single id
            cancels out, so it is left away.

    Raises:
        InputError: `invalid-ids` or `invalid-weights`.
    """
    if isinstance(ids, Jagged):
        given = ids.weights if weights is None else weights
        return _jagged(feature, ids.values, ids.offsets, given)
    if is_ragged_array(ids):
        ids, weights = pad(ids, weights)
    kind = type(ids).__name__
    if kind == "RaggedTensor":
        flat = None if weights is None else weights.values
        return _jagged(feature, ids.values, ids.row_splits, flat)
    if kind == "SparseTensor":
        return _from_sparse(feature, ids, weights)
    if kind == "BCOO":
        return _from_bcoo(feature, ids, weights)
    ids = _integers(feature, ids)
    shape = tuple(ids.shape)
    if not shape:
        raise InputError(
            "invalid-ids",
            f"Ids must have a batch dimension. Received: shape () for feature"
            f" {feature!r}. Pass (batch_size,) or (batch_size, length).",
        )
    if weights is not None:
        weights = ops.cast(weights, "float32")
        if not _compatible(shape, tuple(weights.shape)):
            raise InputError(
                "invalid-weights",
                "Weights must have the shape of the ids. Received: ids"
                f" {shape}, weights {tuple(weights.shape)} for feature {feature!r}."
                " Pass one weight per id.",
            )
        if len(shape) == 1 and combiner != "sum":
            weights = None
    leading = shape[: max(1, len(shape) - 1)]
    if len(shape) > 2:
        ids = ops.reshape(ids, (-1, shape[-1]))
        weights = None if weights is None else ops.reshape(weights, (-1, shape[-1]))
    return Ids(ids, None, weights, leading)


def is_ragged_array(ids: Any) -> bool:
    """Whether `ids` is a NumPy array of arrays, or a list of lists of two lengths."""
    if isinstance(ids, np.ndarray):
        return bool(ids.dtype == object)
    return (
        isinstance(ids, (list, tuple))
        and bool(ids)
        and all(isinstance(row, (list, tuple, np.ndarray)) for row in ids)
    )


def pad(ids: Any, weights: Any = None, length: int | None = None) -> tuple[Any, Any]:
    """Ragged rows as a dense array padded with -1, and their weights with 0.

    Args:
        ids: sequence of sequences of ids.
        weights: of the same lengths, or `None`.
        length: columns of the result, longer rows are cut; by default the longest.
    """
    longest = max((len(row) for row in ids), default=0)
    length = longest if length is None else length
    dense = np.full((len(ids), length), -1, np.int32)
    dense_weights = None if weights is None else np.zeros(dense.shape, np.float32)
    for i, row in enumerate(ids):
        dense[i, : len(row)] = row[:length]
        if dense_weights is not None:
            dense_weights[i, : len(row)] = weights[i][:length]
    return dense, dense_weights


def _jagged(feature: str, values: Any, offsets: Any, weights: Any) -> Ids:
    values = _integers(feature, values)
    offsets = ops.convert_to_tensor(offsets)
    if len(values.shape) != 1 or len(offsets.shape) != 1:
        raise InputError(
            "invalid-ids",
            "Ragged ids must have two dimensions, the second ragged. Received: values"
            f" {tuple(values.shape)}, offsets {tuple(offsets.shape)} for feature"
            f" {feature!r}.",
        )
    if weights is not None:
        weights = ops.cast(weights, "float32")
        if not _compatible(tuple(values.shape), tuple(weights.shape)):
            raise InputError(
                "invalid-weights",
                "Weights must have the shape of the ids. Received:"
                f" {tuple(values.shape)} values, {tuple(weights.shape)} weights for"
                f" feature {feature!r}. Pass one weight per id.",
            )
    size = offsets.shape[0]
    return Ids(values, offsets, weights, (None if size is None else size - 1,))


def _from_sparse(feature: str, ids: Any, weights: Any) -> Ids:
    import tensorflow as tf

    counts = tf.math.bincount(
        tf.cast(ids.indices[:, 0], tf.int32),
        minlength=tf.cast(ids.dense_shape[0], tf.int32),
        dtype=tf.int64,
    )
    offsets = tf.concat([tf.zeros((1,), tf.int64), tf.cumsum(counts)], axis=0)
    rows = ids.shape[0]
    offsets.set_shape((None if rows is None else rows + 1,))
    return _jagged(
        feature, ids.values, offsets, None if weights is None else weights.values
    )


def _from_bcoo(feature: str, ids: Any, weights: Any) -> Ids:
    import jax.numpy as jnp

    rows = ids.indices[:, 0]
    order = jnp.argsort(rows, stable=True)
    rows, values = rows[order], ids.data[order]
    # BCOO pads its entries with indices beyond the matrix.
    values = jnp.where(rows < ids.shape[0], values, -1)
    offsets = jnp.searchsorted(rows, jnp.arange(ids.shape[0] + 1))
    offsets = offsets.at[-1].set(len(rows))
    return _jagged(
        feature, values, offsets, None if weights is None else weights.data[order]
    )


def _integers(feature: str, ids: Any) -> Any:
    if isinstance(ids, (list, tuple)):
        ids = np.asarray(ids)
    dtype = keras.backend.standardize_dtype(ids.dtype)
    if not dtype.startswith(("int", "uint")):
        raise InputError(
            "invalid-ids",
            f"Ids must be integers. Received: {dtype} for feature {feature!r}. Map"
            " values to rows through a vocabulary, or cast them to int32.",
        )
    if isinstance(ids, np.ndarray) and ids.size and keras.backend.backend() == "jax":
        # JAX would cut them to 32 bits.
        limits = np.iinfo(np.int32)
        if ids.max() > limits.max or ids.min() < limits.min:
            raise InputError(
                "id-out-of-range",
                "Ids must lie between 0 and the size of the table, or be -1 for"
                f" padding. Received: {ids.min()} to {ids.max()} for feature"
                f" {feature!r}. Map ids through the vocabulary.",
            )
    wide = dtype in ("int64", "uint32", "uint64") and keras.backend.backend() != "jax"
    return ops.cast(ids, "int64" if wide else "int32")


def _compatible(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    return len(first) == len(second) and all(
        a is None or b is None or a == b for a, b in zip(first, second, strict=True)
    )

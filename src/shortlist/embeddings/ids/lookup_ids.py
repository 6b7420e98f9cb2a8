"""Ids as input of a lookup: dense or jagged tensors of the backend.

Works on tensors, traced or not, and on the arrays that `containers.checked` returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from shortlist.errors import InputError


@dataclass(frozen=True)
class Jagged:
    """Bags of any length: bag i is `values[offsets[i]:offsets[i + 1]]`.

    For calls of a layer by hand; a Keras model is fed padded or ragged ids.

    Args:
        values: `(n,)` int32 or int64 ids.
        offsets: `(num_bags + 1,)` integers that increase from 0 to n.
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
            or sparse tensor of TensorFlow; a BCOO matrix of JAX; or `Jagged`.
        weights: of the same kind and shape, or `None`.
        combiner: of the table. With `mean` and `sqrtn` the weight of a single id
            cancels out, so it is ignored.

    Raises:
        InputError: `invalid-ids` or `invalid-weights`.
    """
    if isinstance(ids, Jagged):
        given = ids.weights if weights is None else weights
        return _jagged(feature, ids.values, ids.offsets, given)
    kind = type(ids).__name__
    ragged = ("RaggedTensor", "SparseTensor", "BCOO")
    form = kind if weights is None else type(weights).__name__
    if form != kind and (form in ragged or kind in ragged):
        raise invalid_weights(
            feature, "Weights must be of the form of the ids.", f"{form} for {kind}"
        )
    if kind == "RaggedTensor":
        return _from_ragged(feature, ids, weights)
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
            raise invalid_weights(
                feature,
                "Weights must have the shape of the ids.",
                f"ids {shape}, weights {tuple(weights.shape)}",
            )
        if len(shape) == 1 and combiner != "sum":
            weights = None
    leading = shape[: max(1, len(shape) - 1)]
    if len(shape) > 2:
        ids = ops.reshape(ids, (-1, shape[-1]))
        weights = None if weights is None else ops.reshape(weights, (-1, shape[-1]))
    return Ids(ids, None, weights, leading)


def check_dtype(feature: str, dtype: Any) -> str:
    """The name of an integer number type.

    Raises:
        InputError: `invalid-ids` for any other.
    """
    name = str(keras.backend.standardize_dtype(dtype))
    if not name.startswith(("int", "uint")):
        raise invalid_ids(feature, name)
    return name


def invalid_ids(feature: str, received: str) -> InputError:
    """The error for values that cannot be ids."""
    return InputError(
        "invalid-ids",
        f"Ids must be integers. Received: {received} for feature {feature!r}. Map"
        " values to rows through a vocabulary, or cast them to int32.",
    )


def invalid_weights(feature: str, rule: str, received: str) -> InputError:
    """The error for weights that do not match the ids."""
    return InputError(
        "invalid-weights",
        f"{rule} Received: {received} for feature {feature!r}. Pass one weight per id.",
    )


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
            raise invalid_weights(
                feature,
                "Weights must have the shape of the ids.",
                f"{tuple(values.shape)} values, {tuple(weights.shape)} weights",
            )
    size = offsets.shape[0]
    return Ids(values, offsets, weights, (None if size is None else size - 1,))


def _from_ragged(feature: str, ids: Any, weights: Any) -> Ids:
    if weights is None:
        return _jagged(feature, ids.values, ids.row_splits, None)
    with _same_places(feature, ids.row_splits, weights.row_splits):
        return _jagged(feature, ids.values, ids.row_splits, weights.values)


def _from_sparse(feature: str, ids: Any, weights: Any) -> Ids:
    import tensorflow as tf

    if ids.shape.rank not in (2, None):
        raise invalid_ids(feature, f"a sparse tensor of {ids.shape.rank} dimensions")
    ids = tf.sparse.reorder(ids)
    counts = tf.math.bincount(
        tf.cast(ids.indices[:, 0], tf.int32),
        minlength=tf.cast(ids.dense_shape[0], tf.int32),
        dtype=tf.int64,
    )
    offsets = tf.concat([tf.zeros((1,), tf.int64), tf.cumsum(counts)], axis=0)
    rows = ids.shape[0]
    offsets.set_shape((None if rows is None else rows + 1,))
    if weights is None:
        return _jagged(feature, ids.values, offsets, None)
    weights = tf.sparse.reorder(weights)
    with _same_places(feature, ids.indices, weights.indices):
        return _jagged(feature, ids.values, offsets, tf.identity(weights.values))


def _same_places(feature: str, ids: Any, weights: Any) -> Any:
    """A context that checks that ids and weights have the same positions."""
    import tensorflow as tf

    error = invalid_weights(
        feature, "Weights must have the shape of the ids.", "weights at other places"
    )
    text = f"{error} (code {error.code!r})"
    return tf.control_dependencies(
        [
            # TensorFlow does not look for the origin of an operation with this name.
            tf.debugging.assert_equal(
                ids, tf.cast(weights, ids.dtype), text, name="shortlist>weights"
            )
        ]
    )


def _from_bcoo(feature: str, ids: Any, weights: Any) -> Ids:
    import jax.numpy as jnp
    from jax.experimental import sparse

    if ids.ndim != 2:
        raise invalid_ids(feature, f"a sparse array of {ids.ndim} dimensions")

    def in_order(matrix: Any) -> tuple[Any, Any]:
        matrix = sparse.bcoo_update_layout(matrix, n_batch=0, n_dense=0)
        rows, columns = matrix.indices[:, 0], matrix.indices[:, 1]
        order = jnp.lexsort((columns, rows))
        return rows[order], matrix.data[order]

    rows, values = in_order(ids)
    values = _integers(feature, values)
    # BCOO pads its entries with indices beyond the matrix.
    values = jnp.where(rows < ids.shape[0], values, -1)
    offsets = jnp.searchsorted(rows, jnp.arange(ids.shape[0] + 1))
    offsets = offsets.at[-1].set(len(rows))
    weights = None if weights is None else in_order(weights)[1]
    return _jagged(feature, values, offsets, weights)


def _integers(feature: str, ids: Any) -> Any:
    dtype = check_dtype(feature, ids.dtype)
    type_of_ids = "int32" if keras.backend.backend() == "jax" else "int64"
    if dtype in ("uint32", "uint64") or (dtype == "int64" and type_of_ids == "int32"):
        # No table has so many rows: clipped ids stay out of range, a cast would wrap.
        ids = ops.clip(ids, 0 if dtype[0] == "u" else -(2**31), 2**31 - 1)
    wide = dtype in ("int64", "uint32", "uint64")
    return ops.cast(ids, type_of_ids if wide else "int32")


def _compatible(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    return len(first) == len(second) and all(
        a is None or b is None or a == b for a, b in zip(first, second, strict=True)
    )

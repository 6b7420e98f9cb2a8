"""Ids and weights in any container, as checked NumPy arrays.

Runs before Keras and the backend convert an argument: JAX would truncate 64 bits to 32,
and a cast would round floats. Traced and symbolic tensors are left to
`lookup_ids.to_ids`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from shortlist.embeddings.host.host_tables import out_of_range
from shortlist.embeddings.ids import tensors
from shortlist.embeddings.ids.lookup_ids import Jagged, invalid_ids, invalid_weights
from shortlist.embeddings.ids.tensors import UNCHANGED, Ragged, Sparse
from shortlist.errors import InputError

_INT64 = np.iinfo(np.int64)


@dataclass(frozen=True)
class Expected:
    """The values that a feature accepts.

    Args:
        feature: its name, for messages.
        table: name of its table, for messages.
        num_rows: rows of the table.
        length: columns to which ragged rows are padded at least, or `None`.
    """

    feature: str
    table: str
    num_rows: int
    length: int | None = None


@dataclass(frozen=True)
class _Rows:
    """Ragged rows: `values` `(n,)`, `lengths` `(num_bags,)`, and columns if sparse."""

    values: np.ndarray
    lengths: np.ndarray
    columns: np.ndarray | None = None


def checked(
    ids: Any,
    weights: Any,
    expected: Expected,
    *,
    dense: bool = False,
    at_once: bool = False,
) -> tuple[Any, Any]:
    """Ids and weights of one feature, checked where their values can be read.

    Every container gives the same rows or the same error: dense, ragged and sparse
    arrays and tensors of NumPy, SciPy, JAX, TensorFlow and PyTorch, lists, and objects
    with `__array__`.

    Args:
        ids: of any number type; only integers are accepted.
        weights: in any container, of the shape of the ids; or `None`.
        expected: the values that the feature accepts.
        dense: whether to pad `Jagged` ids too.
        at_once: whether to check also plain tensors of the backend, which a lookup
            checks itself.

    Returns: dense arrays of NumPy, ragged rows padded with -1 (weights with 0) to the
    longest one; `Jagged` of such arrays; symbolic tensors, and tensors that a lookup
    under this backend accepts and checks, are returned unchanged.

    Raises:
        InputError: `invalid-ids`, `invalid-weights` or `id-out-of-range`.
    """
    if isinstance(ids, Jagged):
        return _checked_jagged(ids, weights, expected, dense)
    found = _ids(ids, expected, native=not at_once)
    if isinstance(found, _Rows):
        values = _rows_weights(weights, found, expected)
        if tensors.stays(ids) and (weights is None or type(weights) is type(ids)):
            return ids, weights
        return _padded(found, values, expected)
    if found is UNCHANGED or (at_once and tensors.read(ids, native=True) is UNCHANGED):
        found = ids
    return found, _dense_weights(weights, expected)


def _checked_jagged(
    ids: Jagged, weights: Any, expected: Expected, dense: bool
) -> tuple[Any, Any]:
    weights = ids.weights if weights is None else weights
    rows = _jagged(ids, expected)
    flat = _weights(weights, expected)
    if isinstance(flat, np.ndarray) and rows is not UNCHANGED:
        if flat.shape != rows.values.shape:
            raise invalid_weights(
                expected.feature,
                "Weights must have the shape of the ids.",
                f"{rows.values.shape} values, {flat.shape} weights",
            )
        weights = flat
    if rows is UNCHANGED:
        return Jagged(ids.values, ids.offsets, weights), None
    if dense:
        return _padded(rows, weights, expected)
    offsets = np.concatenate([[0], np.cumsum(rows.lengths)])
    return Jagged(rows.values, offsets, weights), None


def _ids(ids: Any, expected: Expected, native: bool = True) -> Any:
    """Ids as an integer array, as `_Rows` of them, or `UNCHANGED`."""
    try:
        found = _read(ids, native)
    except _Unreadable as error:
        raise invalid_ids(expected.feature, str(error)) from None
    if found is UNCHANGED:
        return found
    values = found.values if isinstance(found, _Rows) else found
    if values.dtype == object:  # Python integers beyond 64 bits
        raise _outside(expected, next(i for i in values.flat if not -1 <= i < 2**31))
    if values.dtype.kind not in "iu":
        raise invalid_ids(expected.feature, str(values.dtype))
    values = _in_range(values, expected)
    if not isinstance(found, _Rows):
        return values
    return _Rows(values, found.lengths, found.columns)


def _in_range(values: np.ndarray, expected: Expected) -> np.ndarray:
    if values.size:
        low, high = int(values.min()), int(values.max())
        if low < -1 or high >= expected.num_rows:
            bad = values[(values < -1) | (values >= expected.num_rows)]
            raise _outside(expected, int(bad[0]))
    wide = values.dtype == np.int64 and keras.backend.backend() != "jax"
    return values.astype(np.int64 if wide else np.int32, copy=False)


def _outside(expected: Expected, bad: int) -> InputError:
    return out_of_range(expected.feature, expected.table, expected.num_rows, bad)


def _jagged(ids: Jagged, expected: Expected) -> Any:
    offsets = _read_integers(ids.offsets, expected)
    values = _ids(ids.values, expected, native=False)
    if values is UNCHANGED or offsets is UNCHANGED:
        return UNCHANGED
    if isinstance(values, _Rows) or values.ndim != 1 or offsets.ndim != 1:
        raise invalid_ids(
            expected.feature, "values or offsets that have not one dimension"
        )
    lengths = np.diff(offsets)
    if (
        not len(offsets)
        or offsets[0] != 0
        or offsets[-1] != len(values)
        or (lengths < 0).any()
    ):
        raise invalid_ids(
            expected.feature,
            f"offsets that do not rise from 0 to {len(values)}, the number of values",
        )
    return _Rows(values, lengths)


def _read_integers(offsets: Any, expected: Expected) -> Any:
    try:
        found = _read(offsets, native=False)
    except _Unreadable as error:
        raise invalid_ids(expected.feature, f"offsets of {error}") from None
    if found is UNCHANGED:
        return found
    if isinstance(found, _Rows) or found.dtype.kind not in "iu":
        raise invalid_ids(expected.feature, "offsets that are not integers")
    return found.astype(np.int64)


def _weights(weights: Any, expected: Expected) -> Any:
    """Weights as a float32 array, as `_Rows` of them, `None` or `UNCHANGED`."""
    if weights is None:
        return None
    try:
        found = _read(weights, native=True)
    except _Unreadable as error:
        raise invalid_weights(
            expected.feature,
            "Weights must be numbers in a container of the ids' shape.",
            str(error),
        ) from None
    if found is UNCHANGED:
        return found
    values = found.values if isinstance(found, _Rows) else found
    if values.dtype.kind not in "fiub" and values.dtype.name != "bfloat16":
        raise invalid_weights(
            expected.feature, "Weights must be numbers.", str(values.dtype)
        )
    values = values.astype(np.float32)
    if not isinstance(found, _Rows):
        return values
    return _Rows(values, found.lengths, found.columns)


def _dense_weights(weights: Any, expected: Expected) -> Any:
    """Weights of dense ids; the lookup compares their shape."""
    found = _weights(weights, expected)
    if isinstance(found, _Rows):
        return _pad(found.values, found.lengths, _width(found, expected), 0)
    return weights if found is UNCHANGED else found


def _rows_weights(weights: Any, rows: _Rows, expected: Expected) -> Any:
    """Values of weights `(n,)` of the rows' shape, `None`, or what is symbolic."""
    found = _weights(weights, expected)
    if found is None or found is UNCHANGED:
        return weights
    if isinstance(found, np.ndarray):
        lengths = np.full(len(found), found.shape[1] if found.ndim == 2 else -1)
        found = _Rows(found.reshape(-1), lengths)
    same = np.array_equal(found.lengths, rows.lengths) and (
        found.columns is None
        or rows.columns is None
        or np.array_equal(found.columns, rows.columns)
    )
    if not same:
        raise invalid_weights(
            expected.feature,
            "Weights must have the shape of the ids.",
            f"weights of other rows than the {len(rows.lengths)} of the ids",
        )
    return found.values


def _padded(rows: _Rows, weights: Any, expected: Expected) -> tuple[Any, Any]:
    width = _width(rows, expected)
    ids = _pad(rows.values, rows.lengths, width, -1)
    if isinstance(weights, np.ndarray) and weights.shape == rows.values.shape:
        weights = _pad(weights, rows.lengths, width, 0)
    return ids, weights


def _width(rows: _Rows, expected: Expected) -> int:
    longest = int(rows.lengths.max()) if len(rows.lengths) else 0
    return max(1, longest, expected.length or 0)


def _pad(values: np.ndarray, lengths: np.ndarray, width: int, fill: int) -> np.ndarray:
    dense = np.full((len(lengths), width), fill, values.dtype)
    dense[np.arange(width) < lengths[:, None]] = values
    return dense


class _Unreadable(Exception):
    """A value that cannot be ids or weights; the text describes it."""


def _read(given: Any, native: bool) -> Any:
    """An array, `_Rows`, or `UNCHANGED` for what is symbolic or `native`.

    An array of objects has Python integers beyond 64 bits.
    """
    if isinstance(given, np.ndarray):
        return _from_array(given)
    if isinstance(given, (list, tuple)):
        return _from_sequence(given)
    if given is UNCHANGED or isinstance(given, keras.KerasTensor):
        return UNCHANGED
    if isinstance(given, keras.Variable):
        return _read(given.value, native)
    found = tensors.read(given, native)
    if isinstance(found, Sparse):
        return _from_sparse(found)
    if isinstance(found, Ragged):
        return _from_ragged(found)
    if isinstance(found, list):
        return _from_sequence(found)
    if found is not None:
        return _from_array(found) if isinstance(found, np.ndarray) else found
    if isinstance(given, (str, bytes)) or not hasattr(given, "__array__"):
        raise _Unreadable(type(given).__name__)
    return _from_array(np.asarray(given))


def _from_array(array: np.ndarray) -> Any:
    if isinstance(array, np.ma.MaskedArray):
        if np.ma.getmaskarray(array).any():
            raise _Unreadable("a masked array: fill it with -1 (filled(-1))")
        array = array.data
    array = np.asarray(array)
    if array.dtype != object:
        return array
    if array.ndim == 0:
        raise _Unreadable("an object")
    return _from_sequence(array.tolist())


def _from_sequence(given: Sequence[Any]) -> Any:
    if not len(given):
        return np.zeros(0, np.int32)
    rows = [one for one in given if _is_row(one)]
    if not rows:
        return _from_scalars(given)
    if len(rows) < len(given):
        raise _Unreadable("a mixture of lists and single values")
    arrays = [_read(one, native=False) for one in given]
    if any(not isinstance(one, np.ndarray) for one in arrays):
        raise _Unreadable("ragged rows of more than two dimensions")
    # An empty row has no number type.
    filled = [one for one in arrays if one.size] or [np.zeros(0, np.int32)]
    kinds = {one.dtype.kind for one in filled}
    if "b" in kinds and len(kinds) > 1:  # NumPy would make integers of both
        raise _Unreadable("a mixture of bool and numbers")
    if kinds <= {"i", "u", "O"}:
        filled = [_as_int64(one) for one in filled]
    if len({one.shape for one in arrays}) == 1:
        if not arrays[0].size:
            return np.zeros((len(arrays), *arrays[0].shape), np.int32)
        return np.stack(filled)
    if any(one.ndim != 1 for one in arrays):
        raise _Unreadable("ragged rows of more than two dimensions")
    return _Rows(np.concatenate(filled), np.array([len(one) for one in arrays]))


def _as_int64(array: np.ndarray) -> np.ndarray:
    """Integers that may be concatenated: int64, or Python integers beyond it."""
    if array.dtype.kind == "u" and array.size and int(array.max()) > _INT64.max:
        return array.astype(object)
    return array if array.dtype == object else array.astype(np.int64)


def _is_row(one: Any) -> bool:
    if isinstance(one, (list, tuple)):
        return True
    if isinstance(one, (str, bytes)):
        return False
    return len(getattr(one, "shape", ())) > 0


def _from_scalars(given: Sequence[Any]) -> np.ndarray:
    values = [tensors.to_scalar(one) for one in given]
    kinds = {type(one) for one in values}
    if kinds == {int}:
        try:
            return np.array(values, np.int64)
        except OverflowError:
            return np.array(values, object)
    if kinds <= {int, float}:
        return np.array(values, np.float64)
    if kinds == {bool}:
        return np.array(values, np.bool_)
    odd = min(kinds - {int, float}, key=lambda kind: kind.__name__)
    raise _Unreadable(odd.__name__)


def _from_ragged(ragged: Ragged) -> _Rows:
    if ragged.ndim != 2:
        raise _Unreadable("ragged rows of more than two dimensions")
    return _Rows(ragged.values, np.diff(ragged.splits))


def _from_sparse(sparse: Sparse) -> _Rows:
    """Rows of a sparse matrix in the order of their columns."""
    if len(sparse.shape) != 2:
        raise _Unreadable(f"a sparse array of {len(sparse.shape)} dimensions, not two")
    rows, columns = sparse.rows, sparse.columns
    order = np.lexsort((columns, rows))
    rows, columns = rows[order], columns[order]
    if ((rows[1:] == rows[:-1]) & (columns[1:] == columns[:-1])).any():
        raise _Unreadable("a sparse matrix with two values at one place")
    if len(rows) and (rows[0] < 0 or rows[-1] >= sparse.shape[0]):
        raise _Unreadable("a sparse matrix with values outside its shape")
    lengths = np.bincount(rows, minlength=sparse.shape[0])
    return _Rows(sparse.values[order], lengths, columns)

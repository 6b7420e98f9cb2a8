"""Tensors of JAX, TensorFlow, PyTorch and SciPy as NumPy arrays, sparse ones in parts.

Imports none of them: the package of a tensor is already loaded. Knows containers; knows
nothing of ids, tables or errors.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

# A lookup accepts it as it is, or it cannot be read while a step is traced.
UNCHANGED = object()


@dataclass(frozen=True)
class Sparse:
    """The stored values `(n,)` of a sparse array, their positions and its shape."""

    values: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Ragged:
    """Ragged rows: `values` `(n,)`, row i from `splits[i]` to `splits[i + 1]`.

    `ndim` is 2, or more where rows are themselves ragged or of vectors.
    """

    values: np.ndarray
    splits: np.ndarray
    ndim: int


def read(given: Any, native: bool) -> Any:
    """A tensor as an array, a list of rows, `Ragged`, `Sparse` or `UNCHANGED`.

    Args:
        given: anything.
        native: whether floats and dense 32 and 64-bit integers of the backend in use
            are returned unchanged, because a lookup checks them itself.

    Returns: `None` if it is none of them.
    """
    backend = keras.backend.backend()
    for name, reader in _READERS.items():
        module = sys.modules.get(name)
        if module is not None:
            found = reader(module, given, native and backend == name)
            if found is not None:
                return found
    return None


def stays(given: Any) -> bool:
    """Whether a compiled step of the backend accepts this ragged or sparse tensor."""
    ragged = type(given).__name__ in ("RaggedTensor", "SparseTensor")
    return ragged and keras.backend.backend() == "tensorflow"


def to_scalar(given: Any) -> Any:
    """A scalar of NumPy or of a tensor as one of Python; anything else as it is."""
    if isinstance(given, np.generic):
        return given.item()
    if isinstance(given, (int, float)) or not hasattr(given, "dtype"):
        return given
    array = given if isinstance(given, np.ndarray) else read(given, native=False)
    return array.item() if isinstance(array, np.ndarray) else given


def _from_tensorflow(tf: Any, given: Any, native: bool) -> Any:
    if not hasattr(tf, "is_tensor") or not tf.is_tensor(given):
        return None
    if isinstance(given, tf.SparseTensor):
        if tf.is_symbolic_tensor(given.values):
            return UNCHANGED
        places = given.indices.numpy()
        shape = tuple(int(size) for size in given.dense_shape.numpy())
        return _sparse(given.values.numpy(), places, shape)
    if isinstance(given, tf.RaggedTensor):
        if tf.is_symbolic_tensor(given.flat_values):
            return UNCHANGED
        flat, splits = given.flat_values.numpy(), given.row_splits.numpy()
        return Ragged(flat, splits, int(given.shape.rank))
    if isinstance(given, tf.Variable):
        given = given.value()
    if tf.is_symbolic_tensor(given):
        return UNCHANGED
    plain = given.dtype in (tf.int32, tf.int64) or given.dtype.is_floating
    if native and plain:
        return UNCHANGED
    return given.numpy()


def _from_jax(jax: Any, given: Any, native: bool) -> Any:
    if isinstance(given, jax.Array):
        if isinstance(given, jax.core.Tracer):
            return UNCHANGED
        name = str(given.dtype)
        if native and (name == "int32" or "float" in name):
            return UNCHANGED
        if jax.numpy.issubdtype(given.dtype, jax.dtypes.extended):
            return None
        return np.asarray(given)
    sparse = sys.modules.get("jax.experimental.sparse")
    if sparse is None or not isinstance(given, sparse.JAXSparse):
        return None
    if isinstance(given, sparse.BCSR):
        given = given.to_bcoo()
    if not isinstance(given, sparse.BCOO):
        return None
    if isinstance(given.data, jax.core.Tracer):
        return UNCHANGED
    if given.n_batch or given.n_dense:
        given = sparse.bcoo_update_layout(given, n_batch=0, n_dense=0)
    places = np.asarray(given.indices)
    # JAX pads with positions outside the array.
    inside = (places < np.array(given.shape)).all(axis=1)
    return _sparse(np.asarray(given.data)[inside], places[inside], given.shape)


def _from_torch(torch: Any, given: Any, native: bool) -> Any:
    if not hasattr(torch, "Tensor") or not isinstance(given, torch.Tensor):
        return None
    if given.is_meta:
        return UNCHANGED
    if given.is_nested:
        return [_from_torch(torch, row, False) for row in given.unbind()]
    if given.layout is not torch.strided:
        coo = given.detach().cpu().to_sparse_coo()
        places = coo._indices().numpy().T
        return _sparse(_torch_array(torch, coo._values()), places, tuple(coo.shape))
    plain = given.dtype in (torch.int32, torch.int64) or given.is_floating_point()
    if native and plain:
        return UNCHANGED
    return _torch_array(torch, given)


def _torch_array(torch: Any, given: Any) -> np.ndarray:
    given = given.detach().cpu()
    if given.dtype == torch.bfloat16:  # NumPy has none
        given = given.float()
    return np.asarray(given.numpy())


def _from_scipy(sparse: Any, given: Any, native: bool) -> Any:
    if not sparse.issparse(given):
        return None
    coo = given.tocoo()
    places = np.stack(coo.coords if hasattr(coo, "coords") else (coo.row, coo.col), 1)
    return _sparse(coo.data, places, coo.shape)


def _sparse(values: np.ndarray, places: np.ndarray, shape: tuple[int, ...]) -> Sparse:
    flat = np.zeros((len(places), 2), np.int64)
    flat[:, : min(2, places.shape[1])] = places[:, :2]
    return Sparse(values, flat[:, 0], flat[:, 1], tuple(shape))


# By the name of the module, that of the backend where there is one.
_READERS = {
    "tensorflow": _from_tensorflow,
    "jax": _from_jax,
    "torch": _from_torch,
    "scipy.sparse": _from_scipy,
}

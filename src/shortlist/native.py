"""The compiled core, or its NumPy twin where there was no compiler.

The choice is made once, when this module is imported. Without the compiled core
everything works, but slower, and one `NativeFallbackWarning` per process says so. With
`SHORTLIST_NATIVE=0` in the environment the twin is used without a warning.

Shapes and ranges are checked here, with messages that say what to do. The core checks
them again and raises `ValueError` or `IndexError`.
"""

from __future__ import annotations

import importlib
import operator
import os
import warnings
from types import ModuleType

import numpy as np

from shortlist.errors import InputError
from shortlist.processors import usable_processors

__all__ = [
    "NativeFallbackWarning",
    "check_threads",
    "core",
    "default_threads",
    "instruction_sets",
    "is_native",
    "top_k",
    "top_k_reference",
]

# Scores that the twin holds at once.
_TWIN_BUDGET_BYTES = 128 * 2**20

Exclusions = tuple[np.ndarray, np.ndarray]


class NativeFallbackWarning(RuntimeWarning):
    """The compiled core is missing and its NumPy twin is used instead."""


def _load_core() -> ModuleType | None:
    if os.environ.get("SHORTLIST_NATIVE") == "0":
        return None
    try:
        return importlib.import_module("shortlist._native")
    except ImportError as error:
        warnings.warn(
            f"Shortlist runs on NumPy, slower: the compiled core is missing ({error})."
            " Install a C++17 compiler and reinstall shortlist to build it, or set"
            " SHORTLIST_NATIVE=0 to silence this.",
            NativeFallbackWarning,
            stacklevel=2,
        )
        return None


_core = _load_core()


def core() -> ModuleType | None:
    """The compiled module, for packages with kernels in it; `None` if there is none."""
    return _core


def is_native() -> bool:
    """Whether the compiled core is in use."""
    return _core is not None


def instruction_sets() -> list[str]:
    """The instruction sets the core can use here, best first; empty for the twin."""
    return [] if _core is None else list(_core.instruction_sets())


def default_threads() -> int:
    """The number of processors this process may use, by its affinity and CPU quota."""
    return usable_processors()


def top_k(
    queries: np.ndarray,
    items: np.ndarray,
    k: int,
    *,
    exclude: Exclusions | None = None,
    threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the `k` items with the highest dot product, exactly, for each query.

    The result does not depend on `threads`. Arrays of another number type or layout
    are converted, which copies them: pass contiguous float32 where it matters.

    Args:
        queries: `(num_queries, dim)` float32, or `(num_queries, several, dim)`: the
            score of an item is then the highest of the several.
        items: `(num_items, dim)` float32.
        k: results per query, from 1 to below 2**31; may exceed `num_items`.
        exclude: items that a query must not get, as `(offsets, indices)`: query `i`
            excludes `indices[offsets[i]:offsets[i + 1]]`, in any order, repeats
            allowed. `offsets` is `(num_queries + 1,)` int64, `indices` int32.
        threads: most threads to use; all processors by default.

    Returns:
        Scores `(num_queries, k)` float32 and item indices `(num_queries, k)` int32,
        highest score first, ties by lower index. Where fewer than `k` items are left
        the index is -1 and the score -inf. An item whose score is NaN is never
        returned.

    Raises:
        InputError: `invalid-vectors`, `invalid-k`, `invalid-exclude` or
            `invalid-threads`.
    """
    if np.ndim(queries) == 3:
        return _top_k_of_several(queries, items, k, exclude, threads)
    if _core is None:
        check_threads(threads)
        return top_k_reference(queries, items, k, exclude=exclude)
    queries, items = _check_vectors(queries, items)
    k = _check_k(k)
    exclude = _check_exclude(exclude, len(queries), len(items))
    offsets, indices_out = (None, None) if exclude is None else exclude
    scores = np.empty((len(queries), k), np.float32)
    indices = np.empty((len(queries), k), np.int32)
    threads = check_threads(threads)
    _core.top_k(queries, items, offsets, indices_out, scores, indices, threads)
    return scores, indices


def _top_k_of_several(
    queries: np.ndarray,
    items: np.ndarray,
    k: int,
    exclude: Exclusions | None,
    threads: int | None,
) -> tuple[np.ndarray, np.ndarray]:
    """The best k under the highest score of several vectors, exactly.

    An item in the top k by its highest score is in the top k of the vector that gives
    it this score, so one search per vector finds them all.
    """
    k = _check_k(k)
    if not np.shape(queries)[1]:
        raise InputError(
            "invalid-vectors",
            "Every query must have at least one vector. Received: an array of shape"
            f" {np.shape(queries)}.",
        )
    found = [
        top_k(queries[:, i], items, k, exclude=exclude, threads=threads)
        for i in range(np.shape(queries)[1])
    ]
    scores = np.concatenate([part[0] for part in found], axis=1)
    indices = np.concatenate([part[1] for part in found], axis=1)
    # An item's best score comes first; its later ones are dropped.
    order = np.lexsort((-scores, indices), axis=-1)
    scores = np.take_along_axis(scores, order, axis=1)
    indices = np.take_along_axis(indices, order, axis=1)
    again = np.zeros(indices.shape, bool)
    again[:, 1:] = indices[:, 1:] == indices[:, :-1]
    scores = np.where(again, np.float32(-np.inf), scores)
    indices = np.where(again, np.int32(-1), indices)
    order = np.lexsort((indices, indices < 0, -scores), axis=-1)[:, :k]
    return (
        np.take_along_axis(scores, order, axis=1),
        np.take_along_axis(indices, order, axis=1),
    )


def top_k_reference(
    queries: np.ndarray,
    items: np.ndarray,
    k: int,
    *,
    exclude: Exclusions | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The same as `top_k` in NumPy: the oracle in tests and the fallback.

    Scores may differ from the core's in the last bits, because the order of additions
    is the BLAS library's. See `top_k` for the arguments.
    """
    queries, items = _check_vectors(queries, items)
    k = _check_k(k)
    exclude = _check_exclude(exclude, len(queries), len(items))
    scores = np.full((len(queries), k), -np.inf, np.float32)
    indices = np.full((len(queries), k), -1, np.int32)
    block = max(1, _TWIN_BUDGET_BYTES // (4 * max(1, len(items))))
    for begin in range(0, len(queries), block):
        # inf - inf is NaN and means "absent" below; it is not worth a warning.
        with np.errstate(invalid="ignore", over="ignore"):
            block_scores = queries[begin : begin + block] @ items.T
        for query, row in enumerate(block_scores, start=begin):
            allowed = ~np.isnan(row)
            if exclude is not None:
                offsets, excluded = exclude
                allowed[excluded[offsets[query] : offsets[query + 1]]] = False
            best = _best_of_row(row, allowed, k)
            scores[query, : len(best)] = row[best]
            indices[query, : len(best)] = best
    return scores, indices


def _best_of_row(row: np.ndarray, allowed: np.ndarray, k: int) -> np.ndarray:
    """Indices of the `k` highest allowed scores, ties by lower index."""
    if k < len(row):
        masked = np.where(allowed, row, -np.inf)
        kth = np.partition(masked, len(row) - k)[len(row) - k]
        allowed = allowed & (row >= kth)
    candidates = np.flatnonzero(allowed)
    order = np.argsort(-row[candidates], kind="stable")
    return candidates[order[:k]]


def _check_vectors(
    queries: np.ndarray, items: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    queries = _to_float_matrix("queries", queries)
    items = _to_float_matrix("items", items)
    if queries.shape[1] != items.shape[1]:
        raise InputError(
            "invalid-vectors",
            "Queries and items must have the same number of columns. Received:"
            f" queries {queries.shape}, items {items.shape}. Use vectors of one model.",
        )
    if len(items) > np.iinfo(np.int32).max:
        raise InputError(
            "invalid-vectors",
            "There must be fewer than 2**31 items, to number them in 32 bits."
            f" Received: {len(items)}. Search them in parts.",
        )
    return queries, items


def _to_float_matrix(name: str, vectors: np.ndarray) -> np.ndarray:
    array = np.asarray(vectors)
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        raise InputError(
            "invalid-vectors",
            f"`{name}` must be a 2-D array of real numbers. Received: shape"
            f" {array.shape}, dtype {array.dtype}. Pass float32 of shape (rows, dim).",
        )
    return np.ascontiguousarray(array, np.float32)


def _check_k(k: int) -> int:
    value = _to_integer(k)
    if value is None or not 1 <= value < 2**31:
        raise InputError(
            "invalid-k",
            "`k` must be a whole number of at least 1 and below 2**31. Received:"
            f" {k!r}. Ask for at least one item, and no more than there are.",
        )
    return value


def check_threads(threads: int | None) -> int:
    """The number of threads to use: `threads`, or all processors for `None`.

    Raises:
        InputError: `invalid-threads`.
    """
    if threads is None:
        return default_threads()
    value = _to_integer(threads)
    if value is None or value < 1:
        raise InputError(
            "invalid-threads",
            f"`threads` must be a whole number of at least 1. Received: {threads!r}."
            " Leave it out to use all processors.",
        )
    return value


def _to_integer(value: object) -> int | None:
    if isinstance(value, (bool, np.bool_)):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _check_exclude(
    exclude: Exclusions | None, num_queries: int, num_items: int
) -> Exclusions | None:
    if exclude is None:
        return None
    if len(exclude) != 2:
        raise InputError(
            "invalid-exclude",
            f"`exclude` must be (offsets, indices). Received: {len(exclude)} arrays.",
        )
    offsets, indices = (np.asarray(array) for array in exclude)
    if not _is_csr(offsets, indices, num_queries):
        raise InputError(
            "invalid-exclude",
            "`exclude` must be (offsets, indices): integer vectors with"
            f" {num_queries + 1} offsets that rise from 0 to the number of indices."
            f" Received: offsets of shape {offsets.shape} and dtype {offsets.dtype},"
            f" indices of shape {indices.shape} and dtype {indices.dtype}. Give one"
            " offset per query and one more for the end.",
        )
    if indices.size and not (indices.min() >= 0 and indices.max() < num_items):
        raise InputError(
            "invalid-exclude",
            f"Excluded indices must lie between 0 and {num_items - 1}. Received:"
            f" {indices.min()} to {indices.max()}. Leave out rows that are not items.",
        )
    return (
        np.ascontiguousarray(offsets, np.int64),
        np.ascontiguousarray(indices, np.int32),
    )


def _is_csr(offsets: np.ndarray, indices: np.ndarray, rows: int) -> bool:
    return (
        offsets.shape == (rows + 1,)
        and indices.ndim == 1
        and offsets.dtype.kind in "iu"
        # An empty list becomes a float array: there is nothing in it to be wrong.
        and (indices.dtype.kind in "iu" or indices.size == 0)
        and offsets[0] == 0
        and offsets[-1] == indices.size
        and bool(np.all(offsets[1:] >= offsets[:-1]))
    )

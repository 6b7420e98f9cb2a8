"""Lookups and updates of host tables: the compiled core, or the NumPy twin without it.

All shapes and types are checked here, with messages that say what to do; the core
checks its arguments again and raises ValueError. One batch has dozens of arrays, so a
check that passes must take a microsecond at most.
"""

from __future__ import annotations

import itertools
import operator
import threading
import weakref
from collections.abc import Sequence

import numpy as np

from shortlist import native
from shortlist.embeddings.host import reference
from shortlist.embeddings.rules import KINDS, SLOTS
from shortlist.embeddings.table import COMBINERS, Bags, Gradients, Table, zeros
from shortlist.errors import InputError

_COMBINER_CODES = {name: code for code, name in enumerate(COMBINERS)}
_KIND_CODES = {name: code for code, name in enumerate(KINDS)}
# In the order of the fields of Rule in native/embedding_types.h.
_rule_numbers = operator.attrgetter(
    "epsilon",
    "beta_1",
    "beta_2",
    "learning_rate_power",
    "l1",
    "l2_ftrl",
    "l2_shrinkage",
    "beta",
    "clip",
    "l2",
    "weight_decay",
)
_INT32, _INT64 = np.dtype(np.int32), np.dtype(np.int64)
_FLOAT32 = np.dtype(np.float32)
# Floats of one cache line: the vectors of each feature start on a new one.
_LINE_FLOATS = 16
# Memory of this many floats or more is kept for reuse: 1 MiB.
_LARGE_BATCH = 2**18
# Blocks kept: vectors and gradients of a batch in use and of the next one.
_KEPT_BLOCKS = 4

OutOfRange = tuple[int, int]


def lookup(
    tables: Sequence[Table],
    features: Sequence[Bags],
    *,
    out: Sequence[np.ndarray] | None = None,
    threads: int | None = None,
) -> list[np.ndarray]:
    """The combined vector of every bag, `(num_bags, dim)` float32 per feature.

    See `reference.lookup`. One call for all features.

    Args:
        tables: to which the features refer by index.
        features: one bag of ids per example each.
        out: arrays to fill and return, of the shapes of the results.
        threads: most threads to use; all processors by default.

    Raises:
        InputError: `invalid-bags`.
    """
    return lookup_checked(tables, features, out=out, threads=threads)[0]


def lookup_checked(
    tables: Sequence[Table],
    features: Sequence[Bags],
    *,
    out: Sequence[np.ndarray] | None = None,
    threads: int | None = None,
) -> tuple[list[np.ndarray], OutOfRange | None]:
    """As `lookup`, and the first id that is neither a row nor padding, if any.

    Returns: the vectors, in which such an id counts as row 0; and the index of the
    feature and the id, the first by feature and then by position.
    """
    for bags in features:
        _check_bags(tables, bags)
    vectors = _vectors(tables, features, out)
    core = native.core()
    if core is None:
        twins = reference.lookup(tables, features)
        for to, twin in zip(vectors, twins, strict=True):
            to[...] = twin
        return vectors, first_out_of_range(tables, features)
    first = core.lookup(
        [table.rows for table in tables],
        [(*_core_bags(bags), to) for bags, to in zip(features, vectors, strict=True)],
        native.default_threads() if threads is None else threads,
    )
    return vectors, first


def update(
    tables: Sequence[Table],
    batches: Sequence[Gradients],
    learning_rates: Sequence[float],
    *,
    threads: int | None = None,
) -> None:
    """Moves the touched rows of every trainable table once; see `reference.update`.

    The result does not depend on `threads`, bit for bit. Nothing moves if it raises.

    Args:
        tables: those that the features name by index; no two of them share memory.
        batches: the gradients of the backward passes, in order.
        learning_rates: one for each table.
        threads: most threads to use; all processors by default.

    Raises:
        InputError: `invalid-bags`.
    """
    if len(learning_rates) != len(tables):
        raise InputError(
            "invalid-bags",
            "There must be one learning rate per table. Received:"
            f" {len(learning_rates)} for {len(tables)} tables. Give one for each.",
        )
    for batch in batches:
        _check_gradients(tables, batch)
    core = native.core()
    if core is None:
        reference.update(tables, batches, learning_rates)
        return
    moved = []
    for index, (table, rate) in enumerate(zip(tables, learning_rates, strict=True)):
        if table.trainable:
            table.begin_step(rate)
            moved.append(_core_table(index, table, float(rate)))
    features = [
        (*_core_bags(bags), gradient, batch.scale)
        for batch in batches
        for bags, gradient in zip(batch.features, batch.gradients, strict=True)
    ]
    core.update(
        moved, features, native.default_threads() if threads is None else threads
    )


def first_out_of_range(
    tables: Sequence[Table], features: Sequence[Bags]
) -> OutOfRange | None:
    """The feature and the id of the first id that is neither a row nor padding, if any.

    `lookup_checked` returns it with the vectors at no extra cost.
    """
    for index, bags in enumerate(features):
        ids = bags.ids
        if ids.size and (ids.min() < -1 or ids.max() >= tables[bags.table].num_rows):
            bad = ids[(ids < -1) | (ids >= tables[bags.table].num_rows)]
            return index, int(bad[0])
    return None


def _core_bags(bags: Bags) -> tuple[object, ...]:
    combiner = _COMBINER_CODES[bags.combiner]
    return bags.table, bags.ids, bags.offsets, bags.weights, combiner


def _core_table(index: int, table: Table, rate: float) -> tuple[object, ...]:
    """The arguments of the core for a table whose step has begun."""
    rule, slots = table.rule, table.slots
    names = [name for name, _ in SLOTS[rule.kind]]
    adam = rule.kind == "adam"
    return (
        index,
        table.rows,
        _KIND_CODES[rule.kind],
        _rule_numbers(rule),
        slots[names[0]] if names else None,
        slots[names[1]] if len(names) > 1 else None,
        slots["last_step"] if rule.remembers_steps else None,
        table.moves,
        table.step,
        table.seed & 0xFFFFFFFF,
        rate,
        reference.adam_rate(rule, rate, table.step) if adam else rate,
    )


def _vectors(
    tables: Sequence[Table],
    features: Sequence[Bags],
    out: Sequence[np.ndarray] | None,
) -> list[np.ndarray]:
    """The arrays to fill: those of `out`, or new ones."""
    shapes = [(bags.num_bags, tables[bags.table].dim) for bags in features]
    if out is None:
        return new_vectors(shapes)
    if len(out) != len(shapes):
        raise InputError(
            "invalid-bags",
            f"`out` must hold one array per feature. Received: {len(out)} for"
            f" {len(shapes)} features. Give one for each, or leave it out.",
        )
    for to, shape in zip(out, shapes, strict=True):
        if not (_is_float32(to, shape) and to.flags.writeable):
            raise InputError(
                "invalid-bags",
                f"An array of `out` must be contiguous float32 {shape} that can be"
                f" written. Received: {_described(to)}. Make it with np.empty.",
            )
    return list(out)


class _BlockPool:
    """Memory blocks for the vectors of large batches, reused once they are free.

    Fresh pages take several times as long as the lookup that fills them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: list[tuple[np.ndarray, weakref.ref[np.ndarray]]] = []

    def take(self, count: int) -> np.ndarray:
        """An array of `count` float32; its block is free once no view of it is left."""
        with self._lock:
            for index, (block, user) in enumerate(self._blocks):
                if user() is None and count <= len(block) <= 2 * count:
                    del self._blocks[index]
                    break
            else:
                block = zeros((count,), _FLOAT32)
            # Not a view of `block`: views of this array keep it alive, not `block`.
            array = np.frombuffer(block.data, np.float32, count)
            self._blocks = [
                *self._blocks[1 - _KEPT_BLOCKS :],
                (block, weakref.ref(array)),
            ]
            return array


_blocks = _BlockPool()


def new_vectors(shapes: list[tuple[int, int]]) -> list[np.ndarray]:
    """Uninitialized float32 arrays of `shapes`; large ones share a reused block."""
    ends = list(
        itertools.accumulate(
            -(-rows * dim // _LINE_FLOATS) * _LINE_FLOATS for rows, dim in shapes
        )
    )
    if not ends or ends[-1] < _LARGE_BATCH:
        return [np.empty(shape, np.float32) for shape in shapes]
    block = _blocks.take(ends[-1])
    return [
        block[begin : begin + rows * dim].reshape(rows, dim)
        for begin, (rows, dim) in zip([0, *ends], shapes, strict=False)
    ]


def _check_bags(tables: Sequence[Table], bags: Bags) -> None:
    if not 0 <= bags.table < len(tables):
        raise InputError(
            "invalid-bags",
            f"The table of a feature must lie between 0 and {len(tables) - 1}."
            f" Received: {bags.table}. Give the index of one of the tables.",
        )
    ids, offsets, weights = bags.ids, bags.offsets, bags.weights
    if not (
        isinstance(ids, np.ndarray)
        and (ids.dtype == _INT32 or ids.dtype == _INT64)
        and (ids.ndim == 1 or (ids.ndim == 2 and offsets is None))
        and ids.flags.c_contiguous
    ):
        raise InputError(
            "invalid-bags",
            "The ids of a feature must be contiguous int32 or int64 of shape"
            " (num_bags,) or (num_bags, length), or (n,) with offsets. Received:"
            f" {_described(ids)}. Convert them with"
            " np.ascontiguousarray(ids, np.int32).",
        )
    if offsets is not None and not _is_offsets(offsets, len(ids)):
        raise InputError(
            "invalid-bags",
            "The offsets of a feature must be contiguous int64 (num_bags + 1,) that"
            f" rise from 0 to the number of its ids, {len(ids)}. Received:"
            f" {_described(offsets)}. Count the ids of each bag and add them up.",
        )
    if weights is not None and not _is_float32(weights, ids.shape):
        raise InputError(
            "invalid-bags",
            "The weights of a feature must be contiguous float32 of the shape of its"
            f" ids, {ids.shape}. Received: {_described(weights)}. Give one weight per"
            " id.",
        )
    if bags.combiner not in _COMBINER_CODES:
        raise InputError(
            "invalid-bags",
            f"`combiner` must be one of {', '.join(COMBINERS)}. Received:"
            f" {bags.combiner!r}. Choose one of them.",
        )


def _check_gradients(tables: Sequence[Table], batch: Gradients) -> None:
    if len(batch.features) != len(batch.gradients):
        raise InputError(
            "invalid-bags",
            f"There must be one gradient per feature. Received: {len(batch.gradients)}"
            f" for {len(batch.features)} features. Give one for each.",
        )
    for bags, gradient in zip(batch.features, batch.gradients, strict=True):
        _check_bags(tables, bags)
        shape = (bags.num_bags, tables[bags.table].dim)
        if not _is_float32(gradient, shape):
            raise InputError(
                "invalid-bags",
                "The gradient of a feature must be contiguous float32 of the shape of"
                f" its vectors, {shape}. Received: {_described(gradient)}. Convert it"
                " with np.ascontiguousarray(gradient, np.float32).",
            )


def _is_float32(array: object, shape: tuple[int, ...]) -> bool:
    return (
        isinstance(array, np.ndarray)
        and array.dtype == _FLOAT32
        and array.shape == shape
        and array.flags.c_contiguous
    )


def _is_offsets(offsets: object, num_ids: int) -> bool:
    if not (
        isinstance(offsets, np.ndarray)
        and offsets.dtype == _INT64
        and offsets.ndim == 1
        and offsets.flags.c_contiguous
        and len(offsets) > 0
        and offsets[0] == 0
        and offsets[-1] == num_ids
    ):
        return False
    core = native.core()
    if core is not None:
        return bool(core.offsets_rise(offsets))
    return bool((offsets[1:] >= offsets[:-1]).all())


def _described(array: object) -> str:
    if not isinstance(array, np.ndarray):
        return type(array).__name__
    layout = "" if array.flags.c_contiguous else ", not contiguous"
    return f"{array.dtype} of shape {array.shape}{layout}"

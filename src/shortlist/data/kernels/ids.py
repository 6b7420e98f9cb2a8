"""Ids to codes, hashes and the order of events, in the compiled core or its twin.

Knows columns of ids and arrays of groups and times; knows nothing of logs. Types and
ranges are checked here for both.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
import pyarrow as pa

from shortlist import native
from shortlist.data.kernels import ids_twin
from shortlist.errors import InputError
from shortlist.reading import open_log

__all__ = [
    "IdMap",
    "group_offsets",
    "group_order",
    "hash_bytes",
    "hash_file",
    "hash_values",
    "is_sorted",
]

# Codes are int32.
_MOST_IDS = 2**31 - 1
_BLOCK_BYTES = 4 * 2**20
# Rows that a uint32 can number.
_NARROW_ROWS = 2**32
# Events whose order is checked at a time.
_EVENTS_AT_ONCE = 2**20


class IdMap:
    """External ids to codes 0, 1, ... in the order in which the ids first appear.

    Thread-safe: several threads may look up while one adds.

    Args:
        dtype: of all ids, `pl.Int64` or `pl.String`.

    Raises:
        InputError: `id-type-mismatch` for another type.
    """

    def __init__(self, dtype: pl.DataType | type[pl.DataType]) -> None:
        self._dtype = pl.String() if dtype == pl.String else pl.Int64()
        if dtype != self._dtype:
            raise InputError(
                "id-type-mismatch",
                f"A map of ids must be of Int64 or String. Received: {dtype}. Convert"
                " the ids.",
            )
        core = native.core()
        self._table: _Table = (
            ids_twin.DictMap(self._dtype, _MOST_IDS)
            if core is None
            else _CoreMap(core, self._dtype)
        )
        self._find_one = self._table.find_one

    def __len__(self) -> int:
        """Number of different ids so far."""
        return len(self._table)

    def add(self, ids: pl.Series) -> np.ndarray:
        """Codes `(n,)` int32 of a column; new ids get the next codes, nulls -1.

        Raises:
            InputError: `id-type-mismatch`, or `too-many-ids` if the map is full; the
                ids that still fit have been added.
        """
        self._check(ids)
        try:
            return self._table.add(ids)
        except ValueError as error:
            raise InputError(
                "too-many-ids",
                f"A map of ids must hold at most {_MOST_IDS} different ones. Received:"
                " more. Check that the column contains ids, not events.",
            ) from error

    def find(self, ids: pl.Series) -> np.ndarray:
        """Codes `(n,)` int32 of a column; -1 for unknown ids and nulls.

        Raises:
            InputError: `id-type-mismatch`.
        """
        self._check(ids)
        return self._table.find(ids)

    def find_one(self, external_id: object) -> int:
        """Code of one id; -1 if it is unknown or of another type."""
        return self._find_one(external_id)

    def ids(self) -> pl.Series:
        """The ids by code, named `id`."""
        return self._table.ids()

    def _check(self, ids: pl.Series) -> None:
        if ids.dtype != self._dtype:
            raise InputError(
                "id-type-mismatch",
                f"Ids must be of the type of their map, {self._dtype}. Received:"
                f" {ids.dtype}. Convert the column.",
            )


class _Table(Protocol):
    """The interface of the compiled map and its twin."""

    def __len__(self) -> int: ...

    def add(self, ids: pl.Series) -> np.ndarray: ...

    def find(self, ids: pl.Series) -> np.ndarray: ...

    @property
    def find_one(self) -> Callable[[object], int]: ...

    def ids(self) -> pl.Series: ...


class _CoreMap:
    """The compiled map, column by column."""

    def __init__(self, core: Any, dtype: pl.DataType) -> None:
        self._is_text = dtype == pl.String
        self._map = (core.TextMap if self._is_text else core.IntMap)(_MOST_IDS)
        self.find_one: Callable[[object], int] = self._map.find_one

    def __len__(self) -> int:
        return len(self._map)

    def add(self, ids: pl.Series) -> np.ndarray:
        return self._codes(ids, self._map.add)

    def find(self, ids: pl.Series) -> np.ndarray:
        return self._codes(ids, self._map.find)

    def ids(self) -> pl.Series:
        count = len(self._map)
        if not self._is_text:
            numbers = np.empty(count, np.int64)
            self._map.copy_ids(numbers)
            return pl.Series("id", numbers)
        offsets = np.empty(count + 1, np.int64)
        texts = np.empty(self._map.num_bytes(count), np.uint8)
        self._map.copy_ids(offsets, texts)
        array = pa.LargeStringArray.from_buffers(
            count, pa.py_buffer(offsets), pa.py_buffer(texts)
        )
        return pl.Series("id", array, dtype=pl.String)

    def _codes(self, ids: pl.Series, call: Callable[..., None]) -> np.ndarray:
        codes = np.empty(len(ids), np.int32)
        for array, begin in _arrow_parts(ids):
            call(array.buffers(), array.offset, codes[begin : begin + len(array)])
        return codes


def hash_values(values: pl.Series, *, seed: int = 0) -> np.ndarray:
    """XXH64 of every value: the same on every machine and in every version.

    Source: Collet, "xxHash fast digest algorithm" (2012).

    Args:
        values: `(n,)` String or integers. Integers hash as their decimal text, so that
            7 and "7" have the same hash.
        seed: 0 to 2**64 - 1; different seeds give different hashes.

    Returns: `(n,)` uint64; 0 for nulls.

    Raises:
        InputError: `hash-type` or `hash-seed`.
    """
    if not (values.dtype == pl.String or values.dtype.is_integer()):
        raise InputError(
            "hash-type",
            f"Values to hash must be strings or integers. Received: {values.dtype}."
            " Convert the column.",
        )
    if not 0 <= seed < 2**64:
        raise InputError(
            "hash-seed",
            f"The seed of a hash must be 0 to 2**64 - 1. Received: {seed}. Use"
            " another one.",
        )
    core = native.core()
    if core is None:
        return ids_twin.hash_values(values, seed)
    if values.dtype != pl.String:
        fits = values.dtype not in (pl.UInt64, pl.Int128, pl.UInt128)
        values = values.cast(pl.Int64 if fits else pl.String)
    call = core.hash_texts if values.dtype == pl.String else core.hash_ints
    hashes = np.empty(len(values), np.uint64)
    for array, begin in _arrow_parts(values):
        call(array.buffers(), array.offset, seed, hashes[begin : begin + len(array)])
    return hashes


def hash_file(path: str | Path) -> str:
    """XXH64 of the content of a file as 16 hexadecimal digits; read in blocks.

    Raises:
        LogError: `log-file-missing`, `log-file-directory` or `log-file-unreadable`.
    """
    return _hash_pieces(_blocks(Path(path)))


def hash_bytes(content: bytes) -> str:
    """XXH64 of some bytes as 16 hexadecimal digits."""
    return _hash_pieces([content])


def _hash_pieces(pieces: Iterable[bytes | memoryview]) -> str:
    core = native.core()
    stream_hash = ids_twin.StreamHash(0) if core is None else core.StreamHash(0)
    for piece in pieces:
        stream_hash.update(piece)
    return f"{stream_hash.digest():016x}"


def group_order(
    groups: np.ndarray,
    times: np.ndarray,
    num_groups: int,
    *,
    threads: int | None = None,
) -> np.ndarray:
    """Sorts rows stably by group, then by time.

    The core needs 16 bytes of memory per row while it sorts (24 from 2**32 rows).

    Args:
        groups: `(n,)` int32, 0 to `num_groups - 1`.
        times: `(n,)` int64.
        num_groups: number of groups; some may have no rows.
        threads: most threads to use; all processors by default.

    Returns: the rows in that order, `(n,)` int64.

    Raises:
        InputError: `invalid-groups` or `invalid-threads`.
    """
    groups = _checked_groups(groups, num_groups)
    if times.dtype != np.int64 or times.shape != groups.shape:
        raise InputError(
            "invalid-groups",
            f"Times must be int64 of the shape of the groups, {groups.shape}."
            f" Received: {times.dtype} of shape {times.shape}. Convert them.",
        )
    threads = native.check_threads(threads)
    core = native.core()
    if core is None:
        return ids_twin.group_order(groups, times)
    order = np.empty(len(groups), np.int64)
    times = np.ascontiguousarray(times)
    is_wide = len(groups) >= _NARROW_ROWS
    core.group_order(groups, times, num_groups, is_wide, threads, order)
    return order


def is_sorted(user_index: np.ndarray, timestamp_ms: np.ndarray) -> bool:
    """Whether events are sorted by user and time; stops at the first that is not."""
    for begin in range(0, len(user_index) - 1, _EVENTS_AT_ONCE):
        # One more event, to compare each block with the next one.
        users = user_index[begin : begin + _EVENTS_AT_ONCE + 1]
        times = timestamp_ms[begin : begin + _EVENTS_AT_ONCE + 1]
        later = (users[1:] == users[:-1]) & (times[1:] >= times[:-1])
        if not np.all(later | (users[1:] > users[:-1])):
            return False
    return True


def group_offsets(
    groups: np.ndarray, num_groups: int, *, threads: int | None = None
) -> np.ndarray:
    """Where each group begins and ends in the order of `group_order`.

    Args:
        groups: `(n,)` int32, 0 to `num_groups - 1`, in any order.
        num_groups: number of groups.
        threads: most threads to use; all processors by default.

    Returns: `(num_groups + 1,)` int64, from 0 to n.

    Raises:
        InputError: `invalid-groups` or `invalid-threads`.
    """
    groups = _checked_groups(groups, num_groups)
    threads = native.check_threads(threads)
    core = native.core()
    if core is None:
        return ids_twin.group_offsets(groups, num_groups)
    offsets = np.empty(num_groups + 1, np.int64)
    core.group_offsets(groups, threads, offsets)
    return offsets


def _arrow_parts(values: pl.Series) -> Iterator[tuple[pa.Array, int]]:
    """The chunks of a column and where they begin; text as string views, not copied."""
    begin = 0
    for chunk in values.get_chunks():
        array = chunk.to_arrow(compat_level=pl.CompatLevel.newest())
        if values.dtype == pl.String:
            # The layout of Polars today; another version may use another one.
            array = array.cast(pa.string_view())
        yield array, begin
        begin += len(array)


def _blocks(path: Path) -> Iterator[memoryview]:
    block = memoryview(bytearray(_BLOCK_BYTES))
    with open_log(path) as stream:
        while count := stream.readinto(block):
            yield block[:count]


def _checked_groups(groups: np.ndarray, num_groups: int) -> np.ndarray:
    if not 0 <= operator.index(num_groups) <= _MOST_IDS + 1:
        raise InputError(
            "invalid-groups",
            f"There must be 0 to 2**31 groups. Received: {num_groups}.",
        )
    if groups.dtype != np.int32 or groups.ndim != 1:
        raise InputError(
            "invalid-groups",
            f"Groups must be int32 of shape (n,). Received: {groups.dtype} of shape"
            f" {groups.shape}. Convert them.",
        )
    if groups.size and not (groups.min() >= 0 and groups.max() < num_groups):
        raise InputError(
            "invalid-groups",
            f"Groups must lie between 0 and {num_groups - 1}. Received: {groups.min()}"
            f" to {groups.max()}. Remove rows without a group.",
        )
    return np.ascontiguousarray(groups)

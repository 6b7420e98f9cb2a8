"""Gathers of rows and of histories, in the compiled core or its NumPy twin.

Knows columns as chunks of NumPy arrays; knows nothing of files, parts or schemas.
Shapes, types and ranges are checked here for both.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from shortlist import native
from shortlist.data.kernels.buffer_pool import BufferPool
from shortlist.errors import ArtifactError, InputError

# In the order of StoredType and of WideType in native/row_gather.h.
STORED = tuple(
    np.dtype(name)
    for name in (
        "uint8",
        "int8",
        "uint16",
        "int16",
        "uint32",
        "int32",
        "int64",
        "float16",
        "float32",
        "float64",
    )
)
WIDENED = (np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.float32))

# The core numbers the rows of a chunk in 32 bits.
MOST_ROWS_OF_CHUNK = 2**31
# Numbers that the core reads of a chunk: see kChunkNumbers in gather_bindings.cc.
_ALIGNMENT = 64
_CHUNK_NUMBERS = 6


class Column:
    """One column in chunks, which may differ in number type.

    Integers that fit int32 are gathered as int32, int64 and uint32 as int64, floats as
    float32.

    Args:
        name: used in errors.
        values: one array per chunk: `(rows,)` for numbers, `(rows, width)` for lists of
            equal length; with `offsets` the values of all lists, `(m,)`.
        offsets: one array `(rows + 1,)` int32 or int64 per chunk: row i is the values
            from `offsets[i]` to `offsets[i + 1]`.

    Attributes:
        width: values per gathered row: 1, the length of every list, or the longest.
        is_list: whether a gathered row is a list.
        dtype: of the gathered values.

    Raises:
        InputError: `column-type` for a number type that cannot be gathered.
        ArtifactError: `columns-differ` for chunks of integers and of floats;
            `columns-unreadable` for offsets that descend or exceed the values.
    """

    def __init__(
        self,
        name: str,
        values: Sequence[np.ndarray],
        offsets: Sequence[np.ndarray] | None = None,
    ) -> None:
        self.name = name
        self.values = [np.ascontiguousarray(array) for array in values]
        self.dtype = _widened(name, [array.dtype for array in self.values])
        self.offsets: list[np.ndarray] | None = None
        if offsets is None:
            self.is_list = self.values[0].ndim == 2
            self.width = self.values[0].shape[1] if self.is_list else 1
        else:
            self.offsets = [np.ascontiguousarray(array) for array in offsets]
            self.is_list = True
            self.width = max(
                _longest(name, chunk, array)
                for chunk, array in zip(self.offsets, self.values, strict=True)
            )

    def shape(self, num_rows: int) -> tuple[int, ...]:
        """The shape of `num_rows` gathered rows."""
        return (num_rows, self.width) if self.is_list else (num_rows,)

    def holds(self, lengths: Sequence[int]) -> bool:
        """Whether there is one chunk per length, each with at least so many rows."""
        rows = [len(array) for array in self.values]
        if self.offsets is not None:
            rows = [len(array) - 1 for array in self.offsets]
        return len(rows) == len(lengths) and all(map(operator.ge, rows, lengths))

    def everything(self) -> np.ndarray | None:
        """All rows, without a copy where possible; `None` for ragged lists."""
        if self.offsets is not None:
            return None
        # A float64 too large for a float32 becomes infinite, as in a gather.
        with np.errstate(over="ignore", invalid="ignore"):
            if len(self.values) == 1:
                return self.values[0].astype(self.dtype, copy=False)
            return np.concatenate(self.values, dtype=self.dtype, casting="same_kind")

    @functools.cached_property
    def core_numbers(self) -> tuple[np.ndarray, int, int]:
        """What the core reads of the column; valid while the column exists."""
        numbers = np.zeros((len(self.values), _CHUNK_NUMBERS), np.int64)
        for row, array in zip(numbers, self.values, strict=True):
            row[0], row[2] = _address(array), STORED.index(array.dtype)
            row[4] = array.size
        for row, array in zip(numbers, self.offsets or (), strict=False):
            row[1], row[3] = _address(array), array.dtype.itemsize == 8
            row[5] = array.size
        return numbers, self.width, WIDENED.index(self.dtype)


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def _widened(name: str, stored: list[np.dtype]) -> np.dtype:
    """The type that holds the values of all chunks."""
    for dtype in stored:
        if dtype not in STORED:
            raise InputError(
                "column-type",
                "A column that is gathered must hold integers of up to 64 bits, with"
                f" sign, or floats. Received: {dtype}. Convert it first.",
                column=name,
            )
    floats = [dtype.kind == "f" for dtype in stored]
    if any(floats) != all(floats):
        raise ArtifactError(
            "columns-differ",
            "A column must hold integers in all files or floats in all files. Received:"
            f" {', '.join(sorted({str(dtype) for dtype in stored}))}. Write the files"
            " with one schema.",
            column=name,
        )
    if any(floats):
        return np.dtype(np.float32)
    narrow = all(np.can_cast(dtype, np.int32) for dtype in stored)
    return np.dtype(np.int32 if narrow else np.int64)


def _longest(name: str, offsets: np.ndarray, values: np.ndarray) -> int:
    lengths = offsets[1:] - offsets[:-1]
    descends = lengths.min(initial=0) < 0
    descending = ", not ascending" if descends else ""
    if descends or offsets[0] < 0 or offsets[-1] > len(values):
        raise ArtifactError(
            "columns-unreadable",
            "The offsets of a list column must ascend from 0 to at most"
            f" {len(values)}. Received: {offsets[0]} to {offsets[-1]}"
            f"{descending}. Write the file again.",
            column=name,
        )
    return int(lengths.max(initial=0))


def gather_rows(
    rows: np.ndarray,
    starts: np.ndarray,
    columns: Sequence[Column],
    *,
    threads: int | None = None,
    pool: BufferPool | None = None,
) -> list[np.ndarray]:
    """The values of `rows` in every column, widened.

    The chunk of a row is looked up once for all columns. The result does not depend on
    `threads`.

    Args:
        rows: `(n,)` integers, in any order, repeats allowed.
        starts: `(num_chunks + 1,)` int64: the first row of each chunk, and their end.
        columns: the columns to gather, with the same chunks.
        threads: most threads to use; all processors by default.
        pool: where the memory of the result comes from.

    Returns:
        For each column `(n,)`, or `(n, width)` for lists, of the `dtype` of the column;
        shorter lists are padded at the end with -1, or 0 if they hold floats.

    Raises:
        InputError: `invalid-rows` or `row-out-of-range`.
        ValueError: a column has too few chunks, or one that is too short.
        IndexError: the offsets of a list exceed its values.
    """
    rows = checked_rows("rows", rows, int(starts[-1]))
    core = native.core()
    if core is None:
        _check_starts(starts, columns)
        return [_gather_column(rows, starts, column) for column in columns]
    outs = _empty_arrays(len(rows), columns, pool)
    core.gather_rows(
        rows,
        starts,
        [column.core_numbers for column in columns],
        outs,
        native.default_threads() if threads is None else threads,
    )
    return outs


def _check_starts(starts: np.ndarray, columns: Sequence[Column]) -> None:
    """Checks, as the core does, that chunks have the rows that `starts` claims."""
    lengths = np.diff(starts).tolist()
    fits = starts.dtype == np.int64 and bool(lengths) and starts[0] == 0
    if not (fits and all(c.holds(lengths) for c in columns) and min(lengths) >= 0):
        shapes = {c.name: [len(values) for values in c.values] for c in columns}
        raise ValueError(
            "`starts` must be int64, rise from 0 and have one chunk of every column"
            f" between two of them. Received: {starts[:10]} of {starts.dtype} for"
            f" chunks of lengths {shapes}."
        )


def _empty_arrays(
    num_rows: int, columns: Sequence[Column], pool: BufferPool | None
) -> list[np.ndarray]:
    """An array per column, all in one block of memory.

    The allocator reuses one large block for the next batch. Many small ones go back to
    the system, which clears their pages again (a third of the time).
    """
    shapes = [column.shape(num_rows) for column in columns]
    sizes = [
        math.prod(shape) * column.dtype.itemsize
        for shape, column in zip(shapes, columns, strict=True)
    ]
    begins = itertools.accumulate((-(-size // _ALIGNMENT) for size in sizes), initial=0)
    total = sum(sizes) + _ALIGNMENT * len(sizes)
    memory = np.empty(total, np.uint8) if pool is None else pool.get(total)
    return [
        memory[_ALIGNMENT * begin :][:size].view(column.dtype).reshape(shape)
        for begin, size, shape, column in zip(
            begins, sizes, shapes, columns, strict=False
        )
    ]


def checked_rows(name: str, rows: np.ndarray, num_rows: int) -> np.ndarray:
    """`rows` as contiguous int64, each from 0 to below `num_rows`.

    Raises:
        InputError: `invalid-rows` or `row-out-of-range`.
    """
    rows = checked_integers(name, rows)
    # As unsigned numbers the negative ones are too large as well.
    if rows.size and rows.view(np.uint64).max() >= num_rows:
        raise InputError(
            "row-out-of-range",
            f"`{name}` must lie between 0 and {num_rows - 1}. Received:"
            f" {rows.min()} to {rows.max()}. Remove the others.",
        )
    return rows


def checked_integers(name: str, values: np.ndarray) -> np.ndarray:
    """`values` as contiguous int64.

    Raises:
        InputError: `invalid-rows` for anything but 1-D integers.
    """
    values = np.asarray(values)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise InputError(
            "invalid-rows",
            f"`{name}` must be a 1-D array of integers. Received: {values.dtype} of"
            f" shape {values.shape}. Pass int64 of shape (n,).",
        )
    return np.ascontiguousarray(values, np.int64)


def _gather_column(rows: np.ndarray, starts: np.ndarray, column: Column) -> np.ndarray:
    padding = 0 if column.dtype.kind == "f" else -1
    out = np.full(column.shape(len(rows)), padding, column.dtype)
    chunk_of = np.searchsorted(starts[1:], rows, side="right")
    for chunk in np.unique(chunk_of):
        here = chunk_of == chunk
        within = rows[here] - starts[chunk]
        values = column.values[chunk]
        # A float64 too large for a float32 becomes infinite, as in the core.
        with np.errstate(over="ignore", invalid="ignore"):
            if column.offsets is None:
                out[here] = values[within]
            else:
                out[here] = _padded(values, column.offsets[chunk], within, out[here])
    return out


def _padded(
    values: np.ndarray, offsets: np.ndarray, rows: np.ndarray, padding: np.ndarray
) -> np.ndarray:
    """The lists of `rows` over `padding`, `(n, width)`."""
    begins, ends = (offsets[rows + n].astype(np.int64) for n in (0, 1))
    if np.any((begins < 0) | (begins > ends) | (ends > len(values))):
        raise IndexError("The offsets of a list must rise within its values.")
    places = begins[:, None] + np.arange(padding.shape[1])
    present = places < ends[:, None]
    padding[present] = values[places[present]]
    return padding


class UserItems(NamedTuple):
    """The items of all users, sorted by user and time.

    Args:
        offsets: `(num_users + 1,)` int64: user u has the items from `offsets[u]` to
            `offsets[u + 1]`. Must rise to the number of items.
        timestamps: `(num_items,)` int64, contiguous, ascending for each user.
        items: `(num_items,)` uint8, uint16 or int32, contiguous.
    """

    offsets: np.ndarray
    timestamps: np.ndarray
    items: np.ndarray


def newest_items(
    stored: UserItems,
    users: np.ndarray,
    moments: np.ndarray | None,
    length: int,
    *,
    gap_ms: int | None = None,
    threads: int | None = None,
) -> np.ndarray:
    """The newest items of users before moments, `(n, length)` int32, oldest first.

    Shorter histories are padded with -1 at the end; user 0 has none.

    Args:
        stored: the items of all users.
        users: `(n,)` integers.
        moments: `(n,)` integers: only items strictly before count; `None` for all.
        length: most items per row, at least 0.
        gap_ms: only the items of the moment's session, which starts after the last
            gap of more than so many milliseconds. All items by default.
        threads: most threads to use; all processors by default.

    Raises:
        InputError: `row-out-of-range`, `invalid-rows` or `invalid-argument`.
        IndexError: the items of a user lie outside.
    """
    _check_stored(stored)
    users = checked_rows("user_index", users, len(stored.offsets) - 1)
    if moments is not None:
        moments = checked_integers("timestamp_ms", moments)
        if len(moments) != len(users):
            raise InputError(
                "invalid-rows",
                "There must be one time per user. Received:"
                f" {len(moments)} times for {len(users)} users. Pass arrays of the"
                " same length.",
            )
    for name, value in (("length", length), ("gap_ms", gap_ms)):
        if value is not None and value < 0:
            raise InputError(
                "invalid-argument",
                f"`{name}` must be at least 0. Received: {value}.",
            )
    gap = -1 if gap_ms is None or moments is None else gap_ms
    core = native.core()
    if core is None:
        return _newest_items(stored, users, moments, length, gap)
    out = np.empty((len(users), length), np.int32)
    threads = native.default_threads() if threads is None else threads
    core.gather_histories(*stored, users, moments, gap, out, threads)
    return out


def _check_stored(stored: UserItems) -> None:
    offsets, timestamps, items = stored
    is_good = (
        offsets.dtype == timestamps.dtype == np.int64
        and items.dtype in (np.uint8, np.uint16, np.int32)
        and offsets.ndim == timestamps.ndim == items.ndim == 1
        and len(offsets) > 0
        and len(timestamps) == len(items)
    )
    if not is_good:
        given = ", ".join(f"{array.dtype} {array.shape}" for array in stored)
        raise InputError(
            "invalid-argument",
            "Offsets and times must be int64 and items uint8, uint16 or int32, with one"
            f" time per item and at least one offset. Received: {given}.",
        )


def _newest_items(
    stored: UserItems,
    users: np.ndarray,
    moments: np.ndarray | None,
    length: int,
    gap: int,
) -> np.ndarray:
    offsets, timestamps, items = stored
    begins = offsets[users]
    ends = np.where(users == 0, begins, offsets[users + 1])
    if np.any((begins < 0) | (begins > ends) | (ends > len(items))):
        raise IndexError("The offsets of users must rise within their items.")
    if moments is not None:
        ends = _first_at_or_after(timestamps, moments, begins, ends)
    begins = np.maximum(begins, ends - length)
    if gap >= 0 and moments is not None:
        begins = _session_begins(timestamps, moments, begins, ends, gap)
    places = begins[:, None] + np.arange(length)
    present = places < ends[:, None]
    out = np.full(places.shape, -1, np.int32)
    out[present] = items[places[present]]
    return out


def _first_at_or_after(
    timestamps: np.ndarray, moments: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Binary search within the items of each user, for all rows together."""
    while np.any(low < high):
        middle = (low + high) // 2
        inside = low < high
        times = timestamps[np.minimum(middle, len(timestamps) - 1)]
        earlier = inside & (times < moments)
        low = np.where(earlier, middle + 1, low)
        high = np.where(inside & ~earlier, middle, high)
    return low


def _session_begins(
    timestamps: np.ndarray,
    moments: np.ndarray,
    begins: np.ndarray,
    ends: np.ndarray,
    gap: int,
) -> np.ndarray:
    """Where the session of each moment starts, at most `ends`."""
    first, later = ends, moments.view(np.uint64)
    while True:
        walking = first > begins
        if not walking.any():
            return first
        earlier = timestamps[np.maximum(first - 1, 0)].view(np.uint64)
        # Unsigned: the difference of two times may not fit an int64.
        walking &= later - earlier <= np.uint64(gap)
        begins = np.where(walking, begins, first)
        first = np.where(walking, first - 1, first)
        later = np.where(walking, earlier, later)

"""Lists of different lengths, stored as two arrays.

Knows arrays and list columns; knows nothing of what the values mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import DTypeLike


class Ragged(NamedTuple):
    """A pair `(offsets, values)`: list i is `values[offsets[i]:offsets[i + 1]]`.

    A function that takes or returns such a pair, such as the `exclude` of
    `native.top_k`, works with a `Ragged` too.

    Args:
        offsets: `(n + 1,)` int64, ascending from 0 to m, for n lists.
        values: `(m,)`, the lists one after the other.
    """

    offsets: np.ndarray
    values: np.ndarray

    @classmethod
    def from_lengths(cls, lengths: np.ndarray, values: np.ndarray) -> Ragged:
        """Lists of the given lengths `(n,)`, whose sum is the number of values."""
        return cls(offsets_of(lengths), values)

    @classmethod
    def from_lists(
        cls, lists: Sequence[Sequence[int] | np.ndarray], dtype: DTypeLike = np.int32
    ) -> Ragged:
        """Joins lists of numbers."""
        arrays = [np.asarray(values, dtype) for values in lists]
        values = np.concatenate(arrays) if arrays else np.empty(0, dtype)
        return cls(offsets_of([len(array) for array in arrays]), values)

    @classmethod
    def from_column(cls, column: pl.Series) -> Ragged:
        """The lists of a list column; a null is an empty list."""
        values = column.explode(empty_as_null=False, keep_nulls=False)
        lengths = column.list.len().fill_null(0)
        return cls(offsets_of(lengths.to_numpy()), values.to_numpy())

    @property
    def lengths(self) -> np.ndarray:
        """The length of each list, `(n,)`."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> np.ndarray:
        """The list that each value belongs to, `(m,)` int64."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.lengths)

    def row(self, index: int) -> np.ndarray:
        """The values of one list."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def places(self, rows: np.ndarray) -> Ragged:
        """For the lists at `rows`, where each of their values is stored."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        return Ragged.from_lengths(lengths, ranges(starts, lengths))

    def take(self, rows: np.ndarray) -> Ragged:
        """The lists at `rows` `(k,)`, in that order."""
        places = self.places(rows)
        return Ragged(places.offsets, self.values[places.values])

    def where(self, kept: np.ndarray) -> Ragged:
        """The same lists without the values where `kept` `(m,)` is false."""
        if kept.all():
            return self
        return Ragged(offsets_of(kept)[self.offsets], self.values[kept])

    def last(self, length: int) -> np.ndarray:
        """The last `length` values of each list, `(n, length)` int32.

        Their order stays; shorter lists are padded with -1 at the end.
        """
        lengths = np.minimum(self.lengths, length)
        padded = np.full((len(lengths), length), -1, np.int32)
        places = ranges(self.offsets[1:] - lengths, lengths)
        padded[np.arange(length) < lengths[:, None]] = self.values[places]
        return padded

    def mean(self, table: np.ndarray) -> np.ndarray:
        """Mean of the rows of a table that each list names, zeros for an empty list.

        Args:
            table: `(rows, dim)` float32.

        Returns: `(n, dim)` float32.
        """
        lengths = self.lengths
        filled = lengths > 0
        means = np.zeros((len(lengths), table.shape[1]), np.float32)
        if filled.any():
            # `reduceat` misreads empty lists, so only the others are passed.
            sums = np.add.reduceat(table[self.values], self.offsets[:-1][filled])
            means[filled] = sums / lengths[filled, None].astype(np.float32)
        return means

    def transposed(self, num_values: int) -> Ragged:
        """For each value from 0 to `num_values - 1`, the lists that contain it."""
        places = grouped(self.values, num_values)
        return Ragged(places.offsets, self.owners[places.values])

    def to_column(self) -> pl.Series:
        """The lists as a series of lists."""
        joined = pa.LargeListArray.from_arrays(self.offsets, self.values)
        return pl.Series(pl.from_arrow(joined))


def grouped(keys: np.ndarray, num_keys: int) -> Ragged:
    """For each key, the positions where it occurs, in ascending order.

    Args:
        keys: `(m,)` integers from 0 to `num_keys - 1`.
        num_keys: number of lists of the result.
    """
    # Key and position in one integer: sorting that is much faster than a stable
    # argsort, and gives the same order.
    bits = max(1, len(keys).bit_length())
    packed = (keys.astype(np.int64) << bits) | np.arange(len(keys))
    packed.sort()
    packed &= (1 << bits) - 1
    return Ragged.from_lengths(np.bincount(keys, minlength=num_keys), packed)


def offsets_of(lengths: np.ndarray | Sequence[int]) -> np.ndarray:
    """Where lists of these lengths begin, and the end of the last: `(n + 1,)` int64."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Concatenates `arange(start, start + length)` of every pair, as int64."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    found: np.ndarray = np.arange(total) + np.repeat(starts - ends + lengths, lengths)
    return found

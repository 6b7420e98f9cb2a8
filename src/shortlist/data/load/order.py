"""The order of an epoch, computed where it is asked for: no permutation is stored.

A keyed bijection of `0..n-1` gives the row at any position in constant memory, so a
batch of an epoch over billions of rows costs as much as one over thousands. Knows
nothing of sources and batches; `data/kernels/permutation.py` computes the bijection.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from shortlist.data.kernels.permutation import (
    Blocks,
    Network,
    check_places,
    mix,
    round_keys,
)
from shortlist.errors import InputError

Shuffle = Literal["global", "windowed", "none"]
SHUFFLES: tuple[Shuffle, ...] = get_args(Shuffle)

SMALL = 2_048
"""Up to here a sorted list of hashes is cheaper than a network, and mixes perfectly."""


class Bijection:
    """A random one-to-one map of `0..size-1` onto itself.

    Args:
        size: number of values, at least 1 and at most 2**62.
        key: what it depends on; equal keys give equal maps.
    """

    def __init__(self, size: int, key: tuple[int, ...]) -> None:
        self.network = Network(size, round_keys(key))
        self.table = self._sorted() if size <= SMALL else None

    def apply(
        self, values: np.ndarray, *, first: int = 0, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Images `(n,)` int64 of values `(n,)` of the range that begins at `first`.

        They may be put into `out`, `(n,)` int64, which may be `values`.

        Raises:
            IndexError: a value is not of that range.
        """
        if self.table is None:
            return self.network.apply(values, first=first, out=out)
        check_places(values, self.network.size, first)
        images: np.ndarray = first + self.table[values - first]
        return images

    def invert(self, values: np.ndarray) -> np.ndarray:
        """The values whose images these are, as int64; raises as `apply`."""
        if self.table is None:
            return self.network.apply(values, backward=True)
        check_places(values, self.network.size)
        images: np.ndarray = np.argsort(self.table)[values]
        return images

    def _sorted(self) -> np.ndarray:
        """The whole map: indices in the order of their hashes."""
        places = np.arange(self.network.size, dtype=np.uint64)
        for key in self.network.keys[:2]:
            places = mix(places, key)
        return np.argsort(places, kind="stable")


class Order:
    """Which row stands at which position of an epoch.

    Args:
        num_rows: rows of the source, at least 1.
        shuffle: `global` (any row anywhere), `windowed` (see below) or `none`.
        window: positions shuffled among each other.
        block: rows that are read together.
        key: what the order depends on: seed and epoch.

    Raises:
        InputError: `invalid-argument` without rows, or with a window or block of none.

    A windowed order is for sources that are read from disk: blocks of `block`
    neighbouring rows come in random order, and of the rows in that order each
    `window` are shuffled. A row is close in memory to `window / block` other places
    at any time, and every row comes once an epoch all the same.
    """

    def __init__(
        self,
        num_rows: int,
        shuffle: Shuffle,
        *,
        window: int,
        block: int,
        key: tuple[int, ...],
    ) -> None:
        if min(num_rows, window, block) < 1:
            raise InputError(
                "invalid-argument",
                "An order must have a row at least, and so must its window and block."
                f" Received: {num_rows} rows, window {window}, block {block}.",
            )
        self.num_rows = num_rows
        self.shuffle = shuffle
        self.window = window
        self.block = block
        self.key = key
        if shuffle == "global":
            self._rows = Bijection(num_rows, key)
        elif shuffle == "windowed":
            num_blocks = -(-num_rows // block)
            blocks = Bijection(num_blocks, (*key, 0))
            # The last block may be short; where it comes, later blocks move up.
            last = blocks.invert(np.array([num_blocks - 1]))
            gap = num_blocks * block - num_rows
            self._blocks = Blocks(
                block=block,
                gap=gap,
                after_gap=int(last[0] + 1) * block - gap,
                network=blocks.network,
                table=blocks.table,
            )

    def rows(
        self, positions: np.ndarray, *, out: np.ndarray | None = None
    ) -> np.ndarray:
        """The rows at positions `(n,)` int64, as int64; fastest for ascending ones.

        They may be put into `out`, `(n,)` int64, which may be `positions`.

        Raises:
            IndexError: a position is not from 0 to below `num_rows`.
            InputError: `invalid-argument` for one behind the last window.
        """
        if self.shuffle == "windowed" and len(positions):
            places = self._within_windows(positions, out)
            return self._blocks.rows(places, out=out)
        if self.shuffle == "global":
            return self._rows.apply(positions, out=out)
        check_places(positions, self.num_rows)
        return positions

    def _within_windows(
        self, positions: np.ndarray, out: np.ndarray | None
    ) -> np.ndarray:
        """Where the positions go when every window is shuffled."""
        first, last = int(positions.min()), int(positions.max())
        if first // self.window == last // self.window:
            return self._within_window(positions, first // self.window, out)
        numbers = positions // self.window
        changes = np.flatnonzero(np.diff(numbers)) + 1
        parts = np.split(positions, changes)
        return np.concatenate(
            [self._within_window(p, int(p[0]) // self.window, None) for p in parts]
        )

    def _within_window(
        self, positions: np.ndarray, number: int, out: np.ndarray | None
    ) -> np.ndarray:
        """Where the positions of one window go."""
        begin = number * self.window
        size = min(self.window, self.num_rows - begin)
        shuffled = Bijection(size, (*self.key, 1 + number))
        return shuffled.apply(positions, first=begin, out=out)

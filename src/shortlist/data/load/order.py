"""The order of an epoch, computed on demand: no permutation is stored.

A keyed bijection of `0..n-1` gives the example at any position in constant memory, so a
batch costs as much in an epoch of billions of examples as in one of thousands. Knows
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
"""Up to this size a sorted list of hashes is faster than a network, and exact."""


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
        """Images `(n,)` int64 of values `(n,)` from `first` to below `first + size`.

        `out`, `(n,)` int64, may receive them; it may be `values`.

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
    """Which example comes at which position of an epoch.

    Args:
        num_examples: examples of the source, at least 1.
        shuffle: `global`, `windowed` (see below) or `none`.
        window: positions shuffled among each other.
        block: examples that are read together.
        key: what the order depends on: seed and epoch.

    Raises:
        InputError: `invalid-argument` for a size, window or block below 1.

    A windowed order is for sources that are read from disk: blocks of `block`
    neighbouring examples come in random order, and each `window` of examples in that
    order are shuffled. So a window reads from `window / block` places of the file, and
    every example still comes once an epoch.
    """

    def __init__(
        self,
        num_examples: int,
        shuffle: Shuffle,
        *,
        window: int,
        block: int,
        key: tuple[int, ...],
    ) -> None:
        if min(num_examples, window, block) < 1:
            raise InputError(
                "invalid-argument",
                "An order must have at least one example, and so must its window and"
                f" block. Received: {num_examples} examples, window {window}, block"
                f" {block}.",
            )
        self.num_examples = num_examples
        self.shuffle = shuffle
        self.window = window
        self.block = block
        self.key = key
        if shuffle == "global":
            self._examples = Bijection(num_examples, key)
        elif shuffle == "windowed":
            num_blocks = -(-num_examples // block)
            blocks = Bijection(num_blocks, (*key, 0))
            # The last block may be short: the blocks that follow it move forward.
            last = blocks.invert(np.array([num_blocks - 1]))
            gap = num_blocks * block - num_examples
            self._blocks = Blocks(
                block=block,
                gap=gap,
                after_gap=int(last[0] + 1) * block - gap,
                network=blocks.network,
                table=blocks.table,
            )

    def indices(
        self, positions: np.ndarray, *, out: np.ndarray | None = None
    ) -> np.ndarray:
        """The examples at positions `(n,)` int64, as int64; fastest when ascending.

        `out`, `(n,)` int64, may receive them; it may be `positions`.

        Raises:
            IndexError: a position is not from 0 to below `num_examples`.
            InputError: `invalid-argument` for a position after the last window.
        """
        if self.shuffle == "windowed" and len(positions):
            places = self._within_windows(positions, out)
            return self._blocks.rows(places, out=out)
        if self.shuffle == "global":
            return self._examples.apply(positions, out=out)
        check_places(positions, self.num_examples)
        return positions

    def _within_windows(
        self, positions: np.ndarray, out: np.ndarray | None
    ) -> np.ndarray:
        """The positions after every window is shuffled."""
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
        """The positions of one window after it is shuffled."""
        begin = number * self.window
        size = min(self.window, self.num_examples - begin)
        shuffled = Bijection(size, (*self.key, 1 + number))
        return shuffled.apply(positions, first=begin, out=out)

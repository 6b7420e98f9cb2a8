"""The order of an epoch, computed where it is asked for: no permutation is stored.

A keyed bijection of `0..n-1` gives the row at any position in constant memory, so a
batch of an epoch over billions of rows costs as much as one over thousands. It is a
Feistel network on the smallest power of two that holds `n`; a value that leaves
`0..n-1` walks on until it is back inside (at most two steps on average). Integer
arithmetic alone: the same order on every machine, with every version of NumPy.

References:
    Black and Rogaway (2002), Ciphers with Arbitrary Finite Domains (cycle walking).
    Mitchell et al. (2022), Bandwidth-Optimal Random Shuffling for GPUs.
    Steele et al. (2014), Fast Splittable Pseudorandom Number Generators (the mixer).
"""

from __future__ import annotations

import hashlib
import struct
from typing import Literal, get_args

import numpy as np

Shuffle = Literal["global", "windowed", "none"]
SHUFFLES: tuple[Shuffle, ...] = get_args(Shuffle)

SMALL = 2_048
"""Up to here a sorted list of hashes is cheaper than a network, and mixes perfectly."""

ROUNDS = 8
_ONE, _WIDTH = np.uint64(1), np.uint64(64)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


class Bijection:
    """A random one-to-one map of `0..size-1` onto itself.

    Args:
        size: number of values, at least 1.
        key: what it depends on; equal keys give equal maps.
    """

    def __init__(self, size: int, key: tuple[int, ...]) -> None:
        self.size = size
        self._keys = _round_keys(key)
        bits = max((size - 1).bit_length(), 2)
        self._low_bits = np.uint64(bits // 2)
        self._high_bits = np.uint64(bits - bits // 2)
        self._table = self._sorted() if size <= SMALL else None

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Images of values `(n,)` below `size`, as int64."""
        return self._map(values, backward=False)

    def invert(self, values: np.ndarray) -> np.ndarray:
        """The values whose images these are, as int64."""
        return self._map(values, backward=True)

    def _map(self, values: np.ndarray, *, backward: bool) -> np.ndarray:
        if self._table is not None:
            table = np.argsort(self._table) if backward else self._table
            images: np.ndarray = table[values]
            return images
        result = self._permute(values.astype(np.uint64), backward)
        while len(outside := np.flatnonzero(result >= self.size)):
            result[outside] = self._permute(result[outside], backward)
        return result.astype(np.int64)

    def _sorted(self) -> np.ndarray:
        """The whole map: indices in the order of their hashes."""
        places = np.arange(self.size, dtype=np.uint64)
        for key in self._keys[:2]:
            places = _mix(places, key)
        return np.argsort(places, kind="stable")

    def _permute(self, values: np.ndarray, backward: bool) -> np.ndarray:
        """One pass through the network: each half is hidden by a hash of the other."""
        low = values & ((_ONE << self._low_bits) - _ONE)
        high = values >> self._low_bits
        for number in reversed(range(ROUNDS)) if backward else range(ROUNDS):
            key = self._keys[number]
            if number % 2:
                low ^= _mix(high, key) >> (_WIDTH - self._low_bits)
            else:
                high ^= _mix(low, key) >> (_WIDTH - self._high_bits)
        return (high << self._low_bits) | low


class Order:
    """Which row stands at which position of an epoch.

    Args:
        num_rows: rows of the source, at least 1.
        shuffle: `global` (any row anywhere), `windowed` (see below) or `none`.
        window: positions shuffled among each other.
        block: rows that are read together.
        key: what the order depends on: seed and epoch.

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
        self.num_rows = num_rows
        self.shuffle = shuffle
        self.window = window
        self.block = block
        self.key = key
        if shuffle == "global":
            self._rows = Bijection(num_rows, key)
        elif shuffle == "windowed":
            num_blocks = -(-num_rows // block)
            self._blocks = Bijection(num_blocks, (*key, 0))
            # The last block may be short; where it comes, later blocks move up.
            last = self._blocks.invert(np.array([num_blocks - 1]))
            self._gap = num_blocks * block - num_rows
            self._after_gap = int(last[0] + 1) * block - self._gap

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """The rows at positions `(n,)` int64, as int64; fastest for ascending ones."""
        if self.shuffle == "windowed" and len(positions):
            return self._by_block(self._within_windows(positions))
        return self._rows.apply(positions) if self.shuffle == "global" else positions

    def _within_windows(self, positions: np.ndarray) -> np.ndarray:
        """Where the positions go when every window is shuffled."""
        numbers = positions // self.window
        changes = np.flatnonzero(np.diff(numbers)) + 1
        parts = []
        for mine in np.split(positions, changes):
            number = int(mine[0]) // self.window
            begin = number * self.window
            size = min(self.window, self.num_rows - begin)
            shuffled = Bijection(size, (*self.key, 1 + number))
            parts.append(begin + shuffled.apply(mine - begin))
        return np.concatenate(parts)

    def _by_block(self, positions: np.ndarray) -> np.ndarray:
        """The rows at positions of the blocks laid one after the other."""
        places = positions + self._gap * (positions >= self._after_gap)
        number, within = np.divmod(places, self.block)
        rows: np.ndarray = self._blocks.apply(number) * self.block + within
        return rows


def _round_keys(key: tuple[int, ...]) -> list[np.uint64]:
    """One 64-bit number per round."""
    raw = b"".join(value.to_bytes(16, "little") for value in key)
    drawn = hashlib.shake_128(raw).digest(8 * ROUNDS)
    return [np.uint64(value) for value in struct.unpack(f"<{ROUNDS}Q", drawn)]


def _mix(values: np.ndarray, key: np.uint64) -> np.ndarray:
    """Hashes 64-bit values; the high bits are the best ones."""
    mixed = values ^ key
    mixed *= _FIRST
    mixed ^= mixed >> np.uint64(29)
    mixed *= _SECOND
    return mixed

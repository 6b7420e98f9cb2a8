"""Keyed bijections of the numbers 0 to n - 1, in the compiled core or its NumPy twin.

Knows keys and numbers; knows nothing of sources and epochs. Uses integers only: results
are the same on every machine, with and without the core, in every version of NumPy.

References:
    Black and Rogaway (2002), Ciphers with Arbitrary Finite Domains (cycle walking).
    Mitchell et al. (2022), Bandwidth-Optimal Random Shuffling for GPUs.
    Steele et al. (2014), Fast Splittable Pseudorandom Number Generators (the mixer).
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from shortlist import native
from shortlist.errors import InputError

ROUNDS = 8
"""Of the network: kOrderRounds in native/row_order.h."""
MOST_VALUES = 2**62

_ONE, _WIDTH = np.uint64(1), np.uint64(64)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


class Network:
    """A Feistel network on the smallest power of two that holds `size`.

    A value outside `0..size-1` is permuted again until it is inside: at most two steps
    on average.

    Args:
        size: number of values, at least 1 and at most 2**62.
        keys: `(ROUNDS,)` uint64, one for each round.

    Raises:
        InputError: `invalid-argument`.
    """

    def __init__(self, size: int, keys: np.ndarray) -> None:
        if not 1 <= size <= MOST_VALUES or keys.shape != (ROUNDS,):
            raise InputError(
                "invalid-argument",
                f"A network must have 1 to 2**62 values and {ROUNDS} keys. Received:"
                f" {size} values and keys of shape {keys.shape}. Shuffle fewer"
                " examples, at least one.",
            )
        self.size = size
        self.keys = keys
        self.bits = max((size - 1).bit_length(), 2)

    def apply(
        self,
        values: np.ndarray,
        *,
        first: int = 0,
        backward: bool = False,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Images of the values of `first..first+size-1`, in the same range.

        Args:
            values: `(n,)` integers of that range.
            first: the first of them.
            backward: apply the inverse.
            out: `(n,)` int64, which the core fills; may be `values`.

        Returns: `(n,)` int64.

        Raises:
            IndexError: a value is not of that range.
        """
        core = native.core()
        if core is None:
            check_places(values, self.size, first)
            images = self._walk(values.astype(np.int64) - first, backward)
            return images + first
        values = np.ascontiguousarray(values, np.int64)
        images = np.empty(len(values), np.int64) if out is None else out
        core.permute_rows(
            self.keys, self.size, self.bits, values, first, backward, images
        )
        return images

    def _walk(self, values: np.ndarray, backward: bool) -> np.ndarray:
        result = self._permute(values.astype(np.uint64), backward)
        while len(outside := np.flatnonzero(result >= self.size)):
            result[outside] = self._permute(result[outside], backward)
        return result.astype(np.int64)

    def _permute(self, values: np.ndarray, backward: bool) -> np.ndarray:
        """One pass through the network: each half is XORed with a hash of the other."""
        low_bits = np.uint64(self.bits // 2)
        high_bits = np.uint64(self.bits) - low_bits
        low = values & ((_ONE << low_bits) - _ONE)
        high = values >> low_bits
        for number in reversed(range(ROUNDS)) if backward else range(ROUNDS):
            key = self.keys[number]
            if number % 2:
                low ^= mix(high, key) >> (_WIDTH - low_bits)
            else:
                high ^= mix(low, key) >> (_WIDTH - high_bits)
        return (high << low_bits) | low


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blocks:
    """Blocks of neighbouring rows in random order, the last of which may be short.

    Args:
        block: rows of a block.
        gap: how many rows the last block has less.
        after_gap: the position where the last block ends.
        network: the block at each place, if there is no `table`.
        table: the block at each place, `(num_blocks,)` int64.
    """

    block: int
    gap: int
    after_gap: int
    network: Network
    table: np.ndarray | None

    def rows(
        self, positions: np.ndarray, *, out: np.ndarray | None = None
    ) -> np.ndarray:
        """The rows at positions `(n,)` int64 of the blocks, one after the other.

        `out`, `(n,)` int64, may receive them in the core; it may be `positions`.

        Raises:
            IndexError: a position is out of range.
        """
        core = native.core()
        if core is None:
            return self._rows(positions)
        positions = np.ascontiguousarray(positions, np.int64)
        rows = np.empty(len(positions), np.int64) if out is None else out
        core.rows_of_blocks(
            self.network.keys,
            self.network.size,
            self.network.bits,
            self.table,
            self.block,
            self.gap,
            self.after_gap,
            positions,
            rows,
        )
        return rows

    def _rows(self, positions: np.ndarray) -> np.ndarray:
        check_places(positions, self.network.size * self.block - self.gap)
        places = positions + self.gap * (positions >= self.after_gap)
        number, within = np.divmod(places, self.block)
        table = self.table
        numbers = self.network.apply(number) if table is None else table[number]
        rows: np.ndarray = numbers * self.block + within
        return rows


def check_places(places: np.ndarray, size: int, first: int = 0) -> None:
    """Raises `IndexError` unless all are from `first` to below `first + size`."""
    if places.size and not (
        int(places.min()) >= first and int(places.max()) < first + size
    ):
        raise IndexError(
            f"A value must be from {first} to {first + size - 1}. Received:"
            f" {places.min()} to {places.max()}."
        )


def round_keys(key: tuple[int, ...]) -> np.ndarray:
    """One 64-bit number per round, `(ROUNDS,)` uint64."""
    raw = b"".join(value.to_bytes(16, "little") for value in key)
    hashed = hashlib.shake_128(raw).digest(8 * ROUNDS)
    return np.frombuffer(hashed, "<u8").astype(np.uint64)


def mix(values: np.ndarray, key: np.uint64) -> np.ndarray:
    """Hashes 64-bit values; the high bits are the best ones."""
    mixed = values ^ key
    mixed *= _FIRST
    mixed ^= mixed >> np.uint64(29)
    mixed *= _SECOND
    return mixed

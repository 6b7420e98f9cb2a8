"""The functions of `ids.py` in Python and NumPy: reference in tests and fallback.

Knows dictionaries, `np.lexsort` and the definition of XXH64; checks nothing.
"""

from __future__ import annotations

import operator
import struct
import threading

import numpy as np
import polars as pl

_MASK = 2**64 - 1
_PRIMES = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)
_STRIPE = 32


class DictMap:
    """Codes of ids in a dictionary; see `ids.IdMap`.

    Args:
        dtype: `pl.Int64` or `pl.String`.
        most: the most ids it may hold.
    """

    def __init__(self, dtype: pl.DataType, most: int) -> None:
        self._dtype = dtype
        self._most = most
        self._codes: dict[str | int, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._codes)

    def add(self, ids: pl.Series) -> np.ndarray:
        """Codes `(n,)` int32; raises `ValueError` if the map is full."""
        with self._lock:
            return np.fromiter(map(self._add_one, ids.to_list()), np.int32, len(ids))

    def find(self, ids: pl.Series) -> np.ndarray:
        """Codes `(n,)` int32, -1 for unknown ids."""
        codes = (self._codes.get(external, -1) for external in ids.to_list())
        return np.fromiter(codes, np.int32, len(ids))

    def find_one(self, external_id: object) -> int:
        """Code of one id; -1 if it is unknown or of another type."""
        if self._dtype == pl.String:
            is_text = isinstance(external_id, str)
            return self._codes.get(external_id, -1) if is_text else -1  # type: ignore[call-overload]
        try:
            return self._codes.get(operator.index(external_id), -1)  # type: ignore[arg-type]
        except TypeError:
            return -1

    def ids(self) -> pl.Series:
        """The ids by code."""
        return pl.Series("id", list(self._codes), dtype=self._dtype)

    def _add_one(self, external: str | int | None) -> int:
        if external is None:
            return -1
        code = self._codes.get(external)
        if code is None:
            code = len(self._codes)
            if code == self._most:
                raise ValueError("too many ids")
            self._codes[external] = code
        return code


class StreamHash:
    """XXH64 of bytes that come in pieces.

    Source: Collet, "xxHash fast digest algorithm" (2012), section "XXH64".
    """

    def __init__(self, seed: int) -> None:
        first, second = _PRIMES[:2]
        self._seed = seed
        self._lanes = [
            (seed + add) & _MASK for add in (first + second, second, 0, -first)
        ]
        self._held = b""
        self._num_bytes = 0

    def update(self, piece: bytes | memoryview) -> None:
        """Adds the next bytes."""
        self._num_bytes += len(piece)
        held = self._held + bytes(piece)
        whole = len(held) - len(held) % _STRIPE
        (one, two, three, four), (first, second) = self._lanes, _PRIMES[:2]
        # `_round` four times, written out: files are read through here.
        for a, b, c, d in struct.iter_unpack("<4Q", held[:whole]):
            one = one + a * second & _MASK
            one = (one << 31 | one >> 33) * first & _MASK
            two = two + b * second & _MASK
            two = (two << 31 | two >> 33) * first & _MASK
            three = three + c * second & _MASK
            three = (three << 31 | three >> 33) * first & _MASK
            four = four + d * second & _MASK
            four = (four << 31 | four >> 33) * first & _MASK
        self._lanes = [one, two, three, four]
        self._held = held[whole:]

    def digest(self) -> int:
        """The hash of all bytes so far."""
        if self._num_bytes < _STRIPE:
            return _finish(self._seed + _PRIMES[4] + self._num_bytes, self._held)
        turns = zip(self._lanes, (1, 7, 12, 18), strict=True)
        value = sum(_rotate(lane, bits) for lane, bits in turns) & _MASK
        for lane in self._lanes:
            value = ((value ^ _round(0, lane)) * _PRIMES[0] + _PRIMES[3]) & _MASK
        return _finish(value + self._num_bytes, self._held)


def hash_values(values: pl.Series, seed: int) -> np.ndarray:
    """XXH64 `(n,)` uint64 of the values as text; 0 where there is none."""
    texts = values.cast(pl.String).to_list()
    hashes = (0 if text is None else _hash(text.encode(), seed) for text in texts)
    return np.fromiter(hashes, np.uint64, len(texts))


def group_order(groups: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Stable order by group, then time."""
    return np.lexsort((times, groups))


def group_offsets(groups: np.ndarray, num_groups: int) -> np.ndarray:
    """Where the groups begin and end, `(num_groups + 1,)` int64."""
    counts = np.bincount(groups, minlength=num_groups)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _hash(text: bytes, seed: int) -> int:
    stream = StreamHash(seed)
    stream.update(text)
    return stream.digest()


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _MASK


def _round(lane: int, word: int) -> int:
    return _rotate((lane + word * _PRIMES[1]) & _MASK, 31) * _PRIMES[0] & _MASK


def _finish(value: int, tail: bytes) -> int:
    first, second, third, fourth, fifth = _PRIMES
    value &= _MASK
    while len(tail) >= 8:
        (word,) = struct.unpack("<Q", tail[:8])
        value = (_rotate(value ^ _round(0, word), 27) * first + fourth) & _MASK
        tail = tail[8:]
    if len(tail) >= 4:
        (word,) = struct.unpack("<I", tail[:4])
        value = (_rotate(value ^ (word * first & _MASK), 23) * second + third) & _MASK
        tail = tail[4:]
    for byte in tail:
        value = _rotate(value ^ (byte * fifth & _MASK), 11) * first & _MASK
    value = (value ^ value >> 33) * second & _MASK
    value = (value ^ value >> 29) * third & _MASK
    return value ^ value >> 32

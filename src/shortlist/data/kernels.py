"""Hashes of values, by the byte-for-byte rules of XXH64.

Knows values and numbers; knows no vocabularies or tables.
"""

from __future__ import annotations

import numpy as np
import polars as pl

_MASK = 2**64 - 1
_P1, _P2, _P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_P4, _P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def hash_values(values: pl.Series, *, seed: int = 0) -> np.ndarray:
    """XXH64 of every value's UTF-8 text, `(n,)` uint64.

    Integers hash as their decimal text, so that 7 and "7" agree; nulls give 0.
    """
    text = values.cast(pl.String)
    known = text.drop_nulls().unique().to_list()
    hashes = {one: _xxh64(one.encode(), seed) for one in known}
    found = (0 if one is None else hashes[one] for one in text.to_list())
    return np.fromiter(found, np.uint64, len(text))


def _xxh64(data: bytes, seed: int) -> int:
    end, at = len(data), 0
    if end >= 32:
        lanes = [seed + _P1 + _P2, seed + _P2, seed, seed - _P1]
        while at + 32 <= end:
            for lane in range(4):
                word = int.from_bytes(data[at : at + 8], "little")
                lanes[lane] = _round(lanes[lane], word)
                at += 8
        turns = zip(lanes, (1, 7, 12, 18), strict=True)
        total = sum(_turned(lane, bits) for lane, bits in turns)
        for lane in lanes:
            total = ((total ^ _round(0, lane)) * _P1 + _P4) & _MASK
    else:
        total = seed + _P5
    total = (total + end) & _MASK
    while at + 8 <= end:
        word = _round(0, int.from_bytes(data[at : at + 8], "little"))
        total = (_turned(total ^ word, 27) * _P1 + _P4) & _MASK
        at += 8
    if at + 4 <= end:
        word = int.from_bytes(data[at : at + 4], "little") * _P1 & _MASK
        total = (_turned(total ^ word, 23) * _P2 + _P3) & _MASK
        at += 4
    for byte in data[at:]:
        total = _turned(total ^ (byte * _P5 & _MASK), 11) * _P1 & _MASK
    total = (total ^ total >> 33) * _P2 & _MASK
    total = (total ^ total >> 29) * _P3 & _MASK
    return total ^ total >> 32


def _round(lane: int, word: int) -> int:
    return _turned((lane + word * _P2) & _MASK, 31) * _P1 & _MASK


def _turned(number: int, bits: int) -> int:
    number &= _MASK
    return (number << bits | number >> (64 - bits)) & _MASK

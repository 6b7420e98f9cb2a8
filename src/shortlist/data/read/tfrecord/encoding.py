"""Writes tf.train.Example messages and the frames of TFRecord."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np

from shortlist.data.kernels.tfrecord import crc32c
from shortlist.data.kernels.tfrecord_twin import BYTES, FLOATS, INTEGERS, masked


def encode_example(features: Mapping[str, np.ndarray | Sequence[bytes]]) -> bytes:
    """One Example.

    Args:
        features: for each name `(n,)` int64, `(n,)` float32 or a sequence of bytes.
    """
    entries = []
    for name in sorted(features, key=str.encode):
        feature = _field(2, _feature(features[name]))
        entries.append(_field(1, _field(1, name.encode()) + feature))
    return _field(1, b"".join(entries))


def to_record(data: bytes) -> bytes:
    """A record: the data between its length and the checksums of both."""
    length = struct.pack("<Q", len(data))
    check = struct.pack("<I", masked(crc32c(data)))
    return length + struct.pack("<I", masked(crc32c(length))) + data + check


def _feature(values: np.ndarray | Sequence[bytes]) -> bytes:
    if not isinstance(values, np.ndarray):
        return _field(BYTES, b"".join(_field(1, value) for value in values))
    if values.dtype.kind == "f":
        packed = values.astype("<f4").tobytes()
        return _field(FLOATS, _field(1, packed) if packed else b"")
    packed = pack_integers(values)
    return _field(INTEGERS, _field(1, packed) if packed else b"")


def pack_integers(values: np.ndarray) -> bytes:
    """`(n,)` int64 as varints; negative numbers take ten bytes."""
    if len(values) < 8:
        return b"".join(_varint(value & (2**64 - 1)) for value in values.tolist())
    rest = values.astype(np.int64).view(np.uint64)
    sizes = np.ones(len(rest), np.int64)
    for place in range(1, 10):
        sizes += rest >> np.uint64(7 * place) > 0
    begins = np.cumsum(sizes) - sizes
    out = np.empty(int(sizes.sum()), np.uint8)
    for place in range(10):
        long = np.flatnonzero(sizes > place)
        byte = (rest[long] >> np.uint64(7 * place)).astype(np.uint8) & 0x7F
        more = (sizes[long] > place + 1).astype(np.uint8) << 7
        out[begins[long] + place] = byte | more
    return out.tobytes()


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)

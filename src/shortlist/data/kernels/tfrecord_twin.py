"""TFRecord and tf.train.Example in Python: the oracle in tests and the fallback.

Knows the frames of a TFRecord file and the protocol buffer wire format of Example,
Features and Feature; knows nothing of files, and does not name what is wrong in words.

    record  = length (uint64), masked CRC-32C of it, data, masked CRC-32C of the data
    Example = {features: {feature: map<string, bytes_list | float_list | int64_list>}}
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

# Numbered as the fields of Feature, and as ValueKind in native/tf_example.h.
NO_KIND, BYTES, FLOATS, INTEGERS = range(4)

# In the order of Fault in native/tf_example.h.
FAULTS = (
    "",
    "length-checksum",
    "too-long",
    "data-checksum",
    "not-example",
    "feature-missing",
    "feature-unknown",
    "mixed-kinds",
)

HEADER_BYTES, FOOTER_BYTES = 12, 4
# Protocol buffers end at 2 GiB.
MAX_RECORD_BYTES = 2**31 - 1
_MAX_DEPTH = 100
_VARINT, _FIXED64, _LENGTH_DELIMITED, _GROUP, _GROUP_END, _FIXED32 = range(6)


class Values(NamedTuple):
    """One feature over some records.

    Args:
        kind: `BYTES`, `FLOATS`, `INTEGERS`, or `NO_KIND` if no record has values.
        counts: `(records,)` int32, values in each record.
        values: `(n,)` int64 or float32; for bytes uint8, all values together.
        ends: `(n,)` int64, where each value of bytes ends; `None` for other kinds.
    """

    kind: int
    counts: np.ndarray
    values: np.ndarray
    ends: np.ndarray | None


class RecordFault(NamedTuple):
    """What is wrong with a record: one of `FAULTS`, its number from 0, a feature."""

    fault: str
    record: int
    feature: bytes


@dataclass(frozen=True)
class RecordBlock:
    """The whole records at the start of some bytes.

    Args:
        records: their number.
        consumed: their bytes.
        columns: one for each feature asked for; of no use if there is a fault.
        smallest: `(records,)` int32, the smallest number of values, other than 0, that
            a feature of the record has, features not asked for included.
        sharing: `(records,)` int32, how many of its features have so many.
        fault: the first fault.
    """

    records: int
    consumed: int
    columns: list[Values]
    smallest: np.ndarray
    sharing: np.ndarray
    fault: RecordFault | None


def _make_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _make_table()


def crc32c(data: bytes | memoryview) -> int:
    """CRC-32C (Castagnoli), byte by byte."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """A checksum as TFRecord stores it."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def header_length(head: bytes | memoryview) -> int | None:
    """The length that the first 12 bytes announce; `None` if they are no header."""
    if len(head) < HEADER_BYTES:
        return None
    length, check = struct.unpack_from("<QI", head)
    return length if check == masked(crc32c(head[:8])) else None


def read_records(
    data: bytes | memoryview,
    features: Sequence[bytes],
    kinds: Sequence[int],
    only_these: bool,
) -> RecordBlock:
    """Reads the whole records at the start of `data`; see `kernels.py`."""
    data = memoryview(data)
    reader = _Reader(features, kinds, only_these)
    fault, at, number = None, 0, 0
    while fault is None and len(data) - at >= HEADER_BYTES:
        begin = at + HEADER_BYTES
        length = header_length(data[at:begin])
        if length is None or length > MAX_RECORD_BYTES:
            name = "length-checksum" if length is None else "too-long"
            fault = RecordFault(name, number, b"")
            break
        end = begin + length
        if end + FOOTER_BYTES > len(data):
            break
        try:
            (check,) = struct.unpack_from("<I", data, end)
            if check != masked(crc32c(data[begin:end])):
                raise _Fault("data-checksum")
            reader.read(data[begin:end])
        except _Fault as found:
            fault = RecordFault(found.fault, number, found.feature)
        at, number = end + FOOTER_BYTES, number + 1
    return RecordBlock(
        number,
        at,
        [column.values_() for column in reader.columns],
        np.array(reader.smallest, np.int32),
        np.array(reader.sharing, np.int32),
        fault,
    )


def feature_names(record: bytes | memoryview) -> list[bytes]:
    """The features of one Example, sorted, for the order of a map means nothing.

    Returns: none if the record is no Example, for `read_records` to say why.
    """
    names: set[bytes] = set()
    try:
        for features in _messages(memoryview(record)):
            names.update(_entry(entry)[0] for entry in _messages(features))
    except _Fault:
        return []
    return sorted(names)


class _Fault(Exception):
    def __init__(self, fault: str, feature: bytes = b"") -> None:
        super().__init__(fault, feature)
        self.fault, self.feature = fault, feature


@dataclass
class _Column:
    kind: int
    counts: list[int] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    seen: bool = False

    def values_(self) -> Values:
        counts = np.array(self.counts, np.int32)
        if self.kind in (INTEGERS, FLOATS):
            dtype = np.int64 if self.kind == INTEGERS else np.float32
            return Values(self.kind, counts, np.array(self.values, dtype), None)
        ends = np.cumsum([len(value) for value in self.values], dtype=np.int64)
        text = np.frombuffer(b"".join(self.values), np.uint8)
        return Values(self.kind, counts, text, ends)


class _Reader:
    """Appends Examples to columns."""

    def __init__(
        self, features: Sequence[bytes], kinds: Sequence[int], only_these: bool
    ) -> None:
        self.columns = [_Column(kind) for kind in kinds]
        self.by_name = dict(zip(features, self.columns, strict=True))
        self.only_these = only_these
        self.smallest: list[int] = []
        self.sharing: list[int] = []

    def read(self, record: memoryview) -> None:
        """Appends one; after a fault the columns are of no use."""
        for column in self.columns:
            column.counts.append(0)
            column.seen = False
        found = []
        for features in _messages(record):
            for entry in _messages(features):
                found += self._read_entry(entry)
        for name, column in self.by_name.items():
            if not column.seen:
                raise _Fault("feature-missing", name)
            found.append(column.counts[-1])
        filled = [count for count in found if count]
        self.smallest.append(min(filled, default=0))
        self.sharing.append(filled.count(self.smallest[-1]))

    def _read_entry(self, entry: memoryview) -> list[int]:
        """The number of values, if they are of a feature that nobody asked for."""
        name, feature = _entry(entry)
        try:
            kind, lists = _lists(feature)
            column = self.by_name.get(name)
            if column is None and self.only_these:
                raise _Fault("feature-unknown")
            if column is None:
                return [len(_values(lists, kind))]
            self._append(column, kind, lists)
        except _Fault as fault:
            raise _Fault(fault.fault, name) from None
        return []

    def _append(self, column: _Column, kind: int, lists: list[memoryview]) -> None:
        if column.counts[-1]:  # the feature is there twice: the last one counts
            del column.values[-column.counts[-1] :]
        if kind != NO_KIND and kind != column.kind:
            if column.kind != NO_KIND:
                raise _Fault("mixed-kinds")
            column.kind = kind
        values = _values(lists, kind)
        column.values += values
        column.counts[-1] = len(values)
        column.seen = True


def _entry(entry: memoryview) -> tuple[bytes, memoryview]:
    """Name and feature of an entry of the map: of repeated ones the last."""
    name, feature = b"", entry[:0]
    for number, wire, value in _fields(entry):
        if wire == _LENGTH_DELIMITED and number == 1:
            name = bytes(value)
        elif wire == _LENGTH_DELIMITED and number == 2:
            feature = value
    return name, feature


def _lists(feature: memoryview) -> tuple[int, list[memoryview]]:
    """The kind of a Feature and its lists of that kind."""
    lists = [
        (number, value)
        for number, wire, value in _fields(feature)
        if wire == _LENGTH_DELIMITED and number <= INTEGERS
    ]
    kind = lists[-1][0] if lists else NO_KIND
    # Setting another member of a oneof clears what came before.
    others = [place for place, (number, _) in enumerate(lists) if number != kind]
    begin = others[-1] + 1 if others else 0
    return kind, [value for _, value in lists[begin:]]


def _values(lists: list[memoryview], kind: int) -> list[Any]:
    return [value for one in lists for value in _list(one, kind)]


def _list(values: memoryview, kind: int) -> Iterator[Any]:
    """The values of a BytesList, FloatList or Int64List, packed or not."""
    for number, wire, value in _fields(values):
        if number != 1:
            continue
        if wire == _LENGTH_DELIMITED and kind == BYTES:
            yield bytes(value)
        elif wire == _LENGTH_DELIMITED and kind == INTEGERS:
            yield from unpack_integers(value).tolist()
        elif wire == _LENGTH_DELIMITED and kind == FLOATS:
            if len(value) % 4:
                raise _Fault("not-example")
            # As float32, not as Python's float: a NaN keeps its bits.
            yield from np.frombuffer(value, "<f4")
        elif wire == _VARINT and kind == INTEGERS:
            yield value - 2**64 if value >= 2**63 else value
        elif wire == _FIXED32 and kind == FLOATS:
            yield np.frombuffer(value, "<f4")[0]


def unpack_integers(packed: memoryview) -> np.ndarray:
    """Varints one after the other as `(n,)` int64."""
    data = np.frombuffer(packed, np.uint8)
    ends = np.flatnonzero(data < 0x80)
    begins = np.concatenate([[0], ends + 1])
    if begins[-1] != len(data) or (ends - begins[:-1] >= 10).any():
        raise _Fault("not-example")
    values = np.zeros(len(ends), np.uint64)
    for place in range(10):
        long = np.flatnonzero(ends - begins[:-1] >= place)
        bits = (data[begins[long] + place] & 0x7F).astype(np.uint64)
        values[long] |= bits << np.uint64(7 * place)
    return values.view(np.int64)


def _messages(message: memoryview) -> Iterator[memoryview]:
    """The messages in field 1."""
    for number, wire, value in _fields(message):
        if number == 1 and wire == _LENGTH_DELIMITED:
            yield value


def _fields(message: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and value of each field; groups are passed over."""
    at = 0
    open_groups: list[int] = []
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if number == 0 or key >= 2**32:
            raise _Fault("not-example")
        value: Any = None
        if wire == _VARINT:
            value, at = _varint(message, at)
        elif wire == _GROUP and len(open_groups) < _MAX_DEPTH:
            open_groups.append(number)
            continue
        elif wire == _GROUP_END and open_groups and open_groups[-1] == number:
            open_groups.pop()
            continue
        elif wire in (_FIXED64, _LENGTH_DELIMITED, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
            if wire == _LENGTH_DELIMITED:
                size, at = _varint(message, at)
            value, at = message[at : at + size], at + size
            if at > len(message):
                raise _Fault("not-example")
        else:
            raise _Fault("not-example")
        if not open_groups:
            yield number, wire, value
    if open_groups:
        raise _Fault("not-example")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number at a place, of 64 bits, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at == len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), at
    raise _Fault("not-example")

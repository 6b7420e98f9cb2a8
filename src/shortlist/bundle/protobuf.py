"""A strict reader of the protobuf wire format.

It refuses what the format allows and no exporter writes (groups, unexpected fields, a
single field twice), so that any other reader reads the same values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED = {FIXED64: 8, FIXED32: 4}


class WireError(ValueError):
    """The bytes are not the expected message."""


class Field(NamedTuple):
    """A field of a message.

    Args:
        name: its name in messages.
        wires: allowed wire types.
        repeated: whether it may occur more than once.
    """

    name: str
    wires: tuple[int, ...]
    repeated: bool = False


Value = int | memoryview


def text(value: Value) -> str:
    """A string.

    Raises:
        WireError: it is not UTF-8.
    """
    try:
        return str(value, "utf-8")  # type: ignore[arg-type]
    except (UnicodeDecodeError, TypeError) as error:
        raise WireError("a name is not text") from error


def message(data: memoryview, fields: Mapping[int, Field]) -> dict[str, list[Value]]:
    """The values of all fields of a message, by name, in order.

    Args:
        data: its bytes.
        fields: the allowed fields, by number.

    Raises:
        WireError: the bytes are not such a message.
    """
    found: dict[str, list[Value]] = {field.name: [] for field in fields.values()}
    for number, wire, value in _values(data):
        field = fields.get(number)
        if field is None:
            raise WireError(f"field {number} is not expected")
        if wire not in field.wires:
            raise WireError(f"{field.name!r} is written in wire type {wire}")
        if found[field.name] and not field.repeated:
            raise WireError(f"{field.name!r} occurs twice")
        found[field.name].append(value)
    return found


def integers(values: list[Value]) -> list[int]:
    """Signed 64-bit integers of a repeated field, packed or not.

    Raises:
        WireError: bytes that are no integers.
    """
    found: list[int] = []
    for value in values:
        if isinstance(value, int):
            found.append(_signed(value))
            continue
        at = 0
        while at < len(value):
            number, at = _varint(value, at)
            found.append(_signed(number))
    return found


def _values(data: memoryview) -> Iterator[tuple[int, int, Value]]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        value: Value
        if wire == VARINT:
            value, at = _varint(data, at)
        elif wire == BYTES or wire in _FIXED:
            size, at = _varint(data, at) if wire == BYTES else (_FIXED[wire], at)
            if size > len(data) - at:
                raise WireError("it ends within a field")
            value, at = data[at : at + size], at + size
        else:
            raise WireError(f"wire type {wire} is not used")
        yield number, wire, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise WireError("it ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, at
    raise WireError("a number is longer than 64 bits")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value

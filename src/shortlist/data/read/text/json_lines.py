"""Refuses NDJSON that is nested too deep or has too many fields, before it is read."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

from shortlist.data.read.log_file import LogFile, open_bytes
from shortlist.errors import LogError

MAX_DEPTH = 64
MAX_FIELDS = 10_000
"""Different fields of all objects; each is a column of the table."""
_FIRST_LINES = 1_000
_MANY_FIELDS = 500
"""From so many on every line is looked at, not a few."""


def check_json_lines(file: LogFile) -> None:
    """Checks the depth of every line, and the fields of some.

    Raises:
        LogError: `log-json` for a line that is nested too deep, or once the objects
            have too many different fields.
    """
    fields: set[str] = set()
    with io.BufferedReader(open_bytes(file.path, file.compression), 1 << 20) as stream:
        for number, line in enumerate(stream, 1):
            if line.count(b"[") + line.count(b"{") > MAX_DEPTH and _is_deep(line):
                raise _refused(file, f"more than {MAX_DEPTH} levels", number)
            if (
                number <= _FIRST_LINES
                or number % 100 == 0
                or len(fields) > _MANY_FIELDS
                or line.count(b":") > MAX_FIELDS
            ):
                _add_fields(line, fields)
                if len(fields) > MAX_FIELDS:
                    found = f"more than {MAX_FIELDS:,} different fields"
                    raise _refused(file, found, number)


def _is_deep(line: bytes) -> bool:
    codes = np.frombuffer(line, np.uint8)
    # "[" and "{" are the codes 0x5B and 0x7B, their ends 0x5D and 0x7D.
    steps = ((codes & 0xDF) == 0x5B).astype(np.int8) - ((codes & 0xDF) == 0x5D)
    return bool(steps.cumsum().max() > MAX_DEPTH) and _depth(line) > MAX_DEPTH


def _depth(line: bytes) -> int:
    """Nesting depth of a line, up to `MAX_DEPTH + 1`; brackets in strings do not
    count."""
    depth = deepest = 0
    quoted = escaped = False
    for byte in line:
        if quoted:
            quoted = escaped or byte != 0x22
            escaped = not escaped and byte == 0x5C
        elif byte == 0x22:
            quoted = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
        if deepest > MAX_DEPTH:
            break
    return deepest


def _add_fields(line: bytes, fields: set[str]) -> None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return  # reading the file reports what is wrong
    _walk(found, "", fields)


def _walk(value: Any, place: str, fields: set[str]) -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            fields.add(f"{place}.{name}")
            if isinstance(inner, dict | list):
                _walk(inner, f"{place}.{name}", fields)
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, dict | list):
                _walk(inner, place, fields)


def _refused(file: LogFile, found: str, row: int) -> LogError:
    return LogError(
        "log-json",
        f"An event must be a flat JSON object. Found {found}. Write the fields that"
        " are needed, one object per line.",
        file=file.path,
        row=row,
    )

"""Finds the line of an event in a file, and the reason of a failed read."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterable, Iterator

import polars as pl

from shortlist.data.read.log_file import (
    LogFile,
    damaged,
    encoding_error,
    open_bytes,
    open_text,
)
from shortlist.data.read.text.lists import parse_list
from shortlist.data.read.text.plain_text import (
    is_plain_utf8,
    plain_separator,
    plain_text,
)
from shortlist.errors import LogError

_TYPED = ("parquet", "arrow", "tfrecord")


def row_of(file: LogFile, index: int) -> int | None:
    """The line or row of event `index` (from 0) in a file.

    Returns:
        The 1-based line where the event starts for text and NDJSON, where blank
        lines and the header count as lines but not as events; the 1-based row for
        Parquet, Arrow and TFRecord; `None` if the text cannot be followed that far.
    """
    return rows_of(file, [index])[0]


def rows_of(file: LogFile, events: list[int]) -> list[int | None]:
    """The same as `row_of` for many events; `events` are sorted and start from 0."""
    if file.layout in _TYPED and not file.format.unroll:
        return [event + 1 for event in events]
    found: list[int | None] = []
    with contextlib.suppress(csv.Error, OSError):
        wanted = iter(events)
        following = next(wanted, None)
        for event, line in enumerate(_event_lines(file)):
            while event == following:
                found.append(line)
                following = next(wanted, None)
            if following is None:
                break
    return found + [None] * (len(events) - len(found))


def _event_lines(file: LogFile) -> Iterator[int]:
    """The line of each event; a line of a list has as many events as elements."""
    if file.layout in _TYPED:
        lists = _typed_lists(file)
        for row, length in enumerate(lists.list.len().fill_null(0).to_list(), 1):
            yield from [row] * length
        return
    for line, fields in _records(file):
        yield from [line] * _num_events(file, fields)


def _typed_lists(file: LogFile) -> pl.Series:
    if file.layout == "parquet":
        table = pl.scan_parquet(file.path, glob=False)
    else:
        table = pl.scan_ipc(file.path, glob=False)
    return table.select(file.format.unroll[0]).collect().to_series()


def _num_events(file: LogFile, fields: list[str]) -> int:
    if file.layout == "sequences":
        return sum(map(bool, fields[1:]))
    if not file.format.unroll:
        return 1
    name = file.format.unroll[0]
    if file.layout == "ndjson":
        try:
            value = json.loads(fields[0]).get(name)
        except (ValueError, RecursionError, AttributeError):
            return 0
        if not isinstance(value, str):
            return len(value) if isinstance(value, list) else 0
    else:
        place = file.columns.index(name)
        value = fields[place] if place < len(fields) else ""
    listed = parse_list(value)
    separator = file.format.unroll_separator
    return len(listed if listed is not None else value.split(separator)) if value else 0


def blank_lines(file: LogFile) -> list[int]:
    """Row numbers, from 0 and counting every record, of the lines without content."""
    found: list[int] = []
    with contextlib.suppress(csv.Error):
        for index, (_, fields) in enumerate(_all_records(file)):
            found += [] if fields else [index]
    return found


def explain(file: LogFile, error: BaseException) -> LogError:
    """The error for a file that cannot be read, with the line if it can be found."""
    if isinstance(error, LogError):
        return error
    try:
        reason = _bad_text(file)
        if reason is None and file.layout == "ndjson":
            reason = _bad_json(file)
    except OSError as cut:
        return damaged(file.path, cut)
    return reason or damaged(file.path, error)


def extra_fields(file: LogFile) -> LogError:
    """The error for a file with more fields in a row than its header has.

    Empty fields at the end of a row do not count.
    """
    width = len(file.columns)
    row, found = None, "more"
    with contextlib.suppress(csv.Error):
        for line, fields in _records(file):
            if any(fields[width:]):
                row = line
                found = f"{len(fields)}: {file.delimiter.join(fields)[:80]!r}"
                break
    return LogError(
        "log-row-fields",
        f"Every row must have the {width} fields of the header. Found {found}. Wrap"
        f" text that contains {file.delimiter!r} in double quotes.",
        file=file.path,
        row=row,
    )


def _bad_text(file: LogFile) -> LogError | None:
    if file.layout in _TYPED:
        return None
    if is_plain_utf8(file) and not file.layout.startswith("movielens"):
        with io.BufferedReader(open_bytes(file.path, file.compression)) as stream:
            for number, line in enumerate(stream, 1):
                if not _is_utf8(line):
                    found = f"Found the bytes {_around(line)!r}."
                    return encoding_error(file.path, line, found, number)
    return _bad_quotes(file) if file.has_quotes else None


def _bad_quotes(file: LogFile) -> LogError | None:
    try:
        for _ in _records(file, strict=True):
            pass
    except csv.Error as error:
        reason, row = error.args
        return LogError(
            "log-quotes",
            "A field that starts with a double quote must end with one, and quotes"
            f" inside it must be doubled. Found: {reason}. Correct the row that"
            ' begins here, or set quote_char = "" under [log], or for an attribute'
            " file under [log.users_format] or [log.items_format], if quotes are"
            " ordinary characters.",
            file=file.path,
            row=row,
        )
    return None


def _bad_json(file: LogFile) -> LogError | None:
    kinds: dict[str, type] = {}
    for line, (text,) in _records(file):
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            return LogError(
                "log-json",
                f"Every line must hold one whole JSON object. Found {text[:80]!r}."
                " Correct or remove the line; a last line like this was cut off.",
                file=file.path,
                row=line,
            )
        for column, value in record.items():
            kind = float if type(value) is int else type(value)
            if value is not None and kinds.setdefault(column, kind) is not kind:
                return LogError(
                    "log-mixed-types",
                    f"A column must hold values of one type. Found {value!r} after"
                    f" values of type {kinds[column].__name__}. Write one type.",
                    file=file.path,
                    column=column,
                    row=line,
                )
    return None


def _records(file: LogFile, *, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
    return ((n, fields) for n, fields in _all_records(file, strict=strict) if fields)


def _all_records(
    file: LogFile, *, strict: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """The line where each record begins, and its fields; none for a blank line."""
    with open_text(file) as text:
        for _ in range(file.header_lines):
            next(text, None)
        line = file.header_lines + 1
        if not file.has_quotes:
            for line, content in enumerate(text, line):
                bare = plain_text(content, file).rstrip("\r\n")
                blank = not (bare if file.is_text else bare.strip())
                mark = plain_separator(file)
                fields = bare.split(mark) if mark else [bare]
                yield line, [] if blank else fields
            return
        held: list[str] = []  # the lines of one record
        lines = (plain_text(content, file) for content in _held(text, held))
        mark, quote = plain_separator(file), file.quote_char
        reader = csv.reader(lines, delimiter=mark, quotechar=quote, strict=strict)
        try:
            for record in reader:
                # The csv module lets a quote inside a bare field pass; Polars cannot.
                if strict and "".join(held).count(quote) % 2:
                    raise csv.Error("a quote that stands alone")
                yield line, record
                line += len(held)
                held.clear()
        except csv.Error as error:
            raise csv.Error(str(error), line) from error


def _held(lines: Iterable[str], held: list[str]) -> Iterator[str]:
    for line in lines:
        held.append(line)
        yield line


def has_quoted_field(file: LogFile) -> bool:
    """Whether a field starts with a quote, so that quotes wrap fields."""
    begin = f"{file.delimiter}{file.quote_char}"
    tail = "\n"
    with open_text(file) as stream:
        while chunk := stream.read(1 << 20):
            text = tail + chunk
            if begin in text or f"\n{file.quote_char}" in text:
                return True
            tail = text[-len(begin) :]
    return False


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _around(line: bytes) -> bytes:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        return line[max(error.start - 10, 0) : error.end + 10]
    return line[:20]


def read_failures() -> tuple[type[BaseException], ...]:
    """What Polars and PyArrow raise on a file they cannot read."""
    # A damaged file can raise any of Polars' own errors.
    return (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)

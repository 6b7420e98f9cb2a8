"""Finds the settings that are needed to read a file, for `shortlist init`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from shortlist.data.read.error_locations import extra_fields
from shortlist.data.read.file_format import FileFormat
from shortlist.data.read.layouts import compression_of, inspect_file
from shortlist.data.read.log_file import LogFile, open_bytes, open_text
from shortlist.data.read.scan import BEYOND_HEADER, check_columns, extra_values, load
from shortlist.data.read.text import sniff
from shortlist.errors import LogError

_LOOKED_AT = 4 << 20
"""Characters in which quotes are looked for."""
_BAD_LINES = 200
_FEW = 0.1
"""Share of rows with too many fields; with more of them the header is wrong."""


@dataclass
class Sample:
    """The first rows of a log or attribute file, and how they were read.

    Args:
        paths: its files.
        format: the settings that read it.
        table: the rows.
        reasons: why, by setting.
        bad_rows: rows that are to be skipped, and why.
        partial: columns that only some of the files have: a file without each, and the
            columns of that file.
    """

    paths: list[Path]
    format: FileFormat
    table: pl.DataFrame = field(default_factory=pl.DataFrame)
    reasons: dict[str, str] = field(default_factory=dict)
    bad_rows: list[str] = field(default_factory=list)
    partial: dict[str, tuple[Path, list[str]]] = field(default_factory=dict)

    def set(self, name: str, value: object, reason: str) -> None:
        """Changes a setting."""
        changed: dict[str, object] = {name: value}
        self.format = replace(self.format, **changed)  # type: ignore[arg-type]
        self.reasons[name] = reason

    @property
    def layout(self) -> str:
        """The layout of the first file."""
        return str(inspect_file(self.paths[0], self.format).layout)

    def read(self, num_rows: int | None) -> None:
        """Reads the rows again, with the settings as they are.

        Args:
            num_rows: of all files together, or `None` for all rows.
        """
        each = None if num_rows is None else max(num_rows // len(self.paths), 1_000)
        self.bad_rows = []
        tables = [self._read_file(path, each) for path in self.paths]
        self.partial = {
            name: (path, table.columns)
            for path, table in zip(self.paths, tables, strict=True)
            for name in {n for other in tables for n in other.columns if n}
            if name not in table.columns
        }
        tables = [
            table.select(n for n in table.columns if n not in self.partial)
            for table in tables
        ]
        if not all(table.width for table in tables):
            self.check_in_all_files(self.partial)
        self.table = pl.concat(tables, how="diagonal_relaxed")
        if self.table.is_empty():
            raise LogError(
                "log-empty",
                "A log needs a header and events. Found no row below the header."
                " Check the export that wrote it.",
                file=self.paths[0],
            )

    def check_in_all_files(self, names: Iterable[str]) -> None:
        """Raises `LogError` (`log-column-missing`) for a column that a file lacks."""
        for name in names:
            if name in self.partial:
                path, found = self.partial[name]
                check_columns([name], found, inspect_file(path, self.format))

    def _read_file(self, path: Path, num_rows: int | None) -> pl.DataFrame:
        """Reads a file without the few rows that have too many fields."""
        file = inspect_file(path, self.format)
        table = load(file, None, (), num_rows, beyond=True)
        extra = extra_values(table)
        if extra is None:
            return table
        number = len(extra) - extra.null_count()
        if number > _FEW * len(table):
            raise extra_fields(file)
        rows = "1 row has" if number == 1 else f"{number:,} rows have"
        self.bad_rows.append(f"{rows} too many fields in {path.name}.")
        return table.filter(extra.is_null()).drop(*BEYOND_HEADER)


def read_sample(
    paths: Sequence[Path], given: FileFormat, num_rows: int | None
) -> Sample:
    """Reads the first rows of a log, and finds the settings it needs.

    Args:
        paths: its files.
        given: settings that are known.
        num_rows: of all files together, or `None` for all rows.

    Raises:
        LogError: it cannot be read.
    """
    sample = Sample(list(paths), given)
    for _ in range(4):  # one setting after the other
        try:
            for path in sample.paths:
                _look(sample, path)
            sample.read(num_rows)
            return sample
        except LogError as error:
            if not _repaired(sample, error):
                raise
    sample.read(num_rows)
    return sample


def _look(sample: Sample, path: Path) -> None:
    """Adds settings without which a file would be read wrongly."""
    file = inspect_file(path, sample.format)
    if file.delimiter in (" ", "::") and file.has_width and not sample.format.separator:
        name = "blanks" if file.delimiter == " " else "'::'"
        sample.set("separator", file.delimiter, f"Fields have {name} between them.")
        file = inspect_file(path, sample.format)
    if file.has_quotes and sample.format.quote_char is None and _are_bare(file):
        reason = "Fields start with quotes that do not end them."
        sample.set("quote_char", "", reason)


def _repaired(sample: Sample, error: LogError) -> bool:
    """Adds a setting that avoids an error; returns whether there is one."""
    path, given = Path(error.file or sample.paths[0]), sample.format
    if error.code == "log-encoding" and given.encoding is None:
        foreign = _foreign_bytes(path)
        encoding = sniff.guess_encoding(foreign) if foreign else None
        if encoding is None:
            return False
        reason = "It is not UTF-8: check letters beyond ASCII."
        sample.set("encoding", encoding, reason)
        return True
    if error.code == "log-quotes" and given.quote_char is None:
        sample.set("quote_char", "", "Its quotes are not those of CSV.")
        return True
    if error.code not in ("log-no-header", "log-delimiter") or given.layout:
        return False
    if given.has_header is not None or given.column_names:
        return False
    head = _head(path, given)
    if mark := sniff.are_sequences(head, complete=len(head) < _LOOKED_AT):
        sample.set("layout", "sequences", "A line holds a user and all of its items.")
        sample.set("separator", mark, f"Fields have {mark!r} between them.")
        return True
    if error.code == "log-no-header":
        reason = "The first line is data like the others."
        sample.set("has_header", False, reason)
        return True
    return False


def _foreign_bytes(path: Path) -> bytes:
    """Some lines of a file that are not UTF-8."""
    packed = compression_of(path)
    with io.BufferedReader(open_bytes(path, packed)) as stream:
        start = stream.peek(4)[:4]
        if start[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\x00" in stream.peek(64)[:64]:
            return stream.read(1 << 16)
        found: list[bytes] = []
        good = 0
        for line in stream:
            if line.isascii():
                continue
            if sniff.head_is_utf8(line) is None:
                good += 1
                continue
            found.append(line)
            if len(found) == _BAD_LINES:
                break
    # Most lines are UTF-8, so the other lines are damaged.
    return b"" if good > len(found) else b"".join(found)


def _head(path: Path, given: FileFormat) -> str:
    file = inspect_file(path, replace(given, layout="sequences", separator=None))
    return _text(file)


def _text(file: LogFile) -> str:
    with open_text(file) as stream:
        return stream.read(_LOOKED_AT)


def _are_bare(file: LogFile) -> bool:
    """Whether quotes at the start of fields are ordinary characters.

    They are if fields violate the rules of CSV or would span several lines, and if
    without them every line has the same number of fields.
    """
    quote = file.quote_char
    if quote.encode() not in file.head and file.is_whole:
        return False
    text = _text(file)
    if quote not in text:
        return False
    if len(file.delimiter) > 1:
        return False
    lines = text.splitlines()[: -1 if len(text) == _LOOKED_AT else None]
    try:
        rows = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=file.delimiter,
            quotechar=quote,
            strict=True,
        )
        odd = any("\n" in field for row in rows for field in row)
    except csv.Error:
        odd = True
    widths = {line.count(file.delimiter) for line in lines if line.strip()}
    return odd and len(widths) == 1

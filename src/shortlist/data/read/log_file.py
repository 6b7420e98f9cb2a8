"""A file of a log, and how it is stored."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NoReturn, get_args

import pyarrow as pa

from shortlist.data.read.file_format import SECTIONS, FileFormat
from shortlist.data.read.text import sniff
from shortlist.errors import LogError

Layout = Literal[
    "csv",
    "tsv",
    "movielens-dat",
    "movielens-100k",
    "sequences",
    "parquet",
    "ndjson",
    "arrow",
    "tfrecord",
]
LAYOUTS: tuple[str, ...] = get_args(Layout)

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
HEAD_BYTES = 1 << 18
"""How many bytes at the start of a file decide its layout."""


@dataclass(frozen=True, kw_only=True)
class LogFile:
    """One readable file and how it is stored.

    Args:
        path: where it is.
        layout: one of `LAYOUTS`.
        compression: `gzip` (zlib too), `zstd` or `None`, detected from the first bytes.
        head: the first bytes, uncompressed; those of a text in UTF-8.
        columns: names as the header, the settings or the layout give them; empty for
            the typed layouts (Parquet, NDJSON, Arrow, TFRecord), which carry their own
            schema.
        delimiter: between the fields of a text layout.
        header_lines: lines up to and including the header; 0 without a header.
        quote_char: what fields can be wrapped in; "" for nothing.
        padded: whether fields start with blanks that do not belong to them.
        format: the settings it was opened with.
    """

    path: Path
    layout: Layout
    compression: str | None
    head: bytes
    columns: tuple[str, ...] = ()
    delimiter: str = ""
    header_lines: int = 0
    quote_char: str = ""
    padded: bool = False
    format: FileFormat = field(default_factory=FileFormat)

    @property
    def is_text(self) -> bool:
        """Whether every value is text until it is read as something else."""
        return bool(self.columns)

    @property
    def has_quotes(self) -> bool:
        """Whether fields can be wrapped in quotes."""
        return bool(self.quote_char)

    @property
    def has_width(self) -> bool:
        """Whether every row should have as many fields as there are columns."""
        return self.layout in ("csv", "tsv")

    @property
    def has_blank_lines(self) -> bool:
        """Whether a blank line is read as a row without any value."""
        return self.is_text and not (self.layout == "sequences" or self.format.unroll)

    @property
    def is_whole(self) -> bool:
        """Whether `head` is all of the file."""
        return len(self.head) < HEAD_BYTES


def open_bytes(path: Path, compression: str | None) -> pa.NativeFile:
    """Opens a file for reading its uncompressed bytes."""
    return pa.input_stream(str(path), compression=compression)


def open_text(file: LogFile) -> io.TextIOWrapper:
    """Opens a text file for reading its lines, with their line ends.

    Invalid bytes are replaced.
    """
    raw = io.BufferedReader(open_bytes(file.path, file.compression))
    encoding = file.format.encoding or "utf-8-sig"
    return io.TextIOWrapper(raw, encoding, errors="replace", newline="")


def damaged(path: Path, error: BaseException | str, row: int | None = None) -> LogError:
    """The error for a file that is incomplete or violates its format."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason"
    return LogError(
        "log-file-damaged",
        f"The file is damaged or incomplete: {reason}. It was probably cut off"
        " while being copied or written. Fetch or export it again.",
        file=path,
        row=row,
    )


def encoding_error(
    path: Path, raw: bytes, found: str, row: int | None, encoding: str = "UTF-8"
) -> LogError:
    """The error for text in another encoding, with the setting that reads it.

    Args:
        path: the file.
        raw: bytes that are not of the encoding.
        found: what was found, a sentence.
        row: where.
        encoding: what the text should be.
    """
    likely = sniff.guess_encoding(raw)
    setting = f'encoding = "{likely}"' if likely else 'encoding = "..."'
    unsure = "" if likely else ' (such as "gb18030", "shift_jis", "euc-kr" or "cp1251")'
    return LogError(
        "log-encoding",
        f"Text must be {encoding}. {found} Save the file as UTF-8, or set"
        f" {setting}{unsure} under {SECTIONS}.",
        file=path,
        row=row,
    )


def refuse_format(path: Path, found: str, fix: str) -> NoReturn:
    """Raises the error for content of an unknown layout."""
    raise LogError(
        "log-format",
        "A log must be CSV, TSV, NDJSON (plain, .gz or .zst), a MovieLens file,"
        f" Parquet, Arrow or TFRecord. Found {found}. {fix}",
        file=path,
    )

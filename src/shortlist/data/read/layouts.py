"""Detects how a log is stored: layout, compression, separator, column names.

The layout is detected from the content of a file, because names such as `ratings.csv`
are often wrong about the separator.
"""

from __future__ import annotations

import codecs
import re
import zlib
from pathlib import Path
from typing import cast

from shortlist.data.kernels.tfrecord import is_tfrecord
from shortlist.data.read.file_format import FileFormat, as_format
from shortlist.data.read.log_file import (
    BYTE_ORDER_MARK,
    HEAD_BYTES,
    LAYOUTS,
    Layout,
    LogFile,
    damaged,
    encoding_error,
    open_bytes,
    refuse_format,
)
from shortlist.data.read.text import sniff
from shortlist.data.read.text.layouts import (
    HEADERLESS,
    LEAVE_OUT,
    delimited_text,
    movielens_text,
    sequences_text,
)
from shortlist.errors import LogError, did_you_mean
from shortlist.reading import open_log

# Compressed bytes that are enough for the first bytes of the content.
_PACKED_HEAD_BYTES = 1 << 12
_LINES = 50
"""How many lines must look like a MovieLens log."""
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_MAGIC = {b"PAR1": "parquet", b"ARRO": "arrow", b"\xff\xff\xff\xff": "arrow"}


def inspect_file(path: str | Path, layout: str | FileFormat | None = None) -> LogFile:
    """Detects the layout of a file from its first bytes.

    Args:
        path: a file, plain or compressed with gzip or Zstandard.
        layout: one of `LAYOUTS`, a `FileFormat`, or `None` to detect the
            layout from the content.

    Raises:
        LogError: the file is missing, a directory, unreadable, empty, damaged or of
            no known layout, or its header has no, numeric or repeated names.
    """
    given = as_format(layout)
    if given.layout is not None and given.layout not in LAYOUTS:
        raise LogError(
            "log-layout-unknown",
            f"The layout must be one of {', '.join(LAYOUTS)}. Received:"
            f" {given.layout!r}.{did_you_mean(given.layout, LAYOUTS)} Omit it to"
            " detect the layout.",
            file=path,
        )
    path = Path(path)
    compression = compression_of(path)
    raw = _read_head(path, compression)
    head = raw if given.encoding is None else _decoded(raw, given.encoding)
    if not head.removeprefix(BYTE_ORDER_MARK).strip():
        raise LogError(
            "log-empty",
            "A log needs a header and events. The file is empty. Check the export"
            " that wrote it.",
            file=path,
        )
    found = cast(Layout, given.layout or _content_layout(path, head, given))
    file = LogFile(
        path=path, layout=found, compression=compression, head=head, format=given
    )
    if found in ("parquet", "arrow", "ndjson", "tfrecord"):
        _check_typed(path, found, head, compression)
        return file
    _check_text(path, head)
    if not found.startswith("movielens"):
        _check_encoding(path, head)
        _check_first_line(path, head)
    text = head.decode("utf-8-sig", errors="replace")
    if found == "sequences":
        return sequences_text(file, text)
    return (movielens_text if found.startswith("movielens") else delimited_text)(
        file, text
    )


def _decoded(raw: bytes, encoding: str) -> bytes:
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    return decoder.decode(raw).removeprefix("\ufeff").encode()


def compression_of(path: Path) -> str | None:
    """The compression of a file: `gzip`, `zstd` or `None`.

    Raises:
        LogError: it is missing, empty, no regular file or may not be read.
    """
    with open_log(path) as stream:
        # Files in /proc report a size of 0, and reading them may never return.
        magic = stream.read(_PACKED_HEAD_BYTES) if path.stat().st_size else b""
    if not magic:
        raise LogError(
            "log-empty",
            "A log needs a header and events. The file is empty. Check the export"
            " that wrote it.",
            file=path,
        )
    if magic.startswith(b"\x1f\x8b"):
        return "gzip"
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return "zstd"
    return "gzip" if _holds_zlib_records(magic) else None


def _holds_zlib_records(head: bytes) -> bool:
    """TensorFlow also compresses TFRecord with zlib, which has no magic number."""
    try:
        return is_tfrecord(zlib.decompressobj().decompress(head, 12))
    except zlib.error:
        return False


def _read_head(path: Path, compression: str | None) -> bytes:
    try:
        with open_bytes(path, compression) as stream:
            return bytes(stream.read(HEAD_BYTES))
    except OSError as error:
        raise damaged(path, error) from error


def _content_layout(path: Path, head: bytes, given: FileFormat) -> str:
    if head[:4] in _MAGIC:
        return _MAGIC[head[:4]]
    if is_tfrecord(head):
        return "tfrecord"
    start = head.removeprefix(BYTE_ORDER_MARK).lstrip()
    if start.startswith(b"{"):
        return "ndjson"
    if start.startswith(b"["):
        refuse_format(path, "a JSON array", "Write one object per line.")
    _check_text(path, head)
    if given.separator or given.column_names or given.has_header is not None:
        return "csv"
    line, *more = start.decode("utf-8", errors="replace").splitlines()[:_LINES]
    fields, dat = line.split("\t"), line.split("::")
    numbers = all(field.isdigit() for field in dat)
    known = ("movielens-dat", len(dat)) in HEADERLESS and not (
        numbers and len(dat) == 3  # titles are no numbers
    )
    if known and dat[0].isdigit():
        return "movielens-dat"
    # Lines of a user and of items may start with four numbers as well.
    even = all(other.count("\t") == 3 for other in more[:-1] if other.strip())
    if len(fields) == 4 and all(map(str.isdigit, fields)) and even:
        return "movielens-100k"
    bars = line.split("|")
    is_item = len(bars) == 24 and bars[0].isdigit() and set(bars[5:]) <= {"0", "1"}
    if is_item or (len(bars) == 5 and bars[0].isdigit() and bars[2] in ("M", "F")):
        return "movielens-100k"
    return "csv"


def _check_typed(path: Path, layout: str, head: bytes, packed: str | None) -> None:
    if layout == "tfrecord":
        return  # its reader reports bad records
    if layout != "ndjson" and packed:
        refuse_format(path, f"{layout} inside {packed}", "Unpack it first.")
    if layout != "ndjson" and _MAGIC.get(head[:4]) != layout:
        refuse_format(path, f"no {layout}", LEAVE_OUT)
    if layout == "ndjson":
        _check_text(path, head)


def _check_text(path: Path, head: bytes) -> None:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise encoding_error(path, head, "The file starts like UTF-16.", 1)
    if head[:4] in _MAGIC:
        refuse_format(path, _MAGIC[head[:4]], LEAVE_OUT)
    if b"\x00" in head and (sniff.guess_encoding(head) or "").startswith("utf-16"):
        raise encoding_error(path, head, "The file looks like UTF-16.", 1)
    if _CONTROL.search(head):
        refuse_format(path, "binary data", "Unpack or convert it to one of these.")
    if b"\r" in head and b"\n" not in head and len(head.split(b"\r")) > 2:
        refuse_format(path, "lone carriage returns", "Write \\n as the line end.")


def _check_encoding(path: Path, head: bytes) -> None:
    bad = sniff.head_is_utf8(head)
    if bad is not None:
        row = head.count(b"\n", 0, bad) + 1
        around = head[max(bad - 10, 0) : bad + 10]
        raise encoding_error(path, head, f"Found the bytes {around!r}.", row)


def _check_first_line(path: Path, head: bytes) -> None:
    if len(head) >= HEAD_BYTES and b"\n" not in head:
        refuse_format(
            path,
            f"a first line of more than {len(head):,} bytes",
            "Write a line end after every event.",
        )

"""How the bytes of a log are laid out: layout, compression, delimiter, column names.

Knows the first kilobytes of a file, not its events. A layout is told from what a file
holds, because names such as `ratings.csv` are often wrong about their delimiter.
"""

from __future__ import annotations

import csv
import io
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NoReturn, cast, get_args

import pyarrow as pa

from shortlist.data.tfrecord.kernels import is_tfrecord
from shortlist.errors import LogError, did_you_mean

Layout = Literal[
    "csv",
    "tsv",
    "movielens-dat",
    "movielens-100k",
    "parquet",
    "ndjson",
    "arrow",
    "tfrecord",
]
LAYOUTS: tuple[str, ...] = get_args(Layout)

# The official order of the 19 flags of `u.item` and of the `genres` text.
GENRES = (
    "unknown,Action,Adventure,Animation,Children's,Comedy,Crime,Documentary,Drama,"
    "Fantasy,Film-Noir,Horror,Musical,Mystery,Romance,Sci-Fi,Thriller,War,Western"
).split(",")

_RATINGS = ("user_id", "item_id", "rating", "timestamp")
_ITEMS_100K = ("item_id", "title", "release_date", "video_release_date", "imdb_url")
# Columns of the files without a header, by layout and number of fields.
_HEADERLESS: dict[tuple[str, int], tuple[str, ...]] = {
    ("movielens-dat", 4): _RATINGS,
    ("movielens-dat", 3): ("item_id", "title", "genres"),
    ("movielens-dat", 5): ("user_id", "gender", "age", "occupation", "zip_code"),
    ("movielens-100k", 4): _RATINGS,
    ("movielens-100k", 5): ("user_id", "age", "gender", "occupation", "zip_code"),
    ("movielens-100k", 24): (*_ITEMS_100K, *GENRES),
}

_HEAD_BYTES = 1 << 18
# Packed bytes that give the first few of the content for sure.
_PACKED_HEAD_BYTES = 1 << 12
_SNIFFED_RECORDS = 200
_LEAVE_OUT = "Leave the layout out to have it recognized."
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_MAGIC = {b"PAR1": "parquet", b"ARRO": "arrow", b"\xff\xff\xff\xff": "arrow"}


@dataclass(frozen=True, kw_only=True)
class LogFile:
    """One readable file and how its bytes are laid out.

    Args:
        path: where it is.
        layout: one of `LAYOUTS`.
        compression: `gzip` (zlib too), `zstd` or `None`, told from the first bytes.
        head: the first bytes, uncompressed.
        columns: names as the header or the layout gives them; empty for the typed
            layouts (Parquet, NDJSON, Arrow, TFRecord), which carry their own schema.
        delimiter: between the fields of a text layout.
        header_lines: lines up to and including the header; 0 without a header.
        has_quotes: whether fields can be wrapped in double quotes.
    """

    path: Path
    layout: Layout
    compression: str | None
    head: bytes
    columns: tuple[str, ...] = ()
    delimiter: str = ""
    header_lines: int = 0
    has_quotes: bool = False

    @property
    def is_text(self) -> bool:
        """Whether every value is text until it is read as something else."""
        return bool(self.columns)


def inspect_file(path: str | Path, layout: str | None = None) -> LogFile:
    """Finds out how a file is laid out from its first bytes.

    Args:
        path: a file, plain or compressed with gzip or Zstandard.
        layout: one of `LAYOUTS`, or `None` to tell it from the content.

    Raises:
        LogError: the file is missing, a directory, unreadable, empty, damaged or of
            no known layout, or its header has no, numeric or repeated names.
    """
    if layout is not None and layout not in LAYOUTS:
        raise LogError(
            "log-layout-unknown",
            f"The layout must be one of {', '.join(LAYOUTS)}. Received: {layout!r}."
            f"{did_you_mean(layout, LAYOUTS)} Leave it out to have it recognized.",
            file=path,
        )
    path = Path(path)
    compression = _compression(path)
    head = _read_head(path, compression)
    if not head.removeprefix(BYTE_ORDER_MARK).strip():
        raise LogError(
            "log-empty",
            "A log must hold a header and events. The file is empty. Check the"
            " export that wrote it.",
            file=path,
        )
    found = cast(Layout, layout or _content_layout(path, head))
    if found in ("parquet", "arrow", "ndjson", "tfrecord"):
        _check_typed(path, found, head, compression)
        return LogFile(path=path, layout=found, compression=compression, head=head)
    _check_text(path, head)
    shape = _headerless if found.startswith("movielens") else _with_header
    text = head.decode("utf-8-sig", errors="replace")
    return shape(
        LogFile(path=path, layout=found, compression=compression, head=head), text
    )


def open_bytes(path: Path, compression: str | None) -> pa.NativeFile:
    """Opens a file for reading its uncompressed bytes."""
    return pa.input_stream(str(path), compression=compression)


def _compression(path: Path) -> str | None:
    if not path.exists():
        raise LogError(
            "log-file-missing",
            f"The file must exist. Found nothing at {str(path)!r}. Check the path;"
            " it is relative to the current directory unless it starts with '/'.",
            file=path,
        )
    if not path.is_file():
        raise LogError(
            "log-file-directory",
            "A log must be a file. Received a directory or device. Name the file"
            " inside it, or list several files.",
            file=path,
        )
    try:
        with path.open("rb") as stream:
            magic = stream.read(_PACKED_HEAD_BYTES)
    except OSError as error:
        raise LogError(
            "log-file-unreadable",
            f"You must be allowed to read the file. The system said: {error.strerror}."
            " Change its permissions.",
            file=path,
        ) from error
    if magic.startswith(b"\x1f\x8b"):
        return "gzip"
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return "zstd"
    return "gzip" if _holds_zlib_records(magic) else None


def _holds_zlib_records(head: bytes) -> bool:
    """TensorFlow packs TFRecord with zlib too, which has no magic number."""
    try:
        return is_tfrecord(zlib.decompressobj().decompress(head, 12))
    except zlib.error:
        return False


def _read_head(path: Path, compression: str | None) -> bytes:
    try:
        with open_bytes(path, compression) as stream:
            return bytes(stream.read(_HEAD_BYTES))
    except OSError as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: BaseException | str, row: int | None = None) -> LogError:
    """The error for a file that breaks off or does not follow its own format."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason"
    return LogError(
        "log-file-damaged",
        f"The file must be complete. Reading it stopped with: {reason}. It was"
        " probably cut off while being copied or written; fetch or export it again.",
        file=path,
        row=row,
    )


def _content_layout(path: Path, head: bytes) -> str:
    if head[:4] in _MAGIC:
        return _MAGIC[head[:4]]
    if is_tfrecord(head):
        return "tfrecord"
    start = head.removeprefix(BYTE_ORDER_MARK).lstrip()
    if start.startswith(b"{"):
        return "ndjson"
    if start.startswith(b"["):
        _refuse_format(path, "a JSON array", "Write one object per line.")
    _check_text(path, head)
    line = start.decode("utf-8", errors="replace").splitlines()[0]
    fields, dat = line.split("\t"), line.split("::")
    if ("movielens-dat", len(dat)) in _HEADERLESS and dat[0].isdigit():
        return "movielens-dat"
    if len(fields) == 4 and all(field.isdigit() for field in fields):
        return "movielens-100k"
    bars = line.split("|")
    is_item = len(bars) == 24 and bars[0].isdigit() and set(bars[5:]) <= {"0", "1"}
    if is_item or (len(bars) == 5 and bars[0].isdigit() and bars[2] in ("M", "F")):
        return "movielens-100k"
    return "csv"


def _check_typed(path: Path, layout: str, head: bytes, packed: str | None) -> None:
    if layout == "tfrecord":
        return  # its reader names the record that is none
    if layout != "ndjson" and packed:
        _refuse_format(path, f"{layout} inside {packed}", "Unpack it first.")
    if layout != "ndjson" and _MAGIC.get(head[:4]) != layout:
        _refuse_format(path, f"no {layout}", _LEAVE_OUT)
    if layout == "ndjson":
        _check_text(path, head)


def _check_text(path: Path, head: bytes) -> None:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise LogError(
            "log-encoding",
            "Text must be UTF-8. The file starts like UTF-16. Save it as UTF-8.",
            file=path,
            row=1,
        )
    if head[:4] in _MAGIC:
        _refuse_format(path, _MAGIC[head[:4]], _LEAVE_OUT)
    if _CONTROL.search(head):
        _refuse_format(path, "binary data", "Unpack or convert it to one of these.")
    if b"\r" in head and b"\n" not in head and len(head.split(b"\r")) > 2:
        _refuse_format(path, "lone carriage returns", "Write \\n as the line end.")


def _refuse_format(path: Path, found: str, fix: str) -> NoReturn:
    raise LogError(
        "log-format",
        "A log must be CSV, TSV, NDJSON (plain, .gz or .zst), a MovieLens file,"
        f" Parquet, Arrow or TFRecord. Found {found}. {fix}",
        file=path,
    )


def _headerless(file: LogFile, text: str) -> LogFile:
    line = next(line for line in text.splitlines() if line.strip())
    marks = ["::"] if file.layout == "movielens-dat" else ["\t", "|"]
    for mark in marks:
        columns = _HEADERLESS.get((file.layout, len(line.split(mark))))
        if columns:
            return replace(file, delimiter=mark, columns=columns)
    counts = sorted(count for name, count in _HEADERLESS if name == file.layout)
    _refuse_format(
        file.path,
        f"a first line without {' or '.join(map(repr, marks))} between"
        f" {counts} fields, so not the layout {file.layout!r}",
        _LEAVE_OUT,
    )


def _with_header(file: LogFile, text: str) -> LogFile:
    complete = len(file.head) < _HEAD_BYTES
    best: tuple[float, int, str] = (0.0, 1, "")
    # Ties go to the earlier delimiter, tab first: it is rare inside values.
    for mark in "\t" if file.layout == "tsv" else "\t,;|":
        records = _first_records(text, mark, complete=complete)
        width = len(records[0]) if records else 0
        same = sum(len(record) == width for record in records)
        score = (same / max(len(records), 1), width)
        if width > 1 and score > best[:2]:
            best = (*score, mark)
    if not best[2]:
        marks = "a tab" if file.layout == "tsv" else "one of , ; | or a tab"
        raise LogError(
            "log-delimiter",
            f"The first line must be a header of two or more columns with {marks}"
            f" between them. Found: {text.split(chr(10))[0][:80]!r}. Name the layout,"
            " or write the file with a header and one of these delimiters.",
            file=file.path,
            row=1,
        )
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=best[2])
    columns = tuple(next(record for record in reader if record))
    _check_header(file.path, columns, reader.line_num)
    return replace(
        file,
        layout="tsv" if best[2] == "\t" else "csv",
        delimiter=best[2],
        columns=columns,
        header_lines=reader.line_num,
        has_quotes=True,
    )


def _first_records(text: str, mark: str, *, complete: bool) -> list[list[str]]:
    records: list[list[str]] = []
    try:
        for record in csv.reader(io.StringIO(text, newline=""), delimiter=mark):
            records += [record] if record else []
            if len(records) == _SNIFFED_RECORDS:
                return records
    except csv.Error:
        return records
    # The last record of a cut head is cut as well.
    return records if complete or len(records) < 2 else records[:-1]


def _check_header(path: Path, columns: Sequence[str], row: int) -> None:
    if all(_is_number(name) for name in columns):
        raise LogError(
            "log-no-header",
            "The first line must name the columns. Found only numbers:"
            f" {list(columns)}. Add a header line such as 'user_id,item_id,rating'.",
            file=path,
            row=row,
        )
    for name in columns:
        if columns.count(name) > 1:
            raise LogError(
                "log-column-duplicated",
                f"Column names must differ. Found {name!r} {columns.count(name)}"
                f" times among {list(columns)}. Rename or drop one of them.",
                file=path,
                column=name,
                row=row,
            )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

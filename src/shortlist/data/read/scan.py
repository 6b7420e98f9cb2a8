"""Reads files of any supported layout.

    read_table        a file with all its columns, as it is
    scan              a file as a lazy frame, for `data/read/blocks.py`

Files are read column by column through Polars' streaming engine. Text stays text
unless every value of a column is a number written the usual way, so the id `007` is
not the id `7`.
"""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from shortlist.data.read.error_locations import (
    blank_lines,
    explain,
    extra_fields,
    has_quoted_field,
    read_failures,
)
from shortlist.data.read.file_format import FileFormat
from shortlist.data.read.layouts import inspect_file
from shortlist.data.read.log_file import BYTE_ORDER_MARK, LogFile, open_bytes
from shortlist.data.read.text.json_lines import check_json_lines
from shortlist.data.read.text.layouts import GENRES
from shortlist.data.read.text.plain_text import plain_separator, plain_source
from shortlist.data.read.tfrecord.tables import read_tfrecord
from shortlist.data.read.unroll import sequence_events, unrolled
from shortlist.errors import LogError, did_you_mean

# Fields beyond the header that are looked at; each costs a little in every row.
BEYOND_HEADER = tuple(f"\x00extra{number}" for number in range(4))
SAMPLED_ROWS = 500
"""Rows from which the kind of a text column is guessed."""


def read_table(
    path: str | Path,
    *,
    layout: str | FileFormat | None = None,
    columns: Sequence[str] | None = None,
    exact: Collection[str] = (),
    num_rows: int | None = None,
) -> pl.DataFrame:
    """Reads a file as it is, in file order.

    Columns of text layouts become Int64 or Float64 if all their values are numbers
    written the usual way (no leading zeros or plus sign), else they stay String.

    Args:
        path: CSV, TSV, NDJSON (plain, gzip or Zstandard), a MovieLens file, Parquet,
            Arrow or TFRecord.
        layout: one of `LAYOUTS`, a `FileFormat`, or `None` to recognize it.
        columns: the columns wanted, or `None` for all.
        exact: columns of ids: never Float64, whose text is not unique.
        num_rows: read only so many rows from the start.

    Raises:
        LogError: the file cannot be read or a column is missing.
    """
    return load(inspect_file(path, layout), columns, exact, num_rows)


def load(
    file: LogFile,
    columns: Sequence[str] | None,
    exact: Collection[str],
    num_rows: int | None = None,
    *,
    beyond: bool = False,
) -> pl.DataFrame:
    """Reads a file; see `read_table`.

    Args:
        file: the file.
        columns: the columns wanted, or `None` for all.
        exact: columns of ids.
        num_rows: read only so many rows from the start.
        beyond: give `BEYOND_HEADER` too where a row has more fields than the header,
            instead of raising.
    """
    lazy, names = scan(file)
    wanted = names if columns is None else list(columns)
    check_columns(wanted, names, file)
    lazy = lazy if num_rows is None else lazy.head(num_rows)
    with readable(file):
        if not file.is_text:
            return lazy.select(wanted).collect(engine="streaming")
        try:
            return _load_text(file, lazy, wanted, exact, beyond)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            if not has_stray_quotes(file):
                raise
    unquoted = replace(file, quote_char="")
    return load(unquoted, columns, exact, num_rows, beyond=beyond)


def _load_text(
    file: LogFile,
    lazy: pl.LazyFrame,
    columns: list[str],
    exact: Collection[str],
    beyond: bool,
) -> pl.DataFrame:
    """Parses numbers while streaming if the head has them, else afterwards."""
    sample = lazy.select(columns).head(SAMPLED_ROWS).collect(engine="streaming")
    kinds = {name: narrow(sample[name], name in exact).dtype for name in columns}
    whole = {name for name in exact if name in kinds and _is_whole(sample[name])}
    casts = [as_kind(name, kind, name in whole) for name, kind in kinds.items()]
    extra = list(BEYOND_HEADER) if file.has_width else []
    frame = lazy.select(*casts, *extra).collect(engine="streaming")
    if extra_values(frame) is None:
        extra = []
    elif not beyond:
        raise extra_fields(file)
    frame = frame.select(*columns, *extra)
    doubtful = [name for name in columns if frame[name].null_count()]
    if doubtful:
        texts = lazy.select(doubtful).collect(engine="streaming")
        again = [narrow(texts[name], name in exact) for name in doubtful]
        frame = frame.with_columns(again)
    return _without_blank_lines(frame, file)


def narrow(text: pl.Series, exact: bool) -> pl.Series:
    """Int64 or Float64 if nothing is lost, else the text."""
    filled = text.to_frame().select(
        pl.when(pl.col(text.name).str.len_bytes() > 0).then(pl.col(text.name))
    )
    nulls = filled.to_series().null_count()
    whole = exact and _is_whole(text)
    for kind in (pl.Int64,) if exact else (pl.Int64, pl.Float64):
        numbers = filled.select(as_kind(text.name, kind(), whole)).to_series()
        if nulls < len(text) and numbers.null_count() == nulls:
            return numbers
    return text


def _is_whole(text: pl.Series) -> bool:
    """Whether integers are written as 7.0, as pandas does if a value is missing."""
    return bool(text.str.contains(r"^-?\d+\.0$").any())


def as_kind(name: str, kind: pl.DataType, whole: bool = False) -> pl.Expr:
    """Text as `kind`, null where the conversion would change it: '007', '+7' or '-0'.

    Args:
        name: the column.
        kind: the type to convert to.
        whole: '7.0' is 7.
    """
    text = pl.col(name)
    if kind == pl.String:
        return text
    if whole:
        text = text.str.replace(r"\.0$", "")
    number = text.cast(kind, strict=False)
    if kind == pl.Int64:
        padded = text.str.starts_with("0") & (text.str.len_bytes() > 1)
        odd = padded | text.str.starts_with("-0") | text.str.starts_with("+")
    else:
        # Beyond 17 digits an integer is not what a float says.
        odd = text.str.contains(r"^(\+|-?0\d|-0$|-?\d{17,}$)") | ~number.is_finite()
    return pl.when(~odd).then(number).alias(name)


def _without_blank_lines(frame: pl.DataFrame, file: LogFile) -> pl.DataFrame:
    if not file.has_blank_lines:
        return frame
    blank = frame.select(pl.all_horizontal(pl.all().is_null())).to_series()
    if not blank.any():
        return frame
    lines = [index for index in blank_lines(file) if index < len(frame)]
    keep = pl.repeat(True, len(frame), eager=True).scatter(lines, False)
    return frame.filter(keep)


def scan(file: LogFile) -> tuple[pl.LazyFrame, list[str]]:
    """The file as a lazy frame, text layouts all String, and the names of its columns.

    A text layout with fields has the columns `BEYOND_HEADER` more.
    """
    with readable(file):
        lazy = unrolled(_with_missing(_scan(file), file), file)
        return lazy, [n for n in lazy.collect_schema() if n not in BEYOND_HEADER]


def _with_missing(lazy: pl.LazyFrame, file: LogFile) -> pl.LazyFrame:
    """Replaces the texts that mean a missing value by null."""
    missing = file.format.null_values
    if not missing:
        return lazy
    texts = [n for n, dtype in lazy.collect_schema().items() if dtype == pl.String]
    known = [~pl.col(name).is_in(list(missing)) for name in texts]
    return lazy.with_columns(
        pl.when(is_known).then(pl.col(name)).alias(name)
        for name, is_known in zip(texts, known, strict=True)
    )


def extra_values(frame: pl.DataFrame) -> pl.Series | None:
    """The first field of each row with content beyond the header, if any row has one.

    Empty fields beyond the header are ignored: some exports end every line with
    delimiters.
    """
    names = [name for name in BEYOND_HEADER if name in frame.columns]
    if all(frame[name].null_count() == len(frame) for name in names):
        return None
    filled = [pl.when(pl.col(name) != "").then(pl.col(name)) for name in names]
    found = frame.select(pl.coalesce(filled).alias("")).to_series()
    return None if found.null_count() == len(found) else found


def _scan(file: LogFile) -> pl.LazyFrame:
    if file.layout == "parquet":
        return pl.scan_parquet(file.path, glob=False)
    if file.layout == "arrow":
        if file.head.startswith(b"ARROW1"):
            return pl.scan_ipc(file.path, glob=False)
        return pl.read_ipc_stream(file.path).lazy()
    if file.layout == "tfrecord":
        return read_tfrecord(file.path).lazy()
    if file.layout == "ndjson":
        return _scan_ndjson(file)
    if file.layout.startswith("movielens"):
        return _scan_movielens(file)
    if file.layout == "sequences":
        return sequence_events(_scan_lines(file), file)
    lazy = pl.scan_csv(
        plain_source(file),
        has_header=False,
        skip_lines=file.header_lines,
        separator=plain_separator(file),
        quote_char=file.quote_char or None,
        schema=dict.fromkeys([*file.columns, *BEYOND_HEADER], pl.String),
        missing_columns="insert",
        extra_columns="ignore",
        glob=False,
    )
    return lazy.with_columns(pl.all().str.strip_chars()) if file.padded else lazy


def _scan_lines(file: LogFile) -> pl.LazyFrame:
    return pl.scan_csv(
        plain_source(file),
        has_header=False,
        separator="\x1f",
        quote_char=None,
        schema={"line": pl.String},
        missing_columns="insert",
        glob=False,
    )


def _scan_ndjson(file: LogFile) -> pl.LazyFrame:
    check_json_lines(file)
    # Polars reads some names as patterns: "log[1].ndjson".
    is_pattern = glob.escape(str(file.path)) != str(file.path)
    source: Path | bytes = file.path
    if is_pattern or file.head.startswith(BYTE_ORDER_MARK):
        with open_bytes(file.path, file.compression) as stream:
            source = bytes(stream.read()).removeprefix(BYTE_ORDER_MARK)
    schema = pl.scan_ndjson(source, infer_schema_length=None).collect_schema()
    return pl.scan_ndjson(source, schema=schema)


def _scan_movielens(file: LogFile) -> pl.LazyFrame:
    with open_bytes(file.path, file.compression) as stream:
        source = bytes(stream.read()).removeprefix(BYTE_ORDER_MARK)
    try:
        source.decode("utf-8")
    except UnicodeDecodeError:  # all but the 10M set are latin-1
        source = source.decode("latin-1").encode()
    lazy = pl.scan_csv(
        source.replace(b"::", b"\x1f") if file.delimiter == "::" else source,
        has_header=False,
        separator="\x1f" if file.delimiter == "::" else file.delimiter,
        quote_char=None,
        schema=dict.fromkeys(file.columns, pl.String),
        missing_columns="insert",
    )
    if file.columns[-1] != GENRES[-1]:
        return lazy
    flags = [pl.when(pl.col(g) == "1").then(pl.lit(g)) for g in GENRES]
    joined = pl.concat_list(flags).list.drop_nulls().list.join("|")
    genres = pl.when(pl.col(GENRES[0]).is_not_null()).then(joined)
    return lazy.with_columns(genres.alias("genres")).drop(GENRES)


@contextlib.contextmanager
def readable(file: LogFile) -> Iterator[None]:
    """Converts errors of Polars about an unreadable file into `LogError`."""
    try:
        yield
    except read_failures() as error:
        raise explain(file, error) from error


def has_stray_quotes(file: LogFile) -> bool:
    """Whether the double quotes of a file are ordinary characters.

    They are if no field starts with one; Polars cannot parse such quotes.
    """
    return file.has_quotes and file.has_width and not has_quoted_field(file)


def check_columns(wanted: Sequence[str], names: Sequence[str], file: LogFile) -> None:
    """Raises `LogError` for a column that the file does not have."""
    for name in wanted:
        if name not in names:
            raise LogError(
                "log-column-missing",
                f"The file must have a column {name!r}.{did_you_mean(name, names)}"
                f" Found the columns {list(names)}. Name one of them, or correct the"
                " header.",
                file=file.path,
                column=name,
            )


def check_rows(num_rows: int, file: LogFile) -> None:
    """Raises `LogError` for a file without rows."""
    if num_rows == 0:
        raise LogError(
            "log-empty",
            "A log needs a header and events. Found no row below the header."
            " Check the export that wrote it.",
            file=file.path,
        )

"""Reads interaction logs and attribute files: any supported layout to checked columns.

    read_table        a file with all its columns, as it is
    read_events       files to `user_id, item_id, timestamp_ms, label`
    read_attributes   a table with one row per user or item

Files are read column by column through Polars' streaming engine. Text stays text
unless every value of a column is a number written the usual way, so the id `007` is
not the id `7`.
"""

from __future__ import annotations

import contextlib
import glob
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from shortlist.data.layouts import GENRES, LogFile, inspect_file, open_bytes
from shortlist.data.locate import (
    blank_lines,
    explain,
    extra_fields,
    has_quoted_field,
    read_failures,
)
from shortlist.data.schema import Schema
from shortlist.data.tfrecord import read_tfrecord
from shortlist.data.validate import (
    check_unique,
    to_ids,
    to_labels,
    to_numbers,
    to_times_ms,
)
from shortlist.errors import LogError, did_you_mean

# One column more than the header has: it shows rows with too many fields.
_EXTRA = "\x00extra"
_SAMPLED_ROWS = 500


@dataclass(frozen=True)
class Events:
    """A checked log.

    Args:
        frame: columns `user_id` and `item_id` (Int64 or String), `timestamp_ms`
            (Int64) and `label` (Float32), in file order.
        duplicates_dropped: events left out because an earlier one had the same user,
            item, time and label.
    """

    frame: pl.DataFrame
    duplicates_dropped: int


def read_table(
    path: str | Path,
    *,
    layout: str | None = None,
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
        layout: one of `layouts.LAYOUTS`, or `None` to recognize it.
        columns: the columns wanted, or `None` for all.
        exact: columns of ids: never Float64, whose text is not unique.
        num_rows: read only so many rows from the start.

    Raises:
        LogError: the file cannot be read or a column is missing.
    """
    return _load(inspect_file(path, layout), columns, exact, num_rows)


def read_events(
    paths: str | Path | Sequence[str | Path],
    schema: Schema,
    *,
    layout: str | None = None,
    now_ms: int | None = None,
    part: bool = False,
) -> Events:
    """Reads and checks one log, given as one or several files.

    Args:
        paths: files with the same columns, read one after the other.
        schema: which columns to read and what they may hold. Without a timestamp
            column, `timestamp_ms` is the position 0, 1, ... in the log, and no event
            counts as a duplicate; without a label column, every label is 1.
        layout: one of `layouts.LAYOUTS`, or `None` to recognize it per file.
        now_ms: the present, milliseconds since the epoch; the clock's by default.
        part: whether the files are only a part of the log, such as a test set,
            which may have a single user or item.

    Raises:
        LogError: see `docs/errors.md`, codes `log-...`; it names file, column and
            row, the header being line 1.
    """
    now_ms = round(time.time() * 1000) if now_ms is None else now_ms
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    if not files:
        raise LogError("log-empty", "A log must be at least one file. Received none.")
    frames = [_events_of(path, schema, layout, now_ms) for path in files]
    events = pl.concat(_with_one_id_type(frames))
    if not part:
        _check_distinct(events, schema, files)
    if schema.timestamp is None:
        order = pl.int_range(pl.len(), dtype=pl.Int64).alias("timestamp_ms")
        return Events(events.with_columns(order), 0)
    return _without_duplicates(events)


def read_attributes(
    path: str | Path,
    id_column: str,
    columns: Sequence[str],
    *,
    layout: str | None = None,
    numeric: Collection[str] = (),
) -> pl.DataFrame:
    """Reads the attributes of users or items.

    Args:
        path: a file of any supported layout.
        id_column: the column of the ids, one row each; ids are never changed.
        columns: the attribute columns wanted.
        layout: one of `layouts.LAYOUTS`, or `None` to recognize it.
        numeric: those of `columns` that must be numbers: returned as Float64 with
            null where a value is missing.

    Returns:
        `id_column` (Int64 or String) and then `columns`, in file order.

    Raises:
        LogError: the file cannot be read, a column is missing, an id is missing or
            repeated, or a numeric column holds text.
    """
    file = inspect_file(path, layout)
    wanted = list(dict.fromkeys([id_column, *columns]))
    table = _load(file, wanted, {id_column})
    _check_rows(table, file)
    ids = to_ids(table[id_column], file)
    check_unique(ids, file)
    numbers = [to_numbers(table[name], file) for name in columns if name in numeric]
    return table.with_columns(ids, *numbers)


def _events_of(
    path: str | Path, schema: Schema, layout: str | None, now_ms: int
) -> pl.DataFrame:
    file = inspect_file(path, layout)
    ids = (schema.user_id, schema.item_id)
    named = [*ids, schema.timestamp, schema.label]
    wanted = list(dict.fromkeys(name for name in named if name is not None))
    raw = _load(file, wanted, ids)
    _check_rows(raw, file)
    columns = [
        to_ids(raw[schema.user_id], file).alias("user_id"),
        to_ids(raw[schema.item_id], file).alias("item_id"),
    ]
    if schema.timestamp is not None:
        times = to_times_ms(raw[schema.timestamp], file, now_ms)
        columns.append(times.alias("timestamp_ms"))
    if schema.label is None:
        columns.append(pl.repeat(1.0, len(raw), dtype=pl.Float32, eager=True))
    else:
        columns.append(to_labels(raw[schema.label], schema, file))
    columns[-1] = columns[-1].alias("label")
    return pl.DataFrame(columns)


def _with_one_id_type(frames: list[pl.DataFrame]) -> list[pl.DataFrame]:
    """Columns that are text in one file are text in all of them."""
    for name in frames[0].columns:
        if len({frame[name].dtype for frame in frames}) > 1:
            text = pl.col(name).cast(pl.String)
            frames = [frame.with_columns(text) for frame in frames]
    return frames


def _check_distinct(
    events: pl.DataFrame, schema: Schema, files: Sequence[str | Path]
) -> None:
    for kind in ("user", "item"):
        ids = events[f"{kind}_id"]
        if ids.min() == ids.max():
            raise LogError(
                "log-one-user" if kind == "user" else "log-one-item",
                f"A log must hold at least two {kind}s to tell them apart. Found only"
                f" {ids[0]!r}. Give more events or name another {kind} column.",
                file=files[0],
                column=schema.user_id if kind == "user" else schema.item_id,
            )


def _without_duplicates(events: pl.DataFrame) -> Events:
    key = ["user_id", "item_id", "timestamp_ms", "label"]
    # Exact comparison of whole rows is slow, and most logs have no equal hashes.
    hashes = events.select(pl.struct(key).hash()).to_series()
    if hashes.n_unique() == len(events):
        return Events(events, 0)
    suspects = events.select(key).with_row_index().filter(hashes.is_duplicated())
    kept = suspects.unique(key, keep="first")["index"]
    dropped = suspects.filter(~pl.col("index").is_in(kept.implode()))["index"]
    keep = pl.repeat(True, len(events), eager=True).scatter(dropped, False)
    return Events(events.filter(keep), len(dropped))


def _load(
    file: LogFile,
    columns: Sequence[str] | None,
    exact: Collection[str],
    num_rows: int | None = None,
) -> pl.DataFrame:
    with _readable(file):
        lazy = _scan(file)
        names = [name for name in lazy.collect_schema() if name != _EXTRA]
    wanted = names if columns is None else list(columns)
    for name in wanted:
        _check_column(name, names, file)
    lazy = lazy if num_rows is None else lazy.head(num_rows)
    with _readable(file):
        if not file.is_text:
            return lazy.select(wanted).collect(engine="streaming")
        try:
            return _load_text(file, lazy, wanted, exact)
        except pl.exceptions.PolarsError:
            if not file.has_quotes or has_quoted_field(file):
                raise
    # No field begins with a quote: those that trip Polars are ordinary characters.
    return _load(replace(file, has_quotes=False), columns, exact, num_rows)


def _load_text(
    file: LogFile, lazy: pl.LazyFrame, columns: list[str], exact: Collection[str]
) -> pl.DataFrame:
    """Numbers while streaming where the head has them; a second look where not."""
    sample = lazy.select(columns).head(_SAMPLED_ROWS).collect(engine="streaming")
    kinds = {name: _narrow(sample[name], name in exact).dtype for name in columns}
    casts = [_as_kind(name, kind) for name, kind in kinds.items()]
    extra = [pl.col(_EXTRA)] if file.header_lines else []
    frame = lazy.select(*casts, *extra).collect(engine="streaming")
    if extra and (frame[_EXTRA].str.len_bytes() > 0).any():
        raise extra_fields(file)
    frame = frame.select(columns)
    doubtful = [name for name in columns if frame[name].null_count()]
    if doubtful:
        texts = lazy.select(doubtful).collect(engine="streaming")
        again = [_narrow(texts[name], name in exact) for name in doubtful]
        frame = frame.with_columns(again)
    return _without_blank_lines(frame, file)


def _narrow(text: pl.Series, exact: bool) -> pl.Series:
    """Int64 or Float64 if nothing is lost, else the text."""
    filled = text.to_frame().select(
        pl.when(pl.col(text.name).str.len_bytes() > 0).then(pl.col(text.name))
    )
    nulls = filled.to_series().null_count()
    for kind in (pl.Int64,) if exact else (pl.Int64, pl.Float64):
        numbers = filled.select(_as_kind(text.name, kind())).to_series()
        if nulls < len(text) and numbers.null_count() == nulls:
            return numbers
    return text


def _as_kind(name: str, kind: pl.DataType) -> pl.Expr:
    """Text as `kind`, null where that would change it: '007', '+7' or '-0'."""
    text = pl.col(name)
    if kind == pl.String:
        return text
    number = text.cast(kind, strict=False)
    if kind == pl.Int64:
        padded = text.str.starts_with("0") & (text.str.len_bytes() > 1)
        odd = padded | text.str.starts_with("-0") | text.str.starts_with("+")
    else:
        odd = text.str.contains(r"^(\+|-?0\d|-0$)") | ~number.is_finite()
    return pl.when(~odd).then(number).alias(name)


def _without_blank_lines(frame: pl.DataFrame, file: LogFile) -> pl.DataFrame:
    blank = frame.select(pl.all_horizontal(pl.all().is_null())).to_series()
    if not blank.any():
        return frame
    lines = [index for index in blank_lines(file) if index < len(frame)]
    keep = pl.repeat(True, len(frame), eager=True).scatter(lines, False)
    return frame.filter(keep)


def _scan(file: LogFile) -> pl.LazyFrame:
    """The file as a lazy frame; text layouts all String."""
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
    if not file.header_lines:
        return _scan_movielens(file)
    names = [*file.columns, _EXTRA]
    return pl.scan_csv(
        file.path,
        has_header=False,
        skip_lines=file.header_lines,
        separator=file.delimiter,
        quote_char='"' if file.has_quotes else None,
        schema=dict.fromkeys(names, pl.String),
        missing_columns="insert",
        extra_columns="ignore",
        glob=False,
    )


def _scan_ndjson(file: LogFile) -> pl.LazyFrame:
    # Polars takes some names for patterns: "log[1].ndjson".
    is_pattern = glob.escape(str(file.path)) != str(file.path)
    source = file.path.read_bytes() if is_pattern else file.path
    schema = pl.scan_ndjson(source, infer_schema_length=None).collect_schema()
    return pl.scan_ndjson(source, schema=schema)


def _scan_movielens(file: LogFile) -> pl.LazyFrame:
    with open_bytes(file.path, file.compression) as stream:
        source = bytes(stream.read()).removeprefix(b"\xef\xbb\xbf")
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
def _readable(file: LogFile) -> Iterator[None]:
    try:
        yield
    except read_failures() as error:
        raise explain(file, error) from error


def _check_column(name: str, names: Sequence[str], file: LogFile) -> None:
    if name not in names:
        raise LogError(
            "log-column-missing",
            f"The file must have a column {name!r}.{did_you_mean(name, names)} Found"
            f" the columns {list(names)}. Name one of them, or repair the header.",
            file=file.path,
            column=name,
        )


def _check_rows(frame: pl.DataFrame, file: LogFile) -> None:
    if frame.is_empty():
        raise LogError(
            "log-empty",
            "A log must hold a header and events. Found no row below the header."
            " Check the export that wrote it.",
            file=file.path,
        )

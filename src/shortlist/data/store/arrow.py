"""Flat Arrow IPC files of training tables, with the narrowest types for the values.

Knows tables and Arrow types; knows nothing of where the rows come from. Integers are
UInt8, UInt16, Int32 or Int64. Record batches have 2**20 rows, so that files can be
memory-mapped and read row by row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import polars as pl
import pyarrow as pa

from shortlist.atomic import atomic_file, check_absent, check_file
from shortlist.errors import InputError

Compression = Literal["zstd"]

BATCH_ROWS = 2**20
"""Rows of every record batch of a file except the last."""
_FLAT = (pl.String, pl.Binary, pl.Date, pl.Time, pl.Datetime, pl.Duration)


def narrow_integer(low: int, high: int) -> pa.DataType:
    """The narrowest of UInt8, UInt16, Int32 and Int64 that holds both; else UInt64."""
    if low >= 0 and high < 2**8:
        return pa.uint8()
    if low >= 0 and high < 2**16:
        return pa.uint16()
    if low >= -(2**31) and high < 2**31:
        return pa.int32()
    return pa.int64() if high < 2**63 else pa.uint64()


def flat_schema(table: pl.DataFrame) -> pa.Schema:
    """The narrowest Arrow types that hold a table without loss.

    Booleans become UInt8, floats Float32 if no value changes, and lists of equal length
    fixed-size lists.

    Raises:
        InputError: `column-type` for a column that is not numbers, text, times or
            lists of these.
    """
    return pa.schema([(name, _flat_type(table[name])) for name in table.columns])


def check_out(
    out: str | Path,
    compression: Compression | None,
    *,
    overwrite: bool,
    inputs: Iterable[str | Path],
) -> None:
    """Checks an output file before any work is done.

    Raises:
        InputError: `output-exists`, `output-foreign` or `invalid-argument`.
    """
    check_compression(compression)
    if Path(out).is_dir():
        check_absent(out)
    check_file(out, _is_arrow, overwrite=overwrite, name="an Arrow file", inputs=inputs)


def _is_arrow(head: bytes) -> bool:
    return head.startswith(b"ARROW1")


def check_compression(compression: str | None) -> None:
    """Raises `InputError` (`invalid-argument`) for an unknown compression."""
    if compression not in (None, "zstd"):
        raise InputError(
            "invalid-argument",
            f"`compression` must be 'zstd' or None. Received: {compression!r}. Leave it"
            " out for a file that can be memory-mapped.",
        )


def write_flat(
    out: str | Path,
    schema: pa.Schema,
    frames: Iterable[pl.DataFrame],
    compression: Compression | None = None,
) -> int:
    """Writes tables with the same columns to one file; replaces an existing one.

    Args:
        out: the file; written completely or not at all.
        schema: the types to write; every value must fit.
        frames: the rows, in order. One frame and 2**20 rows are in memory at a time.
        compression: of the buffers.

    Returns: the number of rows.

    Raises:
        ResourceError: the disk is full or read-only.
        InputError: `output-path`.
    """
    rows = 0
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with atomic_file(out) as temporary:
        with (
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_file(sink, schema, options=options) as writer,
        ):
            for batch in _batches(frames):
                table = batch.rechunk().to_arrow().cast(schema)
                writer.write_table(table.combine_chunks(), BATCH_ROWS)
                rows += len(batch)
    return rows


def _batches(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows, 2**20 at a time."""
    held: list[pl.DataFrame] = []
    rows = 0
    for frame in frames:
        held.append(frame)
        rows += len(frame)
        while rows >= BATCH_ROWS:
            together = pl.concat(held, rechunk=False)
            yield together.head(BATCH_ROWS)
            held = [together.slice(BATCH_ROWS)]
            rows -= BATCH_ROWS
    if rows:
        yield pl.concat(held, rechunk=False)


def _flat_type(column: pl.Series) -> pa.DataType:
    if not isinstance(column.dtype, pl.List | pl.Array):
        return _value_type(column, column)
    value = _value_type(column.explode(empty_as_null=False), column)
    if isinstance(column.dtype, pl.Array):
        return pa.list_(value, column.dtype.size)
    shortest, longest = _range(column.list.len())
    if column.null_count() or longest != shortest or not longest:
        return pa.large_list(value)
    return pa.list_(value, longest)


def _value_type(values: pl.Series, column: pl.Series) -> pa.DataType:
    dtype = values.dtype
    if dtype == pl.Boolean:
        return pa.uint8()
    if dtype.is_integer():
        return narrow_integer(*_range(values))
    if dtype == pl.Float64:
        narrow = values.cast(pl.Float32).cast(pl.Float64)
        exact = narrow.eq_missing(values).all()
        return pa.float32() if exact else pa.float64()
    if dtype.is_float() or dtype in _FLAT:
        return values.head(0).to_frame().to_arrow().schema.field(0).type
    raise InputError(
        "column-type",
        "A column of a flat table must be numbers, text, times or lists of these."
        f" Received: {column.dtype}. Remove it or split it into columns.",
        column=column.name,
    )


def _range(integers: pl.Series) -> tuple[int, int]:
    """Minimum and maximum; 0 for both without values."""
    low, high = integers.min(), integers.max()
    if isinstance(low, int) and isinstance(high, int):
        return low, high
    return 0, 0

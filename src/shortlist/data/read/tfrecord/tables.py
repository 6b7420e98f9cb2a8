"""TFRecord of flat features: to a table, in blocks, to one Arrow file, and back.

    read_tfrecord      a file as one table
    convert_tfrecord   files to one flat Arrow file with the narrowest types
    write_tfrecord     a table to a file

A record is a `tf.train.Example`: one row, or a batch of rows stored column by column;
`rows.py` describes how the two are distinguished. Files may be plain or compressed with
gzip, zlib or Zstandard. Needs no TensorFlow.

A column is Int64, Float32, or for bytes String, or Binary if a value is not UTF-8. It
is a scalar if every row has exactly one value, else a List. Columns are sorted by name,
because the features of an Example have no order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from shortlist.atomic import atomic_file
from shortlist.data.read.tfrecord.encoding import encode_example, to_record
from shortlist.data.read.tfrecord.rows import check_rows_per_record
from shortlist.data.read.tfrecord.survey import Survey
from shortlist.data.store.arrow import Compression, check_out, write_flat
from shortlist.errors import InputError


def read_tfrecord(
    path: str | Path,
    *,
    rows_per_record: int | None = None,
    columns: Sequence[str] | None = None,
) -> pl.DataFrame:
    """Reads a file as one table, in file order.

    Args:
        path: the file.
        rows_per_record: 1 if every record is one row, the size of the batches if they
            are batches, or `None` to detect it.
        columns: the features wanted, in this order; all by default. Only these must
            be in every record.

    Returns:
        One row per row; see the module for the types.

    Raises:
        LogError: as `RecordReader.blocks`, or `log-record-rows`.
        InputError: `invalid-argument`.
    """
    survey = Survey([path], rows_per_record, columns)
    blocks = [*survey.blocks()]
    return pl.concat([survey.frame(block) for block in blocks], rechunk=False)


def convert_tfrecord(
    paths: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    rows_per_record: int | None = None,
    compression: Compression | None = None,
    overwrite: bool = False,
) -> int:
    """Writes files with the same features to one flat Arrow IPC file.

    Integers become UInt8, UInt16, Int32 or Int64, the narrowest that holds all values
    of the column, and lists that are all of one length become fixed-size lists. The
    file has record batches of 2**20 rows. Reads the files twice; memory holds one such
    batch.

    Args:
        paths: files, read one after the other.
        out: the file to write; it appears whole or not at all.
        rows_per_record: see `read_tfrecord`.
        compression: of the buffers; uncompressed files can be mapped into memory.
        overwrite: replace an existing file.

    Returns: the number of rows.

    Raises:
        LogError: as `read_tfrecord`.
        InputError: `invalid-argument`, `output-exists` or `output-path`.
        ResourceError: the disk is full or read-only.
    """
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    check_out(out, compression, overwrite=overwrite, inputs=files)
    survey = Survey(files, rows_per_record, None)
    survey.complete()
    return write_flat(out, survey.flat_schema(), survey.frames(), compression)


def write_tfrecord(
    path: str | Path, table: pl.DataFrame, *, rows_per_record: int = 1
) -> None:
    """Writes a table as Examples, of one row each or of a batch of rows.

    Integers and truth values become int64, floats float32 (TFRecord has no other),
    text bytes, and lists of these lists.

    Args:
        path: the file to write; it appears whole or not at all, and replaces another.
        table: columns without nulls; for batches all lists of a column must be of one
            length, at least 1.
        rows_per_record: 1, or the size of the batches; the last one may be smaller.

    Raises:
        InputError: `column-type` or `invalid-argument`.
        ResourceError: the disk is full or read-only.
    """
    check_rows_per_record(rows_per_record)
    columns = [_Written(table[name], rows_per_record > 1) for name in table.columns]
    with atomic_file(path) as temporary, temporary.open("wb") as stream:
        for begin in range(0, len(table), rows_per_record):
            end = min(begin + rows_per_record, len(table))
            features = {column.name: column.of_rows(begin, end) for column in columns}
            stream.write(to_record(encode_example(features)))


class _Written:
    """A column whose rows can be read in ranges."""

    def __init__(self, column: pl.Series, batched: bool) -> None:
        self.name = column.name
        lists = isinstance(column.dtype, pl.List | pl.Array)
        values = column.explode(empty_as_null=False) if lists else column
        self.values = _plain(values, column)
        self.begins: np.ndarray | None = None
        if not lists:
            return
        lengths = column.to_frame().select(_lengths(column)).to_series()
        if column.null_count() or (batched and not _is_one_length(lengths)):
            must = "lists of one length of at least 1" if batched else "no missing list"
            raise _column_error(column, f"must have {must} in every row")
        self.begins = np.concatenate([[0], lengths.cast(pl.Int64).cum_sum().to_numpy()])

    def of_rows(self, begin: int, end: int) -> np.ndarray | list[bytes]:
        if self.begins is not None:
            begin, end = int(self.begins[begin]), int(self.begins[end])
        return self.values[begin:end]


def _lengths(column: pl.Series) -> pl.Expr:
    name = pl.col(column.name)
    if isinstance(column.dtype, pl.Array):
        return pl.repeat(column.dtype.size, pl.len(), dtype=pl.Int64)
    return name.list.len()


def _is_one_length(lengths: pl.Series) -> bool:
    return lengths.is_empty() or (lengths.min() == lengths.max() and lengths[0] > 0)


def _plain(values: pl.Series, column: pl.Series) -> np.ndarray | list[bytes]:
    """Values as the wire has them: int64, float32 or bytes."""
    if values.null_count():
        raise _column_error(column, "must have a value in every row")
    dtype = values.dtype
    if dtype.is_integer() or dtype == pl.Boolean:
        if dtype == pl.UInt64 and len(values) and values.max() > 2**63 - 1:  # type: ignore[operator]
            raise _column_error(column, "must fit signed 64 bits")
        return values.cast(pl.Int64).to_numpy()
    if dtype.is_float():
        return values.cast(pl.Float32).to_numpy()
    if dtype in (pl.String, pl.Binary):
        return values.cast(pl.Binary).to_list()
    raise _column_error(column, "must be numbers, text or lists of these")


def _column_error(column: pl.Series, rule: str) -> InputError:
    return InputError(
        "column-type",
        f"A column of a TFRecord {rule}. Received: {column.dtype} with"
        f" {column.null_count()} missing. Convert, fill or drop it.",
        column=column.name,
    )

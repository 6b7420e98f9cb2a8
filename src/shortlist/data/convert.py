"""Converts flat training tables of any layout to one Arrow file.

Knows which reader a layout needs; knows nothing of what the columns mean. TFRecord is
read in blocks; files of other layouts are read whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from shortlist.data.read.file_format import FileFormat
from shortlist.data.read.layouts import inspect_file
from shortlist.data.read.panics import panics_refused
from shortlist.data.read.scan import read_table
from shortlist.data.read.tfrecord.tables import convert_tfrecord
from shortlist.data.store.arrow import Compression, check_out, flat_schema, write_flat
from shortlist.errors import LogError


def convert_tables(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    rows_per_record: int | None = None,
    compression: Compression | None = None,
    overwrite: bool = False,
    format: FileFormat | None = None,
) -> int:
    """Writes files with the same columns, one after the other, to one flat file.

    See `convert_tfrecord` for the arguments and the types. For other layouts floats
    become Float32 if no value changes, and `format` has the reading options.

    Returns: the number of rows.

    Raises:
        LogError: a file cannot be read, or its columns differ from those of the first
            (`log-row-fields`, `log-mixed-types`), or TFRecord is among other layouts
            (`log-format`).
        InputError: `column-type`, `output-exists`, `output-path`, `invalid-argument`.
        ResourceError: the disk is full or read-only.
    """
    check_out(out, compression, overwrite=overwrite, inputs=paths)
    layouts = [inspect_file(path, format).layout for path in paths]
    if layouts and set(layouts) == {"tfrecord"}:
        return convert_tfrecord(
            paths,
            out,
            rows_per_record=rows_per_record,
            compression=compression,
            overwrite=overwrite,
        )
    if "tfrecord" in layouts:
        raise LogError(
            "log-format",
            "Files to convert together must all be TFRecord, or none of them. Received:"
            f" {sorted(set(layouts))}. Convert them one by one.",
            file=paths[layouts.index("tfrecord")],
        )
    tables = [read_table(path, layout=format) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        _check_same(table, tables[0], path)
    with panics_refused(paths[0]):
        together = pl.concat(tables, rechunk=False)
        return write_flat(out, flat_schema(together), [together], compression)


def _check_same(table: pl.DataFrame, first: pl.DataFrame, path: str | Path) -> None:
    if table.columns != first.columns:
        raise LogError(
            "log-row-fields",
            "Files to convert together must have the same columns in the same order."
            f" Received: {table.columns} after {first.columns}. Convert them one by"
            " one.",
            file=path,
        )
    for name in first.columns:
        if table[name].dtype != first[name].dtype:
            raise LogError(
                "log-mixed-types",
                "A column must have the same type in all files. Received:"
                f" {table[name].dtype} after {first[name].dtype}. Write one type.",
                file=path,
                column=name,
            )

"""Unrolls rows with several events into one row per event."""

from __future__ import annotations

from typing import NoReturn

import polars as pl

from shortlist.data.read.log_file import LogFile
from shortlist.data.read.text.lists import is_list_text, split_lists
from shortlist.errors import LogError, did_you_mean


def sequence_events(lines: pl.LazyFrame, file: LogFile) -> pl.LazyFrame:
    """The events of lines such as `user item item ...`.

    Args:
        lines: the column `line`.
        file: the columns it has, of the user and of the items.
    """
    user, items = file.columns
    mark = file.delimiter
    fields = pl.col("line").str.strip_chars(f"{mark} \r").str.split(mark)
    filled = fields.list.eval(pl.element().filter(pl.element() != ""))
    rows = lines.select(
        filled.list.first().alias(user), filled.list.slice(1).alias(items)
    )
    return rows.filter(pl.col(items).list.len() > 0).explode(items)


def unrolled(lazy: pl.LazyFrame, file: LogFile) -> pl.LazyFrame:
    """The rows of `file` with one row per element of the columns `format.unroll`.

    Lists of records become a column per field; if the file has a column of that name,
    the new one is `list.field`. Rows without elements have no events.

    Raises:
        LogError: a column is missing (`log-column-missing`) or holds no lists
            (`log-unroll`).
    """
    names = list(file.format.unroll)
    if not names:
        return lazy
    schema = lazy.collect_schema()
    for name in names:
        if name not in schema:
            raise LogError(
                "log-column-missing",
                f"`unroll` must name a column of the file. Received: {name!r}."
                f"{did_you_mean(name, schema)} Found the columns {list(schema)}. Name"
                " one of them.",
                file=file.path,
                column=name,
            )
        lazy = lazy.with_columns(_as_lists(name, schema[name], file))
    filled = pl.all_horizontal(pl.col(name).list.len() > 0 for name in names)
    lazy = lazy.filter(filled).explode(names)
    for name in names:
        lazy = _fields(lazy, name)
    return lazy


def _as_lists(name: str, dtype: pl.DataType, file: LogFile) -> pl.Expr:
    column = pl.col(name)
    if isinstance(dtype, pl.List):
        return column
    if isinstance(dtype, pl.Array):
        return column.arr.to_list()
    if dtype != pl.String:
        _refuse(name, dtype, file)
    separator = file.format.unroll_separator
    return column.map_batches(
        lambda values: split_lists(values, separator), pl.List(pl.String)
    )


def _fields(lazy: pl.LazyFrame, name: str) -> pl.LazyFrame:
    schema = lazy.collect_schema()
    dtype = schema[name]
    if not isinstance(dtype, pl.Struct):
        return lazy
    others = set(schema) - {name}
    inner = [field.name for field in dtype.fields]
    renamed = [f"{name}.{field}" if field in others else field for field in inner]
    return lazy.with_columns(pl.col(name).struct.rename_fields(renamed)).unnest(name)


def list_columns(table: pl.DataFrame) -> list[str]:
    """Columns that hold lists, as such or as text in brackets."""
    return [
        column.name
        for column in table
        if isinstance(column.dtype, pl.List | pl.Array)
        or (column.dtype == pl.String and is_list_text(column))
    ]


def _refuse(name: str, dtype: pl.DataType, file: LogFile) -> NoReturn:
    raise LogError(
        "log-unroll",
        f"A column of `unroll` must hold lists, or text that is one. Received: {dtype}"
        f" in column {name!r}. Name another column under [log].",
        file=file.path,
        column=name,
    )

"""Columns of features and titles as they are read: checked types, values as text."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from shortlist.data.read.column_types import is_plain
from shortlist.data.read.text.lists import split_lists
from shortlist.data.schema import Feature
from shortlist.errors import LogError

TITLE = "title"
"""Name of the title in a block of events."""


def tokens(column: pl.Series, feature: Feature) -> pl.Series:
    """The values of a looked-up feature as lists of text, none of them empty.

    A categorical feature has one value or none. A number has one text whatever the type
    of its column: 2.0 is '2', as pandas turns integers into floats if one is missing.
    NaN is no value. Works chunk by chunk; the output can be passed in again.

    Args:
        column: raw values: text, numbers or lists. Text of a multi-valued feature is
            split at its separator, or is a list as JSON, Python or NumPy write it.
        feature: a categorical or multi-valued feature.
    """
    values = pl.col("values")
    if isinstance(column.dtype, pl.List | pl.Array):
        inner = _inner(column.dtype)
        lists = values.cast(pl.List(inner))
        if inner != pl.String:
            lists = lists.list.eval(_as_text(pl.element(), inner))
    elif feature.kind == "categorical":
        lists = pl.concat_list(_as_text(values, column.dtype))
    else:
        frame = pl.DataFrame({"values": column})
        texts = frame.select(_as_text(values, column.dtype)).to_series()
        column, lists = split_lists(texts, feature.separator), values
    filled = pl.element().filter(pl.element().str.len_bytes() > 0)
    kept = lists.list.eval(filled).fill_null([])
    if feature.max_length is not None:
        kept = kept.list.head(feature.max_length)
    return pl.DataFrame({"values": column}).select(kept).to_series()


def check_nesting(feature: Feature, column: pl.Series, file: str | Path) -> None:
    """Raises `LogError` (`attribute-type`) for a column of a type that is no feature.

    Plain values are allowed, and lists of them for a multi-valued feature; bytes and
    durations are not.
    """
    dtype = column.dtype
    if isinstance(dtype, pl.List | pl.Array) and feature.kind == "multi_valued":
        dtype = _inner(dtype)
    if not is_plain(dtype):
        raise LogError(
            "attribute-type",
            f"A {feature.kind} feature must hold one plain value per row. Received a"
            f" column of type {column.dtype}. Only a list of plain values can be"
            " multi_valued; leave other nested columns, bytes and durations out.",
            file=file,
            column=feature.name,
        )


def check_title(column: pl.Series, file: str | Path) -> None:
    """Raises `LogError` (`attribute-type`) for a column of a type that is no title."""
    if not is_plain(column.dtype):
        raise LogError(
            "attribute-type",
            "A title must be one plain value per row. Received a column of type"
            f" {column.dtype}. Name another column as the title.",
            file=file,
            column=column.name,
        )


def _inner(dtype: pl.List | pl.Array) -> pl.DataType:
    return pl.Series(dtype=dtype.inner).dtype  # `inner` may be a class


def _as_text(values: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.Decimal:
        values = values.cast(pl.Float64)
    elif dtype not in (pl.Float32, pl.Float64):
        return values.cast(pl.String)
    whole = values.cast(pl.Int64, strict=False)
    other = values.fill_nan(None).cast(pl.String)
    return pl.when(whole == values).then(whole.cast(pl.String)).otherwise(other)

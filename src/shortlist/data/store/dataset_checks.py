"""Checks of the content of a dataset's files.

Files of old versions have no checksum, and files may come from other programs. A row
out of range would be looked up outside a table. Everything is checked once, when it is
first read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from shortlist.data.schema import CONTEXT, FEATURE_PREFIX, ITEM, USER, Schema
from shortlist.data.store.columns import Columns
from shortlist.data.store.dataset_info import Segment, damaged
from shortlist.data.store.vocabulary import UNREADABLE, read_frame

EVENT_COLUMNS = ("user_index", "item_index", "timestamp_ms", "label")

_FLOATS = (np.dtype(np.float32),)
_ROWS = (np.dtype(np.int32),)


def check_events(
    columns: Columns,
    folder: Path,
    segments: Sequence[Segment],
    schema: Schema,
    limits: Mapping[str, int],
) -> None:
    """Checks the columns of segments: how many rows, their types, rows in range.

    Args:
        columns: of the segments, in their order.
        folder: of the dataset.
        segments: their entries in the dataset.
        schema: of the dataset.
        limits: rows of every table, by name.

    Raises:
        ArtifactError: `dataset-damaged`, or as `Columns.extent`.
        InputError: as `Columns.extent`.
    """
    for segment in segments:
        rows = columns.rows_of(folder / segment.file)
        if rows != segment.events:
            problem = f"it must have {segment.events:,} events. Found {rows:,}"
            raise damaged(folder / segment.file, problem)
    tables = {"user_index": USER, "item_index": ITEM} | {
        FEATURE_PREFIX + feature.name: feature.table
        for feature in schema.owned_by(CONTEXT)
        if feature.is_looked_up
    }
    for name, (kinds, is_list) in _event_types(schema).items():
        if name not in columns.names:
            raise damaged(folder, f"its events have no column {name!r}")
        dtype, of_lists = columns.kind(name)
        if dtype not in kinds or of_lists != is_list:
            form = "lists of " if of_lists else ""
            raise damaged(folder, f"{name!r} of its events holds {form}{dtype}")
        if name in tables:
            _check_range(columns, folder, name, limits[tables[name]])


def check_table(
    frame: pl.DataFrame,
    file: Path,
    owner: str,
    schema: Schema,
    limits: Mapping[str, int],
) -> None:
    """Checks the users or the items: a record per row, its types, rows in range.

    Args:
        frame: content of the file.
        file: used in errors.
        owner: `user` or `item`.
        schema: of the dataset.
        limits: rows of every table, by name.

    Raises:
        ArtifactError: `dataset-damaged`.
    """
    if len(frame) != limits[owner]:
        problem = f"it must have {limits[owner]:,} records. Found {len(frame):,}"
        raise damaged(file, problem)
    wanted: dict[str, pl.DataType] = {}
    if owner == ITEM and schema.title is not None:
        wanted[schema.title] = pl.String()
    tables = {}
    for feature in schema.features:
        if feature.owner == owner:
            name = FEATURE_PREFIX + feature.name
            is_list = feature.kind == "multi_valued"
            rows = pl.List(pl.Int32()) if is_list else pl.Int32()
            wanted[name] = rows if feature.is_looked_up else pl.Float32()
            if feature.is_looked_up:
                tables[name] = feature.table
    for name, dtype in wanted.items():
        found = frame.schema.get(name)
        if found != dtype:
            raise damaged(file, f"{name!r} must be {dtype}. Found {found}")
    for name in wanted.keys() - {schema.title}:
        values = frame[name]
        if isinstance(values.dtype, pl.List):
            values = values.drop_nulls().explode(empty_as_null=False)
        if values.null_count():
            raise damaged(file, f"{name!r} must have a value in every record")
        if name in tables:
            low, high = values.min(), values.max()
            _check_bounds(file, name, low, high, limits[tables[name]])


def pending_ids(file: Path, dtype: pl.DataType) -> pl.Series:
    """The ids of a file of pending ids.

    Raises:
        ArtifactError: `dataset-damaged` for missing or repeated ids or another type.
    """
    try:
        ids = read_frame(file)["id"]
    except UNREADABLE as error:
        raise damaged(file, error) from error
    if ids.dtype != dtype or ids.null_count() or ids.n_unique() < len(ids):
        raise damaged(file, f"its ids must be unique and of type {dtype}")
    return ids


def _event_types(schema: Schema) -> dict[str, tuple[tuple[np.dtype, ...], bool]]:
    """The gathered types and whether they are lists, by column."""
    wanted: dict[str, tuple[tuple[np.dtype, ...], bool]] = {
        "user_index": (_ROWS, False),
        "item_index": (_ROWS, False),
        "timestamp_ms": ((np.dtype(np.int64),), False),
        "label": (_FLOATS, False),
    }
    if schema.weight != "none":
        wanted["weight"] = (_FLOATS, False)
    if schema.session_gap_minutes is not None:
        wanted["session_index"] = (_ROWS, False)
    for feature in schema.owned_by(CONTEXT):
        kinds = _ROWS if feature.is_looked_up else _FLOATS
        name = FEATURE_PREFIX + feature.name
        wanted[name] = (kinds, feature.kind == "multi_valued")
    return wanted


def _check_range(columns: Columns, folder: Path, name: str, limit: int) -> None:
    for file, low, high in columns.extents(name):
        _check_bounds(file or folder, name, low, high, limit)


def _check_bounds(file: Path, name: str, low: object, high: object, limit: int) -> None:
    if not isinstance(low, int) or not isinstance(high, int):  # no values
        return
    if low < 0 or high >= limit:
        raise damaged(
            file,
            f"{name!r} must hold rows from 0 to {limit - 1}. Found {low} to {high}",
        )

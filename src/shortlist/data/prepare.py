"""LOG -> DATASET: read, validate, divide, map ids to rows, write.

Vocabularies and statistics are fitted on the training and validation parts; the test
part never shapes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from shortlist.atomic import check_absent
from shortlist.data.dataset import (
    FEATURE_PREFIX,
    Dataset,
    DatasetContents,
    write_dataset,
)
from shortlist.data.log import read_attributes, read_events
from shortlist.data.schema import ITEM, USER, Feature, Schema
from shortlist.data.split import (
    PARTS,
    TEST,
    TRAIN,
    VALIDATION,
    Split,
    assign_parts,
)
from shortlist.data.vocabulary import Vocabulary
from shortlist.errors import LogError

Paths = str | Path | Sequence[str | Path]


def prepare(
    events: Paths,
    schema: Schema,
    out: str | Path,
    *,
    split: Split | None = None,
    users: str | Path | None = None,
    items: str | Path | None = None,
    users_id: str | None = None,
    items_id: str | None = None,
    test_events: Paths | None = None,
    validation_events: Paths | None = None,
    layout: str | None = None,
    overwrite: bool = False,
) -> Dataset:
    """Turns a log into a dataset directory.

    Args:
        events: the log, one file or several.
        schema: what its columns are.
        out: directory to write; must not exist unless `overwrite`.
        split: how to divide the events.
        users: user attribute file, needed when the schema has user features.
        items: item attribute file, needed when the schema has item features.
        users_id: id column of `users`; the log's own name of it by default.
        items_id: id column of `items`; the log's own name of it by default.
        test_events: for kind `files`, the user's own test events.
        validation_events: for kind `files`, the user's own validation events.
        layout: layout of the event files; found out from each file when `None`.
        overwrite: replace an existing dataset.

    Raises:
        LogError: the log cannot be used; says file, column and row.
        InputError: `out` exists, or arguments that do not fit each other.
    """
    check_absent(out, overwrite=overwrite)
    split = split or Split()
    _check_split_files(split, test_events)
    log, duplicates = _read_parts(
        events, test_events, validation_events, schema, split, layout
    )
    known = log.filter(pl.col("part") != TEST)
    _check_enough(known, events)
    vocabularies = {
        USER: Vocabulary.fit(USER, known["user_id"]),
        ITEM: Vocabulary.fit(ITEM, known["item_id"]),
    }
    statistics = _statistics(log, known, duplicates)
    tables = {}
    for owner, path, id_column in (
        (USER, users, users_id or schema.user_id),
        (ITEM, items, items_id or schema.item_id),
    ):
        tables[owner], numeric = _attributes(
            owner, path, id_column, schema, vocabularies
        )
        statistics["numeric"] = {**statistics.get("numeric", {}), **numeric}
    return write_dataset(
        out,
        DatasetContents(
            schema=schema,
            split=split,
            parts=_parts(log, vocabularies),
            vocabularies=vocabularies,
            users=tables[USER],
            items=tables[ITEM],
            statistics=statistics,
        ),
        overwrite=overwrite,
    )


def _check_split_files(split: Split, test_events: Paths | None) -> None:
    if (split.kind == "files") != (test_events is not None):
        raise LogError(
            "split-files",
            "A split of kind 'files' and a test file belong together. Received:"
            f" kind={split.kind!r}, test_events={test_events!r}. Give both or"
            " neither.",
        )


def _read_parts(
    events: Paths,
    test_events: Paths | None,
    validation_events: Paths | None,
    schema: Schema,
    split: Split,
    layout: str | None,
) -> tuple[pl.DataFrame, int]:
    """All events with their part, in file order, and the duplicates dropped."""
    read = read_events(events, schema, layout=layout)
    log, duplicates = read.frame, read.duplicates_dropped
    if validation_events is None:
        keys = log["user_id"].rank("dense").to_numpy()
        parts = assign_parts(keys, log["timestamp_ms"].to_numpy(), split)
    else:
        parts = np.full(len(log), TRAIN, np.int8)
    frames = [log.with_columns(pl.Series("part", parts, dtype=pl.Int8))]
    for files, part in ((validation_events, VALIDATION), (test_events, TEST)):
        if files is not None:
            more = read_events(files, schema, layout=layout)
            duplicates += more.duplicates_dropped
            label = pl.lit(part, pl.Int8).alias("part")
            frames.append(more.frame.with_columns(label))
    return pl.concat(_same_id_types(frames)), duplicates


def _same_id_types(frames: list[pl.DataFrame]) -> list[pl.DataFrame]:
    """Ids are strings in all files if they are strings in one."""
    for column in ("user_id", "item_id"):
        if len({frame[column].dtype for frame in frames}) > 1:
            frames = [f.with_columns(pl.col(column).cast(pl.String)) for f in frames]
    return frames


def _check_enough(known: pl.DataFrame, events: Paths) -> None:
    for column in ("user_id", "item_id"):
        if known[column].n_unique() < 2:
            raise LogError(
                "log-too-small",
                "The training part must hold at least 2 users and 2 items. Received:"
                f" {known[column].n_unique()} in {column}. Give more events or hold"
                " out fewer.",
                file=events,
                column=column,
            )


def _parts(
    log: pl.DataFrame, vocabularies: Mapping[str, Vocabulary]
) -> dict[str, pl.DataFrame]:
    rows = log.select(
        pl.Series("user_index", vocabularies[USER].lookup_series(log["user_id"])),
        pl.Series("item_index", vocabularies[ITEM].lookup_series(log["item_id"])),
        "timestamp_ms",
        "label",
        "part",
    )
    return {
        name: rows.filter(pl.col("part") == number)
        .drop("part")
        .sort("user_index", "timestamp_ms", maintain_order=True)
        for number, name in enumerate(PARTS)
    }


def _statistics(
    log: pl.DataFrame, known: pl.DataFrame, duplicates: int
) -> dict[str, Any]:
    num_users, num_items = known["user_id"].n_unique(), known["item_id"].n_unique()
    test = log.filter(pl.col("part") == TEST)
    cold = test.filter(~pl.col("item_id").is_in(known["item_id"].implode()))
    return {
        "events": len(log),
        "users": num_users,
        "items": num_items,
        "density": len(known) / (num_users * num_items),
        "duplicates_dropped": duplicates,
        "first_timestamp_ms": log["timestamp_ms"].min(),
        "last_timestamp_ms": log["timestamp_ms"].max(),
        "test_events_of_unknown_items": len(cold),
    }


def _attributes(
    owner: str,
    path: str | Path | None,
    id_column: str,
    schema: Schema,
    vocabularies: dict[str, Vocabulary],
) -> tuple[pl.DataFrame, dict[str, dict[str, float]]]:
    """The attribute table by row; adds the features' vocabularies."""
    features = [f for f in schema.features if f.owner == owner]
    title = schema.title if owner == ITEM else None
    ids = vocabularies[owner].ids
    columns = [f.name for f in features] + ([title] if title else [])
    if path is None:
        if columns:
            raise LogError(
                "attributes-missing",
                f"The schema needs {columns} of every {owner}, so the recipe must name"
                f" a file for them. Set `{owner}s` under [log] or drop the columns.",
            )
        return pl.DataFrame({"id": ids}), {}
    numbers = [f.name for f in features if f.kind == "numeric"]
    given = read_attributes(path, id_column, columns, numeric=numbers)
    given = given.with_columns(
        pl.col(given.columns[0]).cast(ids.dtype, strict=False).alias("id")
    )
    frame = pl.DataFrame({"id": ids}).join(
        given.select("id", *columns), on="id", how="left", maintain_order="left"
    )
    numeric: dict[str, dict[str, float]] = {}
    values = [
        _feature_column(feature, frame, features, vocabularies, numeric)
        for feature in features
    ]
    display = [pl.col(title).cast(pl.String).alias(title)] if title else []
    return frame.select("id", *display).with_columns(values), numeric


def _feature_column(
    feature: Feature,
    frame: pl.DataFrame,
    features: Sequence[Feature],
    vocabularies: dict[str, Vocabulary],
    numeric: dict[str, dict[str, float]],
) -> pl.Series:
    name = FEATURE_PREFIX + feature.name
    column = frame[feature.name]
    if feature.kind == "numeric":
        values, numeric[feature.name] = _standardized(column)
        return values.alias(name)
    if feature.table not in vocabularies:
        sharing = [f for f in features if f.table == feature.table]
        tokens = pl.concat([_tokens(frame[f.name], f).explode() for f in sharing])
        vocabularies[feature.table] = Vocabulary.fit(feature.table, tokens)
    lists = _tokens(column, feature)
    rows = vocabularies[feature.table].lookup_series(lists.explode())
    if feature.kind == "categorical":
        return pl.Series(name, rows, dtype=pl.Int32)
    exploded = lists.to_frame("list").with_row_index().explode("list")
    exploded = exploded.with_columns(pl.Series("row", rows, dtype=pl.Int32))
    gathered = exploded.filter(pl.col("list").is_not_null()).group_by("index")
    joined = (
        lists.to_frame()
        .with_row_index()
        .join(gathered.agg("row"), on="index", how="left", maintain_order="left")
    )
    return joined["row"].fill_null([]).alias(name)


def _tokens(column: pl.Series, feature: Feature) -> pl.Series:
    """The values of a looked-up feature as lists of strings."""
    if isinstance(column.dtype, pl.List):
        return column.cast(pl.List(pl.String))
    text = column.cast(pl.String)
    if feature.kind == "categorical":
        return text.to_frame("t").select(pl.concat_list("t")).to_series()
    return text.replace("", None).str.split(feature.separator)


def _standardized(column: pl.Series) -> tuple[pl.Series, dict[str, float]]:
    """Zero mean and unit deviation over the known ids; missing values become 0."""
    values = column.cast(pl.Float64)
    values = values.set(~values.is_finite().fill_null(False), None)
    mean = float(values.mean() or 0.0)  # type: ignore[arg-type]
    scale = float(values.std() or 1.0) or 1.0  # type: ignore[arg-type]
    standardized = ((values - mean) / scale).fill_null(0.0).cast(pl.Float32)
    return standardized, {"mean": mean, "scale": scale}

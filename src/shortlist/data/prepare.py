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
    INFO_FILE,
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
from shortlist.errors import InputError, LogError

Paths = str | Path | Sequence[str | Path]

_KEY = "\x00id"  # no column of a file has this name


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
    check_absent(out, overwrite=overwrite, marker=INFO_FILE)
    split = split or Split()
    _check_split_files(split, test_events, validation_events)
    log, duplicates = _read_parts(
        events, test_events, validation_events, schema, split, layout
    )
    known = log.filter(pl.col("part") != TEST)
    _check_enough(log.filter(pl.col("part") == TRAIN), events, schema)
    _check_apart(log, split, schema)
    taken = known
    if schema.label_kind == "binary":
        taken = known.filter(pl.col("label") >= schema.positive_from)
    # A user's count says whether the model is trained with it, an item's how popular
    # it is: validation events are popularity, but nothing is trained on them.
    trained = taken.filter(pl.col("part") == TRAIN)
    vocabularies = {
        USER: Vocabulary.fit(USER, known["user_id"], counted=trained["user_id"]),
        ITEM: Vocabulary.fit(ITEM, known["item_id"], counted=taken["item_id"]),
    }
    attributes = {
        owner: _attributes(owner, path, id_column, schema, vocabularies[owner].ids)
        for owner, path, id_column in (
            (USER, users, users_id or schema.user_id),
            (ITEM, items, items_id or schema.item_id),
        )
    }
    columns, numeric = _feature_columns(schema, attributes, vocabularies)
    tables = {
        owner: pl.DataFrame([vocabularies[owner].ids, *display, *columns[owner]])
        for owner, display in ((USER, []), (ITEM, _title(schema, attributes[ITEM])))
    }
    return write_dataset(
        out,
        DatasetContents(
            schema=schema,
            split=split,
            parts=_parts(log, vocabularies),
            vocabularies=vocabularies,
            users=tables[USER],
            items=tables[ITEM],
            statistics=_statistics(log, known, duplicates) | {"numeric": numeric},
        ),
        overwrite=overwrite,
    )


def _check_split_files(
    split: Split, test_events: Paths | None, validation_events: Paths | None
) -> None:
    given = test_events is not None
    if (split.kind == "files") != given or (validation_events and not given):
        raise InputError(
            "split-files",
            "A split of kind 'files' and a test file belong together, and a"
            f" validation file comes only with them. Received: kind = {split.kind!r}"
            f" with {'a' if test_events else 'no'} test file and"
            f" {'a' if validation_events else 'no'} validation file. Set `test_events`"
            " under [log], or another kind.",
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
            more = read_events(files, schema, layout=layout, part=True)
            duplicates += more.duplicates_dropped
            label = pl.lit(part, pl.Int8).alias("part")
            frames.append(more.frame.with_columns(label))
    together = pl.concat(_same_id_types(frames))
    if schema.timestamp is None:
        # The position is the time: the files come one after the other.
        position = pl.int_range(pl.len(), dtype=pl.Int64).alias("timestamp_ms")
        together = together.with_columns(position)
    return together, duplicates


def _check_apart(log: pl.DataFrame, split: Split, schema: Schema) -> None:
    """The user's own files must not hold one event twice: it would be trained on."""
    if split.kind != "files" or schema.timestamp is None:
        return  # without a time a repeat cannot be told from a copy
    event = ["user_id", "item_id", "timestamp_ms", "label"]
    repeated = log.group_by(event).agg(pl.col("part").n_unique().alias("parts"))
    if overlap := int((repeated["parts"] > 1).sum()):
        raise InputError(
            "split-overlap",
            "The training, validation and test files must not share events. Received:"
            f" {overlap:,} events in more than one of them. Remove them from `events`.",
        )


def _same_id_types(frames: list[pl.DataFrame]) -> list[pl.DataFrame]:
    """Ids are strings in all files if they are strings in one."""
    for column in ("user_id", "item_id"):
        if len({frame[column].dtype for frame in frames}) > 1:
            frames = [f.with_columns(pl.col(column).cast(pl.String)) for f in frames]
    return frames


def _check_enough(train: pl.DataFrame, events: Paths, schema: Schema) -> None:
    named = {"user_id": schema.user_id, "item_id": schema.item_id}
    for column, name in named.items():
        if (found := train[column].n_unique()) < 2:
            raise LogError(
                "log-too-small",
                "The training part must hold at least 2 users and 2 items. Received:"
                f" {found} in {column}. Give more events or hold out fewer.",
                file=events if isinstance(events, str | Path) else events[0],
                column=name,
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
    new_users = test.filter(~pl.col("user_id").is_in(known["user_id"].implode()))
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
        "test_events_of_unknown_users": len(new_users),
    }


def _attributes(
    owner: str,
    path: str | Path | None,
    id_column: str,
    schema: Schema,
    ids: pl.Series,
) -> pl.DataFrame:
    """The columns that the schema needs of one owner, record i for row i."""
    features = [f for f in schema.features if f.owner == owner]
    names = [f.name for f in features]
    if owner == ITEM and schema.title is not None:
        names.append(schema.title)
    columns = list(dict.fromkeys(names))
    if path is None:
        if columns:
            raise LogError(
                "attributes-missing",
                f"The schema needs {columns} of every {owner}, so the recipe must name"
                f" a file for them. Set `{owner}s` under [log] or drop the columns.",
            )
        return pl.DataFrame()
    numbers = [f.name for f in features if f.kind == "numeric"]
    given = read_attributes(path, id_column, columns, numeric=numbers)
    for feature in features:
        _check_nesting(feature, given[feature.name], path)
    keys = given[id_column]
    if keys.dtype != ids.dtype:  # compared as text: "007" is not 7
        keys, ids = keys.cast(pl.String), ids.cast(pl.String)
    wanted = pl.DataFrame([keys.alias(_KEY), *(given[name] for name in columns)])
    rows = pl.DataFrame({_KEY: ids}).join(
        wanted, on=_KEY, how="left", maintain_order="left"
    )
    return rows.drop(_KEY)


def _check_nesting(feature: Feature, column: pl.Series, path: str | Path) -> None:
    nested = column.dtype.is_nested()
    lists = isinstance(column.dtype, pl.List | pl.Array)
    if nested and not (lists and feature.kind == "multi_valued"):
        raise LogError(
            "attribute-type",
            f"A {feature.kind} feature must hold one plain value per row. Received a"
            f" column of type {column.dtype}. Only a list can be multi_valued; leave"
            " other nested columns out.",
            file=path,
            column=feature.name,
        )


def _title(schema: Schema, items: pl.DataFrame) -> list[pl.Series]:
    return [] if schema.title is None else [items[schema.title].cast(pl.String)]


def _feature_columns(
    schema: Schema,
    attributes: Mapping[str, pl.DataFrame],
    vocabularies: dict[str, Vocabulary],
) -> tuple[dict[str, list[pl.Series]], dict[str, dict[str, float]]]:
    """The stored columns of each owner and how the numbers were standardized.

    Adds the vocabularies of the features, each over all features that share it.
    """
    raw = {f.name: attributes[f.owner][f.name] for f in schema.features}
    looked_up = [f for f in schema.features if f.kind != "numeric"]
    tokens = {f.name: _tokens(raw[f.name], f) for f in looked_up}
    for table in dict.fromkeys(f.table for f in looked_up):
        if table not in vocabularies:
            shared = pl.concat([tokens[f.name] for f in looked_up if f.table == table])
            values = shared.filter(shared.list.len() > 0).explode()
            vocabularies[table] = Vocabulary.fit(table, values)
    columns: dict[str, list[pl.Series]] = {USER: [], ITEM: []}
    numeric = {}
    for feature in schema.features:
        if feature.kind == "numeric":
            column, numeric[feature.name] = _standardized(raw[feature.name])
        else:
            vocabulary = vocabularies[feature.table]
            column = _rows(feature, tokens[feature.name], vocabulary)
        columns[feature.owner].append(column.alias(FEATURE_PREFIX + feature.name))
    return columns, numeric


def _rows(feature: Feature, lists: pl.Series, vocabulary: Vocabulary) -> pl.Series:
    """Lists of text as one row each, or as lists of rows."""
    if feature.kind == "categorical":
        return pl.Series(vocabulary.lookup_series(lists.list.first()))
    indexed = pl.DataFrame({"list": lists}).with_row_index()
    exploded = indexed.filter(pl.col("list").list.len() > 0).explode("list")
    rows = pl.Series("row", vocabulary.lookup_series(exploded["list"]))
    gathered = exploded.with_columns(rows).group_by("index").agg("row")
    joined = indexed.join(gathered, on="index", how="left", maintain_order="left")
    return joined["row"].fill_null([])


def _tokens(column: pl.Series, feature: Feature) -> pl.Series:
    """The values of a looked-up feature as lists of text, none of them empty."""
    values = pl.col("values")
    if isinstance(column.dtype, pl.List | pl.Array):
        lists = values.cast(pl.List(pl.String))
    elif feature.kind == "categorical":
        lists = pl.concat_list(values.cast(pl.String))
    else:
        parts = values.cast(pl.String).str.split(feature.separator)
        lists = parts.list.eval(pl.element().str.strip_chars())
    filled = pl.element().filter(pl.element().str.len_bytes() > 0)
    frame = pl.DataFrame({"values": column})
    return frame.select(lists.list.eval(filled)).to_series()


def _standardized(column: pl.Series) -> tuple[pl.Series, dict[str, float]]:
    """Zero mean and unit deviation over the known ids; missing values become 0."""
    values = column.cast(pl.Float64)
    values = values.set(~values.is_finite().fill_null(False), None)
    mean = float(values.mean() or 0.0)  # type: ignore[arg-type]
    scale = float(values.std() or 1.0) or 1.0  # type: ignore[arg-type]
    standardized = ((values - mean) / scale).fill_null(0.0).cast(pl.Float32)
    return standardized, {"mean": mean, "scale": scale}

"""LOG -> DATASET: read, validate, divide, map ids to rows, write.

Vocabularies of ids are fitted on the training and validation parts, those of features
and all statistics on the training part; the test part never shapes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from shortlist.atomic import check_absent
from shortlist.data.attributes import Attributes, feature_vocabularies
from shortlist.data.dataset import (
    INFO_FILE,
    Dataset,
    DatasetContents,
    write_dataset,
)
from shortlist.data.log import read_events
from shortlist.data.schema import ITEM, USER, Schema
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
        USER: _id_vocabulary(USER, known["user_id"], trained["user_id"], schema),
        ITEM: _id_vocabulary(ITEM, known["item_id"], taken["item_id"], schema),
    }
    attributes = Attributes.read(
        schema,
        {
            USER: (users, users_id or schema.user_id),
            ITEM: (items, items_id or schema.item_id),
        },
        vocabularies[USER].ids,
        vocabularies[ITEM].ids,
    )
    in_training = _trained_rows(log.filter(pl.col("part") == TRAIN), vocabularies)
    counts = attributes.token_counts(in_training)
    vocabularies |= feature_vocabularies(schema, counts)
    tables, numbers = attributes.encode(vocabularies, in_training)
    numeric = {"numeric": msgspec.to_builtins(numbers)}
    return write_dataset(
        out,
        DatasetContents(
            schema=schema,
            split=split,
            parts=_parts(log, vocabularies),
            vocabularies=vocabularies,
            users=tables[USER],
            items=tables[ITEM],
            statistics=_statistics(log, known, duplicates) | numeric,
        ),
        overwrite=overwrite,
    )


def _id_vocabulary(
    name: str, ids: pl.Series, counted: pl.Series, schema: Schema
) -> Vocabulary:
    limits = schema.limits(name)
    return Vocabulary.fit(
        name,
        ids,
        min_count=limits.min_count,
        max_size=limits.max_size,
        counted=counted,
    )


def _trained_rows(
    train: pl.DataFrame, vocabularies: Mapping[str, Vocabulary]
) -> dict[str, np.ndarray]:
    """Which rows have a training event: only these shape what is fitted."""
    trained = {}
    for owner in (USER, ITEM):
        mask = np.zeros(len(vocabularies[owner]), bool)
        mask[vocabularies[owner].lookup_series(train[f"{owner}_id"].unique())] = True
        mask[0] = False
        trained[owner] = mask
    return trained


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

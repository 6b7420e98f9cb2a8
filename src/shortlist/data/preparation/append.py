"""Appends new days to a dataset without rewriting the days it has.

The window moves: what was the test part becomes validation, what was validation becomes
training, and the new days are the test part. Rows never change their id. Feature
vocabularies and statistics stay as they were fitted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import msgspec
import numpy as np
import polars as pl

from shortlist.atomic import disk_errors, fsync
from shortlist.data.findings import Finding
from shortlist.data.preparation.attributes import (
    AttributeFiles,
    Attributes,
    attribute_files,
    encode_column,
)
from shortlist.data.preparation.event_rows import write_events
from shortlist.data.preparation.fitted import Fitted, pending_frames
from shortlist.data.preparation.id_rows import IdRows, count_events
from shortlist.data.preparation.ingest import CodedLog, Spill, ingest, number_events
from shortlist.data.preparation.sorted_log import SortedLog, sort_log
from shortlist.data.preparation.stale_files import kept_files, remove_stale_files
from shortlist.data.preparation.statistics import statistics, time_findings
from shortlist.data.preparation.time_findings import moment_text
from shortlist.data.read.blocks import ReadAgain, ReadState, read_blocks
from shortlist.data.read.inputs import LogFiles, Paths, ReadOptions
from shortlist.data.read.rejected import write_rejected
from shortlist.data.schema import FEATURE_PREFIX, ITEM, USER, Owner, Schema
from shortlist.data.split import KNOWN, PARTS, TEST, TIME_KINDS, PartName, Split
from shortlist.data.store.dataset import Dataset
from shortlist.data.store.dataset_info import (
    DatasetInfo,
    read_info,
    with_sums,
    write_info,
)
from shortlist.data.store.file_fingerprints import WatchedFiles
from shortlist.data.store.vocabulary import Vocabulary, read_frame
from shortlist.errors import InputError, LogError, ResourceError, listed
from shortlist.lock import Lock

_MOVED: dict[PartName, PartName] = {
    "train": "train",
    "validation": "train",
    "test": "validation",
}


def append(
    path: str | Path,
    log: Paths | LogFiles,
    *,
    options: ReadOptions = ReadOptions(),
) -> Dataset:
    """Adds the events of new days to a dataset, as its new test part.

    Args:
        path: the dataset; after an error it is unchanged.
        log: files of events with the columns of the dataset's schema, all later than
            the events it has; or `LogFiles` with attribute files beside them, which
            replace the attributes of the dataset. Without an attribute file old users
            or items keep their attributes, and new ones have none.
        options: how the files are read.

    Raises:
        LogError: the files cannot be used; names file, column and row.
            `append-id-type` for text where the ids of the dataset are integers.
        InputError: `append-split` for a dataset that was not split by time,
            `append-not-later` for events that are not later than those there,
            `split-files` for files of test or validation events.
        ArtifactError: `path` is no dataset or damaged.
        ResourceError: no space, read-only file system or no permission, or another
            process is appending (`append-locked`).
    """
    files = LogFiles.of(log)
    _check_files(files)
    with _locked(path) as dataset:
        info = dataset.info
        _check_split(info, path)
        remove_stale_files(dataset.path, info)
        watched = WatchedFiles(files.event_files), WatchedFiles(files.attribute_files)
        sources = attribute_files(files, info.schema, options)
        with _spill_folder(dataset.path) as folder:
            spill = Spill(folder, options.memory_bytes)
            sorted_log = _read(dataset, files, spill, options)
            return _append(dataset, sorted_log, sources, *watched)


def _check_files(files: LogFiles) -> None:
    if files.test_events is not None or files.validation_events is not None:
        raise InputError(
            "split-files",
            "All appended events become the test part, so they must be given as"
            " `events`. Received: `test_events` or `validation_events`. Pass these"
            " files as `events`.",
        )


def _check_split(info: DatasetInfo, path: str | Path) -> None:
    if info.split["kind"] not in TIME_KINDS or info.split.get("folds"):
        given = "a fold" if info.split.get("folds") else info.split["kind"]
        raise InputError(
            "append-split",
            "Days can be appended to a dataset that was split by time"
            f" ({listed(TIME_KINDS)}), and not to a fold. Received: {given!r}. Prepare"
            " all files again.",
            file=path,
        )


@contextlib.contextmanager
def _locked(path: str | Path) -> Iterator[Dataset]:
    """Opens a dataset; until the end no other process can append to it."""
    folder = Path(path)
    read_info(folder)  # raises before a lock file is written
    file = folder / ".append.lock"

    def busy(who: str) -> ResourceError:
        return ResourceError(
            "append-locked",
            f"Cannot append while {who} is appending to this dataset. Wait until it"
            " has ended.",
            file=path,
        )

    with disk_errors(path):
        lock = Lock(file, busy)
        try:
            yield Dataset.open(path)
        finally:
            lock.release(remove=True)


@contextlib.contextmanager
def _spill_folder(dataset: Path) -> Iterator[Path]:
    """A temporary folder; after an error, what the append wrote is removed too."""
    folder = dataset / f"spill-{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
    except BaseException:
        remove_stale_files(dataset, read_info(dataset))
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _read(
    dataset: Dataset, files: LogFiles, spill: Spill, options: ReadOptions
) -> SortedLog:
    info = dataset.info
    coded = ingest(
        dataclasses.replace(files, events=None, test_events=files.events),
        info.schema,
        spill,
        options,
        known=(_known_ids(dataset, USER), _known_ids(dataset, ITEM)),
    )
    for owner, ids in ((USER, coded.users.ids()), (ITEM, coded.items.ids())):
        if ids.dtype != dataset.vocabularies[owner].ids.dtype:
            _refuse_text(info.schema, owner, files, options)
    last = max(s.last_timestamp_ms or 0 for s in info.segments)
    if info.schema.timestamp is None or _had_one_time(info):
        if coded.is_timed:
            number_events(coded)
        _shift(coded, last + 1)
    log = sort_log(coded, info.schema, Split(kind="files"), spill)
    first = int(log.frame["timestamp_ms"].min())  # type: ignore[arg-type]
    if first <= last:
        early = int((log.frame["timestamp_ms"] <= last).sum())
        raise InputError(
            "append-not-later",
            "Appended events must be later than all events of the dataset, the last of"
            f" which is at {_moment(last)}. Received: {early:,} events up to that"
            f" moment, the first at {_moment(first)}. Leave them out, or prepare all"
            " files again.",
            file=files.first,
        )
    return log


def _moment(timestamp_ms: int) -> str:
    """A time to the millisecond, or the number if it is beyond the calendar."""
    try:
        text = moment_text(timestamp_ms)
    except OverflowError:
        return f"{timestamp_ms} ms since 1970"
    return f"{text[:-1]}.{timestamp_ms % 1000:03}Z" if timestamp_ms % 1000 else text


def _refuse_text(
    schema: Schema, owner: str, files: LogFiles, options: ReadOptions
) -> NoReturn:
    """Raises for the file whose ids are text while those of the dataset are integers.

    The reverse is no error: integers are converted to text.
    """
    column = schema.user_id if owner == USER else schema.item_id
    texts = (f for f in files.event_files if _is_text(f, schema, column, options))
    raise LogError(
        "append-id-type",
        f"Ids of appended events must be integers, as the {owner}s of the dataset are."
        " Received text. Correct the ids, or prepare all files again, so that all of"
        " them are text.",
        file=next(texts, files.first),
        column=column,
    )


def _is_text(file: Path, schema: Schema, column: str, options: ReadOptions) -> bool:
    """Whether an id column of one file is text."""
    reading = ReadState()
    name = "user_id" if column == schema.user_id else "item_id"
    while True:
        try:
            blocks = read_blocks(
                [file],
                schema,
                reading,
                layout=options.format,
                on_error=options.on_error,
            )
            return any(block.events[name].dtype == pl.String for block in blocks)
        except ReadAgain:
            reading.kinds.clear()


def _append(
    dataset: Dataset,
    log: SortedLog,
    sources: AttributeFiles,
    events: WatchedFiles,
    attributes: WatchedFiles,
) -> Dataset:
    info, folder = dataset.info, dataset.path
    generation = info.generation + 1
    moved = [
        msgspec.structs.replace(segment, part=_MOVED[segment.part])
        for segment in info.segments
    ]
    contents = _contents(dataset, log, sources)
    rows = contents.event_rows(log)
    numbers = (Path(segment.file).stem for segment in info.segments)
    number = 1 + max(int(stem) for stem in numbers if stem.isdecimal())
    new = write_events(folder, rows, (TEST,), number, info.compression)
    files = contents.write(folder, generation)
    rejected = [f"rejected-{generation}.csv"] if log.rejected else []
    for file in rejected:
        write_rejected(folder / file, log.rejected)
    result = msgspec.structs.replace(
        info,
        files=kept_files(info, generation),
        segments=(*moved, *new),
        generation=generation,
        statistics=statistics(
            log,
            count_events(log, info.schema),
            contents,
            (*moved, *new),
            known_ids=_sizes(contents),
            before=info.statistics,
        ),
        findings=(
            *info.findings,
            *log.findings,
            *contents.findings,
            *time_findings(log, info.schema),
        ),
        log=(*info.log, *events.fingerprints()),
        attributes=attributes.fingerprints() or info.attributes,
        tables=files.tables,
        vocabularies=files.vocabularies,
        pending=files.pending,
    )
    files_of_new = (*result.named_files, *(segment.file for segment in new))
    written = [folder / file for file in files_of_new]
    for place in dict.fromkeys([*written, *(file.parent for file in written)]):
        fsync(place)
    write_info(folder, with_sums(folder, result, rejected))
    remove_stale_files(folder, result)
    return Dataset.open(folder)


def _sizes(contents: Fitted) -> tuple[int, int]:
    """Users and items of the vocabularies."""
    users, items = (len(contents.ids[o].vocabulary) - 1 for o in (USER, ITEM))
    return users, items


def _known_ids(dataset: Dataset, owner: Owner) -> pl.Series:
    """Ids by row, from row 1 on: first the vocabulary, then the pending ids."""
    ids = dataset.vocabularies[owner].ids[1:].alias("id")
    pending = dataset.pending.get(owner)
    return ids if pending is None else pl.concat([ids, pending])


def _pending(dataset: Dataset, owner: Owner) -> pl.DataFrame:
    """The pending ids with their attributes from the log."""
    file = dataset.info.pending.get(owner)
    if file is not None:
        return read_frame(dataset.path / file)
    of_log = dataset.schema.log_attributes
    names = ["id", *(FEATURE_PREFIX + f.name for f in of_log.owned_by(owner))]
    if owner == ITEM and of_log.title is not None:
        names.append(of_log.title)
    table = dataset.users if owner == USER else dataset.items
    return table.select(names).clear()


def _had_one_time(info: DatasetInfo) -> bool:
    """Whether the times of the dataset are positions, because all times were the
    same."""
    return any(finding.code == "times-all-equal" for finding in info.findings)


def _shift(coded: CodedLog, first: int) -> None:
    """Without times positions are the times; they continue with the new events."""
    later = pl.col("timestamp_ms") + first
    coded.frames = [frame.with_columns(later) for frame in coded.frames]


def _contents(dataset: Dataset, log: SortedLog, sources: AttributeFiles) -> Fitted:
    """The fitted contents, with the formerly pending ids in the vocabularies."""
    info = dataset.info
    trained = _interactions(dataset, KNOWN["test"])  # now training
    known = _interactions(dataset, PARTS)
    ids = {
        USER: _id_rows(dataset, USER, log.user_ids, trained["user_index"]),
        ITEM: _id_rows(dataset, ITEM, log.item_ids, known["item_index"]),
    }
    vocabularies = dataset.vocabularies | {
        owner: rows.vocabulary for owner, rows in ids.items()
    }
    read = [owner for owner, source in sources.items() if source.file is not None]
    owners: tuple[Owner, ...] = (USER, ITEM)
    frames: dict[str, pl.DataFrame] = {
        owner: _extended(dataset, owner, vocabularies) for owner in owners
    }
    owned = {owner: rows.vocabulary.ids for owner, rows in ids.items()}
    findings: tuple[Finding, ...] = ()
    if read:
        needed = _only_of(info.schema.file_attributes, read)
        attributes = Attributes.read(needed, sources, owned[USER], owned[ITEM])
        encoded, _ = attributes.encode(vocabularies, {}, info.numbers)
        for owner in read:
            frames[owner] = frames[owner].with_columns(encoded[owner].get_columns())
        findings = attributes.findings
    of_log = Attributes.read(
        info.schema.log_attributes, {}, owned[USER], owned[ITEM], log.attributes
    )
    encoded, _ = of_log.encode(vocabularies, {}, info.numbers)
    for owner in owners:
        frames[owner] = _renewed(frames[owner], encoded[owner], of_log.columns[owner])
    return Fitted(
        schema=info.schema,
        ids=ids,
        vocabularies=vocabularies,
        frames=frames,
        pending=pending_frames(log, info.schema, ids, vocabularies, info.numbers),
        numbers=info.numbers,
        findings=findings,
    )


def _only_of(schema: Schema, owners: list[str]) -> Schema:
    """The schema without the features of owners whose file is not given."""
    features = tuple(f for f in schema.features if f.owner in owners)
    title = schema.title if ITEM in owners else None
    return msgspec.structs.replace(schema, features=features, title=title)


def _id_rows(
    dataset: Dataset, owner: Owner, ids: pl.Series, interactions: np.ndarray
) -> IdRows:
    """Rows of the codes: known ids keep theirs, new ones follow as pending."""
    known = _known_ids(dataset, owner)
    counts = np.bincount(interactions, minlength=1 + len(known))
    vocabulary = Vocabulary(owner, ids[: len(known)], counts[1:])
    rows = np.arange(1, 1 + len(ids), dtype=np.int32)
    return IdRows(vocabulary, rows, ids[len(known) :])


def _interactions(dataset: Dataset, parts: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Rows of the positive events of some parts."""
    columns = dataset.stored_columns(*parts)
    names = ("user_index", "item_index")
    if dataset.schema.label_kind != "binary":
        return {name: columns.column(name) for name in names}
    taken = columns.column("label") >= dataset.schema.positive_from
    return {name: columns.column(name)[taken] for name in names}


def _renewed(
    frame: pl.DataFrame, encoded: pl.DataFrame, columns: pl.DataFrame
) -> pl.DataFrame:
    """The users or items, updated with the attributes in the log of the new days.

    Args:
        frame: the users or items before.
        encoded: the attributes of the new days as they are stored.
        columns: the same as in the log, null where a value is missing.
    """
    names = {name: FEATURE_PREFIX + name for name in columns.columns}
    stored = {name: s if s in encoded.columns else name for name, s in names.items()}
    return frame.with_columns(
        pl.when(columns[name].is_not_null())
        .then(encoded[at])
        .otherwise(frame[at])
        .alias(at)
        for name, at in stored.items()
    )


def _extended(
    dataset: Dataset, owner: Owner, vocabularies: dict[str, Vocabulary]
) -> pl.DataFrame:
    """The users or items of the dataset, and those that were pending.

    Pending ones have their attributes from the log, and none from a file.
    """
    frame = dataset.users if owner == USER else dataset.items
    ids = vocabularies[owner].ids
    new = len(ids) - len(frame)
    columns = [ids[len(frame) :].alias("id")]
    held = _pending(dataset, owner).drop("id")
    title = dataset.schema.title if owner == ITEM else None
    if title is not None and title not in held.columns:
        columns.append(pl.Series(title, [None] * new, dtype=pl.String))
    for feature in dataset.schema.features:
        if feature.owner == owner and not feature.from_log:
            kind = pl.Float32 if feature.is_number else pl.String
            missing = pl.Series(FEATURE_PREFIX + feature.name, [None] * new, dtype=kind)
            statistics = dataset.info.numbers.get(feature.name)
            columns.append(encode_column(missing, feature, vocabularies, statistics))
    rows = pl.DataFrame([*columns, *held.head(new)])
    return pl.concat([frame, rows.select(frame.columns)])

"""LOG -> DATASET: read, validate, split, map ids to rows, write.

Id vocabularies are fitted on the training and validation parts, feature vocabularies
and statistics on the training part. Nothing is fitted on the test part.
"""

from __future__ import annotations

import dataclasses
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from shortlist.atomic import atomic_directory, check_absent
from shortlist.data.preparation.attributes import attribute_files
from shortlist.data.preparation.event_rows import write_events
from shortlist.data.preparation.fitted import Fitted
from shortlist.data.preparation.id_rows import EventCounts, count_events
from shortlist.data.preparation.ingest import Spill, check_distinct, ingest
from shortlist.data.preparation.sorted_log import SortedLog, check_apart, sort_log
from shortlist.data.preparation.statistics import statistics, time_findings
from shortlist.data.read.inputs import LogFiles, Paths, ReadOptions
from shortlist.data.read.rejected import write_rejected
from shortlist.data.schema import Schema
from shortlist.data.split import TEST, TRAIN, VALIDATION, Split
from shortlist.data.store.arrow import Compression, check_compression
from shortlist.data.store.dataset import Dataset
from shortlist.data.store.dataset_info import DatasetInfo, with_sums, write_info
from shortlist.data.store.file_fingerprints import WatchedFiles
from shortlist.errors import InputError, LogError
from shortlist.outputs import DATASET

REJECTED_FILE = "rejected.csv"


def prepare(
    log: Paths | LogFiles,
    schema: Schema,
    out: str | Path,
    *,
    split: Split = Split(),
    options: ReadOptions = ReadOptions(),
    compression: Compression | None = None,
    overwrite: bool = False,
) -> Dataset:
    """Turns a log, which may be larger than memory, into a dataset directory.

    Args:
        log: files of events; or `LogFiles` with attribute files or test events too.
        schema: what the columns of the log are.
        out: directory to write; must not exist unless `overwrite`.
        split: how the events are split into training, validation and test parts.
        options: how the files are read.
        compression: `zstd` for a smaller dataset that is read into memory; without
            compression events are memory-mapped.
        overwrite: replace an existing dataset.

    Raises:
        LogError: the log cannot be used; names file, column and row.
        InputError: `out` exists, or arguments contradict each other.
        ResourceError: no space, read-only file system or no permission.
    """
    check_absent(out, overwrite=overwrite, kind=DATASET)
    check_compression(compression)
    files = LogFiles.of(log)
    _check_split_files(split, files)
    with (
        atomic_directory(out, overwrite=overwrite, kind=DATASET) as folder,
        ThreadPoolExecutor(1) as background,
    ):
        watch = WatchedFiles(files.event_files)
        attribute_watch = WatchedFiles(files.attribute_files)
        (folder / "spill").mkdir()
        spill = Spill(folder / "spill", options.memory_bytes)
        coded = ingest(files, schema, spill, options)
        check_distinct(coded, schema, files.first)
        fingerprints = background.submit(watch.fingerprints)
        sorted_log = sort_log(coded, schema, split, spill)
        check_apart(sorted_log, schema, split)
        jumps = background.submit(time_findings, sorted_log, schema)
        counts = count_events(sorted_log, schema)
        _check_enough(counts, files.first, schema)
        attributes = attribute_files(files, schema, options)
        fitted = Fitted.fit(sorted_log, counts, schema, attributes)
        info = msgspec.structs.replace(
            _write(folder, sorted_log, counts, fitted, compression),
            split=dataclasses.asdict(split),
            findings=(*sorted_log.findings, *fitted.findings, *jumps.result()),
            log=fingerprints.result(),
            attributes=attribute_watch.fingerprints(),
        )
        shutil.rmtree(folder / "spill")
        rejected = [REJECTED_FILE] if sorted_log.rows_skipped else []
        write_info(folder, with_sums(folder, info, rejected))
    return Dataset.open(out)


def _write(
    folder: Path,
    log: SortedLog,
    counts: EventCounts,
    fitted: Fitted,
    compression: Compression | None,
) -> DatasetInfo:
    """Writes the files of a dataset, and describes what is in them."""
    rows = fitted.event_rows(log)
    segments = write_events(folder, rows, (TRAIN, VALIDATION, TEST), 0, compression)
    if log.rows_skipped:
        write_rejected(folder / REJECTED_FILE, log.rejected)
    written = fitted.write(folder, generation=0)
    known_users, known_items = (
        int((codes[:TEST].sum(axis=0) > 0).sum())
        for codes in (counts.users, counts.items)
    )
    return DatasetInfo(
        schema=fitted.schema,
        split={},
        segments=segments,
        tables=written.tables,
        vocabularies=written.vocabularies,
        pending=written.pending,
        statistics=statistics(
            log, counts, fitted, segments, known_ids=(known_users, known_items)
        ),
        numbers=fitted.numbers,
        compression=compression,
        fingerprint="",
    )


def _check_split_files(split: Split, files: LogFiles) -> None:
    test, validation = files.test_events, files.validation_events
    given = test is not None
    if (split.kind == "files") != given or (validation and not given):
        raise InputError(
            "split-files",
            "A split of kind 'files' needs a test file, and other kinds take none; a"
            " validation file needs a test file. Received:"
            f" kind = {split.kind!r} with {'a' if test else 'no'} test file and"
            f" {'a' if validation else 'no'} validation file. Set `test_events` under"
            " [log], or another kind.",
        )


def _check_enough(counts: EventCounts, file: Path, schema: Schema) -> None:
    for column, name, found in (
        ("user_id", schema.user_id, int((counts.users[TRAIN] > 0).sum())),
        ("item_id", schema.item_id, int((counts.items[TRAIN] > 0).sum())),
    ):
        if found < 2:
            raise LogError(
                "log-too-small",
                "The training part needs at least 2 users and 2 items. Received:"
                f" {found} in {column}. Add events, or hold out fewer.",
                file=file,
                column=name,
            )

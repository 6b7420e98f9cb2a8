"""LOG -> DATASET: read, validate, divide, map ids to rows, write.

Id vocabularies are fitted on the training and validation parts, feature vocabularies
and statistics on the training part; the test part never shapes anything.
"""

from __future__ import annotations

import dataclasses
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from shortlist.atomic import atomic_directory, check_absent
from shortlist.data.findings import Finding
from shortlist.data.preparation.attributes import AttributeFile
from shortlist.data.preparation.event_rows import write_events
from shortlist.data.preparation.fitted import Fitted
from shortlist.data.preparation.id_rows import EventCounts, count_events
from shortlist.data.preparation.ingest import Paths, Spill, check_distinct, ingest
from shortlist.data.preparation.sorted_log import SortedLog, check_apart, group
from shortlist.data.preparation.time_findings import clock_jumps
from shortlist.data.read.blocks import OnError
from shortlist.data.read.file_format import FileFormat
from shortlist.data.read.rejected import write_rejected
from shortlist.data.schema import ITEM, USER, Schema
from shortlist.data.split import TEST, TRAIN, VALIDATION, Split
from shortlist.data.store.arrow import Compression, check_compression
from shortlist.data.store.dataset import Dataset
from shortlist.data.store.dataset_info import DatasetInfo, with_sums, write_info
from shortlist.data.store.file_fingerprints import WatchedFiles
from shortlist.errors import InputError, LogError
from shortlist.outputs import DATASET

REJECTED_FILE = "rejected.csv"


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
    users_format: FileFormat | None = None,
    items_format: FileFormat | None = None,
    test_events: Paths | None = None,
    validation_events: Paths | None = None,
    layout: str | FileFormat | None = None,
    on_error: OnError = "raise",
    compression: Compression | None = None,
    memory_bytes: int | None = None,
    overwrite: bool = False,
) -> Dataset:
    """Turns a log into a dataset directory.

    Args:
        events: the log, one file or several, larger than memory if need be.
        schema: what its columns are.
        out: directory to write; must not exist unless `overwrite`.
        split: how to divide the events.
        users: user attribute file, needed when the schema has user features.
        items: item attribute file, needed when the schema has item features.
        users_id: id column of `users`; the log's own name of it by default.
        items_id: id column of `items`; the log's own name of it by default.
        users_format: settings of reading `users`.
        items_format: settings of reading `items`.
        test_events: for kind `files`, the user's own test events.
        validation_events: for kind `files`, the user's own validation events.
        layout: layout of the event files, or all settings of reading; found out from
            each file when `None`.
        on_error: `raise` at the first bad row, or `skip` it: the rows set aside are
            counted and listed in `rejected.csv` of the dataset. Of attribute files see
            `read_attributes`.
        compression: `zstd` for a smaller dataset that is read into memory; without it
            the events are read in place.
        memory_bytes: most bytes of events to hold at once, what exceeds them goes
            through files; a quarter of the machine's memory by default.
        overwrite: replace an existing dataset.

    Raises:
        LogError: the log cannot be used; says file, column and row.
        InputError: `out` exists, or arguments that do not fit each other.
        ResourceError: no space, read-only file system or no permission.
    """
    check_absent(out, overwrite=overwrite, kind=DATASET)
    check_compression(compression)
    split = split or Split()
    _check_split_files(split, test_events, validation_events)
    sources = {
        USER: AttributeFile(users, users_id or schema.user_id, users_format, on_error),
        ITEM: AttributeFile(items, items_id or schema.item_id, items_format, on_error),
    }
    with (
        atomic_directory(out, overwrite=overwrite, kind=DATASET) as folder,
        ThreadPoolExecutor(1) as beside,
    ):
        watched = WatchedFiles(files_of(events, validation_events, test_events))
        of_attributes = WatchedFiles(files_of(users, items))
        (folder / "spill").mkdir()
        spill = Spill(folder / "spill", memory_bytes)
        coded = ingest(
            events,
            schema,
            spill,
            test_events=test_events,
            validation_events=validation_events,
            layout=layout,
            on_error=on_error,
        )
        check_distinct(coded, schema, files_of(events)[0])
        fingerprints = beside.submit(watched.fingerprints)
        log = group(coded, schema, split, spill)
        check_apart(log, schema, split)
        jumps = beside.submit(time_findings, log, schema)
        counts = count_events(log, schema)
        _check_enough(counts, events, schema)
        contents = Fitted.fit(log, counts, schema, sources)
        rows = contents.event_rows(log)
        parts = (TRAIN, VALIDATION, TEST)
        segments = write_events(folder, rows, parts, 0, compression)
        rejected = [REJECTED_FILE] if log.rows_skipped else []
        for file in rejected:
            write_rejected(folder / file, log.rejected)
        files = contents.write(folder, generation=0)
        info = DatasetInfo(
            schema=schema,
            split=dataclasses.asdict(split),
            segments=segments,
            tables=files.tables,
            vocabularies=files.vocabularies,
            pending=files.pending,
            statistics=statistics(log, counts, contents),
            numbers=contents.numbers,
            compression=compression,
            findings=(*log.findings, *contents.findings, *jumps.result()),
            log=fingerprints.result(),
            attributes=of_attributes.fingerprints(),
            fingerprint="",
        )
        shutil.rmtree(folder / "spill")
        write_info(folder, with_sums(folder, info, rejected))
    return Dataset.open(out)


def statistics(log: SortedLog, counts: EventCounts, contents: Fitted) -> dict[str, Any]:
    """Counts of a log, for people."""
    known_users, known_items = (
        c[:TEST].sum(axis=0) for c in (counts.users, counts.items)
    )
    num_users, num_items = int((known_users > 0).sum()), int((known_items > 0).sum())
    times = log.frame["timestamp_ms"]
    return {
        "events": len(log.frame),
        "users": len(contents.ids[USER].vocabulary) - 1,
        "items": len(contents.ids[ITEM].vocabulary) - 1,
        "density": int(known_users.sum()) / (num_users * num_items),
        "rows_read": log.events_read,
        "rows_skipped": log.rows_skipped,
        "duplicates_dropped": log.duplicates_dropped,
        "below_threshold": log.below,
        "first_timestamp_ms": times.min(),
        "last_timestamp_ms": times.max(),
        "test_events_of_unknown_items": int(
            counts.items[TEST][contents.ids[ITEM].unknown()].sum()
        ),
        "test_events_of_unknown_users": int(
            counts.users[TEST][contents.ids[USER].unknown()].sum()
        ),
    }


def time_findings(log: SortedLog, schema: Schema) -> list[Finding]:
    """Jumps of the clock that wrote a log."""
    if not log.is_timed:
        return []
    return clock_jumps(log.frame["timestamp_ms"].to_numpy(), column=schema.timestamp)


def files_of(*paths: Paths | None) -> list[Path]:
    """All files of some arguments of `prepare`."""
    given = [path for path in paths if path is not None]
    return [
        Path(file)
        for path in given
        for file in ([path] if isinstance(path, str | Path) else path)
    ]


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


def _check_enough(counts: EventCounts, events: Paths, schema: Schema) -> None:
    for column, name, found in (
        ("user_id", schema.user_id, int((counts.users[TRAIN] > 0).sum())),
        ("item_id", schema.item_id, int((counts.items[TRAIN] > 0).sum())),
    ):
        if found < 2:
            raise LogError(
                "log-too-small",
                "The training part must hold at least 2 users and 2 items. Received:"
                f" {found} in {column}. Give more events or hold out fewer.",
                file=files_of(events)[0],
                column=name,
            )

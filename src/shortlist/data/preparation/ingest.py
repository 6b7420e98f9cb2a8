"""Replaces the external ids of events by codes, in memory or in temporary files.

A code is the provisional number of an id, in order of first appearance.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from shortlist.data.findings import Finding, ids_missing_as_text, similar_ids
from shortlist.data.kernels.ids import IdMap
from shortlist.data.preparation.log_attributes import LogAttributes
from shortlist.data.preparation.time_findings import one_time
from shortlist.data.read.blocks import (
    Block,
    ReadAgain,
    ReadState,
    read_blocks,
)
from shortlist.data.read.inputs import LogFiles, Paths, ReadOptions, paths_of
from shortlist.data.read.panics import panics_refused
from shortlist.data.read.rejected import Reason, findings_of
from shortlist.data.read.text.missing import missing_texts
from shortlist.data.schema import (
    CONTEXT,
    FEATURE_PREFIX,
    ITEM,
    USER,
    Feature,
    Owner,
    Schema,
)
from shortlist.data.split import TEST, TRAIN, VALIDATION
from shortlist.data.store.ragged import Ragged
from shortlist.data.store.vocabulary import bucket_rows
from shortlist.errors import LogError


class Spill:
    """Keeps frames in memory up to a budget, and later ones in memory-mapped files.

    Args:
        folder: where the files go; must exist when the budget is exceeded.
        budget_bytes: maximum number of bytes to keep, `memory_bytes` of `prepare` and
            `append`; a
            quarter of the machine's memory by default.
    """

    def __init__(self, folder: Path, budget_bytes: int | None = None) -> None:
        self.folder = folder
        self.budget_bytes = budget_bytes or total_memory() // 4
        self.kept_bytes = 0
        self.num_files = 0

    def keep(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frame itself, memory-mapped from a file if the budget is used up."""
        size = int(frame.estimated_size())
        if self.kept_bytes + size <= self.budget_bytes:
            self.kept_bytes += size
            return frame
        file = self.folder / f"spill-{self.num_files}.arrow"
        self.num_files += 1
        frame.write_ipc(file)
        with pa.memory_map(str(file)) as source:
            return pl.DataFrame(pl.from_arrow(pa.ipc.open_file(source).read_all()))

    def release(self, frames: Sequence[pl.DataFrame]) -> None:
        """Frees the memory of `frames` in the budget."""
        freed = sum(int(frame.estimated_size()) for frame in frames)
        self.kept_bytes = max(0, self.kept_bytes - freed)


@dataclass
class CodedLog:
    """A checked log whose ids are codes.

    Args:
        frames: `user_code` and `item_code` (Int32), `timestamp_ms` (Int64; the position
            0, 1, ... in the log without a timestamp column), `label` (Float32),
            `part` (Int8, only of a log that comes in parts), `weight`, and
            `feature:<name>` per context feature: Float32; Int32 rows of a hashed
            feature; else Int32 codes of its table, -1 for none; or lists of those.
        users: ids of the user codes.
        items: ids of the item codes.
        tables: values of the context features by table, as text.
        rows_read: rows of all files.
        below: events left out by the implicit threshold.
        rejected: the skipped rows.
        findings: what reading noticed.
        attributes: of users and items, where they are columns of the log.
        is_timed: whether `timestamp_ms` are times; else they are positions.
    """

    attributes: LogAttributes
    frames: list[pl.DataFrame] = field(default_factory=list)
    users: IdMap = field(default_factory=lambda: IdMap(pl.Int64))
    items: IdMap = field(default_factory=lambda: IdMap(pl.Int64))
    tables: dict[str, IdMap] = field(default_factory=dict)
    rows_read: int = 0
    below: int = 0
    rejected: list[Reason] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    is_timed: bool = True

    @property
    def num_events(self) -> int:
        """Events of all frames."""
        return sum(len(frame) for frame in self.frames)

    @property
    def rows_skipped(self) -> int:
        """Number of skipped rows."""
        return sum(len(reason.rows) for reason in self.rejected)


def ingest(
    log: Paths | LogFiles,
    schema: Schema,
    spill: Spill,
    options: ReadOptions = ReadOptions(),
    *,
    now_ms: int | None = None,
    known: tuple[pl.Series, pl.Series] | None = None,
) -> CodedLog:
    """Reads the events of a log and replaces their ids by codes.

    Args:
        log: the files of events.
        schema: what their columns are.
        spill: where the coded events are kept.
        options: how the files are read.
        now_ms: the current time in milliseconds since the epoch, for tests.
        known: user and item ids that have the first codes.

    Raises:
        LogError: the log cannot be used; names file, column and row.
    """
    files = LogFiles.of(log)
    reading = ReadState()
    if known is not None:
        names = (schema.user_id, schema.item_id)
        pairs = zip(names, known, strict=True)
        reading.text |= {name for name, ids in pairs if ids.dtype == pl.String}
    while True:
        coded = CodedLog(LogAttributes(schema))
        adding = _Adding(coded, schema, spill, known)
        try:
            _read_parts(adding, files, reading, options, now_ms)
        except ReadAgain:
            spill.release(coded.frames)
            reading.kinds.clear()
            continue
        coded.findings += reading.types.findings()
        coded.findings += findings_of(coded.rejected)
        _find_in_ids(coded, schema)
        coded.is_timed = schema.timestamp is not None
        if coded.is_timed and known is None and (time := _only_time(coded)) is not None:
            number_events(coded)
            coded.is_timed = False
            coded.findings.append(one_time(time, column=schema.timestamp))
        return coded


def _read_parts(
    adding: _Adding,
    files: LogFiles,
    reading: ReadState,
    options: ReadOptions,
    now_ms: int | None,
) -> None:
    """Adds the events of all files, part after part."""
    parts = (
        (files.events, TRAIN),
        (files.validation_events, VALIDATION),
        (files.test_events, TEST),
    )
    given = [(paths_of(paths), part) for paths, part in parts if paths is not None]
    with ThreadPoolExecutor(2) as pool:
        for paths, part in given:
            blocks = read_blocks(
                paths,
                adding.schema,
                reading,
                layout=options.format,
                now_ms=now_ms,
                on_error=options.on_error,
            )
            column = None if part == TRAIN and len(given) == 1 else part
            with panics_refused(paths[0] if paths else ""):
                adding.add(blocks, column, pool)
            _check_some(adding.coded, paths[0])


def total_memory() -> int:
    """Bytes of memory of this machine; 8 GiB if unknown."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 8 << 30


@dataclass(frozen=True)
class _Adding:
    """Adds blocks of events to a coded log.

    Args:
        coded: the log.
        schema: what its columns are.
        spill: where the events are kept.
        known: user and item ids that have the first codes.
    """

    coded: CodedLog
    schema: Schema
    spill: Spill
    known: tuple[pl.Series, pl.Series] | None

    def add(
        self, blocks: Iterator[Block], part: int | None, pool: ThreadPoolExecutor
    ) -> None:
        """Adds the blocks of one part; `None` if the log is still to be split."""
        coded = self.coded
        context = self.schema.owned_by(CONTEXT)
        for block in blocks:
            events = block.events
            if not coded.rows_read:
                coded.users, coded.items = _maps(events, self.known)
            users = pool.submit(coded.users.add, events["user_id"])
            items = pool.submit(coded.items.add, events["item_id"])
            columns = [
                _values(events, f, coded.tables).alias(FEATURE_PREFIX + f.name)
                for f in context
            ]
            codes: dict[Owner, np.ndarray] = {
                USER: users.result(),
                ITEM: items.result(),
            }
            coded.attributes.add(events, codes)
            times = pl.col("timestamp_ms")
            if self.schema.timestamp is None:
                first = coded.num_events
                times = pl.int_range(first, first + len(events), dtype=pl.Int64)
            given = [] if part is None else [pl.lit(part, pl.Int8).alias("part")]
            coded.rows_read += block.read
            coded.below += block.below
            coded.rejected += block.rejected
            frame = events.select(
                pl.Series("user_code", codes[USER]),
                pl.Series("item_code", codes[ITEM]),
                times.alias("timestamp_ms"),
                "label",
                *given,
                *(["weight"] if "weight" in events.columns else []),
                *columns,
            )
            coded.frames.append(self.spill.keep(frame))


def _find_in_ids(coded: CodedLog, schema: Schema) -> None:
    """Adds findings on the spelling of ids."""
    for ids, name, codes in (
        (coded.users, schema.user_id, "user_code"),
        (coded.items, schema.item_id, "item_code"),
    ):
        column = ids.ids().alias(name)
        coded.findings += similar_ids(column)
        counts = {
            text: sum(int((f[codes] == ids.find_one(text)).sum()) for f in coded.frames)
            for text in missing_texts(column)
        }
        used = {text: count for text, count in counts.items() if count}
        coded.findings += ids_missing_as_text(used, column=name)


def _only_time(coded: CodedLog) -> int | None:
    """The time of all events if it is the same for all; `None` for a single event."""
    first: int | None = None
    for frame in coded.frames:
        least, most = frame["timestamp_ms"].min(), frame["timestamp_ms"].max()
        first = least if first is None else first  # type: ignore[assignment]
        if least != first or most != first:
            return None
    return first if coded.num_events > 1 else None


def number_events(coded: CodedLog) -> None:
    """Replaces times by the positions in the file."""
    first = 0
    for place, frame in enumerate(coded.frames):
        positions = pl.int_range(first, first + len(frame), dtype=pl.Int64)
        coded.frames[place] = frame.with_columns(positions.alias("timestamp_ms"))
        first += len(frame)


def _maps(
    events: pl.DataFrame, known: tuple[pl.Series, pl.Series] | None
) -> tuple[IdMap, IdMap]:
    columns = events["user_id"], events["item_id"]
    users, items = (IdMap(ids.dtype) for ids in columns)
    if known is not None:
        users.add(known[0].cast(columns[0].dtype))
        items.add(known[1].cast(columns[1].dtype))
    return users, items


def _values(
    events: pl.DataFrame, feature: Feature, tables: dict[str, IdMap]
) -> pl.Series:
    """A context feature as numbers, codes or hashed rows; lists where multi-valued."""
    values = events[FEATURE_PREFIX + feature.name]
    if feature.is_number:
        return values
    lengths = values.list.len()
    flat = values.filter(lengths > 0).explode()
    if feature.hash_buckets is not None:
        codes = bucket_rows(flat, feature.hash_buckets) + np.int32(1)
    else:
        codes = tables.setdefault(feature.table, IdMap(pl.String)).add(flat)
    if feature.kind == "multi_valued":
        return Ragged.from_lengths(lengths.to_numpy(), codes).to_column()
    absent = 0 if feature.hash_buckets is not None else -1
    rows = np.full(len(values), absent, np.int32)
    rows[(lengths > 0).to_numpy()] = codes
    return pl.Series(rows)


def _check_some(coded: CodedLog, file: Path) -> None:
    if not coded.num_events:
        raise LogError(
            "log-empty",
            f"The log has no usable event: of {coded.rows_read:,} rows"
            f" {coded.rows_skipped:,} are bad and {coded.below:,} below positive_from."
            " Read it with on_error = 'raise' to see the first bad one.",
            file=file,
        )


def check_distinct(coded: CodedLog, schema: Schema, file: str | Path) -> None:
    """Raises `LogError` for a log of one user or one item."""
    for kind, ids, column in (
        ("user", coded.users, schema.user_id),
        ("item", coded.items, schema.item_id),
    ):
        if len(ids) < 2:
            raise LogError(
                "log-one-user" if kind == "user" else "log-one-item",
                f"A log needs at least two {kind}s. Found only"
                f" {ids.ids()[0]!r}. Give more events or name another {kind} column.",
                file=file,
                column=column,
            )

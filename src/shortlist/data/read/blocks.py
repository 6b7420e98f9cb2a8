"""Reads a log as a stream of checked blocks of events; it may be larger than memory.

    read_blocks   files to blocks of `user_id, item_id, timestamp_ms, label, ...`

Blocks are checked on a few threads while the next ones are read, and come in file
order.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl

from shortlist.data.read.column_types import NUMBER, ColumnTypes, kind_of
from shortlist.data.read.error_locations import blank_lines, extra_fields, read_failures
from shortlist.data.read.feature_values import TITLE, check_nesting, check_title, tokens
from shortlist.data.read.file_format import FileFormat
from shortlist.data.read.implicit import implicit_events
from shortlist.data.read.inputs import OnError, Paths, paths_of
from shortlist.data.read.layouts import inspect_file
from shortlist.data.read.log_file import LogFile
from shortlist.data.read.rejected import Reason, SkipBadRows
from shortlist.data.read.scan import (
    BEYOND_HEADER,
    SAMPLED_ROWS,
    as_kind,
    check_columns,
    check_rows,
    extra_values,
    has_stray_quotes,
    narrow,
    readable,
    scan,
)
from shortlist.data.read.validate import (
    BadRowHandler,
    RaiseBadRows,
    Times,
    check_not_empty,
    to_ids,
    to_labels,
    to_numbers,
)
from shortlist.data.schema import FEATURE_PREFIX, Schema
from shortlist.errors import LogError
from shortlist.native import default_threads

BLOCK_ROWS = 1 << 20
FIRST_ROWS = 1 << 16
"""Rows that are checked before all others, as they decide on units."""


@dataclass
class ReadState:
    """What is known about a log from reading it; kept when it must be read again.

    Args:
        text: id columns that are read as text in all files, because one file has text.
        unquoted: files in which double quotes are ordinary characters.
        types: types of the columns by file; of an id column only those that differ.
        kinds: type of the id columns so far, and the first file that has it.
        time_format: the format of the times, once it is known.
    """

    text: set[str] = field(default_factory=set)
    unquoted: set[Path] = field(default_factory=set)
    types: ColumnTypes = field(default_factory=ColumnTypes)
    kinds: dict[str, tuple[pl.DataType, Path]] = field(default_factory=dict)
    time_format: str | None = None


class ReadAgain(Exception):
    """The `ReadState` has changed: discard all blocks and read again."""


@dataclass(frozen=True)
class Block:
    """Some checked events, in file order.

    Args:
        events: `user_id` and `item_id` (Int64 or String, the same in all blocks),
            `timestamp_ms` (Int64; absent without a timestamp column), `label`
            (Float32), `weight` (Float32) when the schema weights events, and
            `feature:<name>` per feature that is a column of the log: Float32, or lists
            of text; and the title where the log has it, named `log_attributes.TITLE`.
        read: rows of the file the block came from.
        below: rows left out because an implicit label was under `positive_from`.
        rejected: the skipped rows.
    """

    events: pl.DataFrame
    read: int
    below: int
    rejected: tuple[Reason, ...] = ()


def read_blocks(
    paths: Paths,
    schema: Schema,
    reading: ReadState,
    *,
    layout: str | FileFormat | None = None,
    now_ms: int | None = None,
    on_error: OnError = "raise",
) -> Iterator[Block]:
    """Reads and checks a log block by block.

    Args:
        paths: files with the same columns, read one after the other.
        schema: which columns to read and what they may hold.
        reading: what is known from an earlier attempt; changed before `ReadAgain`.
        layout: one of `LAYOUTS`, a `FileFormat`, or `None` to recognize it
            per file.
        now_ms: the present, milliseconds since the epoch; the clock's by default.
        on_error: `raise` at a bad row, the first in its column and block, or `skip` it
            and go on.

    Raises:
        LogError: a file cannot be read, or a row is bad.
        ReadAgain: call again with the same `reading`.
    """
    now_ms = round(time.time() * 1000) if now_ms is None else now_ms
    files = paths_of(paths)
    if not files:
        raise LogError(
            "log-empty", "A log needs at least one file. Received none. Name its files."
        )
    for path in files:
        file = inspect_file(path, layout)
        if file.path in reading.unquoted:
            file = replace(file, quote_char="")
        reader = _FileReader(file, schema, reading, now_ms, on_error)
        for block in reader.blocks():
            _check_kinds(block.events, schema, reading, file.path)
            yield block


def _check_kinds(
    events: pl.DataFrame, schema: Schema, reading: ReadState, path: Path
) -> None:
    """Makes sure that ids that are text in one block are text in all of them."""
    for name, column in (("user_id", schema.user_id), ("item_id", schema.item_id)):
        dtype = events[name].dtype
        kind, first = reading.kinds.setdefault(name, (dtype, path))
        if dtype != kind:
            reading.text.add(column)
            if path != first:
                for file, of in ((first, kind), (path, dtype)):
                    kind_name = "text" if of == pl.String else "integer"
                    reading.types.note(column, str(file), kind_name, "text")
            raise ReadAgain


class _FileReader:
    """One file of a log."""

    def __init__(
        self,
        file: LogFile,
        schema: Schema,
        reading: ReadState,
        now_ms: int,
        on_error: OnError,
    ) -> None:
        self.file = file
        self.schema = schema
        self.reading = reading
        self.on_error = on_error
        form = file.format.timestamp_format or reading.time_format
        self.times = Times(now_ms, form)
        self.features = schema.log_features
        named = [schema.user_id, schema.item_id, schema.timestamp, schema.label]
        named += [*(feature.name for feature in self.features), schema.log_title]
        self.columns = list(dict.fromkeys(n for n in named if n is not None))
        self.integers: set[str] = set()  # text columns of integer ids
        self.blank: np.ndarray | None = None

    def blocks(self) -> Iterator[Block]:
        """The blocks of the file; its first rows are checked first, as they decide on
        units."""
        rows = 0
        with ThreadPoolExecutor(default_threads()) as pool:
            pending: deque[Future[Block]] = deque()
            for number, (frame, first) in enumerate(self._frames()):
                rows += len(frame)
                if number == 0:
                    self._check_columns_filled(frame)
                    for feature in self.features:
                        check_nesting(feature, frame[feature.name], self.file.path)
                    if self.schema.log_title is not None:
                        check_title(frame[self.schema.log_title], self.file.path)
                    head = frame.head(FIRST_ROWS)
                    block = self._checked(head, first)
                    self.reading.time_format = self.times.form
                    self._note_types(frame)
                    yield block
                    frame, first = frame.slice(len(head)), first + len(head)
                    if frame.is_empty():
                        continue
                pending.append(pool.submit(self._checked, frame, first))
                if len(pending) > default_threads():
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        check_rows(rows, self.file)

    def _frames(self) -> Iterator[tuple[pl.DataFrame, int]]:
        """Raw blocks without blank lines, and the number of events before each."""
        lazy, names = scan(self.file)
        check_columns(self.columns, names, self.file)
        try:
            self._choose_integers(lazy)
            extra = BEYOND_HEADER if self.file.has_width else ()
            wanted = lazy.select([*self.columns, *extra])
            records = events = 0
            for frame in wanted.collect_batches(
                chunk_size=BLOCK_ROWS, maintain_order=True
            ):
                kept = self._without_blank_lines(frame, records)
                records += len(frame)
                if len(kept):
                    yield kept, events
                events += len(kept)
        except read_failures() as error:
            with readable(self.file):
                known = self.file.path in self.reading.unquoted
                if known or not has_stray_quotes(self.file):
                    raise
            # Quotes that Polars cannot parse are ordinary characters.
            self.reading.unquoted.add(self.file.path)
            raise ReadAgain from error

    def _choose_integers(self, lazy: pl.LazyFrame) -> None:
        if not self.file.is_text:
            return
        ids = {self.schema.user_id, self.schema.item_id} - self.reading.text
        head = lazy.select(sorted(ids)).head(SAMPLED_ROWS).collect(engine="streaming")
        self.integers = {n for n in ids if narrow(head[n], True).dtype == pl.Int64}

    def _without_blank_lines(self, frame: pl.DataFrame, first: int) -> pl.DataFrame:
        if not (self.file.has_blank_lines and all(c.null_count() for c in frame)):
            return frame
        blank = frame.select(pl.all_horizontal(pl.all().is_null())).to_series()
        if not blank.any():
            return frame
        if self.blank is None:
            self.blank = np.array(blank_lines(self.file), np.int64)
        inside = self.blank[(self.blank >= first) & (self.blank < first + len(frame))]
        keep = np.ones(len(frame), bool)
        keep[inside - first] = False
        return frame.filter(pl.Series(keep))

    def _check_columns_filled(self, frame: pl.DataFrame) -> None:
        roles = (self.schema.user_id, self.schema.item_id)
        for name in (*roles, self.schema.timestamp, self.schema.label):
            if name is not None:
                check_not_empty(frame[name], self.file)

    def _note_types(self, frame: pl.DataFrame) -> None:
        """Notes the types of all columns except ids, which are known after the last
        block."""
        roles = [(self.schema.timestamp, "times"), (self.schema.label, "numbers")]
        roles += [(f.name, "numbers" if f.is_number else "text") for f in self.features]
        for name, read_as in roles:
            if name is None:
                continue
            kind = kind_of(frame[name].dtype)
            if kind == "text" and read_as == "times" and not self.times.are_text:
                kind = NUMBER
            elif self.file.is_text and read_as != "times":
                continue  # everything is text in such a file
            elif self.file.layout == "ndjson" and kind in ("integer", "float"):
                kind = NUMBER
            if kind is not None:
                self.reading.types.note(name, str(self.file.path), kind, read_as)

    def _checked(self, frame: pl.DataFrame, first: int) -> Block:
        refusal = RaiseBadRows(self.file, first)
        rejections = SkipBadRows(self.file, first, len(frame))
        report: BadRowHandler = rejections if self.on_error == "skip" else refusal
        self._check_width(frame, rejections)
        columns = [
            self._ids(frame[self.schema.user_id], report).alias("user_id"),
            self._ids(frame[self.schema.item_id], report).alias("item_id"),
        ]
        if self.schema.timestamp is not None:
            times = self.times.to_ms(frame[self.schema.timestamp], report)
            columns.append(times.alias("timestamp_ms"))
        labels = pl.repeat(1.0, len(frame), dtype=pl.Float32, eager=True)
        if self.schema.label is not None:
            labels = to_labels(frame[self.schema.label], self.schema, report)
        keep, labels, weights = implicit_events(labels, self.schema)
        columns.append(labels.alias("label"))
        if weights is not None:
            columns.append(weights.alias("weight"))
        for feature in self.features:
            if feature.is_number:
                values = to_numbers(frame[feature.name], report)
            else:
                values = tokens(frame[feature.name], feature)
            columns.append(values.alias(FEATURE_PREFIX + feature.name))
        if self.schema.log_title is not None:
            title = frame[self.schema.log_title]
            columns.append(title.cast(pl.String).alias(TITLE))
        events = pl.DataFrame(columns).rechunk()  # here, where threads share the work
        good = keep & ~rejections.bad
        below = int((~keep & ~rejections.bad).sum())
        if not good.all():
            events = events.filter(good)
        return Block(events, len(frame), below, tuple(rejections.reasons))

    def _ids(self, values: pl.Series, report: BadRowHandler) -> pl.Series:
        if values.name in self.integers:
            numbers = values.to_frame()
            ids = numbers.select(as_kind(values.name, pl.Int64())).to_series()
            if ids.null_count():
                # pandas writes 7.0 for 7 if an id is missing.
                whole = as_kind(values.name, pl.Int64(), whole=True)
                ids = numbers.select(whole).to_series()
                filled = values.str.strip_chars().str.len_bytes() > 0
                if (ids.is_null() & filled.fill_null(False)).any():
                    self.reading.text.add(values.name)  # a late value is no number
                    raise ReadAgain
                to_ids(values, report, self.file)
            return ids
        ids = to_ids(values, report, self.file)
        return ids.cast(pl.String) if values.name in self.reading.text else ids

    def _check_width(self, frame: pl.DataFrame, rejections: SkipBadRows) -> None:
        extra = extra_values(frame)
        if extra is None:
            return
        if self.on_error == "raise":
            raise extra_fields(self.file)
        rule = f"Every row must have the {len(self.file.columns)} fields of the header."
        fix = f"Wrap text that contains {self.file.delimiter!r} in double quotes."
        rejections("log-row-fields", extra, extra.is_not_null(), rule, fix)

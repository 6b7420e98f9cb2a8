"""A whole log, checked, with codes in place of ids, sorted by user and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from shortlist.data.findings import Finding, changed_type, similar_ids, skipped_rows
from shortlist.data.layouts import inspect_file
from shortlist.data.log import read_events, read_table
from shortlist.data.schema import Schema
from shortlist.data.split import TEST, TRAIN, VALIDATION, Split, assign_parts
from shortlist.data.validate import (
    DAY_MS,
    iso_to_ms,
    ms_per_unit,
    to_floats,
    to_ids,
    to_labels,
    to_times_ms,
)
from shortlist.errors import LogError

Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class GroupedLog:
    """A checked log.

    Args:
        frame: columns `user_code` and `item_code` (Int32), `timestamp_ms` (Int64),
            `label` (Float32) and `part` (Int8: 0 train, 1 validation, 2 test), sorted
            by user code, time and file order, without duplicates.
        user_ids: external id of each user code, Int64 or String.
        item_ids: external id of each item code, Int64 or String.
        events_read: rows read, those left out included.
        duplicates_dropped: events that repeated an earlier one.
        rows_skipped: rows left out because they cannot be used.
        findings: what was found while reading.
    """

    frame: pl.DataFrame
    user_ids: pl.Series
    item_ids: pl.Series
    events_read: int
    duplicates_dropped: int
    rows_skipped: int
    findings: tuple[Finding, ...]


def read_grouped(
    paths: Paths,
    schema: Schema,
    split: Split,
    *,
    on_error: Literal["raise", "skip"] = "raise",
    layout: str | None = None,
    test_events: Paths | None = None,
    validation_events: Paths | None = None,
) -> GroupedLog:
    """Reads a log, divides it and sorts it by user and time.

    Args:
        paths: the log, one file or several.
        schema: what its columns are.
        split: how to divide the events.
        on_error: what a bad row does: an error, or it is left out and found.
        layout: layout of the files; found out from each when `None`.
        test_events: for kind `files`, the user's own test events.
        validation_events: for kind `files`, the user's own validation events.

    Raises:
        LogError: the log cannot be used.
    """
    read = _Reading(schema, layout, on_error == "skip")
    log = read.events(paths, part=on_error == "skip")
    if validation_events is None:
        keys = log["user_id"].rank("dense").to_numpy()
        parts = assign_parts(keys, log["timestamp_ms"].to_numpy(), split)
        frames = [log.with_columns(pl.Series("part", parts, dtype=pl.Int8))]
    else:
        frames = [log.with_columns(pl.lit(TRAIN, pl.Int8).alias("part"))]
    for files, part in ((validation_events, VALIDATION), (test_events, TEST)):
        if files is not None:
            more = read.events(files, part=True)
            frames.append(more.with_columns(pl.lit(part, pl.Int8).alias("part")))
    return read.grouped(pl.concat(_same_id_types(frames)))


class _Reading:
    """What has been counted and found so far."""

    def __init__(self, schema: Schema, layout: str | None, skip: bool) -> None:
        self.schema, self.layout, self.skip = schema, layout, skip
        self.rows = self.duplicates = self.skipped = 0
        self.findings: list[Finding] = []

    def events(self, paths: Paths, *, part: bool) -> pl.DataFrame:
        files = [paths] if isinstance(paths, str | Path) else list(paths)
        if not self.skip:
            read = read_events(files, self.schema, layout=self.layout, part=part)
            self.rows += len(read.frame) + read.duplicates_dropped
            self.duplicates += read.duplicates_dropped
            return read.frame
        frames = [self._usable(Path(file)) for file in files]
        for name, column in (
            ("user_id", self.schema.user_id),
            ("item_id", self.schema.item_id),
        ):
            types = {
                str(f): str(frame[name].dtype)
                for f, frame in zip(files, frames, strict=True)
            }
            self.findings += changed_type(column, types)
        log = pl.concat(_same_id_types(frames))
        if log.is_empty():
            raise LogError(
                "log-empty",
                "A log must hold events that can be used. Every row was left out:"
                f" {self.findings[0].message}",
                file=files[0],
            )
        if self.schema.timestamp is None:
            return log.with_columns(
                pl.int_range(pl.len(), dtype=pl.Int64).alias("timestamp_ms")
            )
        kept = log.unique(
            ["user_id", "item_id", "timestamp_ms", "label"],
            keep="first",
            maintain_order=True,
        )
        self.duplicates += len(log) - len(kept)
        return kept

    def _usable(self, path: Path) -> pl.DataFrame:
        """The rows of one file that can be used; the others are counted."""
        schema, now_ms = self.schema, round(time.time() * 1000)
        file = inspect_file(path, self.layout)
        ids = (schema.user_id, schema.item_id)
        names = [name for name in (*ids, schema.timestamp, schema.label) if name]
        raw = read_table(path, layout=self.layout, columns=names, exact=ids)
        self.rows += len(raw)
        good = pl.repeat(True, len(raw), eager=True)
        reads: dict[str, Callable[[pl.Series], pl.Series]]
        reads = {name: lambda v: to_ids(v, file) for name in ids}
        if schema.timestamp:
            reads[schema.timestamp] = lambda v: to_times_ms(v, file, now_ms)
        if schema.label:
            reads[schema.label] = lambda v: to_labels(v, schema, file)
        for name, read in reads.items():
            try:
                read(raw[name])
            except LogError as error:
                bad = self._bad(raw[name], now_ms).fill_null(True)
                if not bad.any():
                    raise
                good &= ~bad
                self.findings.append(skipped_rows(error, int(bad.sum())))
        self.skipped += len(raw) - int(good.sum())
        raw = raw.filter(good)
        columns = {"user_id": raw[ids[0]], "item_id": raw[ids[1]]}
        if raw.is_empty():
            empty = dict.fromkeys(columns, pl.Int64) | {
                "timestamp_ms": pl.Int64,
                "label": pl.Float32,
            }
            return pl.DataFrame(schema=empty)
        columns = {name: to_ids(values, file) for name, values in columns.items()}
        if schema.timestamp:
            columns["timestamp_ms"] = to_times_ms(raw[schema.timestamp], file, now_ms)
        ones = pl.repeat(1.0, len(raw), dtype=pl.Float32, eager=True)
        columns["label"] = (
            to_labels(raw[schema.label], schema, file) if schema.label else ones
        )
        return pl.DataFrame(columns)

    def _bad(self, values: pl.Series, now_ms: int) -> pl.Series:
        schema = self.schema
        if values.name in (schema.user_id, schema.item_id):
            return values.is_null() | (values.cast(pl.String).str.strip_chars() == "")
        numbers = to_floats(values)
        if values.name == schema.label:
            low = float("-inf") if schema.label_min is None else schema.label_min
            high = float("inf") if schema.label_max is None else schema.label_max
            bad = ~numbers.is_finite() | (numbers < low) | (numbers > high)
            return (
                bad | ~numbers.is_in([0.0, 1.0])
                if schema.label_kind == "binary"
                else bad
            )
        if numbers.null_count() * 2 < len(values):
            times = numbers * ms_per_unit(numbers)
        else:
            times = iso_to_ms(values.cast(pl.String))
        return (times < 0) | (times > now_ms + DAY_MS)

    def grouped(self, log: pl.DataFrame) -> GroupedLog:
        codes, ids = {}, {}
        for kind, name in (
            ("user", self.schema.user_id),
            ("item", self.schema.item_id),
        ):
            column = log[f"{kind}_id"]
            ids[kind] = column.unique(maintain_order=True).alias(name)
            self.findings += similar_ids(ids[kind])
            table = pl.DataFrame({"id": ids[kind]}).with_row_index("code")
            joined = pl.DataFrame({"id": column}).join(
                table, on="id", how="left", maintain_order="left"
            )
            codes[f"{kind}_code"] = joined["code"].cast(pl.Int32)
        frame = pl.DataFrame(
            {**codes, **{n: log[n] for n in ("timestamp_ms", "label", "part")}}
        )
        return GroupedLog(
            frame=frame.sort("user_code", "timestamp_ms", maintain_order=True),
            user_ids=ids["user"],
            item_ids=ids["item"],
            events_read=self.rows,
            duplicates_dropped=self.duplicates,
            rows_skipped=self.skipped,
            findings=tuple(self.findings),
        )


def _same_id_types(frames: list[pl.DataFrame]) -> list[pl.DataFrame]:
    frames = [frame for frame in frames if len(frame)] or frames[:1]
    for column in ("user_id", "item_id"):
        if len({frame[column].dtype for frame in frames}) > 1:
            frames = [f.with_columns(pl.col(column).cast(pl.String)) for f in frames]
    return frames

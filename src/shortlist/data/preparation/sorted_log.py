"""A log sorted by user and time, without duplicates, split into parts."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from shortlist.data.findings import Finding
from shortlist.data.kernels.ids import IdMap, group_order
from shortlist.data.preparation.folds import LEFT_OUT, assign_fold
from shortlist.data.preparation.frame_rows import FrameRows
from shortlist.data.preparation.ingest import CodedLog, Spill, ingest
from shortlist.data.read.inputs import LogFiles, Paths, ReadOptions
from shortlist.data.read.rejected import Reason
from shortlist.data.schema import ITEM, USER, Schema
from shortlist.data.split import TRAIN, Split, assign_parts
from shortlist.errors import InputError

_EVENT = ["user_code", "item_code", "timestamp_ms", "label"]


@dataclass(frozen=True)
class SortedLog:
    """A checked log, sorted by user code, time and file order.

    Args:
        frame: the columns of `CodedLog.frames`, `part` always among them (0 training,
            1 validation, 2 test); no event twice.
        user_ids: external id of each user code, Int64 or String.
        item_ids: external id of each item code.
        tables: values of the context features by table, as text.
        events_read: rows of all files.
        duplicates_dropped: events left out because an earlier one had the same user,
            item, time and label.
        rows_skipped: number of skipped rows.
        below: events left out by the implicit threshold.
        rejected: the skipped rows.
        findings: what reading noticed.
        attributes: `user` and `item` -> the attributes that are columns of the log: the
            ids as `log_attributes.KEY`, then a column each, record i for code i.
        is_timed: whether the times are real: a log without them, or with the same one
            everywhere, has positions instead.
    """

    frame: pl.DataFrame
    user_ids: pl.Series
    item_ids: pl.Series
    events_read: int
    duplicates_dropped: int
    rows_skipped: int
    findings: tuple[Finding, ...] = ()
    tables: Mapping[str, IdMap] = field(default_factory=dict)
    below: int = 0
    rejected: tuple[Reason, ...] = ()
    attributes: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    is_timed: bool = True


def read_sorted_log(
    log: Paths | LogFiles,
    schema: Schema,
    split: Split,
    options: ReadOptions = ReadOptions(),
) -> SortedLog:
    """Reads, sorts and splits a log without writing a dataset.

    Raises:
        LogError: the log cannot be used; names file, column and row.
    """
    with tempfile.TemporaryDirectory(prefix="shortlist-") as folder:
        spill = Spill(Path(folder), options.memory_bytes)
        coded = ingest(log, schema, spill, options)
        return sort_log(coded, schema, split, spill)


def sort_log(coded: CodedLog, schema: Schema, split: Split, spill: Spill) -> SortedLog:
    """Sorts a coded log by user and time, drops duplicates and splits it.

    A log that exceeds the budget of `spill` is sorted by ranges of users, each as
    large as the budget allows; the frames of `coded` are used up.
    """
    frames = coded.frames
    coded.frames = []
    ranges = _ranges(frames, len(coded.users), spill)
    grouped, dropped = [], 0
    for begin, end in ranges:
        whole = len(ranges) == 1
        pieces = frames if whole else [_between(f, begin, end) for f in frames]
        piece = FrameRows(pl.concat(pieces, rechunk=False))
        if whole:
            spill.release(frames)
            frames, pieces = [], []
        codes = piece.frame["user_code"].to_numpy()
        codes = codes - np.int32(begin) if begin else codes
        times = piece.frame["timestamp_ms"].to_numpy()
        events = piece.take(group_order(codes, times, end - begin))
        if coded.is_timed:
            kept = _without_duplicates(events)
            dropped += len(events) - len(kept)
            events = kept
        grouped.append(events if whole else spill.keep(events))
    frame = pl.concat(grouped)
    user_ids, item_ids = coded.users.ids(), coded.items.ids()
    return SortedLog(
        frame=_with_parts(frame, split),
        user_ids=user_ids,
        item_ids=item_ids,
        tables=coded.tables,
        events_read=coded.rows_read,
        duplicates_dropped=dropped,
        rows_skipped=coded.rows_skipped,
        below=coded.below,
        rejected=tuple(coded.rejected),
        findings=tuple(coded.findings),
        attributes={
            USER: coded.attributes.frame(USER, user_ids),
            ITEM: coded.attributes.frame(ITEM, item_ids),
        },
        is_timed=coded.is_timed,
    )


def _ranges(
    frames: list[pl.DataFrame], num_users: int, spill: Spill
) -> list[tuple[int, int]]:
    """Ranges of user codes with about equally many events, each within the budget."""
    if not spill.num_files:
        return [(0, num_users)]
    sizes = np.zeros(num_users, np.int64)
    for frame in frames:
        sizes += np.bincount(frame["user_code"].to_numpy(), minlength=num_users)
    total = sum(int(frame.estimated_size()) for frame in frames)
    # A range is held, gathered and copied at once.
    wanted = max(1, -(-3 * total // spill.budget_bytes))
    ends = np.cumsum(sizes)
    inner = np.searchsorted(ends, np.arange(1, wanted) * (ends[-1] / wanted)) + 1
    cuts = np.unique(np.concatenate([[0], inner, [num_users]]))
    return [(int(a), int(b)) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]


def _between(frame: pl.DataFrame, begin: int, end: int) -> pl.DataFrame:
    return frame.filter(pl.col("user_code").is_between(begin, end - 1))


def _without_duplicates(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame`, sorted by user and time, without later copies of an event."""
    key = [*_EVENT, *(["part"] if "part" in frame.columns else [])]
    user, time = frame["user_code"].to_numpy(), frame["timestamp_ms"].to_numpy()
    tied = (time[1:] == time[:-1]) & (user[1:] == user[:-1])
    if not tied.any():
        return frame
    suspect = np.zeros(len(frame), bool)
    suspect[1:] |= tied
    suspect[:-1] |= tied
    rows = np.flatnonzero(suspect)
    events = frame.select(pl.col(key).gather(pl.Series(rows)))
    first = events.select(pl.struct(key).is_first_distinct()).to_series().to_numpy()
    if first.all():
        return frame
    keep = np.ones(len(frame), bool)
    keep[rows[~first]] = False
    return frame.filter(pl.Series(keep))


def _with_parts(frame: pl.DataFrame, split: Split) -> pl.DataFrame:
    user, time = frame["user_code"].to_numpy(), frame["timestamp_ms"].to_numpy()
    if "part" not in frame.columns:
        assign = assign_fold if split.folds else assign_parts
        frame = frame.with_columns(pl.Series("part", assign(user, time, split)))
        return frame.filter(pl.col("part") != LEFT_OUT) if split.folds else frame
    parts = frame["part"].to_numpy().copy()
    if not (parts == 1).any():
        rest = np.flatnonzero(parts == TRAIN)
        parts[rest] = assign_parts(user[rest], time[rest], split)
    return frame.with_columns(pl.Series("part", parts))


def check_apart(log: SortedLog, schema: Schema, split: Split) -> None:
    """Raises `InputError` if an event occurs in more than one of the files of a split.

    The model would be tested on events it was trained on.
    """
    if split.kind != "files" or schema.timestamp is None:
        return  # without times, a repeated event and a copy look the same
    repeated = log.frame.group_by(_EVENT).agg(pl.col("part").n_unique().alias("parts"))
    if overlap := int((repeated["parts"] > 1).sum()):
        raise InputError(
            "split-overlap",
            "The training, validation and test files must not share events. Received:"
            f" {overlap:,} events in more than one of them. Remove them from `events`.",
        )

"""The events of a log in stored form: rows for ids, sorted by user row and time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl

from shortlist.data.preparation.context import ContextEncoder
from shortlist.data.preparation.frame_rows import FrameRows
from shortlist.data.preparation.id_rows import IdRows
from shortlist.data.preparation.sorted_log import SortedLog
from shortlist.data.schema import Schema
from shortlist.data.split import PARTS
from shortlist.data.store.arrow import Compression
from shortlist.data.store.dataset_info import Segment
from shortlist.data.store.segments import narrowest, write_segment
from shortlist.native import default_threads

_MINUTE_MS = 60_000


class EventRows:
    """The events of a part, in stored order and types.

    Args:
        log: the events by code.
        schema: what is stored.
        users: rows of the user codes.
        items: rows of the item codes.
        context: encodes the context features.
    """

    def __init__(
        self,
        log: SortedLog,
        schema: Schema,
        users: IdRows,
        items: IdRows,
        context: ContextEncoder,
    ) -> None:
        self.user_rows, self.item_rows = users.rows, items.rows
        self.user_type = narrowest(users.num_rows)
        self.item_type = narrowest(items.num_rows)
        self.context = context
        self.frame = log.frame
        if schema.session_gap_minutes is not None:
            gap_ms = schema.session_gap_minutes * _MINUTE_MS
            sessions = session_index(
                self.frame["user_code"].to_numpy(),
                self.frame["timestamp_ms"].to_numpy(),
                gap_ms,
            )
            self.frame = self.frame.with_columns(pl.Series("session_index", sessions))
        self.rows = FrameRows(self.frame)
        self.times = self.frame["timestamp_ms"].to_numpy()
        self.order = self._order()
        self.part_in_order = self.frame["part"].to_numpy()[self.order]

    def events_of(self, part: int) -> np.ndarray:
        """Positions in the log of the events of a part, in stored order."""
        places: np.ndarray = self.order[self.part_in_order == part]
        return places

    def block(self, places: np.ndarray) -> pl.DataFrame:
        """The events at `places`, in stored form."""
        events = self.rows.take(places)
        users = pl.Series("user_index", self.user_rows[events["user_code"].to_numpy()])
        items = pl.Series("item_index", self.item_rows[events["item_code"].to_numpy()])
        extra = [n for n in ("weight", "session_index") if n in events.columns]
        return pl.DataFrame(
            [
                users.cast(self.user_type),
                items.cast(self.item_type),
                events["timestamp_ms"],
                events["label"],
                *(events[name] for name in extra),
                *self.context.encode(events),
            ]
        )

    def _order(self) -> np.ndarray:
        """Positions in the log, sorted by user row, time and position, `(n,)`."""
        codes = self.frame["user_code"].to_numpy()
        n, num_codes = len(codes), len(self.user_rows)
        kind = np.uint32 if n < 2**32 else np.int64
        starts = np.searchsorted(codes, np.arange(num_codes + 1, dtype=codes.dtype))
        sizes = np.diff(starts)
        users = np.argsort(self.user_rows, kind="stable")
        sizes, starts = sizes[users], starts[:-1][users]
        before = np.cumsum(sizes) - sizes
        order = np.repeat((starts - before).astype(kind), sizes)
        order += np.arange(n, dtype=kind)  # wraps around where a start moves back
        unknown = int(sizes[self.user_rows[users] == 0].sum())
        if unknown:
            by_time = np.argsort(self.times[order[:unknown]], kind="stable")
            order[:unknown] = order[:unknown][by_time]
        return order


def session_index(
    user: np.ndarray, timestamp_ms: np.ndarray, gap_ms: float
) -> np.ndarray:
    """Number of the session an event is in, from 0 for each user, `(n,)` int32.

    A session ends when the next event is more than `gap_ms` later.

    Args:
        user: `(n,)` integers; sorted, and by time for each user.
        timestamp_ms: `(n,)` int64.
        gap_ms: longest pause within a session.
    """
    if not len(user):
        return np.zeros(0, np.int32)
    first = np.r_[True, user[1:] != user[:-1]]
    begins = np.r_[True, np.diff(timestamp_ms) > gap_ms]
    number = np.cumsum(begins & ~first)
    starts = np.flatnonzero(first)
    of_user = np.repeat(number[starts], np.diff(np.r_[starts, len(user)]))
    sessions: np.ndarray = (number - of_user).astype(np.int32)
    return sessions


def write_events(
    folder: Path,
    rows: EventRows,
    parts: tuple[int, ...],
    first_number: int,
    compression: Compression | None,
) -> tuple[Segment, ...]:
    """Writes one segment per part into `folder/events`, several at a time."""
    (folder / "events").mkdir(exist_ok=True)

    def write(number: int, part: int) -> Segment:
        places = rows.events_of(part)
        file = f"events/{number:05d}.arrow"

        def block(begin: int, end: int) -> pl.DataFrame:
            return rows.block(places[begin:end])

        write_segment(folder / file, len(places), block, compression=compression)
        times = rows.times[places]
        return Segment(
            file=file,
            part=PARTS[part],
            events=len(places),
            first_timestamp_ms=int(times.min()) if len(times) else None,
            last_timestamp_ms=int(times.max()) if len(times) else None,
        )

    # The blocks of a short segment are too few for all processors.
    with ThreadPoolExecutor(default_threads()) as pool:
        numbers = range(first_number, first_number + len(parts))
        return tuple(pool.map(write, numbers, parts))

"""What a loader draws rows from: the events of a dataset, or any flat Arrow files.

A source turns row numbers into a batch: a flat dict of arrays with fixed types. It
knows nothing of orders, epochs, batch sizes or Keras.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, get_args

import msgspec
import numpy as np

from shortlist.data.kernels.buffer_pool import BufferPool
from shortlist.data.load.negatives import Negatives, Sampler
from shortlist.data.schema import FEATURE_PREFIX, HISTORY, NEGATIVE_PREFIX
from shortlist.data.store.columns import Columns
from shortlist.data.store.dataset import Dataset
from shortlist.data.store.history import Histories
from shortlist.errors import InputError, did_you_mean

Batch = dict[str, np.ndarray]
LABEL = "label"
WEIGHT = "sample_weight"
EVENT_LABEL = "event_label"

HistoryFrom = Literal["before", "others"]
_BEFORE = ("before", 0.0, None)
MOST_SECONDS = 1e10
FOREVER = np.iinfo(np.int64).max

# Events whose ids are looked at in one go.
_EVENTS_AT_ONCE = 2**20
# Rows from which on the memory of a batch is worth keeping.
_LARGE_TAKE = 2**15


class ExampleSource(Protocol):
    """Rows that can be taken in any order."""

    @property
    def fingerprint(self) -> str:
        """Equal for sources that give equal rows."""
        ...

    @property
    def draws(self) -> bool:
        """Whether a batch is more than its rows one by one, as when items are drawn."""
        ...

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def take(self, rows: np.ndarray, generator: np.random.Generator) -> Batch:
        """The batch of `rows`, `(n,)` int64; random draws come from `generator`.

        Called from several threads at once.
        """
        ...


class TrainingExamples:
    """The events of some parts as rows to train on.

    Events of a user or item outside the vocabulary are left out.

    Args:
        dataset: where the events come from.
        parts: names of the parts whose events are rows.
        history_length: width of the history, 0 for none.
        interactions_only: leave out events whose binary label is not positive.
        unknown_rate: share of events whose user is replaced by row 0, so that the
            out-of-vocabulary row learns to stand for people never seen.
        history_parts: parts the histories and the items' shares are taken from;
            `parts` by default.
        negatives: items drawn beside the events'. With `uniform` or `popularity` the
            event itself has label 1, or with a binary label its own.
        session_only: histories end where the session of the event begins; the schema
            has `session_gap_minutes`.
        keep_label: beside negatives, keep what the log says as `event_label`.
        files: only these files of the parts have the events that are rows, and the
            items' shares; histories, and the items to draw, are those of all.
        history_from: `before` the event, or all `others` of the user's events, which
            is right only where the parts were drawn without regard to time.
        history_dropout: chance of an item to be left out of a history, from 0 to
            below 1.
        unknown_within: with `others`, the history of a user replaced by row 0 is what
            that user took within so many seconds of the event, before or after it: a
            person never seen has a short history. By default it is whole.

    A batch holds, for `n` rows:
        `user_index`, `item_index`: `(n,)` int32.
        features of user, item and event: categorical `(n,)` int32, multi-valued
            `(n, length)` int32 padded with -1, numeric `(n,)` float32.
        `history`: `(n, history_length)` int32 padded with -1: the user's newest items
            strictly before the event; or with `history_from="others"` the newest of
            all but the event's own.
        `sampling_probability`: `(n,)` float32, the item's share of the interactions.
        `label`: `(n,)` float32.
        `event_label`: `(n,)` float32, the label of the log, NaN for items drawn; with
            `keep_label` and negatives that are rows.
        `sample_weight`: `(n,)` float32, if the dataset has weights; 1 for items drawn,
            of which nothing is known (Hu, Koren, Volinsky, 2008).
        With `mixed` negatives also, for `count` items, `negative_item_index`,
            `negative_<feature>` of each item feature,
            `negative_sampling_probability`, the chance of each at one draw, and
            `negative_share`, its share of the interactions. With `all` the first two,
            for every item row but 0.

    Raises:
        InputError: `part-empty` without events, `log-too-small` with too few items to
            draw from, `invalid-loader` for an argument out of range.
    """

    def __init__(
        self,
        dataset: Dataset,
        parts: tuple[str, ...] = ("train",),
        *,
        history_length: int,
        interactions_only: bool = False,
        unknown_rate: float = 0.0,
        history_parts: tuple[str, ...] | None = None,
        negatives: Negatives | None = None,
        session_only: bool = False,
        keep_label: bool = False,
        files: Sequence[str] | None = None,
        history_from: HistoryFrom = "before",
        history_dropout: float = 0.0,
        unknown_within: float | None = None,
    ) -> None:
        _check_rows(history_length, unknown_rate)
        _check_history(history_from, history_dropout, unknown_within, session_only)
        self.dataset = dataset
        self.history_length = history_length
        self.unknown_rate = unknown_rate
        known = history_parts or parts
        self.gap_ms = _session_gap_ms(dataset) if session_only else None
        self.negatives = negatives
        self.keep_label = keep_label
        self.history_from = history_from
        self.history_dropout = history_dropout
        self.unknown_within = unknown_within
        binary = dataset.schema.label_kind == "binary"
        self._positive_from = dataset.schema.positive_from if binary else None
        self._columns = dataset.columns(*parts)
        self._names = [name for name in self._columns.names if _is_used(name)]
        least = self._positive_from if interactions_only else None
        ranges = [range(len(self._columns))]
        if files is not None:
            of_file = dataset.file_rows(*parts)
            ranges = [of_file[file] for file in files]
        self._rows = _eligible_rows(self._columns, least, ranges)
        if not len(self):
            raise InputError(
                "part-empty",
                f"The parts {parts} must hold events to train on"
                + (f", with labels from {least} on" if least is not None else "")
                + ". Received: none. Hold out fewer events"
                + (", or set positive_from." if least is not None else "."),
            )
        self._histories = dataset.histories(*known) if history_length else None
        counts = dataset.item_counts(*known)
        own = counts if files is None else self._item_counts()
        share = np.maximum(own, 1) / max(int(own.sum()), 1)
        self._share = share.astype(np.float32)
        self._brings_all = negatives is not None and negatives.kind == "all"
        self._repeats = negatives.rows_per_event if negatives else 1
        draws = negatives is not None and negatives.count > 0
        self.sampler = Sampler(negatives, counts) if negatives and draws else None
        options = (*parts, "|", *known, history_length, interactions_only, unknown_rate)
        self._options = (*options, self.negatives, self.gap_ms)
        if files is not None:
            self._options = (*self._options, *files)
        if (chosen := (history_from, history_dropout, unknown_within)) != _BEFORE:
            self._options += chosen

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over the dataset and every argument."""
        raw = msgspec.json.encode((self.dataset.info.fingerprint, *self._options))
        return hashlib.sha256(raw).hexdigest()[:16]

    @property
    def draws(self) -> bool:
        """Whether users are hidden, items drawn or dropped, or all items added."""
        drawn = self.unknown_rate > 0 or self.history_dropout > 0
        return drawn or self.sampler is not None or self._brings_all

    def __len__(self) -> int:
        """Number of events."""
        return len(self._columns if self._rows is None else self._rows)

    def take(self, rows: np.ndarray, generator: np.random.Generator) -> Batch:
        """The batch of the events at `rows`, with what is drawn for them."""
        if self._rows is not None:
            rows = self._rows[rows]
        events = self._columns.take(rows, self._names)
        user, item, label = (
            events[name] for name in ("user_index", "item_index", LABEL)
        )
        known = np.ones(len(user), bool)
        if self.unknown_rate:
            known = generator.random(len(user)) >= self.unknown_rate
        of_event = self._of_event(events, known, generator)
        user = np.where(known, user, np.int32(0))
        of_event |= {"user_index": user, LABEL: label}
        if self._repeats > 1 and self.sampler:
            others = self.sampler.others(item, generator)
            item = np.column_stack([item, others]).ravel()
            of_event = self._repeated(of_event)
        batch = of_event | pair_features(self.dataset, of_event["user_index"], item)
        batch["sampling_probability"] = self._share[item]
        if self._repeats == 1 and self.sampler:
            batch |= self._shared(self.sampler, generator)
        if self._brings_all:
            rows = np.arange(1, self.dataset.num_items)
            batch |= _as_negatives(item_features(self.dataset, rows))
        return batch

    def _item_counts(self) -> np.ndarray:
        """Interactions per item among the rows, `(num_items,)`."""
        rows = np.arange(len(self)) if self._rows is None else self._rows
        events = self._columns.take(rows, ["item_index", LABEL])
        taken = events["item_index"][self._taken(events[LABEL]).astype(bool)]
        return np.bincount(taken, minlength=self.dataset.num_items)

    def _of_event(
        self, events: Batch, known: np.ndarray, generator: np.random.Generator
    ) -> Batch:
        """What belongs to the event itself, whichever item is paired with it."""
        found = {
            name.removeprefix(FEATURE_PREFIX): values
            for name, values in events.items()
            if name.startswith(FEATURE_PREFIX)
        }
        if self._histories is not None:
            history = self._history(self._histories, events, known)
            if self.history_dropout:
                drawn = generator.random(history.shape, dtype=np.float32)
                history[drawn < self.history_dropout] = -1
            found[HISTORY] = history
        if "weight" in events:
            found[WEIGHT] = events["weight"]
        return found

    def _history(
        self, histories: Histories, events: Batch, known: np.ndarray
    ) -> np.ndarray:
        user, moments = events["user_index"], events["timestamp_ms"]
        length = self.history_length
        if self.history_from == "before":
            return histories.before(user, moments, length, gap_ms=self.gap_ms)
        near = None
        if self.unknown_within is not None:
            within = np.int64(self.unknown_within * 1000)
            near = moments, np.where(known, FOREVER, within)
        return histories.others(user, events["item_index"], length, near=near)

    def _repeated(self, of_event: Batch) -> Batch:
        """What belongs to an event, for itself and for each item drawn for it."""
        repeated = {
            name: np.repeat(values, self._repeats, axis=0)
            for name, values in of_event.items()
        }
        if self.keep_label:
            own = repeated[EVENT_LABEL] = repeated[LABEL].astype(np.float32)
            own.reshape(-1, self._repeats)[:, 1:] = np.nan
        label = repeated[LABEL] = self._taken(repeated[LABEL]).astype(np.float32)
        label.reshape(-1, self._repeats)[:, 1:] = 0
        if WEIGHT in repeated:
            repeated[WEIGHT].reshape(-1, self._repeats)[:, 1:] = 1
        return repeated

    def _taken(self, label: np.ndarray) -> np.ndarray:
        """1 for an event in which the user took the item, else 0."""
        if self._positive_from is None:
            return np.ones(len(label))
        return label >= self._positive_from

    def _shared(self, sampler: Sampler, generator: np.random.Generator) -> Batch:
        """Negatives of the whole batch."""
        drawn = sampler.shared(generator)
        features = item_features(self.dataset, drawn)
        chance = sampler.probability(drawn).astype(np.float32)
        features |= {"sampling_probability": chance, "share": self._share[drawn]}
        return _as_negatives(features)


class ArrowRows:
    """The rows of flat Arrow IPC files, one file after the other, as they are.

    Args:
        files: the files, all with the same columns.
        columns: names of the columns of a batch; all columns by default.

    A batch holds the columns as `Columns.take` gives them.

    Raises:
        InputError: `invalid-loader` without files.
    """

    def __init__(
        self, files: Sequence[str | Path], columns: Sequence[str] | None = None
    ) -> None:
        self.files = [Path(file) for file in files]
        if not self.files:
            raise InputError(
                "invalid-loader",
                "`files` must name at least one Arrow file. Received: none.",
            )
        self._columns = Columns.open(self.files)
        self.columns = tuple(self._columns.names if columns is None else columns)
        self._pool = BufferPool()

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over the names of the columns and the files' content.

        Reads every file once, when first asked for.
        """
        digest = hashlib.blake2b(msgspec.json.encode(self.columns))
        for file in self.files:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "blake2b").digest())
        return digest.hexdigest()[:16]

    @property
    def draws(self) -> bool:
        """Nothing is drawn."""
        return False

    def __len__(self) -> int:
        """Number of rows of all files."""
        return len(self._columns)

    def take(self, rows: np.ndarray, generator: np.random.Generator) -> Batch:
        """The columns at `rows`; nothing is drawn."""
        large = len(rows) >= _LARGE_TAKE
        pool = self._pool if large else None
        return self._columns.take(rows, self.columns, pool=pool)


def user_features(dataset: Dataset, user_index: np.ndarray) -> Batch:
    """The ids and features of users, without their history."""
    owned = dataset.schema.owned_by("user")
    features = {f.name: dataset.features[f.name][user_index] for f in owned}
    return {"user_index": user_index.astype(np.int32), **features}


def item_features(dataset: Dataset, item_index: np.ndarray) -> Batch:
    """The ids and features of items."""
    owned = dataset.schema.owned_by("item")
    features = {f.name: dataset.features[f.name][item_index] for f in owned}
    return {"item_index": item_index.astype(np.int32), **features}


def pair_features(
    dataset: Dataset, user_index: np.ndarray, item_index: np.ndarray
) -> Batch:
    """The ids and features of (user, item) rows, without the history."""
    return {
        **user_features(dataset, user_index),
        **item_features(dataset, item_index),
    }


def _as_negatives(features: Batch) -> Batch:
    return {f"{NEGATIVE_PREFIX}{name}": values for name, values in features.items()}


def _eligible_rows(
    columns: Columns, least: float | None, ranges: Sequence[range]
) -> np.ndarray | None:
    """Rows of known users and items, and of labels from `least`; `None` for all."""
    names = ["user_index", "item_index", *([] if least is None else ["label"])]
    found, total = [], 0
    narrow = np.uint32 if len(columns) <= 2**32 else np.int64
    pool = (
        np.arange(start, min(start + _EVENTS_AT_ONCE, one.stop))
        for one in ranges
        for start in range(one.start, one.stop, _EVENTS_AT_ONCE)
    )
    for rows in pool:
        events = columns.take(rows, names)
        fits = (events["user_index"] > 0) & (events["item_index"] > 0)
        if least is not None:
            fits &= events["label"] >= least
        found.append(rows[fits].astype(narrow))
        total += len(found[-1])
    return None if total == len(columns) else np.concatenate(found)


def _is_used(name: str) -> bool:
    """Whether a batch is made from a column of the events."""
    used = ("user_index", "item_index", "timestamp_ms", "label", "weight")
    return name in used or name.startswith(FEATURE_PREFIX)


def _check_rows(history_length: int, unknown_rate: float) -> None:
    if not isinstance(history_length, int) or history_length < 0:
        raise InputError(
            "invalid-loader",
            "`history_length` must be an integer of at least 0. Received:"
            f" {history_length!r}. Give 0 for no history.",
        )
    if not 0 <= unknown_rate <= 1:
        raise InputError(
            "invalid-loader",
            f"`unknown_rate` must be from 0 to 1. Received: {unknown_rate!r}. Give 0 to"
            " hide nobody.",
        )


def _check_history(
    history_from: str, dropout: float, within: float | None, session_only: bool
) -> None:
    if history_from not in get_args(HistoryFrom):
        raise InputError(
            "invalid-loader",
            f"`history_from` must be one of {get_args(HistoryFrom)}. Received:"
            f" {history_from!r}.{did_you_mean(history_from, get_args(HistoryFrom))}",
        )
    if not 0 <= dropout < 1:
        raise InputError(
            "invalid-loader",
            "`history_dropout` must be from 0 to below 1. Received:"
            f" {dropout!r}. Give 0 to keep all items.",
        )
    if within is not None and not 0 < within <= MOST_SECONDS:
        raise InputError(
            "invalid-loader",
            f"`unknown_within` must be above 0 and at most {MOST_SECONDS:g} seconds."
            f" Received: {within!r}. Leave it out for whole histories.",
        )
    if history_from == "before" and within is not None:
        raise InputError(
            "invalid-loader",
            "`unknown_within` goes with history_from='others' alone. Received:"
            f" {within!r} with 'before'. Leave it out, or take the other.",
        )
    if history_from == "others" and session_only:
        raise InputError(
            "invalid-loader",
            "`session_only` goes with history_from='before' alone. Received: True with"
            " 'others'. Leave it out, or give unknown_within.",
        )


def _session_gap_ms(dataset: Dataset) -> int:
    minutes = dataset.schema.session_gap_minutes
    if minutes is None:
        raise InputError(
            "invalid-loader",
            "`session_only` needs `session_gap_minutes` in the schema. Received: None."
            " Set it and prepare again, or leave `session_only` out.",
        )
    return round(minutes * 60_000)

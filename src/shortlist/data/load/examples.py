"""The events of a dataset as training examples.

A source of examples turns numbers of examples into a batch: a flat dict of arrays with
fixed types. It knows nothing of orders, epochs, batch sizes or Keras.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np

from shortlist.data.load.history_reader import HistoryReader, session_gap_ms
from shortlist.data.load.negatives import NegativeSampler
from shortlist.data.load.options import ExampleOptions
from shortlist.data.schema import FEATURE_PREFIX, HISTORY, NEGATIVE_PREFIX
from shortlist.data.store.columns import Columns
from shortlist.data.store.dataset import Dataset
from shortlist.errors import InputError

Batch = dict[str, np.ndarray]
LABEL = "label"
WEIGHT = "sample_weight"
EVENT_LABEL = "event_label"

# Options of histories that older fingerprints do not contain.
_BEFORE = ("before", 0.0, None)
# Events whose ids are checked at a time.
_EVENTS_AT_ONCE = 2**20


class ExampleSource(Protocol):
    """Examples that can be read in any order."""

    @property
    def fingerprint(self) -> str:
        """Equal for sources that return equal examples."""
        ...

    @property
    def draws(self) -> bool:
        """Whether a batch depends on random numbers, as with sampled negatives."""
        ...

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def take(self, indices: np.ndarray, generator: np.random.Generator) -> Batch:
        """The batch of the examples at `indices`, `(n,)` int64.

        All randomness comes from `generator`. Called from several threads at once.
        """
        ...


class TrainingExamples:
    """The events of some parts of a dataset, with histories, features and negatives.

    Events of a user or item outside the vocabulary are left out.

    Args:
        dataset: where the events come from.
        parts: names of the parts whose events are the examples.
        options: what an example contains; all defaults without.
        files: use only the events of these files of the parts, also for the items'
            shares. Histories, and the items to sample, are those of all files.

    A batch contains, for `n` examples:
        `user_index`, `item_index`: `(n,)` int32.
        features of user, item and event: categorical `(n,)` int32, multi-valued
            `(n, length)` int32 padded with -1, numeric `(n,)` float32.
        `history`: `(n, history_length)` int32 padded with -1: the user's newest items
            strictly before the event; or with `history_from="others"` the newest of
            all but the event's own.
        `sampling_probability`: `(n,)` float32, the item's share of the interactions.
        `label`: `(n,)` float32.
        `event_label`: `(n,)` float32, the label of the log, NaN for negatives; with
            `keep_label` and `uniform` or `popularity` negatives.
        `sample_weight`: `(n,)` float32, if the dataset has weights; 1 for negatives,
            of which nothing is known (Hu, Koren, Volinsky, 2008).
    With `uniform` or `popularity` negatives each event is followed by its negatives.
    With `mixed` negatives a batch also has, for `count` items, `negative_item_index`,
    `negative_<feature>` of each item feature, `negative_sampling_probability`, the
    chance of each in one draw, and `negative_share`, its share of the interactions.
    With `all` it has the first two, for every item row but 0.

    Raises:
        InputError: `part-empty` without events, `log-too-small` with too few items to
            sample from, `invalid-loader` for `session_only` without sessions.
    """

    def __init__(
        self,
        dataset: Dataset,
        parts: tuple[str, ...] = ("train",),
        options: ExampleOptions | None = None,
        *,
        files: Sequence[str] | None = None,
    ) -> None:
        self.dataset = dataset
        self.options = options = options or ExampleOptions()
        known = options.history_parts or parts
        gap_ms = session_gap_ms(dataset.schema) if options.session_only else None
        binary = dataset.schema.label_kind == "binary"
        self._positive_from = dataset.schema.positive_from if binary else None
        self._columns = dataset.columns(*parts)
        self._names = [name for name in self._columns.names if _is_used(name)]
        ranges = [range(len(self._columns))]
        if files is not None:
            of_file = dataset.file_rows(*parts)
            ranges = [of_file[file] for file in files]
        least = self._positive_from if options.interactions_only else None
        self._rows = _eligible_rows(self._columns, least, ranges)
        if not len(self):
            raise _empty(parts, least)
        self._histories = None
        if options.history_length:
            histories = dataset.histories(*known)
            self._histories = HistoryReader(histories, options, gap_ms)
        counts = dataset.item_counts(*known)
        own = counts if files is None else self._item_counts()
        share = np.maximum(own, 1) / max(int(own.sum()), 1)
        self._share = share.astype(np.float32)
        negatives = options.negatives
        self._has_all_items = negatives is not None and negatives.kind == "all"
        self._repeats = negatives.rows_per_event if negatives else 1
        self._sampler = None
        if negatives is not None and negatives.count:
            self._sampler = NegativeSampler(negatives, counts)
        self._identity = (*parts, "|", *known, *_identity(options, gap_ms, files))

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over the dataset and every argument."""
        raw = msgspec.json.encode((self.dataset.info.fingerprint, *self._identity))
        return hashlib.sha256(raw).hexdigest()[:16]

    @property
    def draws(self) -> bool:
        """Whether a batch depends on random numbers, or contains all items."""
        options = self.options
        is_random = options.unknown_rate > 0 or options.history_dropout > 0
        return is_random or self._sampler is not None or self._has_all_items

    def __len__(self) -> int:
        """Number of events."""
        return len(self._columns if self._rows is None else self._rows)

    def take(self, indices: np.ndarray, generator: np.random.Generator) -> Batch:
        """The batch of the events at `indices`, with their negatives."""
        rows = indices if self._rows is None else self._rows[indices]
        events = self._columns.take(rows, self._names)
        user, item, label = (
            events[name] for name in ("user_index", "item_index", LABEL)
        )
        known = np.ones(len(user), bool)
        if self.options.unknown_rate:
            known = generator.random(len(user)) >= self.options.unknown_rate
        of_event = self._of_event(events, known, generator)
        user = np.where(known, user, np.int32(0))
        of_event |= {"user_index": user, LABEL: label}
        if self._repeats > 1 and self._sampler:
            others = self._sampler.others(item, generator)
            item = np.column_stack([item, others]).ravel()
            of_event = self._repeated(of_event)
        batch = of_event | pair_features(self.dataset, of_event["user_index"], item)
        batch["sampling_probability"] = self._share[item]
        if self._repeats == 1 and self._sampler:
            batch |= self._shared(self._sampler, generator)
        if self._has_all_items:
            items = np.arange(1, self.dataset.num_items)
            batch |= _as_negatives(item_features(self.dataset, items))
        return batch

    def _item_counts(self) -> np.ndarray:
        """Interactions per item among the examples, `(num_items,)`."""
        rows = np.arange(len(self)) if self._rows is None else self._rows
        events = self._columns.take(rows, ["item_index", LABEL])
        items = events["item_index"][self._is_positive(events[LABEL])]
        return np.bincount(items, minlength=self.dataset.num_items)

    def _of_event(
        self, events: Batch, known: np.ndarray, generator: np.random.Generator
    ) -> Batch:
        """What does not depend on the item that is paired with the event."""
        found = {
            name.removeprefix(FEATURE_PREFIX): values
            for name, values in events.items()
            if name.startswith(FEATURE_PREFIX)
        }
        if self._histories is not None:
            found[HISTORY] = self._histories.read(events, known, generator)
        if "weight" in events:
            found[WEIGHT] = events["weight"]
        return found

    def _repeated(self, of_event: Batch) -> Batch:
        """What belongs to an event, for the event and for each of its negatives."""
        repeated = {
            name: np.repeat(values, self._repeats, axis=0)
            for name, values in of_event.items()
        }
        if self.options.keep_label:
            own = repeated[EVENT_LABEL] = repeated[LABEL].astype(np.float32)
            own.reshape(-1, self._repeats)[:, 1:] = np.nan
        label = repeated[LABEL] = self._is_positive(repeated[LABEL]).astype(np.float32)
        label.reshape(-1, self._repeats)[:, 1:] = 0
        if WEIGHT in repeated:
            repeated[WEIGHT].reshape(-1, self._repeats)[:, 1:] = 1
        return repeated

    def _is_positive(self, label: np.ndarray) -> np.ndarray:
        """Whether events are interactions, `(n,)` bool."""
        if self._positive_from is None:
            return np.ones(len(label), bool)
        return label >= self._positive_from

    def _shared(
        self, sampler: NegativeSampler, generator: np.random.Generator
    ) -> Batch:
        """Negatives of the whole batch."""
        items = sampler.shared(generator)
        features = item_features(self.dataset, items)
        chance = sampler.probability(items).astype(np.float32)
        features |= {"sampling_probability": chance, "share": self._share[items]}
        return _as_negatives(features)


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
    """The ids and features of (user, item) pairs, without the history."""
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


def _identity(
    options: ExampleOptions, gap_ms: int | None, files: Sequence[str] | None
) -> tuple[object, ...]:
    """What decides the batches; grows only by values that are not the default."""
    length, rate = options.history_length, options.unknown_rate
    identity: tuple[object, ...] = (length, options.interactions_only, rate)
    identity += (options.negatives, gap_ms, *(files or ()))
    kind = (options.history_from, options.history_dropout, options.unknown_within)
    return identity if kind == _BEFORE else identity + kind


def _empty(parts: tuple[str, ...], least: float | None) -> InputError:
    labels = f", with labels from {least} on" if least is not None else ""
    fix = ", or set positive_from" if least is not None else ""
    return InputError(
        "part-empty",
        f"The parts {parts} must hold events to train on{labels}. Received: none. Hold"
        f" out fewer events{fix}.",
    )

"""Relevant items: the held-out items of a user, by default only new ones.

Processes blocks of users with one flag per (user, item), so that events are never
sorted as a whole.
"""

from __future__ import annotations

import numpy as np

from shortlist.data.kernels.ids import group_order
from shortlist.data.schema import FEATURE_PREFIX
from shortlist.data.split import KNOWN
from shortlist.data.store.dataset import Dataset
from shortlist.data.store.ragged import ranges
from shortlist.errors import InputError
from shortlist.evaluation.metrics.rankings import Csr, build_csr

_FLAGS = 1 << 25  # bytes of flags at once
ONLY_REPEATS = (
    "The {part} part has only items that the same user had interacted with before"
    " (repeat purchases), and seen items are neither recommended nor counted. Set"
    " `repeats = true` in [evaluation], and in [serving] to recommend seen items too;"
    " the dataset need not be prepared again."
)


def relevant_items(
    dataset: Dataset,
    users: np.ndarray,
    part: str,
    chosen: np.ndarray | None = None,
    *,
    repeats: bool = False,
) -> Csr:
    """The items of each user's held-out events that are new to the user.

    Args:
        dataset: where the parts are.
        users: user rows `(n,)`, unique.
        part: the held-out part.
        chosen: whether an event of `dataset.interactions(part)` counts, `(events,)`;
            all do by default.
        repeats: items that the user had interacted with before count too.

    Returns: offsets `(n + 1,)` and item rows, each item once per user; 0 is an item
        outside the vocabulary, once for each of its events: such items may be
        different ones.
    """
    events = dataset.interactions(part)
    events = events if chosen is None else events.take(chosen)
    histories = dataset.histories(*KNOWN[part])
    stride = dataset.num_items
    first = np.searchsorted(events.user_index, users, side="left")
    held_out = np.searchsorted(events.user_index, users, side="right") - first
    block = max(1, _FLAGS // stride)
    seen_flags = np.zeros(min(block, len(users)) * stride, bool)
    keys = [np.zeros(0, np.int64)]
    for start in range(0, len(users), block):
        here = slice(start, start + block)
        rows = ranges(first[here], held_out[here])
        wanted = _keys(held_out[here], events.item_index[rows], stride)
        if not repeats:
            offsets, items = histories.seen(users[here])
            seen = _keys(np.diff(offsets), items, stride)
            seen_flags[seen] = True
            wanted = wanted[~seen_flags[wanted]]
            seen_flags[seen] = False
        unknown = wanted % stride == 0
        found = np.concatenate([np.unique(wanted[~unknown]), wanted[unknown]])
        keys.append(found + start * stride)
    pairs = np.concatenate(keys)
    return build_csr(pairs // stride, pairs % stride, len(users))


def nothing_relevant(dataset: Dataset, users: np.ndarray, part: str) -> InputError:
    """The error of a held-out part of which nothing counts as relevant.

    Args:
        dataset: where the parts are.
        users: rows of the known users with an event in the part, `(n,)`.
        part: the held-out part.
    """
    _, taken = relevant_items(dataset, users, part, repeats=True)
    if len(taken):
        return InputError("no-relevant-items", ONLY_REPEATS.format(part=part))
    return InputError(
        "no-relevant-items",
        f"The {part} part must hold an event of at least `positive_from` of a known"
        f" user. Received: {len(users):,} known users, none of them with any. Hold out"
        " more events, or lower `positive_from` in [columns], and prepare again.",
    )


def event_values(dataset: Dataset, part: str, feature: str) -> np.ndarray:
    """Values of a context feature of each event of `dataset.interactions(part)`.

    Returns: `(events,)`, or `(events, length)` padded with -1.
    """
    columns = dataset.columns(part)
    users, times = columns.column("user_index"), columns.column("timestamp_ms")
    order = group_order(users, times, dataset.num_users)
    values: np.ndarray = columns.column(FEATURE_PREFIX + feature)[order]
    if dataset.schema.label_kind == "binary":
        values = values[dataset.part(part).label >= dataset.schema.positive_from]
    return values


def _keys(lengths: np.ndarray, items: np.ndarray, stride: int) -> np.ndarray:
    """`user * stride + item` of a block of users with so many items each."""
    users = np.arange(0, len(lengths) * stride, stride)
    keys: np.ndarray = np.repeat(users, lengths)
    keys += items
    return keys

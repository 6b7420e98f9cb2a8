"""Checks before training that the held-out parts can be evaluated."""

from __future__ import annotations

import numpy as np

from shortlist.data.split import KNOWN
from shortlist.data.store.dataset import Dataset, Part
from shortlist.data.store.ragged import ranges
from shortlist.errors import InputError
from shortlist.evaluation.truth import ONLY_REPEATS

_USERS_AT_ONCE = 1 << 14


def measurable_users(dataset: Dataset, *, repeats: bool = False) -> np.ndarray:
    """Users whose validation part has a new item; with `repeats`, any item."""
    held_out = _keys(dataset, dataset.interactions("validation"))
    if not repeats:
        known = _keys(dataset, dataset.interactions("train"))
        held_out = held_out[~np.isin(held_out, known)]
    users = held_out // dataset.num_items
    return np.unique(users[users > 0])


def holds_only_repeats(dataset: Dataset, part: str) -> bool:
    """Whether known users interact in a part only with items they already know.

    Users are checked in blocks until one has a new item, which is fast for nearly all
    logs. The result is False for a part without events of known users.
    """
    events = dataset.interactions(part)
    known = [dataset.interactions(name) for name in KNOWN[part]]
    users = np.unique(events.user_index)
    users = users[users > 0]
    for start in range(0, len(users), _USERS_AT_ONCE):
        block = users[start : start + _USERS_AT_ONCE]
        wanted = _keys(dataset, _events_of(events, block))
        seen = [_keys(dataset, _events_of(each, block)) for each in known]
        is_new = ~np.isin(wanted, np.concatenate(seen))
        # Row 0 is an item outside the vocabulary, which is new to every user.
        if (is_new | (wanted % dataset.num_items == 0)).any():
            return False
    return len(users) > 0


def check_held_out(dataset: Dataset) -> None:
    """Checks that a model can be evaluated without `repeats`.

    The test part is checked only if the validation part has nothing to measure.

    Raises:
        InputError: the held-out parts have only items that their users had interacted
            with before (`no-relevant-items`).
    """
    sizes = dataset.info.parts
    parts = [name for name in ("validation", "test") if sizes.get(name)]
    if parts and all(holds_only_repeats(dataset, name) for name in parts):
        raise InputError("no-relevant-items", ONLY_REPEATS.format(part=parts[-1]))


def repeats_warning(dataset: Dataset) -> str:
    """A warning if the test part cannot be evaluated without `repeats`, or nothing.

    `shortlist prepare` prints it: training never opens the test part. It is not an
    error, because appended days may contain nothing else.
    """
    if not dataset.info.parts.get("test") or not holds_only_repeats(dataset, "test"):
        return ""
    return (
        "warning: the test part holds only items that their users had before, so"
        " `shortlist evaluate` will have nothing to measure. Set `repeats = true` in"
        " [evaluation] and [serving] to count them, or hold out more events."
    )


def _events_of(events: Part, users: np.ndarray) -> Part:
    """The events of some users; events are sorted by user."""
    first = np.searchsorted(events.user_index, users, side="left")
    last = np.searchsorted(events.user_index, users, side="right")
    return events.take(ranges(first, last - first))


def _keys(dataset: Dataset, events: Part) -> np.ndarray:
    """`user * items + item` of each event, `(n,)` int64."""
    keys: np.ndarray = events.user_index.astype(np.int64) * dataset.num_items
    keys += events.item_index
    return keys

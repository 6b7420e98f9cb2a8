"""Stored events into histories, in columns: no object per event.

Knows the vocabularies and the store, and nothing of the model.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from shortlist.data.schema import Schema
from shortlist.data.vocabulary import Vocabulary
from shortlist.serving.events import EventColumns
from shortlist.serving.histories import PostedColumns, UserKey
from shortlist.serving.results import ExternalId


class _Rows(dict[ExternalId, int]):
    """Rows of ids, each looked up once."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def __missing__(self, external_id: ExternalId) -> int:
        row = self[external_id] = self._vocabulary.row(external_id)
        return row


class _Codes(dict[ExternalId, int]):
    """Users as numbers: the row of a known one, -1, -2, ... for the others."""

    def __init__(self, users: Vocabulary) -> None:
        self._users = users
        self._strangers: dict[str, int] = {}

    def __missing__(self, external_id: ExternalId) -> int:
        code = self._users.row(external_id)
        if code == 0:
            new = -1 - len(self._strangers)
            code = self._strangers.setdefault(str(external_id), new)
        self[external_id] = code
        return code

    def keys_of(self, codes: np.ndarray) -> list[UserKey]:
        """The keys that the histories know the users by."""
        names = list(self._strangers)
        return [code if code > 0 else names[-1 - code] for code in codes.tolist()]


def posted_columns(
    blocks: Iterable[EventColumns], users: Vocabulary, items: Vocabulary, schema: Schema
) -> PostedColumns:
    """Sorts stored events by user and time.

    Events of items that the bundle does not hold are left out, and so are those by
    which a user did not take the item.

    Args:
        blocks: events in the order they were posted.
        users: vocabulary of the users.
        items: vocabulary of the items.
        schema: says which labels are interactions.
    """
    user_codes, item_rows = _Codes(users), _Rows(items)
    parts: list[tuple[np.ndarray, ...]] = []
    for block in blocks:
        size = len(block.times_ms)
        rows = np.fromiter(map(item_rows.__getitem__, block.item_ids), np.int32, size)
        kept = (rows > 0) & is_interaction(block.labels, schema)
        # Codes of all: an id is a user's even if its first event does not count.
        codes = np.fromiter(map(user_codes.__getitem__, block.user_ids), np.int64, size)
        labels = block.labels.astype(np.float32)
        parts.append((codes[kept], rows[kept], block.times_ms[kept], labels[kept]))
    empty = (np.int64, np.int32, np.int64, np.float32)
    codes, rows, times, values = (
        np.concatenate([np.empty(0, dtype), *(part[i] for part in parts)])
        for i, dtype in enumerate(empty)
    )
    parts.clear()
    order = np.lexsort((times, codes))  # stable: one time keeps the order posted
    codes = codes[order]
    begins = np.flatnonzero(np.diff(codes, prepend=codes[:1] - 1))
    return PostedColumns(
        user_codes.keys_of(codes[begins]),
        np.append(begins, len(codes)),
        rows[order],
        times[order],
        values[order],
    )


def is_interaction(labels: np.ndarray, schema: Schema) -> np.ndarray:
    """Whether the user took the item: not if it was shown and not clicked.

    Args:
        labels: NaN where there is none.
        schema: says from which label on an event counts.

    Returns: booleans of the shape of `labels`.
    """
    if not schema.is_thresholded:
        return np.ones(labels.shape, bool)
    taken: np.ndarray = np.isnan(labels) | (labels >= schema.positive_from)
    return taken

"""Stored events into histories, in columns: no object per event.

Uses the vocabularies and the store, not the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl

from shortlist.data.schema import Schema
from shortlist.data.store.vocabulary import Vocabulary
from shortlist.serving.event_store.events import EventColumns
from shortlist.serving.histories import PostedColumns, UserKey
from shortlist.serving.results import ExternalId


class _Codes(dict[ExternalId, int]):
    """Ids numbered as they come: an id costs a look-up here, not in a vocabulary."""

    def __missing__(self, external_id: ExternalId) -> int:
        code = self[external_id] = len(self)
        return code

    def of(self, external_ids: Sequence[ExternalId]) -> np.ndarray:
        """Codes `(n,)` int32."""
        found = map(self.__getitem__, external_ids)
        return np.fromiter(found, np.int32, len(external_ids))

    def rows(self, vocabulary: Vocabulary) -> np.ndarray:
        """The row of each code, 0 for an id that the vocabulary lacks."""
        rows = np.zeros(len(self), np.int32)
        ids = list(self)
        for kind, dtype in ((int, pl.Int64), (str, pl.String)):
            codes = [code for code, id_ in enumerate(ids) if type(id_) is kind]
            series = pl.Series([ids[code] for code in codes], dtype=dtype)
            rows[codes] = vocabulary.lookup_series(series)
        return rows


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
    user_codes, item_codes = _Codes(), _Codes()
    parts = [
        (
            user_codes.of(block.user_ids),
            item_codes.of(block.item_ids),
            block.times_ms,
            block.labels.astype(np.float32),
        )
        for block in blocks
    ]
    dtypes = (np.int32, np.int32, np.int64, np.float32)
    codes, rows, times, labels = (
        np.concatenate([np.empty(0, dtype), *(part[i] for part in parts)])
        for i, dtype in enumerate(dtypes)
    )
    parts.clear()
    keys, numbers = _keys(user_codes, users)
    rows, codes = item_codes.rows(items)[rows], numbers[codes]
    kept = np.flatnonzero((rows > 0) & is_interaction(labels, schema))
    # Stable, so events of one time keep the order they were posted in.
    order = kept[np.lexsort((times[kept], codes[kept]))]
    codes = codes[order]
    begins = np.flatnonzero(np.diff(codes, prepend=-1))
    return PostedColumns(
        [keys[code] for code in codes[begins].tolist()],
        np.append(begins, len(codes)),
        rows[order],
        times[order],
        labels[order],
    )


def _keys(codes: _Codes, users: Vocabulary) -> tuple[list[UserKey], np.ndarray]:
    """The keys that the histories know users by, and the number of each code's key.

    The ids 7 and "7" are one user: the row of a known user, otherwise the text.
    """
    numbers: dict[UserKey, int] = {}
    rows = codes.rows(users).tolist()
    found = [
        numbers.setdefault(row or str(id_), len(numbers))
        for id_, row in zip(codes, rows, strict=True)
    ]
    return list(numbers), np.array(found, np.int32)


def is_interaction(labels: np.ndarray, schema: Schema) -> np.ndarray:
    """Whether the event is an interaction: not if the item was shown and not clicked.

    Args:
        labels: NaN where there is none.
        schema: says from which label on an event counts.

    Returns: booleans of the shape of `labels`.
    """
    if not schema.is_thresholded:
        return np.ones(labels.shape, bool)
    counts: np.ndarray = np.isnan(labels) | (labels >= schema.positive_from)
    return counts

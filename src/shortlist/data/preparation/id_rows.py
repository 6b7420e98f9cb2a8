"""Rows for codes: how often each id occurs, and the vocabularies of the ids.

Row 0 of users and items is the only one for ids outside the vocabulary: a list of items
to recommend needs to know which item a row is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from shortlist.data.kernels.ids import group_offsets
from shortlist.data.preparation.sorted_log import SortedLog
from shortlist.data.schema import ITEM, USER, Schema
from shortlist.data.split import PARTS, TEST, TRAIN
from shortlist.data.store.vocabulary import Vocabulary


@dataclass(frozen=True)
class EventCounts:
    """Events by part and code, int64 `(parts, codes)`.

    Args:
        users: all events of each user.
        items: all events of each item.
        positive_users: positive events of each user; fewer only with a binary label.
        positive_items: the same of each item.
    """

    users: np.ndarray
    items: np.ndarray
    positive_users: np.ndarray
    positive_items: np.ndarray


def count_events(log: SortedLog, schema: Schema) -> EventCounts:
    """Counts the events of every user and item in every part."""
    users = _counts(log.frame, "user_code", len(log.user_ids))
    items = _counts(log.frame, "item_code", len(log.item_ids))
    if schema.label_kind != "binary":
        return EventCounts(users, items, users, items)
    taken = log.frame.filter(pl.col("label") >= schema.positive_from)
    return EventCounts(
        users,
        items,
        _counts(taken, "user_code", len(log.user_ids)),
        _counts(taken, "item_code", len(log.item_ids)),
    )


def _counts(frame: pl.DataFrame, column: str, num_codes: int) -> np.ndarray:
    """Events by part and code."""
    cells = frame[column].to_numpy() * np.int32(len(PARTS))
    cells += frame["part"].to_numpy()
    sizes = np.diff(group_offsets(cells, len(PARTS) * num_codes))
    return np.ascontiguousarray(sizes.reshape(num_codes, len(PARTS)).T)


@dataclass(frozen=True)
class IdRows:
    """The rows of the users or of the items.

    Args:
        vocabulary: the ids known before the test part.
        rows: row of each code, `(codes,)` int32: 0 for an id that the limits leave
            out, from `len(vocabulary)` on for a pending one.
        pending: ids that occur in the test part only, in order of their rows. They are
            unknown until days are appended; then they join the vocabulary.
    """

    vocabulary: Vocabulary
    rows: np.ndarray
    pending: pl.Series

    @property
    def num_rows(self) -> int:
        """All rows, including those of pending ids."""
        return len(self.vocabulary) + len(self.pending)

    def trained(self, counts: np.ndarray) -> np.ndarray:
        """Mask of the vocabulary's rows with a training event.

        Args:
            counts: events by part and code.
        """
        mask = np.zeros(len(self.vocabulary), bool)
        mask[self.rows[counts[TRAIN] > 0]] = True
        mask[0] = False
        return mask

    def unknown(self) -> np.ndarray:
        """Mask of the codes without a row of the vocabulary."""
        mask: np.ndarray = (self.rows == 0) | (self.rows >= len(self.vocabulary))
        return mask


def user_rows(log: SortedLog, schema: Schema, counts: EventCounts) -> IdRows:
    """Rows of the users.

    A user's count in the vocabulary is its number of training events.
    """
    stored = counts.positive_users[TRAIN]
    return _rows(USER, log.user_ids, counts.users, stored, schema)


def item_rows(log: SortedLog, schema: Schema, counts: EventCounts) -> IdRows:
    """Rows of the items.

    An item's count in the vocabulary is its popularity, which includes validation
    events.
    """
    taken = counts.positive_items[:TEST].sum(axis=0)
    return _rows(ITEM, log.item_ids, counts.items, taken, schema)


def _rows(
    name: str, ids: pl.Series, counts: np.ndarray, stored: np.ndarray, schema: Schema
) -> IdRows:
    """Ids with enough known events, most frequent first, ties by id."""
    limits = schema.limits(name)
    columns = {"id": ids, "known": counts[:TEST].sum(axis=0), "test": counts[TEST]}
    coded = pl.DataFrame(columns).with_row_index("code")
    kept = coded.filter(pl.col("known") >= max(limits.min_count, 1))
    kept = kept.sort(["known", "id"], descending=[True, False])
    kept = kept if limits.max_size is None else kept.head(limits.max_size)
    # A fold leaves events out; ids of such events only are not pending.
    pending = coded.filter((pl.col("known") == 0) & (pl.col("test") > 0)).sort("id")
    codes = kept["code"].to_numpy()
    rows = np.zeros(len(ids), np.int32)
    both = np.concatenate([codes, pending["code"].to_numpy()])
    rows[both] = np.arange(1, len(both) + 1)
    return IdRows(Vocabulary(name, kept["id"], stored[codes]), rows, pending["id"])

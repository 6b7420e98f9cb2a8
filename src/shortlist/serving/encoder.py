"""The input vectors of an ONNX graph from rows: table lookups in NumPy.

Knows no external ids and no graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from shortlist.bundle.contents import BundleContents, GraphContents
from shortlist.bundle.manifest import FEATURE_PREFIX
from shortlist.data.schema import HISTORY, USER
from shortlist.data.store.ragged import Ragged
from shortlist.embeddings.inputs import Input
from shortlist.models.scorers.queries import Queries


class InputEncoder:
    """Builds the input vectors `(batch, width)` of one graph.

    Args:
        part: the retrieval or ranker part of a bundle.
        contents: the bundle it is part of.
    """

    def __init__(self, part: GraphContents, contents: BundleContents) -> None:
        self.inputs = part.inputs
        self.tables = part.tables
        self.history_length = part.history_length
        self.width = sum(entry.width for entry in part.inputs)
        self._trained = contents.vocabularies[USER].counts > 0
        frames = {"user": contents.users, "item": contents.items}
        self._columns: dict[str, Any] = {
            entry.feature: _column(frames[entry.owner], entry)
            for entry in part.inputs
            if _is_stored(entry)
        }

    def encode(
        self, queries: Queries, item_rows: np.ndarray | None = None
    ) -> np.ndarray:
        """Looks up all inputs and joins them.

        A user without training events gets the id row 0, as in training.

        Args:
            queries: the users; the newest of their items are used.
            item_rows: `(n,)` for a ranker: one user is then paired with n items.

        Returns:
            float32 `(len(queries), width)`, or `(n, width)` with `item_rows`.
        """
        feature_rows = queries.user_index
        user_rows = np.where(self._trained[feature_rows], feature_rows, 0)
        batch = len(queries) if item_rows is None else len(item_rows)
        vectors = np.empty((batch, self.width), np.float32)
        histories = [queries.items[a:b] for a, b in pairwise(queries.offsets.tolist())]
        recent = [rows[-self.history_length :] for rows in histories]
        column = 0
        for entry in self.inputs:
            if entry.feature == "user_index":
                block = self.tables["user"][user_rows]
            elif entry.feature == HISTORY and entry.kind == "sequence":
                block = sequence_columns(recent, self.tables["item"], entry)
            elif entry.feature == HISTORY:
                block = Ragged.from_lists(recent).mean(self.tables["item"])
            elif entry.feature == "item_index":
                block = self.tables["item"][item_rows]
            else:
                rows = feature_rows if entry.owner == "user" else item_rows
                assert rows is not None  # check_contents: item inputs only in rankers
                block = self._stored(entry, rows)
            vectors[:, column : column + entry.width] = block  # a user row broadcasts
            column += entry.width
        return vectors

    def _stored(self, entry: Input, rows: np.ndarray) -> np.ndarray:
        column = self._columns[entry.feature]
        if entry.kind == "numeric":
            return np.asarray(column[rows, None])
        assert entry.table is not None  # check_contents
        if entry.kind == "categorical":
            looked_up: np.ndarray = self.tables[entry.table][column[rows]]
            return looked_up
        means: np.ndarray = column.take(rows).mean(self.tables[entry.table])
        return means


def sequence_columns(
    lists: Sequence[np.ndarray], table: np.ndarray, entry: Input
) -> np.ndarray:
    """Lists of rows in the layout of a sequence of `FeatureEmbedding`, `(n, width)`.

    Args:
        lists: table rows of each history, oldest first, at most `entry.length`.
        table: `(rows, dim)`.
        entry: the sequence.
    """
    assert entry.length is not None  # check_contents
    columns = np.zeros((len(lists), entry.length, entry.dim + 1), np.float32)
    for row, found in enumerate(lists):
        if len(found):
            columns[row, -len(found) :, : entry.dim] = table[found]
            columns[row, -len(found) :, entry.dim] = 1
    return columns.reshape(len(lists), entry.width)


def _is_stored(entry: Input) -> bool:
    return entry.feature not in ("user_index", "item_index", HISTORY)


def _column(frame: pl.DataFrame, entry: Input) -> Any:
    column = frame[FEATURE_PREFIX + entry.feature]
    if entry.kind == "multi_valued":
        return rows_of_column(column)
    return column.to_numpy()


def rows_of_column(column: pl.Series) -> Ragged:
    """The rows of a list column without the padding -1."""
    lists = Ragged.from_column(column)
    return lists.where(lists.values >= 0)

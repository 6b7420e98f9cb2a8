"""The contents of a bundle in memory, and the check that its parts are consistent.

`write_bundle` takes this object and `read_bundle` returns it; both check it. Knows no
files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from shortlist.bundle.checks import check_finite, refuse
from shortlist.bundle.graph_checks import check_graph
from shortlist.bundle.manifest import (
    FEATURE_PREFIX,
    ITEMS,
    USERS,
    Objective,
    vocabulary_path,
)
from shortlist.bundle.scorer_checks import check_scorer
from shortlist.data.schema import HISTORY, ITEM, USER, Schema
from shortlist.data.store.vocabulary import Vocabulary
from shortlist.embeddings.inputs import Input
from shortlist.models.scorers.vectors import TWO_TOWER

HISTORY_TIMES, HISTORY_VALUES = "history_times", "history_values"
DETAILS = {HISTORY_TIMES: pl.Int64, HISTORY_VALUES: pl.Float32}
INDEX_TABLES = {"user_index": USER, "item_index": ITEM}


@dataclass(frozen=True, kw_only=True)
class GraphContents:
    """An ONNX graph and the data of its one input `(batch, width)`.

    Args:
        graph: serialized ONNX model.
        tables: embedding tables, name to float32 `(rows, dim)`; row 0 is
            out-of-vocabulary, or a missing value where rows are hashed or buckets.
        inputs: blocks of the input vector, in order.
        history_length: number of the user's newest items that it reads.
    """

    graph: bytes
    tables: Mapping[str, np.ndarray]
    inputs: tuple[Input, ...]
    history_length: int


@dataclass(frozen=True, kw_only=True)
class TowerContents(GraphContents):
    """The user tower, whose output is `(batch, embedding_dim)`, and the item vectors.

    Args:
        item_vectors: float32 `(num_items + 1, embedding_dim)`; row 0 is zeros.
        num_queries: vectors per user; with more than one the output of the tower is
            `(batch, num_queries, embedding_dim)`, and the score is the highest of them.
        item_bias: whether the last column of the item vectors is a bias, which is not
            used for similar items.
    """

    item_vectors: np.ndarray
    num_queries: int = 1
    item_bias: bool = False


@dataclass(frozen=True, kw_only=True)
class RetrievalContents:
    """A fitted scorer: the arguments of `models.scorers.restore`.

    Args:
        kind: of the scorer; `two_tower` for a two-tower model alone.
        config: its constructor arguments, JSON values.
        arrays: what it learned, float32 and int32.
        towers: the two-tower models in it: that of `two_tower` by this name, those of
            a blend by the names of the members.
    """

    kind: str
    config: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    towers: Mapping[str, TowerContents] = field(default_factory=dict)

    @classmethod
    def of_tower(cls, tower: TowerContents) -> RetrievalContents:
        """A two-tower model alone."""
        return cls(kind=TWO_TOWER, towers={TWO_TOWER: tower})


@dataclass(frozen=True, kw_only=True)
class RankerContents(GraphContents):
    """The ranker, whose output is `(batch,)` or `(batch, 1)`: a score.

    Args:
        weight: of its output in the final score: retrieval score + weight * output.
        candidates: number of items of retrieval that it scores.
        objective: `binary` (output is a logit), `explicit` (a rating) or `listwise`
            (only the order matters).
    """

    weight: float
    candidates: int
    objective: Objective


@dataclass(frozen=True, kw_only=True)
class BundleContents:
    """Everything a recommender needs.

    Args:
        name: name of the model, for display.
        schema: columns of the log it was trained on.
        vocabularies: by name; always `user` and `item`.
        items: record i = item row i: display columns as strings, `feature:<name>`
            columns with rows (int32, list of int32) or standardized numbers (float32).
        users: the same for users, and `history`: item rows, oldest first. If the
            scorer uses them, also `history_times` (list of int64, milliseconds) and
            `history_values` (list of float32, labels) of those items.
        retrieval: `None` for a bundle that only has popularity.
        ranker: `None` to serve in retrieval order.
        repeats: recommend items again that a user has interacted with, unless a
            request says otherwise.
        metrics: results of the evaluation, JSON values.
        environment: versions the model was trained with, JSON values.
    """

    name: str
    schema: Schema
    vocabularies: Mapping[str, Vocabulary]
    items: pl.DataFrame
    users: pl.DataFrame
    retrieval: RetrievalContents | None = None
    ranker: RankerContents | None = None
    repeats: bool = False
    metrics: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)


def check_contents(contents: BundleContents) -> None:
    """Raises `ArtifactError` (`bundle-inconsistent`, `bundle-not-finite`)."""
    for name in (USER, ITEM):
        if name not in contents.vocabularies:
            refuse(vocabulary_path(name), "must exist", "it does not")
    _check_frame(contents, contents.users, USERS, USER)
    _check_frame(contents, contents.items, ITEMS, ITEM)
    num_items = len(contents.vocabularies[ITEM])
    _check_rows(contents.users, HISTORY, num_items, USERS, lists=True)
    _check_details(contents.users)
    if (part := contents.retrieval) is not None:
        check_scorer(
            part.kind,
            part.config,
            part.arrays,
            towers=part.towers,
            sizes=(len(contents.vocabularies[USER]), num_items),
        )
        for tower in part.towers.values():
            _check_tower(contents, tower)
    if contents.ranker is not None:
        if contents.retrieval is None:
            refuse("ranker", "must come with a retrieval part", "there is none")
        if not np.isfinite(contents.ranker.weight) or contents.ranker.candidates < 1:
            found = f"{contents.ranker.weight} and {contents.ranker.candidates}"
            refuse("ranker", "must have a finite weight and 1 candidate", found)
        _check_graph(contents, contents.ranker, "ranker")


def _check_tower(contents: BundleContents, part: TowerContents) -> None:
    if part.num_queries < 1:
        found = str(part.num_queries)
        refuse("retrieval", "must have num_queries of at least 1", found)
    _check_item_vectors(contents, part)
    _check_graph(contents, part, "retrieval")


def _check_details(users: pl.DataFrame) -> None:
    """Checks times and labels of the histories, if there are any."""
    lengths = users[HISTORY].list.len()
    for column, dtype in DETAILS.items():
        if column not in users.columns:
            continue
        _check_column(users, column, pl.List(dtype), USERS)
        values = users[column].explode(empty_as_null=False)
        if (users[column].list.len() != lengths).any() or values.null_count():
            rule = f"must have one number per item of the history in {column!r}"
            refuse(USERS, rule, "others")
        check_finite(f"{USERS} column {column!r}", values.to_numpy())


def _check_frame(
    contents: BundleContents, frame: pl.DataFrame, file: str, vocabulary: str
) -> None:
    expected = len(contents.vocabularies[vocabulary])
    if frame.height != expected:
        rule = f"must have one record per row of vocabulary {vocabulary!r}: {expected}"
        refuse(file, rule, f"{frame.height} records")


def _check_item_vectors(contents: BundleContents, part: TowerContents) -> None:
    vectors, num_rows = part.item_vectors, len(contents.vocabularies[ITEM])
    if vectors.ndim != 2 or vectors.shape[0] != num_rows or vectors.shape[1] < 1:
        rule = f"must have one vector per row of vocabulary 'item': {num_rows}"
        refuse("item_vectors", rule, f"shape {vectors.shape}")
    check_finite("item_vectors", vectors)
    if vectors[0].any():
        refuse("item_vectors", "must be zeros in row 0", "other numbers")


def _check_graph(contents: BundleContents, part: GraphContents, name: str) -> None:
    if not part.inputs:
        refuse(name, "must have an input", "none")
    check_graph(part.graph, name)
    if part.history_length < any(entry.feature == HISTORY for entry in part.inputs):
        rule = "must have a history_length of at least 1 to read the history"
        refuse(name, rule, str(part.history_length))
    for table, rows in part.tables.items():
        check_finite(f"{name} table {table!r}", rows)
    for entry in part.inputs:
        _check_input(contents, part, entry, f"input {entry.feature!r} of {name}")
        if name == "retrieval" and entry.owner == "item":
            refuse(name, "must not need item features", f"input {entry.feature!r}")


def _check_input(
    contents: BundleContents, part: GraphContents, entry: Input, place: str
) -> None:
    if entry.kind == "numeric":
        if entry.table is not None or entry.dim != 1:
            found = f"table {entry.table!r}, dim {entry.dim}"
            refuse(place, "must have no table and dim 1, being numeric", found)
    else:
        _check_table(contents, part, entry, place)
    _check_length(part, entry, place)
    if entry.feature in INDEX_TABLES or entry.feature == HISTORY:
        expected = INDEX_TABLES.get(entry.feature, ITEM)
        history = entry.feature == HISTORY
        kinds = ("multi_valued", "sequence") if history else ("categorical",)
        if entry.table != expected or entry.kind not in kinds:
            found = f"{entry.kind} on {entry.table!r}"
            rule = f"must be {' or '.join(kinds)} on table {expected!r}"
            refuse(place, rule, found)
        return
    users = entry.owner == "user"
    frame, file = (contents.users, USERS) if users else (contents.items, ITEMS)
    column = FEATURE_PREFIX + entry.feature
    if entry.kind == "numeric":
        _check_column(frame, column, pl.Float32, file)
        check_finite(f"{file} column {column!r}", frame[column].to_numpy())
    else:
        assert entry.table is not None  # _check_table has refused it
        lists = entry.kind == "multi_valued"
        num_rows = len(part.tables[entry.table])
        _check_rows(frame, column, num_rows, file, lists=lists)


def _check_length(part: GraphContents, entry: Input, place: str) -> None:
    """Only the history may be a sequence, with its length."""
    expected = part.history_length if entry.kind == "sequence" else None
    if entry.length != expected or (entry.length and entry.feature != HISTORY):
        found = f"kind {entry.kind!r}, length {entry.length}"
        refuse(place, f"must have length {expected}, and only a history one", found)


def _check_table(
    contents: BundleContents, part: GraphContents, entry: Input, place: str
) -> None:
    # Hashed and bucketized features have a table and no vocabulary.
    features = (f for f in contents.schema.features if f.is_looked_up)
    own = {f.table for f in features if not f.has_vocabulary}
    have = sorted(set(part.tables) & (set(contents.vocabularies) | own))
    if entry.table is None or entry.table not in have:
        refuse(place, f"must name one of the tables {have}", repr(entry.table))
    shape = part.tables[entry.table].shape
    expected = (_num_rows(contents, entry.table, shape), entry.dim)
    if shape != expected:
        refuse(place, f"must have a table of shape {expected}", f"shape {shape}")


def _num_rows(contents: BundleContents, table: str, shape: tuple[int, ...]) -> int:
    """Rows a table must have; fitted buckets may have any number."""
    if table in contents.vocabularies:
        return len(contents.vocabularies[table])
    for feature in contents.schema.features:
        if feature.table == table and feature.hash_buckets is not None:
            return 1 + feature.hash_buckets
        if feature.table == table and feature.boundaries:
            return 2 + len(feature.boundaries)
    return shape[0] if shape else 0


def _check_column(
    frame: pl.DataFrame, column: str, dtype: pl.DataType | type[pl.DataType], file: str
) -> None:
    if column not in frame.columns or frame[column].dtype != dtype:
        found = frame[column].dtype if column in frame.columns else "no such column"
        refuse(file, f"must have a column {column!r} of type {dtype}", str(found))
    if frame[column].null_count():
        refuse(file, f"must have no nulls in {column!r}", "some")


def _check_rows(
    frame: pl.DataFrame, column: str, size: int, file: str, *, lists: bool
) -> None:
    _check_column(frame, column, pl.List(pl.Int32) if lists else pl.Int32(), file)
    values = frame[column]
    if lists:
        values = values.explode(empty_as_null=False)
    # -1 pads lists; a single row cannot be absent.
    lowest = -1 if lists and column != HISTORY else 0
    if values.null_count() or ((values < lowest) | (values >= size)).any():
        rule = f"must hold rows {lowest}..{size - 1} in {column!r}"
        found = values.to_numpy()
        refuse(file, rule, f"{found.min()}..{found.max()}")

"""The dataset on disk: memory-mapped Arrow files with the narrowest types.

dataset/
  dataset.json            format, schema, split, segments, statistics, fingerprint
  events/00000.arrow      one segment: user_index, item_index, timestamp_ms, label and
                          the other columns of the schema; sorted by user and time
  users.arrow items.arrow record i = row i: `feature:<name>` and display columns
  vocabularies/<name>.arrow
  rejected.csv            rows of the log that were left out, if any

`docs/dataset-format.md` describes it byte by byte.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from shortlist.data.kernels.ids import group_order
from shortlist.data.schema import CONTEXT, FEATURE_PREFIX, ITEM, USER, Schema
from shortlist.data.store.checksums import (
    MISSING,
    file_sum,
    first_problem,
    place_problem,
)
from shortlist.data.store.columns import Columns
from shortlist.data.store.dataset_checks import (
    EVENT_COLUMNS,
    check_events,
    check_table,
    pending_ids,
)
from shortlist.data.store.dataset_info import DatasetInfo, damaged, read_info
from shortlist.data.store.history import Histories
from shortlist.data.store.ragged import Ragged
from shortlist.data.store.table_sizes import table_rows
from shortlist.data.store.vocabulary import UNREADABLE, Vocabulary, read_frame
from shortlist.errors import ArtifactError, InputError


class Part(msgspec.Struct, frozen=True):
    """The events of one or several parts, sorted by user and time.

    Args:
        user_index: `(n,)` int32.
        item_index: `(n,)` int32; 0 for an item outside the vocabulary.
        timestamp_ms: `(n,)` int64.
        label: `(n,)` float32.
    """

    user_index: np.ndarray
    item_index: np.ndarray
    timestamp_ms: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.user_index)

    def take(self, rows: np.ndarray) -> Part:
        """The events at `rows` (indices or a mask)."""
        return Part(
            self.user_index[rows],
            self.item_index[rows],
            self.timestamp_ms[rows],
            self.label[rows],
        )


class Dataset:
    """A prepared dataset, opened with `Dataset.open`.

    An open dataset does not change when days are appended. Ids are read at once, events
    and tables at their first use. Then `ArtifactError` is raised: `dataset-changed` if
    the dataset was prepared again, or if two appends have removed the tables;
    `dataset-damaged` if a file does not match its checksum.
    """

    def __init__(
        self,
        path: Path,
        info: DatasetInfo,
        vocabularies: dict[str, Vocabulary],
        pending: dict[str, pl.Series],
    ) -> None:
        self.path = path
        self.info = info
        self.vocabularies = vocabularies
        self.pending = pending
        """Ids of `user` and `item` that occur only in the test part, by row."""
        self._histories: dict[tuple[str, ...], Histories] = {}
        self._columns: dict[tuple[str, ...], Columns] = {}

    @classmethod
    def open(cls, path: str | Path) -> Dataset:
        """Opens what `prepare` and `append` wrote.

        Raises:
            ArtifactError: not a dataset, of another format, or damaged.
        """
        path = Path(path)
        info = read_info(path)
        _check_places(path, info)
        _check_contents(
            path, info, [*info.vocabularies.values(), *info.pending.values()]
        )
        try:
            vocabularies = {
                name: Vocabulary.load(path / file)
                for name, file in info.vocabularies.items()
            }
            table_rows(info.schema, vocabularies, info.numbers)
        except InputError as error:
            raise damaged(path, error) from error
        pending = {
            owner: pending_ids(path / file, vocabularies[owner].ids.dtype)
            for owner, file in info.pending.items()
        }
        return cls(path, info, vocabularies, pending)

    @property
    def schema(self) -> Schema:
        """The schema of the log."""
        return self.info.schema

    @property
    def num_users(self) -> int:
        """Rows of the user vocabulary, row 0 included."""
        return len(self.vocabularies[USER])

    @property
    def num_items(self) -> int:
        """Rows of the item vocabulary, row 0 included."""
        return len(self.vocabularies[ITEM])

    @property
    def table_rows(self) -> dict[str, int]:
        """Rows of the table of every looked-up feature and of the ids."""
        return table_rows(self.schema, self.vocabularies, self.info.numbers)

    def columns(self, *names: str) -> Columns:
        """The columns of the events of the named parts, read in place.

        Columns `user_index`, `item_index`, `timestamp_ms`, `label`, and depending on
        the schema `weight`, `session_index` and `feature:<name>` of context features.
        Segments come part by part, in the order of writing.
        """
        if names not in self._columns:
            self._check_same()
            columns = self.stored_columns(*names)
            if "test" in names and self.info.pending:
                arrays = {name: columns.column(name) for name in columns.names}
                for name, limit in self._limits.items():
                    arrays[name] = np.where(arrays[name] < limit, arrays[name], 0)
                columns = Columns.from_arrays(arrays)
            self._columns[names] = columns
        return self._columns[names]

    def stored_columns(self, *names: str) -> Columns:
        """As `columns`, but pending ids keep the rows that they are stored with."""
        segments = [s for name in names for s in self.info.segments if s.part == name]
        _check_contents(self.path, self.info, [segment.file for segment in segments])
        try:
            columns = Columns.open([self.path / segment.file for segment in segments])
            limits = self.table_rows
            if "test" in names:
                for owner, ids in self.pending.items():
                    limits[owner] += len(ids)
            check_events(columns, self.path, segments, self.schema, limits)
        except (ArtifactError, InputError) as error:
            if error.code == "dataset-damaged":
                raise
            raise damaged(Path(error.file or self.path), error) from error
        return columns

    def xxh64(self, file: str) -> str:
        """XXH64 of one of its files, as recorded at writing."""
        return (self.info.files.get(file) or file_sum(self.path / file)).xxh64

    def file_rows(self, *names: str) -> dict[str, range]:
        """Which rows of `columns(*names)` come from each file of events."""
        found: dict[str, range] = {}
        start = 0
        for name in names:
            for segment in self.info.segments:
                if segment.part == name:
                    found[segment.file] = range(start, start + segment.events)
                    start += segment.events
        return found

    def part(self, *names: str) -> Part:
        """The events of the named parts together, sorted by user and time."""
        columns = self.columns(*names)
        part = Part(*(columns.column(name) for name in EVENT_COLUMNS))
        pending = "test" in names and bool(self.info.pending)
        in_names = [s for s in self.info.segments if s.part in names]
        if len(in_names) < 2 and not pending:
            return part
        order = group_order(part.user_index, part.timestamp_ms, self.num_users)
        return part.take(order)

    @property
    def _limits(self) -> dict[str, int]:
        """Rows of the vocabularies; pending ids have rows from there on."""
        return {"user_index": self.num_users, "item_index": self.num_items}

    def interactions(self, *names: str) -> Part:
        """The events that are interactions of a user with an item.

        All events, but with a binary label only those of at least `positive_from`: an
        item that was shown and not clicked is no interaction.
        """
        part = self.part(*names)
        if self.schema.label_kind != "binary":
            return part
        return part.take(part.label >= self.schema.positive_from)

    def histories(self, *names: str) -> Histories:
        """The interactions of users in the named parts; items of row 0 are left out."""
        if names not in self._histories:
            part = self.interactions(*names)
            part = part.take(part.item_index > 0)
            self._histories[names] = Histories(
                part.user_index, part.item_index, part.timestamp_ms, self.num_users
            )
        return self._histories[names]

    def item_counts(self, *names: str) -> np.ndarray:
        """Interactions per item row, `(num_items,)` int64; row 0 has none."""
        items = self.interactions(*names).item_index
        counts = np.bincount(items, minlength=self.num_items)
        counts[0] = 0
        return counts

    @functools.cached_property
    def users(self) -> pl.DataFrame:
        """Features and display columns of the user rows."""
        return self._table("users")

    @functools.cached_property
    def items(self) -> pl.DataFrame:
        """Features and display columns of the item rows."""
        return self._table("items")

    @functools.cached_property
    def features(self) -> dict[str, np.ndarray]:
        """Feature values by user or item row.

        Returns: categorical `(rows,)` int32, multi-valued `(rows, length)` int32
        padded with -1, numeric `(rows,)` float32.
        """
        values = {}
        for feature in self.schema.features:
            if feature.owner == CONTEXT:
                continue
            frame = self.users if feature.owner == "user" else self.items
            column = frame[FEATURE_PREFIX + feature.name]
            values[feature.name] = (
                padded(column) if feature.kind == "multi_valued" else column.to_numpy()
            )
        return values

    def _table(self, name: str) -> pl.DataFrame:
        file = self.info.tables[name]
        self._check_same(appends=1)  # the first append keeps the tables
        _check_contents(self.path, self.info, [file])
        owner = USER if name == "users" else ITEM
        try:
            frame = read_frame(self.path / file)
        except UNREADABLE as error:
            raise damaged(self.path / file, error) from error
        check_table(frame, self.path / file, owner, self.schema, self.table_rows)
        return frame

    def _check_same(self, appends: int | None = None) -> None:
        """Raises if the files on disk are no longer those of this dataset.

        Args:
            appends: most appends since it was opened; `None` for files that no append
                removes.
        """
        now = read_info(self.path)
        if now.fingerprint == self.info.fingerprint:
            return
        later = now.generation - self.info.generation
        if not now.continues(self.info):
            how = "it was prepared again"
        elif appends is not None and later > appends:
            how = f"days were appended {later} times"
        else:
            return
        raise ArtifactError(
            "dataset-changed",
            f"The dataset changed on disk: {how} since it was opened. Open it again.",
            file=self.path,
        )


def _check_places(path: Path, info: DatasetInfo) -> None:
    """Checks that all files exist; reads none of them."""
    problems = {
        file: problem
        for file in info.needed_files
        if (problem := place_problem(path, file, info.files.get(file))) is not None
    }
    missing = [file for file, problem in problems.items() if problem == MISSING]
    if missing:
        raise ArtifactError(
            "dataset-damaged",
            f"A dataset must be complete. Missing: {missing}. Run"
            " `shortlist prepare` again.",
            file=path,
        )
    for file, problem in problems.items():
        raise damaged(path / file, problem)


def _check_contents(path: Path, info: DatasetInfo, files: Iterable[str]) -> None:
    """Checks files against their checksums."""
    found = first_problem(path, files, info.files)
    if found is not None:
        raise damaged(path / found[0], found[1])


def padded(lists: pl.Series) -> np.ndarray:
    """A list column as `(rows, longest)` int32, padded with -1."""
    ragged = Ragged.from_column(lists)
    return ragged.last(max(int(ragged.lengths.max(initial=0)), 1))

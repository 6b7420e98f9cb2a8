"""The dataset on disk: Arrow files of the narrowest safe types, memory-mapped.

dataset/
  dataset.json            format, schema, split, segments, statistics, fingerprint
  events/00000.arrow      one segment: user_index, item_index, timestamp_ms, label and
                          what else the schema asks for; sorted by user and time
  users.arrow items.arrow record i = row i: `feature:<name>` and display columns
  vocabularies/<name>.arrow
  rejected.csv            rows of the log that were set aside, if any

`docs/dataset-format.md` describes it byte by byte.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import polars as pl

from shortlist.atomic import atomic_file
from shortlist.data.columns import Columns
from shortlist.data.findings import Finding
from shortlist.data.history import Histories
from shortlist.data.kernels import group_order, hash_file
from shortlist.data.numbers import NumberStatistics
from shortlist.data.schema import CONTEXT, FEATURE_PREFIX, ITEM, USER, Schema
from shortlist.data.split import PARTS, PartName
from shortlist.data.stamps import FileStamp
from shortlist.data.tables import table_rows
from shortlist.data.vocabulary import Vocabulary
from shortlist.errors import ArtifactError
from shortlist.native import default_threads

FORMAT_VERSION = 2
EVENT_COLUMNS = ("user_index", "item_index", "timestamp_ms", "label")
INFO_FILE = "dataset.json"


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    """What every version of `dataset.json` begins with."""

    format: Literal["shortlist-dataset"] = "shortlist-dataset"
    format_version: int = FORMAT_VERSION


class Segment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of events.

    Args:
        file: its path in the dataset.
        part: the part its events belong to.
        events: how many there are.
        first_timestamp_ms: time of the earliest, `None` without events.
        last_timestamp_ms: time of the latest.
    """

    file: str
    part: PartName
    events: int
    first_timestamp_ms: int | None = None
    last_timestamp_ms: int | None = None


class DatasetInfo(_Header, frozen=True, kw_only=True):
    """What `dataset.json` holds.

    Args:
        schema: the columns of the log.
        split: how it was divided.
        segments: the files of events, in order of time of writing.
        tables: file of the `users` and of the `items`.
        vocabularies: file of each vocabulary.
        pending: file of the `user` and `item` ids that come in the test part alone;
            in its segments they have the rows after the vocabulary's.
        generation: how often days were appended.
        statistics: counts, for people.
        numbers: statistics of the numeric features, by name.
        compression: of the segments: `zstd`, or `None` when they are read in place.
        findings: what was noticed while reading the log.
        log: the files of events that the dataset was made of.
        attributes: the files of users and items.
        fingerprint: of schema and content.
    """

    schema: Schema
    split: dict[str, Any]
    segments: tuple[Segment, ...]
    tables: dict[str, str]
    vocabularies: dict[str, str]
    pending: dict[str, str] = {}
    generation: int = 0
    statistics: dict[str, Any]
    numbers: dict[str, NumberStatistics] = {}
    compression: Literal["zstd"] | None = None
    findings: tuple[Finding, ...] = ()
    log: tuple[FileStamp, ...] = ()
    attributes: tuple[FileStamp, ...] = ()
    fingerprint: str

    @property
    def stamps(self) -> tuple[FileStamp, ...]:
        """All files that the dataset was made of."""
        return (*self.log, *self.attributes)

    @property
    def named_files(self) -> list[str]:
        """Files beside the segments, paths in the dataset."""
        named = (self.tables, self.vocabularies, self.pending)
        return [file for files in named for file in files.values()]

    def continues(self, earlier: DatasetInfo) -> bool:
        """Whether appends have made this of `earlier`."""
        return (
            self.generation > earlier.generation
            and (self.schema, self.split) == (earlier.schema, earlier.split)
            and self.log[: len(earlier.log)] == earlier.log
        )

    @property
    def parts(self) -> dict[str, int]:
        """Number of events of each part."""
        counts: dict[str, int] = dict.fromkeys(PARTS, 0)
        for segment in self.segments:
            counts[segment.part] += segment.events
        return counts


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

    It stays what it was when days are appended. Vocabularies are read at once, events
    and tables when they are asked for: `ArtifactError`, `dataset-changed` if the tables
    are gone by then, which the second append removes, or if it was prepared again.
    """

    def __init__(
        self, path: Path, info: DatasetInfo, vocabularies: dict[str, Vocabulary]
    ) -> None:
        self.path = path
        self.info = info
        self.vocabularies = vocabularies
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
        needed = [segment.file for segment in info.segments]
        needed += info.named_files
        missing = [file for file in needed if not (path / file).is_file()]
        if missing:
            raise ArtifactError(
                "dataset-damaged",
                f"A dataset must be complete. Missing: {missing}. Run"
                " `shortlist prepare` again.",
                file=path,
            )
        vocabularies = {
            name: Vocabulary.load(path / file)
            for name, file in info.vocabularies.items()
        }
        return cls(path, info, vocabularies)

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

        Columns `user_index`, `item_index`, `timestamp_ms`, `label`, and as the schema
        has them `weight`, `session_index` and `feature:<name>` of context features.
        Segments come part by part, in the order they were written.
        """
        if names not in self._columns:
            self._check_same()
            try:
                columns = Columns.open(self._segments(names))
            except ArtifactError as error:
                raise _damaged(Path(error.file or self.path), error) from error
            if "test" in names and self.info.pending:
                arrays = {name: columns.column(name) for name in columns.names}
                for name, limit in self._limits.items():
                    arrays[name] = np.where(arrays[name] < limit, arrays[name], 0)
                columns = Columns.from_arrays(arrays)
            self._columns[names] = columns
        return self._columns[names]

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
        if len(self._segments(names)) < 2 and not pending:
            return part
        order = group_order(part.user_index, part.timestamp_ms, self.num_users)
        return part.take(order)

    def _segments(self, names: Sequence[str]) -> list[Path]:
        return [
            self.path / segment.file
            for name in names
            for segment in self.info.segments
            if segment.part == name
        ]

    @property
    def _limits(self) -> dict[str, int]:
        """Rows of the ids of an event; nobody knows those beyond yet."""
        return {"user_index": self.num_users, "item_index": self.num_items}

    def interactions(self, *names: str) -> Part:
        """The events in which the user took the item.

        All of them, but with a binary label only those of at least `positive_from`:
        an item that was shown and not clicked was not taken.
        """
        part = self.part(*names)
        if self.schema.label_kind != "binary":
            return part
        return part.take(part.label >= self.schema.positive_from)

    def histories(self, *names: str) -> Histories:
        """What users took in the named parts; items of row 0 are left out."""
        if names not in self._histories:
            part = self.interactions(*names)
            part = part.take(part.item_index > 0)
            self._histories[names] = Histories(
                part.user_index, part.item_index, part.timestamp_ms, self.num_users
            )
        return self._histories[names]

    def item_counts(self, *names: str) -> np.ndarray:
        """Interactions per item row, `(num_items,)` int64; row 0 has none."""
        taken = self.interactions(*names).item_index
        counts = np.bincount(taken, minlength=self.num_items)
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
        file = self.path / self.info.tables[name]
        self._check_same(appends=1)  # the next one leaves the tables
        try:
            return pl.read_ipc(file)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise _damaged(file, error) from error

    def _check_same(self, appends: int | None = None) -> None:
        """Raises if files on the disk are no longer those of this dataset.

        Args:
            appends: how many there may have been since it was opened; `None` for files
                that no append removes.
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
            "What an open dataset still has to read must be on the disk. Found that"
            f" {how} since it was opened. Open it again.",
            file=self.path,
        )


def _damaged(file: Path, error: Exception) -> ArtifactError:
    return ArtifactError(
        "dataset-damaged",
        f"{file.name} must be what `shortlist prepare` wrote. Reading it failed:"
        f" {error}. Prepare again.",
        file=file,
    )


def padded(lists: pl.Series) -> np.ndarray:
    """A list column as `(rows, longest)` int32, padded with -1."""
    lengths = lists.list.len().fill_null(0).to_numpy()
    longest = max(int(lengths.max(initial=0)), 1)
    result = np.full((len(lists), longest), -1, np.int32)
    present = np.arange(longest) < lengths[:, None]
    result[present] = lists.filter(lists.list.len() > 0).explode().to_numpy()
    return result


def fingerprint(folder: Path, info: DatasetInfo) -> str:
    """What a dataset is: 16 hexadecimal digits over schema, parts and content.

    The first of the SHA-256 of the schema and, for every file by name, its part and the
    XXH64 of its bytes.
    """
    digest = hashlib.sha256(info.schema.to_json())
    parts = {segment.file: segment.part for segment in info.segments}
    files = sorted([*parts, *info.named_files])
    with ThreadPoolExecutor(default_threads()) as pool:
        hashes = pool.map(hash_file, [folder / file for file in files])
        for file, hashed in zip(files, hashes, strict=True):
            digest.update(f"{file} {parts.get(file, '')} {hashed}\n".encode())
    return digest.hexdigest()[:16]


def write_info(folder: Path, info: DatasetInfo) -> None:
    """Writes `dataset.json`, whole or not at all: with it a dataset begins to be."""
    with atomic_file(folder / INFO_FILE) as temporary:
        encoded = msgspec.json.format(msgspec.json.encode(info), indent=2)
        temporary.write_bytes(encoded)


def read_info(path: Path) -> DatasetInfo:
    """Reads `dataset.json` of the dataset at `path`.

    Raises:
        ArtifactError: none there, of another format, or damaged.
    """
    file = path / INFO_FILE
    if not file.is_file():
        raise ArtifactError(
            "dataset-missing",
            f"A prepared dataset must be at {str(path)!r}; it has no dataset.json."
            " Run `shortlist prepare` first or give its folder.",
            file=path,
        )
    try:
        raw = file.read_bytes()
        version = msgspec.json.decode(raw, type=_Header).format_version
        if version > FORMAT_VERSION:
            raise ArtifactError(
                "dataset-newer",
                f"The dataset's format must be at most {FORMAT_VERSION}. Received:"
                f" {version}. Update shortlist or prepare again.",
                file=file,
            )
        if version < FORMAT_VERSION:
            raise ArtifactError(
                "dataset-older",
                f"The dataset's format must be {FORMAT_VERSION}. Received: {version},"
                " written by an earlier version. Run `shortlist prepare --overwrite`.",
                file=file,
            )
        return msgspec.json.decode(raw, type=DatasetInfo)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _damaged(file, error) from error

"""The dataset on disk: Arrow files of the narrowest safe types, memory-mapped.

dataset/
  dataset.json            format, schema, split, part sizes, statistics, fingerprint
  train.arrow             user_index, item_index, timestamp_ms, label; sorted by
  validation.arrow        user, time and file order
  test.arrow
  users.arrow items.arrow record i = row i: `feature:<name>` and display columns
  vocabularies/<name>.arrow
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa

from shortlist.atomic import atomic_directory
from shortlist.data.history import Histories
from shortlist.data.numbers import NumberStatistics
from shortlist.data.schema import CONTEXT, ITEM, USER, Schema
from shortlist.data.split import PARTS, Split
from shortlist.data.tables import table_rows
from shortlist.data.vocabulary import Vocabulary, vocabulary_file
from shortlist.errors import ArtifactError

FORMAT_VERSION = 1
FEATURE_PREFIX = "feature:"
INFO_FILE = "dataset.json"


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    """What every version of `dataset.json` begins with."""

    format: Literal["shortlist-dataset"] = "shortlist-dataset"
    format_version: int = FORMAT_VERSION


class DatasetInfo(_Header, frozen=True, kw_only=True):
    """What `dataset.json` holds."""

    schema: Schema
    split: dict[str, Any]
    parts: dict[str, int]
    statistics: dict[str, Any]
    fingerprint: str


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
    """A prepared dataset, opened with `Dataset.open`."""

    def __init__(
        self, path: Path, info: DatasetInfo, vocabularies: dict[str, Vocabulary]
    ) -> None:
        self.path = path
        self.info = info
        self.vocabularies = vocabularies
        self._histories: dict[tuple[str, ...], Histories] = {}

    @classmethod
    def open(cls, path: str | Path) -> Dataset:
        """Opens what `write_dataset` wrote.

        Raises:
            ArtifactError: not a dataset, of a newer format, or damaged.
        """
        path = Path(path)
        info = _read_info(path)
        names = sorted(info.schema.stored_tables)
        files = {name: vocabulary_file(name) for name in names}
        needed = [*(f"{name}.arrow" for name in (*PARTS, "users", "items"))]
        needed += [f"vocabularies/{file}" for file in files.values()]
        missing = [file for file in needed if not (path / file).is_file()]
        if missing:
            raise ArtifactError(
                "dataset-damaged",
                f"A dataset must be complete. Missing: {missing}. Run"
                " `shortlist prepare` again.",
                file=path,
            )
        vocabularies = {
            name: Vocabulary.load(path / "vocabularies" / file)
            for name, file in files.items()
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
        """Rows of every table, those for unknown values included."""
        return table_rows(self.schema, self.vocabularies, self.number_statistics)

    @property
    def number_statistics(self) -> dict[str, NumberStatistics]:
        """What was fitted on training values, by numeric or bucketized feature."""
        stored = self.info.statistics.get("numeric", {})
        return msgspec.convert(stored, dict[str, NumberStatistics])

    def part(self, *names: str) -> Part:
        """The events of the named parts together, sorted by user and time."""
        tables = [_mapped(self.path / f"{name}.arrow") for name in names]
        user, item, timestamp, label = (
            np.concatenate([table[column].to_numpy() for table in tables])
            for column in ("user_index", "item_index", "timestamp_ms", "label")
        )
        part = Part(user.astype(np.int32), item.astype(np.int32), timestamp, label)
        if len(names) == 1:
            return part
        return part.take(np.lexsort((part.timestamp_ms, part.user_index)))

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
        return _frame(self.path / "users.arrow")

    @functools.cached_property
    def items(self) -> pl.DataFrame:
        """Features and display columns of the item rows."""
        return _frame(self.path / "items.arrow")

    @functools.cached_property
    def features(self) -> dict[str, np.ndarray]:
        """Feature values by user or item row; those of the context are in the events.

        Returns: categorical and bucketized `(rows,)` int32, multi-valued
        `(rows, length)` int32 padded with -1, numeric `(rows,)` float32.
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


def _mapped(file: Path) -> pa.Table:
    """An Arrow file as a table over its memory map."""
    try:
        with pa.memory_map(str(file)) as source:
            return pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowException) as error:
        raise _damaged(file, error) from error


def _frame(file: Path) -> pl.DataFrame:
    try:
        return pl.read_ipc(file)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise _damaged(file, error) from error


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetContents:
    """Everything that `write_dataset` puts on disk."""

    schema: Schema
    split: Split
    parts: dict[str, pl.DataFrame]
    vocabularies: dict[str, Vocabulary]
    users: pl.DataFrame
    items: pl.DataFrame
    statistics: dict[str, Any]


def write_dataset(
    path: str | Path, contents: DatasetContents, *, overwrite: bool = False
) -> Dataset:
    """Writes a dataset, whole or not at all, and opens it."""
    with atomic_directory(path, overwrite=overwrite, marker=INFO_FILE) as folder:
        (folder / "vocabularies").mkdir()
        for name, vocabulary in contents.vocabularies.items():
            vocabulary.save(folder / "vocabularies" / vocabulary_file(name))
        for name, frame in contents.parts.items():
            narrowed = frame.with_columns(
                _narrowed(frame["user_index"], len(contents.vocabularies[USER])),
                _narrowed(frame["item_index"], len(contents.vocabularies[ITEM])),
            )
            narrowed.write_ipc(folder / f"{name}.arrow")
        contents.users.write_ipc(folder / "users.arrow")
        contents.items.write_ipc(folder / "items.arrow")
        info = DatasetInfo(
            schema=contents.schema,
            split=dataclasses.asdict(contents.split),
            parts={name: len(frame) for name, frame in contents.parts.items()},
            statistics=contents.statistics,
            fingerprint=_fingerprint(folder, contents.schema),
        )
        encoded = msgspec.json.format(msgspec.json.encode(info), indent=2)
        (folder / INFO_FILE).write_bytes(encoded)
    return Dataset.open(path)


def _narrowed(rows: pl.Series, num_rows: int) -> pl.Series:
    narrow = ((pl.UInt8, 2**8), (pl.UInt16, 2**16), (pl.Int32, 2**31))
    return rows.cast(next(t for t, limit in narrow if num_rows <= limit))


def _fingerprint(folder: Path, schema: Schema) -> str:
    digest = hashlib.sha256(schema.to_json())
    for file in sorted(folder.rglob("*.arrow")):
        digest.update(file.relative_to(folder).as_posix().encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _read_info(path: Path) -> DatasetInfo:
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
        return msgspec.json.decode(raw, type=DatasetInfo)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _damaged(file, error) from error

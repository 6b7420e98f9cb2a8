"""The content of `dataset.json`: the parts, files and statistics of a dataset.

Reads, checks and writes this description; does not open the files it names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from shortlist.atomic import atomic_file
from shortlist.data.findings import Finding
from shortlist.data.schema import ITEM, USER, Schema
from shortlist.data.split import KINDS, PARTS, PartName
from shortlist.data.store.checksums import (
    MISSING,
    FileSum,
    place_problem,
    seal_problem,
    sealed,
    sum_files,
)
from shortlist.data.store.file_fingerprints import FileFingerprint
from shortlist.data.store.numbers import NumberStatistics
from shortlist.errors import ArtifactError

FORMAT_VERSION = 2
INFO_FILE = "dataset.json"
TABLES = ("users", "items")
COUNTS = (
    "events",
    "users",
    "items",
    "rows_read",
    "rows_skipped",
    "duplicates_dropped",
    "below_threshold",
)


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of every version of `dataset.json`."""

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
    """The content of `dataset.json`.

    Args:
        schema: the columns of the log.
        split: how it was divided.
        segments: the files of events, in the order of writing.
        tables: file of the `users` and of the `items`.
        vocabularies: file of each vocabulary.
        pending: file of the `user` and `item` ids that occur only in the test part;
            in its segments they have the rows after those of the vocabulary.
        generation: number of appends.
        statistics: counts, for reports.
        numbers: statistics of the numeric features, by name.
        compression: of the segments: `zstd`, or `None` when they are read in place.
        findings: what was noticed while reading the log.
        log: the files of events that the dataset was made from.
        attributes: the files of users and items.
        files: size and checksum of every file of the folder, also of those of the
            previous generation while they exist. Empty in datasets of old versions.
        fingerprint: hash of schema and content.
        checksum: of all other fields.
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
    log: tuple[FileFingerprint, ...] = ()
    attributes: tuple[FileFingerprint, ...] = ()
    files: dict[str, FileSum] = {}
    fingerprint: str
    checksum: str = ""

    @property
    def source_files(self) -> tuple[FileFingerprint, ...]:
        """All files that the dataset was made from."""
        return (*self.log, *self.attributes)

    @property
    def named_files(self) -> list[str]:
        """All files except the segments, as paths in the dataset."""
        named = (self.tables, self.vocabularies, self.pending)
        return [file for files in named for file in files.values()]

    @property
    def needed_files(self) -> list[str]:
        """All files that a complete dataset has."""
        return [*(segment.file for segment in self.segments), *self.named_files]

    def continues(self, earlier: DatasetInfo) -> bool:
        """Whether this is `earlier` with days appended."""
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


def with_sums(
    folder: Path, info: DatasetInfo, others: Iterable[str] = ()
) -> DatasetInfo:
    """A description with the checksums of its files and the fingerprint.

    Args:
        folder: where the files are.
        info: the description; files without a checksum in it are read.
        others: more files of the folder to list.
    """
    missing = {*info.needed_files, *others} - info.files.keys()
    sums = info.files | sum_files(folder, missing)
    info = msgspec.structs.replace(info, files=dict(sorted(sums.items())))
    return msgspec.structs.replace(info, fingerprint=fingerprint(folder, info))


def fingerprint(folder: Path, info: DatasetInfo) -> str:
    """The identity of a dataset: 16 hexadecimal digits over schema, parts and content.

    The first digits of the SHA-256 of the schema and, for every file by name, its part
    and the XXH64 of its bytes, from `info` or else from the file in `folder`.
    """
    digest = hashlib.sha256(info.schema.to_json())
    parts = {segment.file: segment.part for segment in info.segments}
    sums = info.files | sum_files(folder, {*info.needed_files} - info.files.keys())
    for file in sorted(info.needed_files):
        digest.update(f"{file} {parts.get(file, '')} {sums[file].xxh64}\n".encode())
    return digest.hexdigest()[:16]


def write_info(folder: Path, info: DatasetInfo) -> None:
    """Writes `dataset.json` atomically: with it a dataset is complete."""
    with atomic_file(folder / INFO_FILE) as temporary:
        temporary.write_bytes(sealed(info))


def read_info(path: Path) -> DatasetInfo:
    """Reads `dataset.json` of the dataset at `path`.

    Raises:
        ArtifactError: it is missing, of another format, or damaged.
    """
    file = path / INFO_FILE
    problem = place_problem(path, INFO_FILE, None)
    if problem == MISSING:
        raise ArtifactError(
            "dataset-missing",
            f"There is no dataset at {str(path)!r}: it has no dataset.json. Run"
            " `shortlist prepare` first, or use the folder of a dataset.",
            file=path,
        )
    if problem is not None:
        raise damaged(file, problem)
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
        info = msgspec.json.decode(raw, type=DatasetInfo)
        problem = seal_problem(raw, required=bool(info.files)) or _problem(info)
    except (
        msgspec.MsgspecError,
        UnicodeDecodeError,
        RecursionError,
        OSError,
    ) as error:
        raise damaged(file, error) from error
    if problem is not None:
        raise damaged(file, problem)
    return info


def damaged(file: Path, problem: object) -> ArtifactError:
    """The error of a file of a dataset with wrong content."""
    return ArtifactError(
        "dataset-damaged",
        f"{file.name} is damaged: {problem}. Run `shortlist prepare` again.",
        file=file,
    )


def _problem(info: DatasetInfo) -> str | None:
    """What is missing or contradictory in a description, if anything."""
    names = info.needed_files
    if info.files and (lacking := {*names} - info.files.keys()):
        return f"It lists no checksum of {min(lacking)!r}"
    if len(set(names)) < len(names):
        return "It names a file twice"
    for kind, found, wanted in (
        ("tables", info.tables, TABLES),
        ("vocabularies", info.vocabularies, info.schema.stored_tables),
        ("statistics", info.statistics, COUNTS),
    ):
        if lacking := {*wanted} - found.keys():
            return f"`{kind}` must have {min(lacking)!r}"
    if not info.pending.keys() <= {USER, ITEM}:
        return f"`pending` must be of users and items. Received: {[*info.pending]}"
    if info.split.get("kind") not in KINDS:
        return f"`split` must have a kind of {KINDS}"
    if not all(isinstance(info.statistics[name], int) for name in COUNTS):
        return f"`statistics` must have whole numbers for {COUNTS}"
    least = min((segment.events for segment in info.segments), default=0)
    if min(least, info.generation) < 0:
        return "`events` and `generation` must be at least 0"
    return None

"""The manifest of a bundle: the contents of the directory, as `msgspec` structs.

Defines the names of the format, its version, and the checksum of the manifest itself.
Does not touch the disk; `bundle.py` does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import msgspec

from shortlist.data.schema import Schema
from shortlist.data.store.vocabulary import vocabulary_file
from shortlist.embeddings.inputs import Input
from shortlist.errors import ArtifactError

FORMAT = "shortlist-bundle"
FORMAT_VERSION = 2
MANIFEST = "manifest.json"
ITEMS = "items.arrow"
USERS = "users.arrow"
FEATURE_PREFIX = "feature:"

_CHECKSUM = re.compile(rb'("checksum": ")([0-9a-f]{64})"')
_BLANK = "0" * 64

# More than any model has, and far less than what exceeds the memory.
LENGTH = msgspec.Meta(ge=0, le=100_000)
SIZE = msgspec.Meta(ge=1, le=100_000)
CANDIDATES = msgspec.Meta(ge=1, le=2**31 - 1)

Objective = Literal["binary", "explicit", "listwise"]


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size and SHA-256 of one file."""

    sha256: str
    bytes: Annotated[int, msgspec.Meta(ge=0)]


class RetrievalEntry(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,  # so that unused fields do not change the file
):
    """A two-tower model: the graph of the user tower, and the item vectors."""

    graph: str
    tables: str
    inputs: tuple[Input, ...]
    history_length: Annotated[int, LENGTH]
    embedding_dim: Annotated[int, SIZE]
    item_vectors: str
    num_queries: Annotated[int, SIZE] = 1
    item_bias: bool = False


class ScorerEntry(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """A scorer; since format 2.

    Args:
        kind: of the scorer.
        config: its constructor arguments.
        arrays: file with its arrays.
        towers: two-tower members of a blend, by name.
    """

    kind: str
    config: dict[str, Any]
    arrays: str
    towers: dict[str, RetrievalEntry] = {}


class RankerEntry(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """The model that scores the candidates of retrieval again."""

    graph: str
    tables: str
    inputs: tuple[Input, ...]
    history_length: Annotated[int, LENGTH]
    weight: float
    candidates: Annotated[int, CANDIDATES]
    objective: Objective


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `manifest.json`, described in `docs/bundle-format.md`.

    `checksum` is the SHA-256 of the manifest's own bytes with 64 zeros in its place.
    `version` is the first 12 digits of the SHA-256 over the lines "path sha256" of
    `files`, sorted: equal files give an equal version. `repeats` (seen items are
    recommended again) is written only if it is true.
    """

    format: str = FORMAT
    format_version: int = FORMAT_VERSION
    checksum: str = _BLANK
    shortlist_version: str
    created_at: str
    name: str
    version: str
    files: dict[str, FileEntry]
    schema: Schema
    retrieval: RetrievalEntry | None
    scorer: ScorerEntry | None = None
    ranker: RankerEntry | None
    popularity: bool = True
    repeats: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    metrics: dict[str, Any]
    quantization: dict[str, Any] | None = None
    environment: dict[str, Any]

    def to_json(self) -> bytes:
        """The bytes of `manifest.json`, checksum filled in."""
        blank = msgspec.structs.replace(self, checksum=_BLANK)
        raw = msgspec.json.format(msgspec.json.encode(blank), indent=2) + b"\n"
        return raw.replace(_BLANK.encode(), _checksum(raw).encode(), 1)

    @classmethod
    def from_json(cls, raw: bytes, file: object = MANIFEST) -> Manifest:
        """Reads `manifest.json`.

        Raises:
            ArtifactError: not a bundle (`bundle-manifest`), of a later format
                (`bundle-newer`), changed after it was written (`bundle-corrupt`), or
                naming a file outside the bundle (`bundle-path`).
        """
        try:
            _check_format(msgspec.json.decode(raw, type=_Header), file)
            manifest = msgspec.json.decode(raw, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ArtifactError(
                "bundle-manifest",
                f"The manifest of the bundle cannot be read: {error}. Export the bundle"
                " again.",
                file=file,
            ) from error
        if manifest.checksum != _checksum(raw):
            raise ArtifactError(
                "bundle-corrupt",
                "The manifest was changed after it was written: its bytes do not match"
                f" its checksum {manifest.checksum[:12]}…. Copy or export the bundle"
                " again.",
                file=file,
            )
        for path in manifest.files:
            check_relative_path(path, file)
        return manifest


class _Header(msgspec.Struct):
    format: str
    format_version: int


def files_version(files: Mapping[str, FileEntry]) -> str:
    """The version of a set of files: 12 hexadecimal digits."""
    lines = (f"{path} {files[path].sha256}\n" for path in sorted(files))
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:12]


def vocabulary_path(name: str) -> str:
    """Path of a vocabulary in a bundle."""
    return f"vocabularies/{vocabulary_file(name)}"


def check_relative_path(path: str, file: object) -> None:
    """Raises `ArtifactError` (`bundle-path`) unless `path` stays inside the bundle."""
    plain = PurePosixPath(path)
    odd = "\\" in path or "\0" in path or path in ("", ".", MANIFEST)
    if odd or plain.is_absolute() or ".." in plain.parts or str(plain) != path:
        raise ArtifactError(
            "bundle-path",
            "Files of a bundle must have plain paths inside its directory. Found"
            f" {path!r}. Do not use this bundle unless you trust its author.",
            file=file,
        )


def _check_format(header: _Header, file: object) -> None:
    if header.format != FORMAT:
        raise ArtifactError(
            "bundle-manifest",
            f"A bundle's manifest must say format {FORMAT!r}. Found"
            f" {header.format!r}. Pass the directory that `shortlist export` wrote.",
            file=file,
        )
    if header.format_version > FORMAT_VERSION:
        raise ArtifactError(
            "bundle-newer",
            f"The bundle's format must be version {FORMAT_VERSION} or earlier. Found"
            f" version {header.format_version}. Upgrade Shortlist to read it.",
            file=file,
        )
    if header.format_version < 1:
        raise ArtifactError(
            "bundle-manifest",
            "The bundle's format version must be at least 1. Found"
            f" {header.format_version}. Export the bundle again.",
            file=file,
        )


def _checksum(raw: bytes) -> str:
    blanked = _CHECKSUM.sub(rb"\g<1>" + _BLANK.encode() + b'"', raw, count=1)
    return hashlib.sha256(blanked).hexdigest()

"""Checksums of the files of a folder: recorded when written, compared when opened.

A manifest lists its files as `{name: {"size": n, "xxh64": "..."}}` and contains a
`checksum` of itself. A file is read for its checksum once per process, unless its size
or times change. Checksums protect against accidents, not against forgery. Knows files
and XXH64; knows nothing of datasets and runs.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from shortlist.data.kernels.ids import hash_bytes, hash_file
from shortlist.errors import LogError
from shortlist.native import default_threads
from shortlist.reading import denied_by, not_readable

CHECKSUM = "checksum"
"""Field of a manifest that holds the XXH64 of the other fields."""
MISSING = "It is missing"

# A file changed a moment ago may change again without a new modification time.
_SETTLED_NS = 100_000_000
_MOST_KNOWN = 10_000
_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)

_Identity = tuple[int, int, int, int, int]
_known: dict[_Identity, str] = {}


class FileSum(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a manifest.

    Args:
        size: in bytes.
        xxh64: XXH64 of its content, 16 hexadecimal digits.
    """

    size: int
    xxh64: str


def file_sum(path: Path) -> FileSum:
    """Size and checksum of a file; it is read only if it may have changed.

    Raises:
        LogError: it cannot be read.
    """
    before = _identity(os.stat(path))
    found = _known.get(before)
    if found is None:
        found = hash_file(path)
        is_settled = time.time_ns() - max(before[3:]) > _SETTLED_NS
        if is_settled and _identity(os.stat(path)) == before:
            if len(_known) >= _MOST_KNOWN:
                _known.clear()
            _known[before] = found
    return FileSum(size=before[2], xxh64=found)


def sum_files(folder: Path, names: Iterable[str]) -> dict[str, FileSum]:
    """Size and checksum of some files of a folder, sorted by name."""
    names = sorted(names)
    with ThreadPoolExecutor(default_threads()) as pool:
        sums = pool.map(file_sum, [folder / name for name in names])
        return dict(zip(names, sums, strict=True))


def files_in(folder: Path, below: str = "") -> list[str]:
    """Names of all files in a folder or a subfolder of it, except hidden ones."""
    paths = (path for path in (folder / below).rglob("*") if not path.is_dir())
    names = (path.relative_to(folder).as_posix() for path in paths)
    return sorted(name for name in names if "/." not in f"/{name}")


def place_problem(folder: Path, name: str, recorded: FileSum | None) -> str | None:
    """What is wrong with a file of a manifest, without reading the file.

    Args:
        folder: the folder of the manifest.
        name: name of the file, a path in the folder.
        recorded: the file's entry in the manifest, if there is one.

    Returns: a sentence, or `None` for a regular file inside the folder of that size.

    Raises:
        ResourceError: `no-permission`.
    """
    if not name or "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        return f"Its name must be a path inside the folder. Received: {name!r}"
    path = folder / name
    try:
        mode = os.stat(path)
        inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
    except (FileNotFoundError, NotADirectoryError):
        return MISSING
    except OSError as error:
        _raise_if_denied(error, path)
        return f"It cannot be read: {error.strerror}"
    if not stat.S_ISREG(mode.st_mode):
        kinds = (kind for is_kind, kind in _KINDS if is_kind(mode.st_mode))
        return f"It must be a file. Found {next(kinds, 'a device')}"
    if not inside:
        return "It is a link that leads out of the folder"
    if recorded is not None and mode.st_size != recorded.size:
        return f"It must have {recorded.size:,} bytes. Found {mode.st_size:,}"
    return None


def content_problem(folder: Path, name: str, recorded: FileSum | None) -> str | None:
    """As `place_problem`, and whether the content is unchanged."""
    problem = place_problem(folder, name, recorded)
    if problem is not None or recorded is None:
        return problem
    try:
        found = file_sum(folder / name)
    except (LogError, OSError) as error:
        _raise_if_denied(error, folder / name)
        return f"It cannot be read: {error}"
    if found != recorded:
        return (
            f"Its content changed since it was written: its XXH64 is {found.xxh64}"
            f" in place of {recorded.xxh64}"
        )
    return None


def _raise_if_denied(error: Exception, path: Path) -> None:
    """Raises the error of missing permissions: such a file is not damaged."""
    if denied_by(error) is not None:
        raise not_readable(path) from error


def first_problem(
    folder: Path, names: Iterable[str], recorded: Mapping[str, FileSum]
) -> tuple[str, str] | None:
    """The first file whose content has changed, and what is wrong with it."""
    names = list(names)
    with ThreadPoolExecutor(default_threads()) as pool:
        problems = pool.map(
            lambda name: content_problem(folder, name, recorded.get(name)), names
        )
        found = zip(names, problems, strict=True)
        return next(((name, p) for name, p in found if p is not None), None)


def sealed(manifest: Any) -> bytes:
    """A manifest as indented JSON, with the checksum of its other fields.

    Args:
        manifest: a structure that becomes a JSON object.
    """
    document = msgspec.json.decode(msgspec.json.encode(manifest))
    document[CHECKSUM] = _document_sum(document)
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def seal_problem(raw: bytes, *, required: bool) -> str | None:
    """What is wrong with the JSON of a manifest; white space does not matter.

    Args:
        raw: a JSON object.
        required: whether it must have a checksum; manifests of old versions have none.
    """
    document = msgspec.json.decode(raw, type=dict[str, Any])
    recorded = document.get(CHECKSUM) or ""
    if not recorded and not required:
        return None
    if (found := _document_sum(document)) == recorded:
        return None
    return (
        f"Its content changed since it was written: its checksum is {found} in place"
        f" of {recorded!r}"
    )


def _document_sum(document: dict[str, Any]) -> str:
    others = {name: value for name, value in document.items() if name != CHECKSUM}
    return hash_bytes(msgspec.json.encode(others, order="sorted"))


def _identity(state: os.stat_result) -> _Identity:
    """Changes whenever a file is written to or replaced."""
    return (
        state.st_dev,
        state.st_ino,
        state.st_size,
        state.st_mtime_ns,
        state.st_ctime_ns,
    )

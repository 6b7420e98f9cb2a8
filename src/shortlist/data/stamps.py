"""What the files of a log were when a dataset was made of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from shortlist.data.kernels import hash_file


class FileStamp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file, by content.

    Args:
        path: where it was.
        size: in bytes.
        modified_ns: time of its last change, nanoseconds since the epoch.
        xxh64: XXH64 of its content, 16 hexadecimal digits.
    """

    path: str
    size: int
    modified_ns: int
    xxh64: str


def stamp(path: str | Path) -> FileStamp:
    """The stamp of a file; raises `LogError` if it cannot be read."""
    path = Path(path).absolute()
    state = path.stat()
    return FileStamp(
        path=str(path),
        size=state.st_size,
        modified_ns=state.st_mtime_ns,
        xxh64=hash_file(path),
    )


def stamps_of(paths: Iterable[Path]) -> tuple[FileStamp, ...]:
    """The stamps of some files; raises `LogError` if one cannot be read."""
    return tuple(stamp(path) for path in paths)


def changed(stamps: Iterable[FileStamp]) -> list[str]:
    """Paths of the files that are there with another content.

    A file of the same size and time of change is taken for the same; one that is gone
    says nothing about the dataset.
    """
    paths = []
    for old in stamps:
        path = Path(old.path)
        if not path.is_file():
            continue
        state = path.stat()
        if (state.st_size, state.st_mtime_ns) == (old.size, old.modified_ns):
            continue
        if state.st_size != old.size or hash_file(path) != old.xxh64:
            paths.append(old.path)
    return paths

"""What the files of a log were when a dataset was made of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from shortlist.data.kernels.ids import hash_file
from shortlist.errors import LogError


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


class Stamping:
    """Stamps files that are read meanwhile; made before they are.

    Args:
        paths: the files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self._before = [_state(path) for path in paths]

    def stamps(self) -> tuple[FileStamp, ...]:
        """The stamps, after the files were read.

        Raises:
            LogError: `log-changed` for a file that was written to since; or one cannot
                be read.
        """
        stamps = tuple(stamp(path) for path in self.paths)
        for path, before in zip(self.paths, self._before, strict=True):
            if _state(path) != before:
                raise LogError(
                    "log-changed",
                    "A file must stay as it is while it is read. This one was written"
                    " to meanwhile. Wait for its writer, or copy it and give the copy.",
                    file=path,
                )
        return stamps


def _state(path: Path) -> tuple[int, int] | None:
    """Size and time of change; `None` for what is no file."""
    if not path.is_file():
        return None
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def changed(stamps: Iterable[FileStamp]) -> list[str]:
    """Paths of the files that are there with another content.

    A file of the same size and time of change is taken for the same; one that is gone
    says nothing about the dataset.
    """
    paths = []
    for old in stamps:
        state = _state(Path(old.path))
        if state is None or state == (old.size, old.modified_ns):
            continue
        if state[0] != old.size or hash_file(Path(old.path)) != old.xxh64:
            paths.append(old.path)
    return paths

"""Which files a dataset was made from, and whether they have changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from shortlist.data.kernels.ids import hash_file
from shortlist.errors import LogError


class FileFingerprint(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """A file and its content.

    Args:
        path: its absolute path.
        size: in bytes.
        modified_ns: time of its last modification, nanoseconds since the epoch.
        xxh64: XXH64 of its content, 16 hexadecimal digits.
    """

    path: str
    size: int
    modified_ns: int
    xxh64: str


def fingerprint_file(path: str | Path) -> FileFingerprint:
    """The fingerprint of a file; raises `LogError` if it cannot be read."""
    path = Path(path).absolute()
    state = path.stat()
    return FileFingerprint(
        path=str(path),
        size=state.st_size,
        modified_ns=state.st_mtime_ns,
        xxh64=hash_file(path),
    )


class WatchedFiles:
    """Files that must not change while they are read; made before reading them.

    Args:
        paths: the files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self._before = [_state(path) for path in paths]

    def fingerprints(self) -> tuple[FileFingerprint, ...]:
        """The fingerprints, after the files were read.

        Raises:
            LogError: `log-changed` for a file that was modified in between; or a file
                cannot be read.
        """
        found = tuple(fingerprint_file(path) for path in self.paths)
        for path, before in zip(self.paths, self._before, strict=True):
            if _state(path) != before:
                raise LogError(
                    "log-changed",
                    "The file changed while it was being read. Wait until it is"
                    " complete, or read a copy.",
                    file=path,
                )
        return found


def _state(path: Path) -> tuple[int, int] | None:
    """Size and time of modification; `None` if it is not a file."""
    if not path.is_file():
        return None
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def changed(fingerprints: Iterable[FileFingerprint]) -> list[str]:
    """Paths of the files whose content has changed.

    A file of the same size and modification time counts as unchanged, and so does one
    that no longer exists.
    """
    paths = []
    for old in fingerprints:
        state = _state(Path(old.path))
        if state is None or state == (old.size, old.modified_ns):
            continue
        if state[0] != old.size or hash_file(Path(old.path)) != old.xxh64:
            paths.append(old.path)
    return paths

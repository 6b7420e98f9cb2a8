"""The file of an event store: a regular file, locked by one server.

Independent of SQL: the database is in `database.py`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

from shortlist.atomic import disk_errors, fsync
from shortlist.errors import ArtifactError, ResourceError

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
# SQLite keeps its newest pages and their index in files next to the database.
_SIBLINGS = ("-wal", "-shm", "-journal")

Place = Literal["same", "changed", "unlogged", "missing", "replaced"]


class _Stamp(NamedTuple):
    device: int
    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> _Stamp | None:
        try:
            found = os.stat(path)
        except OSError:
            return None
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class EventFile:
    """An event store's file, opened and locked with `flock`.

    The system releases the lock when the process ends. A new file is readable only by
    its owner.

    Args:
        path: file to create or open. A link to a file is followed.

    Raises:
        ArtifactError: the path is not a regular file (`events-unreadable`).
        InputError: the path cannot be a file (`output-path`).
        ResourceError: another server uses it (`events-in-use`), it may not be written
            (`no-permission`), no space.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with disk_errors(self.path):
            _check_plain(self.path)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.real_path = Path(os.path.realpath(self.path))
            # Kept open: closing any descriptor of the file would release the locks of
            # SQLite, which belong to the process.
            self._descriptor = os.open(
                self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            try:
                self._lock()
                if not os.fstat(self._descriptor).st_mode & 0o222:
                    # Root could write to it, but should not.
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                # SQLite syncs the file's bytes, not the name of a new file.
                fsync(self.real_path.parent)
            except BaseException:
                os.close(self._descriptor)
                raise
        self._stamps: dict[str, _Stamp | None] = {}
        self.remember()

    @property
    def is_open(self) -> bool:
        """Whether `release` was not called yet."""
        return self._descriptor >= 0

    def remember(self) -> None:
        """Records the present state of the file, after one of our writes."""
        self._stamps = {
            ending: _Stamp.of(self._named(ending)) for ending in ("", "-wal", "-shm")
        }

    def place(self) -> Place:
        """What is at the path.

        `same`: the file as we left it; `changed`: our file with other bytes;
        `unlogged`: our file, but its log of newest pages was replaced.
        """
        found, known = _Stamp.of(self.path), os.fstat(self._descriptor)
        if found is None:
            return "missing"
        if (found.device, found.inode) != (known.st_dev, known.st_ino):
            return "replaced"
        for ending in ("-wal", "-shm"):
            before, now = self._stamps[ending], _Stamp.of(self._named(ending))
            if before is not None and (now is None or now[:2] != before[:2]):
                return "unlogged"
        log, before = _Stamp.of(self._named("-wal")), self._stamps["-wal"]
        is_shorter = log is not None and before is not None and log.size < before.size
        return "changed" if is_shorter or found != self._stamps[""] else "same"

    def make_private(self) -> None:
        """Removes the permissions of others from an existing file."""
        for ending in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError, PermissionError):
                place = self._named(ending)
                mode = stat.S_IMODE(place.stat().st_mode)
                if mode & 0o007:
                    place.chmod(mode & ~0o007)

    def is_whole(self, application: int) -> bool:
        """Whether it has the header of an event store, and the length in that header.

        Not checked through SQLite, which opens an empty file as a new database.
        """
        header = os.pread(self._descriptor, 100, 0)
        page = int.from_bytes(header[16:18], "big")
        pages = int.from_bytes(header[28:32], "big")
        size = pages * (65536 if page == 1 else page)
        return self._begins(header, application) and self._size() >= size

    def is_cut_off(self, application: int) -> bool:
        """Whether it is empty, or a truncated event store."""
        header = os.pread(self._descriptor, 100, 0)
        return not self._size() or (
            self._begins(header, application) and not self.is_whole(application)
        )

    def remove_siblings(self) -> None:
        """Removes the files that SQLite left next to a deleted database."""
        for ending in _SIBLINGS:
            self._named(ending).unlink(missing_ok=True)

    def temporary(self) -> Path:
        """A new empty file next to it, readable only by its owner."""
        descriptor, name = tempfile.mkstemp(
            prefix=f".{self.path.name}.", suffix=".tmp", dir=self.path.parent
        )
        os.close(descriptor)
        return Path(name)

    def release(self) -> None:
        """Closes and unlocks it; SQLite must be closed before."""
        if self.is_open:
            os.close(self._descriptor)
            self._descriptor = -1

    def _begins(self, header: bytes, application: int) -> bool:
        is_database = header[:16] == b"SQLite format 3\0"
        return is_database and int.from_bytes(header[68:72], "big") == application

    def _size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def _named(self, ending: str) -> Path:
        return self.real_path.with_name(self.real_path.name + ending)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResourceError(
                "events-in-use",
                "Another server uses this events file. Stop that server, or give this"
                " one its own file with --events.",
                file=self.path,
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise


def publish(temporary: Path, path: Path, *, replace: bool) -> None:
    """Renames a complete file; the name must be free unless `replace`.

    Raises:
        FileExistsError: the name was taken in the meantime.
    """
    fsync(temporary)
    if replace:
        os.replace(temporary, path)
    else:
        os.link(temporary, path)
        temporary.unlink()
    fsync(path.parent)


def _check_plain(path: Path) -> None:
    for ending in ("", *_SIBLINGS):
        place = path.with_name(path.name + ending)
        if place.is_symlink() and not place.exists():
            found = f"{str(place)!r}, a dangling link"
        elif place.exists() and not place.is_file():
            found = f"{str(place)!r}, which is not a regular file"
        else:
            continue
        raise ArtifactError(
            "events-unreadable",
            f"An event store must be a regular file. Found {found}. Name another file.",
            file=path,
        )

"""The file of an event store: a plain file, held by one server, still at its path.

Knows the system's files and no SQL.
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
# SQLite keeps its newest pages and its index of them in files beside the database.
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

    The system releases the lock however the process ends. A new file can be read by its
    owner alone.

    Args:
        path: file to make or open. A link to a file is followed.

    Raises:
        ArtifactError: there is something else than a plain file (`events-unreadable`).
        InputError: no file can be there (`output-path`).
        ResourceError: another server has it (`events-in-use`), it may not be written
            (`no-permission`), no space.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with disk_errors(self.path):
            _check_plain(self.path)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.real_path = Path(os.path.realpath(self.path))
            # Kept open: to close any descriptor of the file would release SQLite's
            # own locks, which belong to the process.
            self._descriptor = os.open(
                self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            try:
                self._lock()
                if not os.fstat(self._descriptor).st_mode & 0o222:
                    # Root may write it all the same, but should not.
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
        """Whether it was not released yet."""
        return self._descriptor >= 0

    def remember(self) -> None:
        """Takes the file as it is now, after a write of ours, for the right one."""
        self._stamps = {
            ending: _Stamp.of(self._named(ending)) for ending in ("", "-wal", "-shm")
        }

    def place(self) -> Place:
        """What is at the path: the file as we left it, or what became of it.

        `changed` is our file with other bytes, `unlogged` one whose log of newest pages
        is not the one it had.
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
        """Takes from an existing file what others may do with it."""
        for ending in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError, PermissionError):
                place = self._named(ending)
                mode = stat.S_IMODE(place.stat().st_mode)
                if mode & 0o007:
                    place.chmod(mode & ~0o007)

    def is_whole(self, application: int) -> bool:
        """Whether it begins as a store of ours, and is as long as it says.

        SQLite is not asked: it would take an empty file for a new database.
        """
        header = os.pread(self._descriptor, 100, 0)
        page = int.from_bytes(header[16:18], "big")
        pages = int.from_bytes(header[28:32], "big")
        size = pages * (65536 if page == 1 else page)
        return self._begins(header, application) and self._size() >= size

    def is_cut_off(self, application: int) -> bool:
        """Whether it is empty, or the first part of a store of ours."""
        header = os.pread(self._descriptor, 100, 0)
        return not self._size() or (
            self._begins(header, application) and not self.is_whole(application)
        )

    def remove_siblings(self) -> None:
        """Removes what SQLite left beside a file that is gone itself."""
        for ending in _SIBLINGS:
            self._named(ending).unlink(missing_ok=True)

    def temporary(self) -> Path:
        """A new empty file beside it, readable by its owner alone."""
        descriptor, name = tempfile.mkstemp(
            prefix=f".{self.path.name}.", suffix=".tmp", dir=self.path.parent
        )
        os.close(descriptor)
        return Path(name)

    def release(self) -> None:
        """Closes and unlocks it; SQLite must have closed it before."""
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
                "An events file must belong to one server. Another one has it open."
                " Stop that server, or give this one a file of its own with --events.",
                file=self.path,
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise


def publish(temporary: Path, path: Path, *, replace: bool) -> None:
    """Gives a complete file its name, which must be free unless `replace`.

    Raises:
        FileExistsError: something took the name meanwhile.
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
            found = f"{str(place)!r}, a link to nothing"
        elif place.exists() and not place.is_file():
            found = f"{str(place)!r}, which is no plain file"
        else:
            continue
        raise ArtifactError(
            "events-unreadable",
            f"An event store must be a plain file. Found {found}. Name another file.",
            file=path,
        )

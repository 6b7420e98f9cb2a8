"""A lock file for one process at a time; the system releases it with the process.

The file holds the id and the start time of the process, so that a message can name the
process and a reused id is noticed. It is locked with `flock`; on a disk without such
locks the content of the file decides.

Two machines that share a disk see each other's lock only if the disk supports `flock`
across machines.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec

from shortlist.atomic import is_alive, no_link
from shortlist.errors import ResourceError

_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class Holder(msgspec.Struct, frozen=True):
    """Who has a lock."""

    process: int
    began: int | None
    """Clock ticks since the machine started; `None` where the system has none."""


class Lock:
    """A lock held until `release` or the end of the process.

    Args:
        path: the file; its folder must exist.
        busy: makes the error if another process holds it, given a name of that process.

    Raises:
        ResourceError: what `busy` makes.
    """

    def __init__(self, path: Path, busy: Callable[[str], ResourceError]) -> None:
        self.path = path
        self.busy = busy
        self._descriptor = self._acquire()

    def release(self, *, remove: bool = False) -> None:
        """Releases the lock.

        Args:
            remove: also remove its file.
        """
        if self._descriptor >= 0:
            if remove:
                self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1

    def _acquire(self) -> int:
        while True:
            # The path may be a link to another file, or a pipe without a reader.
            descriptor = no_link(str(self.path), os.O_RDWR | os.O_CREAT | os.O_NONBLOCK)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), self.path)
                self._lock(descriptor)
                if _is_file(descriptor, self.path):
                    self._sign(descriptor)
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            # Its holder removed the file before it was locked: open the new one.
            os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._refusal(_holder(descriptor)) from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            holder = _holder(descriptor)
            if holder is not None and _is_running(holder):
                raise self._refusal(holder) from None

    def _refusal(self, holder: Holder | None) -> ResourceError:
        who = "another process" if holder is None else f"process {holder.process}"
        return self.busy(who)

    def _sign(self, descriptor: int) -> None:
        me = Holder(os.getpid(), began(os.getpid()))
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, msgspec.json.encode(me), 0)
        except OSError:  # the disk is full
            self.path.unlink(missing_ok=True)
            raise


def began(process: int) -> int | None:
    """When a process started, in clock ticks; `None` if unknown."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return None
    # The name of the command, in brackets, may contain spaces and brackets.
    return int(text.rpartition(")")[2].split()[19])


def _is_running(holder: Holder) -> bool:
    if holder.process == os.getpid() or not is_alive(holder.process):
        return False
    return began(holder.process) == holder.began


def _is_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> Holder | None:
    try:
        return msgspec.json.decode(os.pread(descriptor, 4096, 0), type=Holder)
    except msgspec.MsgspecError:  # it is just being written
        return None

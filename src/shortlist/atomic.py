"""Files and directories that appear whole or not at all.

Everything is written under a temporary name beside its destination, fsynced and
renamed. A temporary directory is locked with `flock` while its writer lives, so that
the next writer of the same directory removes what a killed one left; on a disk without
such locks the number of the process in its name decides. Knows nothing of what is
written.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shortlist.errors import InputError, ResourceError, ShortlistError

_UNUSABLE = (
    errno.EEXIST,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
)
_ASIDE = "old."
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # <fcntl.h>, <linux/fs.h>


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it replaces `path`.

    Raises:
        ResourceError: no space, read-only file system or no permission.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            fsync(temporary)
            os.replace(temporary, path)
            fsync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(
    path: str | Path, *, overwrite: bool = False, marker: str | None = None
) -> Iterator[Path]:
    """Yields a temporary directory beside `path`; on success it becomes `path`.

    Args:
        path: destination; must not exist unless `overwrite`, or must be empty. What a
            link points to is written or replaced, and the link stays.
        overwrite: replace an existing directory after the new one is complete.
        marker: file that an existing directory must hold to be replaced.

    Raises:
        InputError: as `check_absent`.
        ResourceError: no space, read-only file system or no permission.
    """
    path = Path(path)
    with disk_errors(path):
        place = resolved(path)
        _tidy(place)
    check_absent(path, overwrite=overwrite, marker=marker)
    with disk_errors(path):
        place.parent.mkdir(parents=True, exist_ok=True)
        with _beside(place) as temporary:
            try:
                temporary.chmod(0o755)
                yield temporary
                publish_directory(temporary, place)
            except ResourceError as error:  # of a file inside: name what the user named
                told = error.message.replace(str(temporary), str(path))
                raise ResourceError(error.code, told, file=path) from error
            finally:
                shutil.rmtree(temporary, ignore_errors=True)


def publish_directory(temporary: Path, path: Path) -> None:
    """Makes a complete directory take the place of `path`, after flushing it.

    Args:
        temporary: on the same disk; may hold afterwards what was at `path`.
        path: nothing, an empty directory, or one to be replaced; what a link points to,
            if it is one.
    """
    path = resolved(path)
    for file in sorted(temporary.rglob("*")):
        fsync(file)
    fsync(temporary)
    _replace_directory(temporary, path)
    fsync(path.parent)


def resolved(path: Path) -> Path:
    """Where an output lies: links, that of the output itself too, are followed."""
    return Path(os.path.realpath(path))


def check_absent(
    path: str | Path, *, overwrite: bool = False, marker: str | None = None
) -> None:
    """Checks that an output may be written.

    Args:
        path: the output; an empty directory counts as absent.
        overwrite: an existing directory may be replaced.
        marker: file by which a directory of this kind is known; a directory without
            it is never replaced, whatever the user asked for.

    Raises:
        InputError: something is there (`output-exists`), or a directory that is not of
            this kind (`output-foreign`).
    """
    path = Path(path)
    with disk_errors(path):
        _check_absent(path, overwrite, marker)


def _check_absent(path: Path, overwrite: bool, marker: str | None) -> None:
    if path.is_dir() and not any(path.iterdir()):
        return
    if overwrite and path.is_dir():
        if marker is not None and not (path / marker).is_file():
            raise InputError(
                "output-foreign",
                f"--overwrite replaces only what Shortlist wrote. Found {str(path)!r},"
                f" a directory without {marker}. Choose another path or remove it.",
                file=path,
            )
        return
    if path.exists():
        raise InputError(
            "output-exists",
            f"The output must not exist yet. Found {str(path)!r}. Choose another"
            " path, or pass --overwrite to replace what Shortlist wrote.",
            file=path,
        )


@contextlib.contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Turns an error about the disk into a `ResourceError` that names `path`.

    Raises:
        ResourceError: no space, read-only file system or no permission.
        InputError: no file or directory can be at `path` (code `output-path`).
    """
    try:
        yield
    except ShortlistError:
        raise
    except Exception as error:
        number = _error_number(error)
        # A missing file says nothing of the output, unless its folder cannot be made.
        orphan = number == errno.ENOENT and not Path(path).parent.is_dir()
        if orphan or number in _UNUSABLE:
            raise InputError(
                "output-path",
                "An output must lie in a directory and replace its own kind. Found that"
                f" {str(path)!r} cannot: {os.strerror(number)}. Choose another path.",
                file=path,
            ) from error
        reasons = {
            errno.ENOSPC: ("no-space", "There must be free space on the disk of"),
            errno.EDQUOT: ("no-space", "There must be free quota on the disk of"),
            errno.EFBIG: (
                "no-space",
                "The limit of file sizes (ulimit -f) must be above those of",
            ),
            errno.EROFS: ("read-only", "The file system must be writable:"),
            errno.EACCES: ("no-permission", "You must be allowed to write"),
            errno.EPERM: ("no-permission", "You must be allowed to write"),
        }
        if number not in reasons:
            raise
        code, rule = reasons[number]
        raise ResourceError(
            code,
            f"{rule} {str(path)!r}. The system said: {os.strerror(number)}. Free some"
            " space or choose another output; nothing was left behind.",
            file=path,
        ) from error


def _error_number(error: Exception) -> int:
    """The system's number of an error, 0 if it has none."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    # Polars gives the number only in its text, also in errors that are no OSError.
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found.group(1)) if found else 0


def fsync(path: Path) -> None:
    """Flushes a file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _beside(path: Path, kind: str = "") -> Iterator[Path]:
    """A new hidden directory beside `path`, locked until the end."""
    prefix = f".{path.name}.{os.getpid()}.{kind}"
    while True:
        place = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
        with _held(place) as is_held:
            # Else a tidying writer took it for a left one before it was locked.
            if is_held:
                yield place
                return


@contextlib.contextmanager
def _held(place: Path) -> Iterator[bool]:
    """Locks a directory if it can; false when another writer has it or removed it."""
    try:
        descriptor = os.open(place, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _lock(descriptor) is not False and place.exists()
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Locks an open directory: false if it is locked, `None` on a disk without locks.

    The lock moves with the directory, and the system releases it however the process
    ends.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _replace_directory(temporary: Path, path: Path) -> None:
    """`temporary` takes the place of `path`; what was there may be under its name."""
    if not path.exists() or not any(path.iterdir()):
        os.replace(temporary, path)
        return
    if _exchange(temporary, path):
        return
    # Elsewhere a full directory cannot be replaced in one call: move it aside first.
    # A process killed in between leaves nothing at `path`; `_tidy` puts it back.
    with _held(path), _beside(path, _ASIDE) as aside:
        try:
            os.replace(path, aside)
        except OSError:
            aside.rmdir()
            raise
        try:
            os.replace(temporary, path)
        except BaseException:
            os.replace(aside, path)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two paths in one step; false where the system or its disk cannot."""
    swap = getattr(ctypes.CDLL(None), "renameat2", None)
    if swap is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    failed = swap(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
    return not failed


def _tidy(path: Path) -> None:
    """Removes what killed writers of `path` left beside it, after putting it back."""
    pattern = rf"\.{re.escape(path.name)}\.(\d+)\.({_ASIDE})?[a-z0-9_]{{8}}"
    dead: list[tuple[Path, str, bool]] = []
    with contextlib.ExitStack() as locks:
        # The folder may not be there, or cannot be listed.
        with contextlib.suppress(OSError):
            for place in path.parent.iterdir():
                found = re.fullmatch(pattern, place.name)
                if found and _is_left(place, int(found[1]), locks):
                    dead.append((place, found[1], found[2] is not None))
        unplaced = {process for _, process, aside in dead if not aside}
        for place, process, aside in dead:
            # The new one is still beside `path`: the process died between two renames.
            is_next = aside and process in unplaced and any(place.iterdir())
            if is_next and not path.exists():
                os.replace(place, path)
        for place, _, _ in dead:
            shutil.rmtree(place, ignore_errors=True)


def _is_left(place: Path, process: int, locks: contextlib.ExitStack) -> bool:
    """Whether the writer of a directory is gone; the directory is then locked."""
    try:
        descriptor = os.open(place, os.O_RDONLY)
    except OSError:  # another user's, or gone
        return False
    locks.callback(os.close, descriptor)
    is_locked = _lock(descriptor)
    return not is_alive(process) if is_locked is None else is_locked


def is_alive(process: int) -> bool:
    """Whether a process of that number runs on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True

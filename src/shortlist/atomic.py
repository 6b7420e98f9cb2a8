"""Files and directories that are written completely or not at all.

Everything is written under a temporary name next to its destination, flushed to disk
and renamed. A writer locks its temporary directory with `flock`, so that the next
writer of the same directory can remove what a killed writer left; on a disk without
such locks, the process id in the name is checked. When a directory is replaced, only
files that Shortlist wrote are removed; `outputs` knows which these are.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from shortlist.errors import InputError, ResourceError, ShortlistError
from shortlist.outputs import (
    MOUNTED,
    Kind,
    check_place,
    check_replaceable,
    contents_of,
    refused_place,
    remove_ours,
)
from shortlist.reading import error_number, not_readable

_UNUSABLE = (
    errno.EEXIST,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
)
_ASIDE = "old."
_HEAD_BYTES = 4096
_SPACE = "Free some space or choose another output"
_PERMISSIONS = "Check the permissions, or choose another output"
_DISK_ERRORS = {
    errno.ENOSPC: ("no-space", _SPACE),
    errno.EDQUOT: ("no-space", _SPACE),
    errno.EFBIG: ("no-space", "Raise the limit of file sizes (ulimit -f)"),
    errno.EROFS: ("read-only", "Choose an output on another file system"),
    errno.EACCES: ("no-permission", _PERMISSIONS),
    errno.EPERM: ("no-permission", _PERMISSIONS),
}
"""Code and advice of each error of a disk."""
NOTHING_LEFT = "No partial output was left."
"""The last sentence of a `ResourceError` of `disk_errors`."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # <fcntl.h>, <linux/fs.h>


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path next to `path`; on success it replaces `path`.

    Raises:
        ResourceError: no space, read-only file system or no permission.
    """
    path = Path(path)
    with disk_errors(path):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise _no_file(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _new_file(path)
        try:
            yield temporary
            fsync(temporary)
            os.replace(temporary, path)
            fsync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _no_file(path: Path) -> InputError:
    """The error of an output that is a device, a pipe or a socket."""
    return InputError(
        "output-path",
        f"The output must be a regular file. {str(path)!r} is a device, pipe or socket."
        " Choose another path.",
        file=path,
    )


def _new_file(path: Path) -> Path:
    """A new empty file next to `path`.

    It never existed before, so it cannot be a link to another file.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        with contextlib.suppress(FileExistsError):
            os.close(os.open(temporary, flags, 0o666))  # less the umask
            return temporary


@contextlib.contextmanager
def atomic_directory(
    path: str | Path, *, overwrite: bool = False, kind: Kind | None = None
) -> Iterator[Path]:
    """Yields a temporary directory next to `path`; on success it becomes `path`.

    Args:
        path: destination; must be absent or empty unless `overwrite`. If it is a link,
            its target is written or replaced, and the link stays.
        overwrite: replace an existing directory after the new one is complete.
        kind: what an existing directory must be to be replaced. Files of others that
            appear in it in the meantime are kept next to `path`; a warning says where.

    Raises:
        InputError: as `check_absent`.
        ResourceError: no space, read-only file system or no permission.
    """
    path = Path(path)
    with disk_errors(path):
        place = resolved(path)
        _tidy(place, kind)
    check_absent(path, overwrite=overwrite, kind=kind)
    with disk_errors(path):
        place.parent.mkdir(parents=True, exist_ok=True)
        with _beside(place) as temporary:
            written = temporary.stat().st_ino
            try:
                yield temporary
                publish_directory(temporary, place, kind)
            except ResourceError as error:  # name the path that the user gave
                message = error.message.replace(str(temporary), str(path))
                raise ResourceError(error.code, message, file=path) from error
            finally:
                # Incomplete; or the old content, if the exchange was interrupted.
                if temporary.is_dir() and temporary.stat().st_ino == written:
                    shutil.rmtree(temporary, ignore_errors=True)
                else:
                    _discard(temporary, place, kind)


def publish_directory(temporary: Path, path: Path, kind: Kind | None) -> None:
    """Flushes a complete directory and moves it to `path`.

    Args:
        temporary: the directory; on the same disk as `path`.
        path: absent, an empty directory, or a directory to replace. Links are followed.
        kind: kind of the directory to replace; its files are removed.
    """
    path = resolved(path)
    for file in sorted(temporary.rglob("*")):
        fsync(file)
    fsync(temporary)
    old = _replace_directory(temporary, path)
    try:
        fsync(path.parent)
    finally:
        if old is not None:
            _discard(old, path, kind)


def resolved(path: Path) -> Path:
    """The real path of an output: all links are followed."""
    return Path(os.path.realpath(path))


def check_absent(
    path: str | Path, *, overwrite: bool = False, kind: Kind | None = None
) -> None:
    """Checks that an output may be written.

    Args:
        path: the output; an empty directory counts as absent.
        overwrite: an existing directory may be replaced.
        kind: what it must be to be replaced; `None` refuses every directory.

    Raises:
        InputError: the output exists (`output-exists`), is a directory of another kind
            or with files of others (`output-foreign`), or is a place that cannot be
            replaced (`output-place`).
    """
    path = Path(path)
    with disk_errors(path):
        _check_absent(path, overwrite, kind)


def _check_absent(path: Path, overwrite: bool, kind: Kind | None) -> None:
    if path.is_dir():
        check_place(path)
        if not any(path.iterdir()):
            return
        if overwrite:
            check_replaceable(path, kind)
            return
    if path.exists():
        raise InputError(
            "output-exists",
            f"The output {str(path)!r} exists already. Choose another path, or pass"
            " --overwrite to replace what Shortlist wrote.",
            file=path,
        )


def check_file(
    path: str | Path,
    is_ours: Callable[[bytes], bool],
    *,
    overwrite: bool,
    name: str,
    inputs: Iterable[str | Path] = (),
) -> None:
    """Checks that a file may be written, before any work is done.

    Args:
        path: the file.
        is_ours: tells from its first bytes whether a file may be replaced.
        overwrite: an existing file may be replaced.
        name: what is written, such as "a page".
        inputs: files that are read, which are never replaced.

    Raises:
        InputError: the file exists (`output-exists`), or `overwrite` would replace a
            directory, an input or another kind of file (`output-foreign`).
    """
    path = Path(path)
    if not overwrite:
        check_absent(path)
        return
    with disk_errors(path):
        if not path.exists():
            return
        found = ""
        if not path.is_file():
            found = "a folder" if path.is_dir() else "no regular file"
        elif any(Path(i).exists() and path.samefile(i) for i in inputs):
            found = "which is an input"
        else:
            with path.open("rb") as stream:
                if not is_ours(stream.read(_HEAD_BYTES)):
                    found = f"which is not {name} of Shortlist"
    if found:
        raise InputError(
            "output-foreign",
            f"--overwrite only replaces {name} that Shortlist wrote. Found"
            f" {str(path)!r}, {found}. Nothing was changed. Choose another path.",
            file=path,
        )


@contextlib.contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Turns a disk error into a `ResourceError` that names `path`.

    Raises:
        ResourceError: no space, read-only file system or no permission.
        InputError: no file or directory can be at `path` (code `output-path`).
    """
    try:
        yield
    except ShortlistError:
        raise
    except Exception as error:
        number = error_number(error)
        if number in (errno.EBUSY, errno.EXDEV):
            raise refused_place(path, MOUNTED) from error
        # A missing file is about the output only if its folder cannot be created.
        orphan = number == errno.ENOENT and not Path(path).parent.is_dir()
        if orphan or number in _UNUSABLE:
            raise InputError(
                "output-path",
                f"Cannot write {str(path)!r}: {os.strerror(number)}. Choose another"
                " path.",
                file=path,
            ) from error
        if number not in _DISK_ERRORS:
            raise
        code, advice = _DISK_ERRORS[number]
        named = getattr(error, "filename", None)
        if code == "no-permission" and named and not _is_readable(named):
            raise not_readable(named) from error
        raise ResourceError(
            code,
            f"Cannot write {str(path)!r}: {os.strerror(number)}. {advice}."
            f" {NOTHING_LEFT}",
            file=path,
        ) from error


def _is_readable(path: str | bytes | os.PathLike[str]) -> bool:
    """Whether reading the file cannot have failed: it may be read, or is missing."""
    return not os.path.lexists(path) or os.access(path, os.R_OK)


def no_link(path: str, flags: int) -> int:
    """An opener for `open` that does not follow a link at the end of the path.

    For files with a fixed name that are written in place: a link there would make us
    write to another file.
    """
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def fsync(path: Path) -> None:
    """Flushes a file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _beside(path: Path, infix: str = "") -> Iterator[Path]:
    """A new hidden directory next to `path`, locked until the end."""
    while True:
        place = _new_directory(path.parent, f".{path.name}.{os.getpid()}.{infix}")
        with _held(place) as is_held:
            # Else another writer removed it as a leftover before it was locked.
            if is_held:
                yield place
                return


def _new_directory(parent: Path, prefix: str) -> Path:
    """A new directory with a random name; its mode follows the umask."""
    while True:
        place = parent / f"{prefix}{secrets.token_hex(4)}"
        with contextlib.suppress(FileExistsError):
            os.mkdir(place)
            return place


@contextlib.contextmanager
def _held(place: Path) -> Iterator[bool]:
    """Locks a directory; yields false if another writer holds or removed it."""
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

    The lock moves with the directory; the system releases it when the process ends.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _replace_directory(temporary: Path, path: Path) -> Path | None:
    """Moves `temporary` to `path`; returns where the old directory is now."""
    if not path.exists() or not any(path.iterdir()):
        os.replace(temporary, path)
        return None
    if _exchange(temporary, path):
        return temporary
    # Without an exchange, the old directory has to be moved away first. If the process
    # is killed in between, nothing is at `path`; `_tidy` moves the old one back.
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
        return aside


def _discard(place: Path, path: Path, kind: Kind | None) -> None:
    """Removes the old directory.

    Files of others appeared in it after the check. They are kept under a visible name
    that no later writer removes.
    """
    if not place.is_dir():
        return
    found = None if kind is None else contents_of(place, kind)
    if kind is not None and found is not None and not found.foreign:
        remove_ours(place, kind)
        return
    if not any(place.iterdir()):
        place.rmdir()
        return
    kept = path.with_name(f"{path.name}.kept-{secrets.token_hex(4)}")
    os.replace(place, kept)
    if kind is not None and found is not None:
        remove_ours(kept, kind)
    print(
        f"warning[output-kept]: files that Shortlist did not write appeared in"
        f" {str(path)!r} while it was replaced. They are kept in {str(kept)!r}.",
        file=sys.stderr,
        flush=True,
    )


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two paths in one step; false if the system or its disk cannot."""
    swap = getattr(ctypes.CDLL(None), "renameat2", None)
    if swap is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    failed = swap(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
    return not failed


def _tidy(path: Path, kind: Kind | None) -> None:
    """Removes what killed writers of `path` left, and moves an old directory back."""
    pattern = rf"\.{re.escape(path.name)}\.(\d+)\.({_ASIDE})?[a-z0-9_]{{8}}"
    dead: list[tuple[Path, str, bool]] = []
    with contextlib.ExitStack() as locks:
        # The folder may be missing or unreadable.
        with contextlib.suppress(OSError):
            for place in path.parent.iterdir():
                found = re.fullmatch(pattern, place.name)
                if found and _is_left(place, int(found[1]), locks):
                    dead.append((place, found[1], found[2] is not None))
        unplaced = {process for _, process, aside in dead if not aside}
        for place, process, aside in dead:
            # The new one is still there: the process died between the two renames.
            is_next = aside and process in unplaced and any(place.iterdir())
            if is_next and not path.exists():
                os.replace(place, path)
        for place, _, _ in dead:
            if not place.is_dir():  # it was moved back
                continue
            if kind is None or contents_of(place, kind) is None:
                # Incomplete: it has no manifest yet.
                shutil.rmtree(place, ignore_errors=True)
            else:
                _discard(place, path, kind)


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
    """Whether a process with this id runs on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True

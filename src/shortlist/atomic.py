"""Files and directories that appear whole or not at all.

Everything is written under a temporary name beside its destination, fsynced and
renamed. Knows nothing of what is written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shortlist.errors import InputError, ResourceError, ShortlistError


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
def atomic_directory(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary directory beside `path`; on success it becomes `path`.

    Args:
        path: destination; must not exist unless `overwrite`, or must be empty.
        overwrite: replace an existing directory after the new one is complete.

    Raises:
        InputError: `path` exists and `overwrite` is false (code `output-exists`).
        ResourceError: no space, read-only file system or no permission.
    """
    path = Path(path)
    check_absent(path, overwrite=overwrite)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            temporary.chmod(0o755)
            yield temporary
            for file in sorted(temporary.rglob("*")):
                fsync(file)
            fsync(temporary)
            _replace_directory(temporary, path)
            fsync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def check_absent(path: str | Path, *, overwrite: bool = False) -> None:
    """Raises `InputError` if `path` holds something and `overwrite` is false."""
    path = Path(path)
    if overwrite and path.is_dir():
        return
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists():
        raise InputError(
            "output-exists",
            f"The output must not exist yet. Found {str(path)!r}. Choose another"
            " path, or pass --overwrite to replace a directory.",
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
        if number in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG):
            raise InputError(
                "output-path",
                "An output must lie in a directory and replace its own kind. Found that"
                f" {str(path)!r} cannot: {os.strerror(number)}. Choose another path.",
                file=path,
            ) from error
        reasons = {
            errno.ENOSPC: ("no-space", "There must be free space on the disk of"),
            errno.EDQUOT: ("no-space", "There must be free quota on the disk of"),
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


def _replace_directory(temporary: Path, path: Path) -> None:
    if not path.exists() or not any(path.iterdir()):
        os.replace(temporary, path)
        return
    # A non-empty directory cannot be replaced in one call: move it aside first.
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
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

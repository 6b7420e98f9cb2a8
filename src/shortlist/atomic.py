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

_UNUSABLE = (
    errno.EEXIST,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
)


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
        path: destination; must not exist unless `overwrite`, or must be empty.
        overwrite: replace an existing directory after the new one is complete.
        marker: file that an existing directory must hold to be replaced.

    Raises:
        InputError: as `check_absent`.
        ResourceError: no space, read-only file system or no permission.
    """
    path = Path(path)
    check_absent(path, overwrite=overwrite, marker=marker)
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
        except ResourceError as error:  # of a file inside: name what the user named
            told = error.message.replace(str(temporary), str(path))
            raise ResourceError(error.code, told, file=path) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


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

"""Opens the files of a log, and reports files that cannot be read."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from shortlist.errors import LogError, ResourceError, ShortlistError

_DENIED = (errno.EACCES, errno.EPERM)


@contextlib.contextmanager
def open_log(path: Path) -> Iterator[FileIO]:
    """Opens a file of a log, without a buffer.

    Raises:
        LogError: it is missing (`log-file-missing`), no regular file
            (`log-file-directory`) or cannot be read (`log-file-unreadable`).
    """
    try:
        if not path.exists():
            raise LogError(
                "log-file-missing",
                f"There is no file {str(path)!r}. Check the path; it is relative to"
                " the current directory unless it starts with '/'.",
                file=path,
            )
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "pipe" if stat.S_ISFIFO(mode) else "device or socket"
            raise LogError(
                "log-file-directory",
                "A log must be a regular file. Received a"
                f" {'directory' if stat.S_ISDIR(mode) else kind}. Name the file inside"
                " a directory, or write what a pipe holds to a file.",
                file=path,
            )
        with path.open("rb", 0) as stream:
            yield stream
    except OSError as error:
        raise LogError(
            "log-file-unreadable",
            f"The file cannot be read: {error.strerror}. Check its permissions.",
            file=path,
        ) from error


@contextlib.contextmanager
def read_errors(path: object) -> Iterator[None]:
    """Turns a permission error while reading into a `ResourceError`.

    Args:
        path: the file, if the system's error does not name one.

    Raises:
        ResourceError: `no-permission`.
    """
    try:
        yield
    except Exception as error:
        denied = denied_by(error)
        if denied is None or isinstance(error, ResourceError):
            raise
        raise not_readable(denied.filename or path) from error


def denied_by(error: BaseException | None) -> OSError | None:
    """The permission error among an error and its causes, if there is one."""
    while error is not None:
        if not isinstance(error, ShortlistError) and error_number(error) in _DENIED:
            return error if isinstance(error, OSError) else PermissionError()
        error = error.__cause__
    return None


def not_readable(path: object) -> ResourceError:
    """The error for a file or folder that this user may not read."""
    return ResourceError(
        "no-permission",
        f"Cannot read {os.fspath(path)!r}: {os.strerror(errno.EACCES)}."  # type: ignore[call-overload]
        " Check the permissions of the file and its folder, or run as a user who may"
        " read it.",
        file=path,
    )


def error_number(error: BaseException) -> int:
    """The `errno` of an error, 0 if it has none."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    # Polars gives the number only in the text of its errors.
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found.group(1)) if found else 0

"""Download of one file over HTTP: resumable, and checked before it is renamed.

Knows URLs, partial files and MD5; knows nothing of what the file holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shortlist.atomic import atomic_file, disk_errors, no_link
from shortlist.errors import ResourceError

ReportBytes = Callable[[int, int | None], None]
"""Called with the bytes received and the total, `None` when unknown."""

CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0
_ATTEMPTS = 4
_CHUNK_BYTES = 1 << 18


def read_text(url: str, path: Path) -> str:
    """Reads a small text; a server that does not answer times out after 5 seconds.

    Args:
        url: what to read.
        path: where the file will be stored; used in errors.

    Raises:
        ResourceError: `source-unreachable` or `source-http-error`.
    """
    with _open(url, {}, path, CONNECT_SECONDS) as response:
        return b"".join(_chunks(response)).decode("utf-8", errors="replace")


def download(
    url: str, path: Path, *, md5: str, progress: ReportBytes | None = None
) -> None:
    """Downloads `url` to `path`; resumes an earlier download that was interrupted.

    The bytes are written to `path` + `.part` and kept when the connection breaks. The
    rest is requested with `Range` and `If-Range`. If the server ignores ranges, or the
    file has changed, the download starts again.

    Args:
        url: what to download.
        path: the destination; replaced only by a complete and checked file.
        md5: expected MD5, 32 hexadecimal digits.
        progress: called after every piece.

    Raises:
        ResourceError: `source-unreachable`, `source-http-error`,
            `download-interrupted` (run again to resume), `checksum-mismatch` (the
            partial file is removed), or a full or read-only disk.
    """
    part = path.with_name(f"{path.name}.part")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(_ATTEMPTS):
            if _receive(url, part, path, progress or (lambda done, total: None)):
                break
        else:
            raise ResourceError(
                "download-interrupted",
                f"The download of {url} was interrupted {_ATTEMPTS} times;"
                f" {_size(part)} bytes are kept. Run the same command again to resume.",
                file=part,
            )
        try:
            check_md5(part, md5, url)
            os.replace(part, path)
        finally:
            _forget(part)


def check_md5(path: Path, md5: str, origin: str) -> None:
    """Raises `ResourceError` (`checksum-mismatch`) unless `path` has that MD5."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5.lower():
        raise ResourceError(
            "checksum-mismatch",
            f"The MD5 of {origin} must be {md5}, as published. Received: {found}."
            " The file was not used. Try again; if it happens again, the publisher's"
            " file is damaged or your connection changes it.",
            file=path,
        )


def parse_md5(text: str, name: str) -> str | None:
    """Finds the MD5 of file `name` in a checksum file, or `None`.

    Reads `hash  name`, `MD5 (name) = hash` and a lone hash. A single hash is used
    whatever its name.
    """
    found = []
    for line in text.splitlines():
        digest = re.search(r"(?<![0-9A-Za-z])[0-9a-fA-F]{32}(?![0-9A-Za-z])", line)
        if digest:
            found.append((digest.group().lower(), line))
    of_name = [digest for digest, line in found if _names(line, name)]
    if of_name:
        return of_name[0]
    return found[0][0] if len(found) == 1 else None


@contextlib.contextmanager
def progress_bar(title: str, *, show: bool | None = None) -> Iterator[ReportBytes]:
    """Yields a `ReportBytes` that draws a bar on standard error, or prints one line.

    Args:
        title: what is being downloaded.
        show: draw the bar; by default only when standard error is a terminal.
    """
    if not (sys.stderr.isatty() if show is None else show):
        yield _one_line(title)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bars

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    speed = TransferSpeedColumn(), TimeRemainingColumn()
    with Bars(*columns, *speed, console=Console(stderr=True)) as bars:
        task = bars.add_task(title, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _one_line(title: str) -> ReportBytes:
    said: list[str] = []

    def report(done: int, total: int | None) -> None:
        if not said:
            size = "" if total is None else f" ({total / 1e6:.1f} MB)"
            said.append(f"Downloading {title}{size}")
            print(said[0], file=sys.stderr)

    return report


def _receive(url: str, part: Path, path: Path, progress: ReportBytes) -> bool:
    """Appends the response to `part`; returns whether it is complete."""
    done, validator = _resume_point(url, part)
    headers = {"Range": f"bytes={done}-", "If-Range": validator} if done else {}
    try:
        response = _open(url, headers, path, READ_SECONDS)
    except ResourceError as error:
        cause = error.__cause__
        if isinstance(cause, urllib.error.HTTPError) and cause.code == 416 and done:
            _forget(part)  # longer than the file is now: start again
            return False
        raise
    with response:
        resumed = response.status == 206
        total = _total_bytes(response, resumed)
        if resumed and not _continues(response, done):
            _forget(part)
            return False
        if not resumed:
            done = 0
            _remember(part, url, response.headers)
        progress(done, total)
        with open(part, "ab" if resumed else "wb", opener=no_link) as file:
            for chunk in _chunks(response):
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
    return total is None or done >= total


def _open(url: str, headers: dict[str, str], path: Path, timeout_seconds: float) -> Any:
    # A proxy may compress without `identity`, and ranges would count other bytes.
    headers = {"User-Agent": "shortlist", "Accept-Encoding": "identity", **headers}
    advice = f"Check the connection, or copy the file to {str(path)!r}."
    try:
        request = urllib.request.Request(url, headers=headers)
        return urllib.request.urlopen(request, timeout=timeout_seconds)
    except urllib.error.HTTPError as error:
        error.close()
        raise ResourceError(
            "source-http-error",
            f"The server answered {error.code} {error.reason} for {url}. {advice}",
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ResourceError(
            "source-unreachable",
            f"{url} cannot be reached: {reason}. {advice}",
        ) from error


def _chunks(response: Any) -> Iterator[bytes]:
    """Yields the response; ends early, without an error, if the connection breaks."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        # `read1` returns what came before a break; `read` may drop it.
        while chunk := response.read1(_CHUNK_BYTES):
            yield chunk


def _resume_point(url: str, part: Path) -> tuple[int, str]:
    """Bytes of `part` that can be resumed, and the validator for the request."""
    try:
        note = json.loads(_note(part).read_text(encoding="utf-8"))
        if note["url"] == url:
            return _size(part), str(note["validator"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # without a readable note nobody knows what the bytes belong to
    return 0, ""


def _remember(part: Path, url: str, headers: Any) -> None:
    """Records what `part` belongs to, if the server sent a strong validator."""
    etag = headers.get("ETag", "")
    validator = headers.get("Last-Modified") if etag[:2] in ("", "W/") else etag
    if validator:
        note = json.dumps({"url": url, "validator": validator})
        with atomic_file(_note(part)) as temporary:
            temporary.write_text(note, encoding="utf-8")
    else:
        _note(part).unlink(missing_ok=True)


def _continues(response: Any, done: int) -> bool:
    content_range = response.headers.get("Content-Range", "")
    return bool(re.match(rf"bytes {done}-", content_range))


def _total_bytes(response: Any, resumed: bool) -> int | None:
    if resumed:
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = response.headers.get("Content-Length", "")
    return int(total) if total.isdecimal() else None


def _names(line: str, name: str) -> bool:
    return bool(re.search(rf"(^|[\s(*/]){re.escape(name)}($|[\s)])", line))


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0

"""MovieLens 100K from the RecBole wheel, written in its original layout.

For machines that reach a package index but not the publisher. pip downloads the wheel,
its SHA-256 is pinned, and nothing in it is imported or run.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from shortlist.data.read.text.layouts import GENRES
from shortlist.errors import ArtifactError, ResourceError

REQUIREMENT = "recbole==1.2.1"
SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
ORIGIN = (
    f"rebuilt from the wheel {REQUIREMENT} (SHA-256 {SHA256[:12]}...), because"
    " GroupLens could not be reached; release days and links are not in it"
)
_PIP_SECONDS = 300
_FOLDER = "recbole/dataset_example/ml-100k/ml-100k"


def download_wheel(into: Path) -> Path:
    """Downloads the pinned wheel with pip into the folder `into`.

    Returns:
        Path of the wheel, its SHA-256 checked.

    Raises:
        ResourceError: pip is missing or failed (`pip-failed`), or the wheel is another
            one (`checksum-mismatch`).
    """
    pinned = into / "requirements.txt"
    pinned.write_text(f"{REQUIREMENT} --hash=sha256:{SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input"]
    command += ["--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
    command += ["--timeout", "15", "--retries", "1", "--dest", str(into)]
    command += ["--require-hashes", "-r", str(pinned)]
    reason = _run(command)
    wheels = sorted(into.glob("*.whl"))
    if reason or len(wheels) != 1:
        raise ResourceError(
            "pip-failed",
            f"pip could not download {REQUIREMENT}:"
            f" {reason or 'no error, and no wheel'}. Check the package index that pip"
            " uses.",
        )
    found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if found != SHA256:
        raise ResourceError(
            "checksum-mismatch",
            f"The SHA-256 of {REQUIREMENT} must be {SHA256}. Received: {found}. The"
            " file was not used; check the package index that pip uses.",
        )
    return wheels[0]


def convert(wheel: Path, folder: Path) -> None:
    """Writes `u.data`, `u.user` and `u.item` in their original layout into `folder`.

    Args:
        wheel: a wheel with `recbole/dataset_example/ml-100k/ml-100k.{inter,user,item}`.
        folder: existing folder for the three files.

    Raises:
        ArtifactError: a member is missing or has other columns (`wheel-layout`).
    """
    with zipfile.ZipFile(wheel) as archive:
        events = ["\t".join(row) for row in _rows(archive, "inter", 4)]
        users = ["|".join(row) for row in _rows(archive, "user", 5)]
        items = [_item_line(*row) for row in _rows(archive, "item", 4)]
    _write(folder / "u.data", events, "ascii")
    _write(folder / "u.user", users, "ascii")
    _write(folder / "u.item", items, "latin-1")


def _run(command: list[str]) -> str:
    """Runs pip; returns why it failed in one line, or an empty string."""
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PIP_SECONDS,
            text=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if result.returncode == 0:
        return ""
    lines = result.stdout.strip().splitlines() or [f"exit status {result.returncode}"]
    return lines[-1].strip()


def _rows(archive: zipfile.ZipFile, kind: str, columns: int) -> Iterator[list[str]]:
    member = f"{_FOLDER}.{kind}"
    try:
        header, *lines = archive.read(member).decode("utf-8").splitlines()
    except (KeyError, ValueError) as error:
        raise _layout_error(archive, member, str(error)) from error
    if header.count("\t") != columns - 1:
        raise _layout_error(archive, member, f"the header {header!r}")
    for number, line in enumerate(lines, start=2):
        row = line.split("\t")
        if len(row) != columns:
            raise _layout_error(archive, member, f"{len(row)} columns, line {number}")
        yield row


def _layout_error(archive: zipfile.ZipFile, member: str, found: str) -> ArtifactError:
    return ArtifactError(
        "wheel-layout",
        f"The wheel must hold {member} in the layout of {REQUIREMENT}. Received:"
        f" {found}. Download the archive from GroupLens instead.",
        file=archive.filename,
    )


def _item_line(item_id: str, title: str, year: str, genres: str) -> str:
    """One line of u.item: id|title (year)|release date|video date|link|19 flags."""
    if title == "unkonwn":  # so spelled by RecBole
        title, year = "unknown", ""
    elif year:
        # RecBole reads the year from the last parentheses, which are "(V)" once.
        title = f"{title} ({year})"
    known = re.findall(r"\((\d{4})\)", title)
    date = f"01-Jan-{known[-1]}" if known else ""
    flags = ["1" if genre in genres.split(" ") else "0" for genre in GENRES]
    return "|".join([item_id, title, date, "", "", *flags])


def _write(path: Path, lines: list[str], encoding: str) -> None:
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))

"""Public logs, downloaded once into the user's cache.

MovieLens comes from GroupLens and is checked against the checksum published with it.
Only `fetch` downloads, and a second call needs no network.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from shortlist.atomic import atomic_directory, atomic_file, disk_errors, no_link
from shortlist.errors import ArtifactError, InputError, ResourceError, did_you_mean
from shortlist.outputs import Kind, of_files
from shortlist.public_data import recbole_wheel
from shortlist.public_data.download import (
    check_md5,
    download,
    parse_md5,
    progress_bar,
    read_text,
)

BASE_URL = "https://files.grouplens.org/datasets/movielens"
CITATION = (
    "F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and"
    " Context. ACM Transactions on Interactive Intelligent Systems 5, 4: 19:1-19:19."
    " https://doi.org/10.1145/2827872"
)
_TERMS = (
    "GroupLens licence: research use, with acknowledgement in publications and without"
    " claiming endorsement; no commercial use without permission of GroupLens; "
)
_NO_REDISTRIBUTION = f"{_TERMS}no redistribution without permission."
_SAME_TERMS = f"{_TERMS}redistribution only under these same conditions."
_ORIGIN_FILE = "ORIGIN.txt"
# Errors of a machine that cannot reach the publisher.
_UNREACHABLE = ("source-unreachable", "source-http-error", "download-interrupted")


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A published data set and its terms."""

    name: str
    """Name given to `fetch`; also the folder inside the archive."""
    title: str
    events: str
    """File name of the interaction log."""
    users: str | None = None
    """File name of the user attributes, if there are any."""
    items: str
    """File name of the item attributes."""
    readme: str = "README.txt"
    """File name of the publisher's description, with the full licence."""
    licence: str
    citation: str = CITATION

    @property
    def archive(self) -> str:
        """File name of the archive."""
        return f"{self.name}.zip"

    @property
    def files(self) -> tuple[str, ...]:
        """The files that must exist; the readme is optional."""
        return tuple(f for f in (self.events, self.users, self.items) if f)

    @property
    def kind(self) -> Kind:
        """What its folder in the cache contains."""
        return of_files(self.title, *self.files, self.readme, _ORIGIN_FILE)


def _csv_publication(name: str, title: str, licence: str) -> Publication:
    return Publication(
        name=name,
        title=title,
        events="ratings.csv",
        items="movies.csv",
        licence=licence,
    )


_ML_100K = Publication(
    name="ml-100k",
    title="MovieLens 100K (1998)",
    events="u.data",
    users="u.user",
    items="u.item",
    readme="README",
    licence=_NO_REDISTRIBUTION,
)
_ML_1M = Publication(
    name="ml-1m",
    title="MovieLens 1M (2003)",
    events="ratings.dat",
    users="users.dat",
    items="movies.dat",
    readme="README",
    licence=_NO_REDISTRIBUTION,
)

PUBLIC_LOGS: dict[str, Publication] = {
    publication.name: publication
    for publication in (
        _ML_100K,
        _ML_1M,
        _csv_publication("ml-25m", "MovieLens 25M (2019)", _NO_REDISTRIBUTION),
        _csv_publication("ml-32m", "MovieLens 32M (2023)", _SAME_TERMS),
        _csv_publication("ml-latest-small", "MovieLens latest, small", _SAME_TERMS),
    )
}


@dataclass(frozen=True, kw_only=True)
class PublicLog:
    """A published data set on this machine."""

    name: str
    folder: Path
    events: Path
    users: Path | None
    items: Path | None
    origin: str
    """Where the files came from and how they were checked."""
    notice: str
    """Title, origin, licence and citation, to be shown to whoever uses the data."""


def cache_folder() -> Path:
    """`$SHORTLIST_CACHE`, or `shortlist` in the user's cache folder (XDG)."""
    if own := os.environ.get("SHORTLIST_CACHE"):
        return Path(own).expanduser()
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore a relative path.
    root = Path(xdg) if xdg.startswith("/") else Path.home() / ".cache"
    return root / "shortlist"


def fetch(
    name: str,
    *,
    cache: str | Path | None = None,
    base_url: str | None = None,
    progress: bool | None = None,
) -> PublicLog:
    """Returns a published data set, downloading it unless the cache holds it.

    `ml-100k` is rebuilt from a pinned wheel when GroupLens cannot be reached. An
    archive that is already in the cache is unpacked, not downloaded.

    Args:
        name: a key of `PUBLIC_LOGS`.
        cache: folder to keep the data in; `cache_folder()` by default.
        base_url: URL of another server with `<name>.zip` and `<name>.zip.md5`.
        progress: draw a progress bar; by default only on a terminal.

    Raises:
        InputError: there is no such data set (`unknown-source`).
        ArtifactError: the archive is damaged or has other contents
            (`archive-damaged`, `archive-unsafe`, `archive-incomplete`).
        ResourceError: no network or disk, or a wrong or missing checksum.
    """
    if name not in PUBLIC_LOGS:
        raise InputError(
            "unknown-source",
            f"The data set must be one of {', '.join(PUBLIC_LOGS)}. Received: {name!r}."
            f"{did_you_mean(name, PUBLIC_LOGS)}",
        )
    publication = PUBLIC_LOGS[name]
    root = cache_folder() if cache is None else Path(cache)
    folder = root / name
    if not _is_complete(publication, folder):
        with disk_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            # A second process waits here and then uses the data of the first.
            with _locked(root / f".{name}.lock"):
                if not _is_complete(publication, folder):
                    _provide(publication, root, base_url or BASE_URL, progress)
    return _public_log(publication, folder)


def _public_log(publication: Publication, folder: Path) -> PublicLog:
    note = folder / _ORIGIN_FILE
    found = f"found in {folder}, not checked"
    origin = note.read_text(encoding="utf-8").strip() if note.exists() else found
    lines = f"{publication.title}, {origin}.", publication.licence
    return PublicLog(
        name=publication.name,
        folder=folder,
        events=folder / publication.events,
        users=folder / publication.users if publication.users else None,
        items=folder / publication.items,
        origin=origin,
        notice="\n".join([*lines, f"Please cite: {publication.citation}"]),
    )


def _is_complete(publication: Publication, folder: Path) -> bool:
    return all((folder / file).is_file() for file in publication.files)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "a", opener=no_link) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _provide(
    publication: Publication, root: Path, base_url: str, progress: bool | None
) -> None:
    archive = root / publication.archive
    checksum = root / f"{publication.archive}.md5"
    if archive.exists():
        _unpack(publication, archive, root, _origin_by_hand(archive, checksum))
        return
    try:
        md5 = _published_md5(f"{base_url}/{publication.archive}.md5", archive)
        with progress_bar(publication.title, show=progress) as report:
            url = f"{base_url}/{publication.archive}"
            download(url, archive, md5=md5, progress=report)
    except ResourceError as error:
        if publication is not _ML_100K or error.code not in _UNREACHABLE:
            raise
        _rebuild(publication, root, error)
        return
    # If unpacking fails on a full disk, the next run can still check the archive.
    with atomic_file(checksum) as temporary:
        temporary.write_text(f"{md5}  {archive.name}\n", encoding="ascii")
    _unpack(publication, archive, root, f"from {base_url}, MD5 {md5} checked")
    archive.unlink()
    checksum.unlink()


def _published_md5(url: str, archive: Path) -> str:
    try:
        md5 = parse_md5(read_text(url, archive), archive.name)
    except ResourceError as error:
        if getattr(error.__cause__, "code", None) != 404:
            raise
        md5 = None
    if md5 is None:
        raise ResourceError(
            "checksum-missing",
            f"The publisher offers no MD5 of {archive.name} at {url}, and an unchecked"
            f" file is not used. Try later, or copy the archive to {str(archive)!r}.",
        )
    return md5


def _origin_by_hand(archive: Path, checksum: Path) -> str:
    if not checksum.exists():
        return f"from {archive}, not checked against the publisher's MD5"
    md5 = parse_md5(checksum.read_text(errors="replace"), archive.name) or "(none)"
    check_md5(archive, md5, str(archive))
    return f"from {archive}, MD5 {md5} checked"


def _unpack(publication: Publication, archive: Path, root: Path, origin: str) -> None:
    """Extracts the expected files, and no others, from the archive."""
    with atomic_directory(
        root / publication.name, overwrite=True, kind=publication.kind
    ) as folder:
        try:
            with zipfile.ZipFile(archive) as file:
                _check_members(publication, file)
                for name in (*publication.files, publication.readme):
                    member = f"{publication.name}/{name}"
                    if member in file.namelist():
                        with (
                            file.open(member) as data,
                            (folder / name).open("wb") as to,
                        ):
                            while block := data.read(1 << 20):
                                to.write(block)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise ArtifactError(
                "archive-damaged",
                f"The archive is not a readable zip file: {error}. Delete it and fetch"
                " it again.",
                file=archive,
            ) from error
        (folder / _ORIGIN_FILE).write_text(f"{origin}\n", encoding="utf-8")


def _check_members(publication: Publication, file: zipfile.ZipFile) -> None:
    names = file.namelist()
    # Members are not extracted under their own names; but a name that would leave the
    # folder shows that the archive is not the publisher's.
    for path in map(PurePosixPath, names):
        if path.is_absolute() or ".." in path.parts or "\\" in str(path):
            raise ArtifactError(
                "archive-unsafe",
                "The members of an archive must stay inside its folder. Received:"
                f" {str(path)!r}. Delete the archive; it is not the publisher's.",
                file=file.filename,
            )
    missing = {f"{publication.name}/{f}" for f in publication.files}.difference(names)
    if missing:
        raise ArtifactError(
            "archive-incomplete",
            f"{publication.archive} must hold {', '.join(sorted(missing))}. Received:"
            f" {', '.join(names[:5]) or 'an empty archive'}. Replace it with the"
            " archive of GroupLens.",
            file=file.filename,
        )


def _rebuild(publication: Publication, root: Path, reason: ResourceError) -> None:
    """Makes MovieLens 100K from the wheel; an error names both reasons."""
    with tempfile.TemporaryDirectory(prefix=".wheel.", dir=root) as temporary:
        try:
            file = recbole_wheel.download_wheel(Path(temporary))
        except ResourceError as error:
            raise ResourceError(
                error.code,
                f"{reason.message} The wheel could not be used either: {error.message}",
            ) from error
        with atomic_directory(
            root / publication.name, overwrite=True, kind=publication.kind
        ) as folder:
            recbole_wheel.convert(file, folder)
            (folder / _ORIGIN_FILE).write_text(
                f"{recbole_wheel.ORIGIN}\n", encoding="utf-8"
            )

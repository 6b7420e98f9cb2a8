"""Which files in an output directory Shortlist wrote, and may replace.

Only files that Shortlist wrote are ever removed. A directory is ours if its manifest
says so; our files are those that the manifest lists or, without a list, those with the
fixed names of the format. Everything else in it belongs to others.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shortlist.errors import InputError

_SHOWN = 3
_MANIFEST_BYTES = 2**28
# Of killed writers: files `.NAME.RANDOM.tmp`, folders `.NAME.PROCESS.RANDOM`.
_TEMPORARY = re.compile(
    r"\.(?P<file>.+)\.(?:\d+|[a-z0-9_]{8})\.tmp"
    r"|\.(?P<folder>.+)\.\d+\.(?:old\.)?[a-z0-9_]{8}"
)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How directories of one kind are recognized.

    Args:
        name: for messages, such as "a dataset".
        names: paths of its files, and of its folders with a slash at the end.
        manifests: one of these files must be there; empty if the names alone decide.
        is_ours: whether the JSON value of a manifest is of this kind.
        later: like `names`, for files added after the manifest was written; used if
            the manifest lists the other files.
    """

    name: str
    names: re.Pattern[str]
    manifests: tuple[str, ...] = ()
    is_ours: Callable[[Any], bool] = lambda _: True
    later: re.Pattern[str] = field(default=re.compile(r"(?!)"))


def _format(name: str) -> Callable[[Any], bool]:
    return lambda value: value.get("format") == name


def _within(folder: str, names: str) -> str:
    """A pattern for a folder and its content."""
    return rf"{folder}/(?:{names})?"


_CHECKPOINT = (
    r"(?:model|scorer)\.json|(?:scorer\.safetensors|weights(?:\.safetensors)?)|rest\.npz"
    r"|model\.weights\.h5|\.model\.weights\.h5\.[a-z0-9_]{8}/(?:model\.weights\.h5)?"
    r"|model\.weights\.h5\.tables/(?:[^/]+-[0-9a-f]{16}\.safetensors|[^/]+\.part)?"
)
_MODEL = _CHECKPOINT + "|" + _within("two_tower", _CHECKPOINT)
_EVALUATED = (
    r"evaluation\.(?:json|arrow)"
    r"|tensorboard/(?:[\w.-]+/)*(?:events\.out\.tfevents\.[^/]+)?"
)
_RUN = (
    r"(?:run|recipe|schema|environment|trace)\.json|metrics\.jsonl"
    r"|vocabularies/(?:[^/]+\.arrow)?"
    f"|{_within('(?:retrieval|ranker)', _MODEL)}|{_EVALUATED}"
)
# Written by an append before it is finished.
_APPENDED = (
    r"dataset\.json|\.append\.lock|rejected(?:-\d+)?\.csv|events/(?:\d{5,}\.arrow)?"
    r"|(?:pending-)?(?:users|items)-\d+\.arrow|vocabularies-\d+/(?:[^/]+\.arrow)?"
    r"|spill(?:-\d+)?/(?:spill-\d+\.arrow)?"
)
# Older formats do not list their files.
_DATASET = (
    rf"{_APPENDED}|(?:train|validation|test)\.arrow"
    r"|(?:pending-)?(?:users|items)\.arrow|vocabularies/(?:[^/]+\.arrow)?"
)
_TRAINING = "|".join(
    [
        r"lock|state\.json",
        _within("run", _RUN),
        _within(r"e\d{5,}-b\d{6,}", _CHECKPOINT),
    ]
)
_TRIALS = "|".join(
    [
        _within(r"trial-\d{5}", _RUN),
        _within(r"\.trial-\d{5}\.training", _TRAINING),
    ]
)
_FOLD = "|".join(
    [
        _within("dataset", _DATASET),
        _within("run", _RUN),
        _within(r"\.run\.training", _TRAINING),
    ]
)
# The folders exist even if the model has no tables.
_BUNDLE = r"manifest\.json|(?:tables|vocabularies)/"
_FOLDS = r"(?:plan|cross_validation)\.json|" + _within(r"fold-\d+", _FOLD)

DATASET = Kind(
    name="a dataset",
    names=re.compile(_DATASET),
    manifests=("dataset.json",),
    is_ours=_format("shortlist-dataset"),
    later=re.compile(_APPENDED),
)
RUN = Kind(
    name="a run",
    names=re.compile(_RUN),
    manifests=("run.json",),
    is_ours=_format("shortlist-run"),
    later=re.compile(rf"run\.json|{_EVALUATED}"),
)
BUNDLE = Kind(
    name="a bundle",
    names=re.compile(_BUNDLE),
    manifests=("manifest.json",),
    is_ours=_format("shortlist-bundle"),
    later=re.compile(_BUNDLE),
)
CHECKPOINT = Kind(
    name="a checkpoint",
    names=re.compile(_MODEL),
    manifests=("model.json", "scorer.json"),
)
TRAINING = Kind(name="an unfinished training", names=re.compile(_TRAINING))
TRIAL = Kind(name="the trials of a search", names=re.compile(_TRIALS))
FAILURE = Kind(
    name="the record of a training",
    names=re.compile(r"(?:failure|recipe)\.json"),
    manifests=("failure.json",),
    is_ours=lambda value: {"created_at", "state", "backend"} <= value.keys(),
    later=re.compile(r"failure\.json"),
)
FOLDS = Kind(
    name="a cross-validation",
    names=re.compile(_FOLDS),
    manifests=("plan.json",),
    is_ours=lambda value: value.keys() == {"folds", "recipe"},
)


def of_files(name: str, *files: str) -> Kind:
    """The kind of a directory that contains only these files."""
    return Kind(name=name, names=re.compile("|".join(map(re.escape, files))))


@dataclass(frozen=True)
class Contents:
    """Relative paths of all files in a directory; folders end with a slash."""

    ours: list[str]
    foreign: list[str]


def contents_of(folder: Path, kind: Kind) -> Contents | None:
    """Divides the contents of a directory; `None` if it is not of this kind."""
    listed: set[str] = set()
    if kind.manifests:
        values = [_manifest(folder / name) for name in kind.manifests]
        found = [value for value in values if value is not None and kind.is_ours(value)]
        if not found:
            return None
        listed = _listed(found[0])
    pattern = kind.later if listed else kind.names
    folders = {f"{parent}/" for name in listed for parent in _parents(name)}
    ours: list[str] = []
    foreign: list[str] = []
    for name in _walk(folder):
        known = name in listed or name in folders or pattern.fullmatch(_plain(name))
        (ours if known else foreign).append(name)
    # A folder that is not empty is represented by its content.
    last = [n for n in foreign if not (n.endswith("/") and _is_parent(n, foreign))]
    return Contents(ours, last)


def check_place(path: Path) -> None:
    """Checks that an output directory may be at this path.

    Raises:
        InputError: `output-place`: it is or contains the home or the current directory,
            or it is the root or a mount point.
    """
    place = Path(os.path.realpath(path))
    reasons = {"the home directory": Path.home, "the current directory": Path.cwd}
    for name, where in reasons.items():
        with contextlib.suppress(OSError, RuntimeError):  # it does not exist
            if where().resolve().is_relative_to(place):
                raise refused_place(path, f"it is or contains {name}")
    if place == Path(place.anchor):
        raise refused_place(path, "it is the root directory")
    if _is_mount(place):
        raise refused_place(path, MOUNTED)


MOUNTED = "it is a mount point, which cannot be replaced in one step"


def refused_place(path: object, reason: str) -> InputError:
    """The error for an output path that cannot be used."""
    return InputError(
        "output-place",
        f"{str(path)!r} cannot be an output: {reason}. Nothing was changed."
        " Choose another path, such as a new folder inside it.",
        file=path,
    )


def _is_mount(place: Path) -> bool:
    if os.path.ismount(place):
        return True
    # A folder that is mounted from the same disk appears only in this list.
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
        mounted = {re.sub(rb"\\(\d{3})", _octal, line.split()[4]) for line in lines}
        return os.fsencode(place) in mounted
    return False


def _octal(found: re.Match[bytes]) -> bytes:
    return bytes([int(found[1], 8)])


def check_replaceable(folder: Path, kind: Kind | None) -> None:
    """Checks that a directory contains only files that Shortlist wrote.

    Raises:
        InputError: `output-foreign`; the message names the first other files.
    """
    found = None if kind is None else contents_of(folder, kind)
    if found is None:
        what = "" if kind is None else f" that is not {kind.name}"
        if kind is not None and kind.manifests:
            what += f": its {' or '.join(kind.manifests)} is missing or not ours"
        advice = (
            "Choose another path, or remove the directory if it is a damaged output."
        )
        raise _foreign(folder, f"a directory{what}", advice)
    if found.foreign:
        shown = ", ".join(repr(name) for name in sorted(found.foreign)[:_SHOWN])
        more = len(found.foreign) - _SHOWN
        shown += f" and {more} more" if more > 0 else ""
        what = f"with files that Shortlist did not write: {shown}"
        raise _foreign(folder, what, "Move them elsewhere, or choose another path.")


def remove_ours(folder: Path, kind: Kind, *, keep: Collection[str] = ()) -> list[str]:
    """Removes the files that Shortlist wrote one by one, then the empty folders.

    Args:
        folder: a directory; nothing happens if it is missing or of another kind.
        kind: kind of the directory.
        keep: files and folders directly in it that stay.

    Returns: what is left, relative to `folder`; empty if the directory is gone.
    """
    found = contents_of(folder, kind) if folder.is_dir() else None
    if found is None:
        return list(_walk(folder)) if folder.is_dir() else []
    ours = [name for name in found.ours if name.partition("/")[0] not in keep]
    # The manifest is removed last: it says what the other files are.
    for name in sorted(ours, key=lambda name: (name in kind.manifests, name)):
        if not name.endswith("/"):
            with contextlib.suppress(OSError):  # it is reported as left
                (folder / name).unlink(missing_ok=True)
    for name in sorted((n for n in ours if n.endswith("/")), reverse=True):
        with contextlib.suppress(OSError):  # it contains other files
            (folder / name).rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()
    return list(_walk(folder)) if folder.is_dir() else []


def is_temporary(name: str) -> bool:
    """Whether a name is that of a temporary file or folder of a writer."""
    return _TEMPORARY.fullmatch(name) is not None


def _foreign(folder: Path, found: str, advice: str) -> InputError:
    return InputError(
        "output-foreign",
        f"--overwrite only replaces what Shortlist wrote. Found {str(folder)!r},"
        f" {found}. Nothing was changed. {advice}",
        file=folder,
    )


def _manifest(file: Path) -> dict[str, Any] | None:
    """The JSON object in a regular file, or `None`."""
    try:
        if file.is_symlink() or not file.is_file():
            return None
        if file.stat().st_size > _MANIFEST_BYTES:
            return None
        value = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _listed(manifest: dict[str, Any]) -> set[str]:
    """The paths under `files`: the keys of an object, or a list."""
    files = manifest.get("files")
    if isinstance(files, dict | list):
        return {name for name in files if isinstance(name, str)}
    return set()


def _parents(name: str) -> Iterator[str]:
    """The folders of a path, without the path itself."""
    *folders, _ = name.split("/")
    for depth in range(1, len(folders) + 1):
        yield "/".join(folders[:depth])


def _is_parent(folder: str, names: list[str]) -> bool:
    return any(name != folder and name.startswith(folder) for name in names)


def _plain(name: str) -> str:
    """A path without the prefixes and suffixes of temporary names."""
    parts = []
    for part in name.split("/"):
        found = _TEMPORARY.fullmatch(part)
        parts.append((found["file"] or found["folder"]) if found else part)
    return "/".join(parts)


def _walk(folder: Path) -> Iterator[str]:
    """All paths below a directory; links are not followed."""

    def refuse(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=refuse):
        at = Path(place).relative_to(folder)
        for name in folders:
            is_link = (Path(place) / name).is_symlink()
            yield (at / name).as_posix() + ("" if is_link else "/")
        for name in files:
            yield (at / name).as_posix()

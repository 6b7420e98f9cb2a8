"""Files that appends leave in the folder of a dataset and that are not part of it.

The tables of the previous generation stay until the next append, for processes that
opened the dataset before. Only files named as `prepare` and `append` name them are
removed.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from shortlist.data.store.checksums import FileSum
from shortlist.data.store.dataset_info import DatasetInfo

_SEGMENT = re.compile(r"events/\d{5,}\.arrow")
_OF_GENERATION = re.compile(
    r"(?:pending-)?(?:users|items)-(\d+)\.arrow"
    r"|vocabularies-(\d+)/[^/]+\.arrow"
)
_REJECTED = re.compile(r"rejected-(\d+)\.csv")
_TEMPORARY = re.compile(
    r"\.(?:dataset\.json|rejected-\d+\.csv)\.(?:\d+|[0-9a-f]{8})\.tmp"
    r"|vocabularies-\d+/\.[^/]+\.arrow\.(?:\d+|[0-9a-f]{8})\.tmp"
    r"|spill-\d+/spill-\d+\.arrow"
)
_FOLDER = re.compile(r"(?:vocabularies|spill)-\d+")


def remove_stale_files(folder: Path, info: DatasetInfo) -> None:
    """Removes files of an interrupted append, and those replaced by the last but one.

    Args:
        folder: folder of the dataset.
        info: its description; files that it names are kept.
    """
    named = {*info.named_files, *(segment.file for segment in info.segments)}
    for file in (*folder.glob("*"), *folder.glob("*/*")):
        name = file.relative_to(folder).as_posix()
        if name in named or not file.is_file():
            continue
        if _is_stale(name, info.generation):
            file.unlink()
    for place in folder.iterdir():
        if _FOLDER.fullmatch(place.name):
            with contextlib.suppress(OSError):  # not empty, or no folder
                place.rmdir()


def kept_files(info: DatasetInfo, generation: int) -> dict[str, FileSum]:
    """The listed files that are kept by an append.

    Args:
        info: description of the dataset before.
        generation: of the dataset after.
    """
    segments = {segment.file for segment in info.segments}
    return {
        name: recorded
        for name, recorded in info.files.items()
        if name in segments or not _is_stale(name, generation)
    }


def _is_stale(name: str, generation: int) -> bool:
    """Whether a file without a reference was written by an append and can be removed.

    Args:
        name: its path in the dataset.
        generation: of the dataset.
    """
    if found := _REJECTED.fullmatch(name):
        return int(found[1]) > generation
    if found := _OF_GENERATION.fullmatch(name):
        return not generation - 1 <= int(found[1] or found[2]) <= generation
    return any(pattern.fullmatch(name) for pattern in (_SEGMENT, _TEMPORARY))

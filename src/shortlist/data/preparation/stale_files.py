"""What appends leave in a dataset's folder that is no longer, or never became, its own.

The tables of the generation before stay until the next append: whoever opened the
dataset before the last one goes on reading them.
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
    """Removes what an interrupted append left, and what the last but one replaced.

    Args:
        folder: the dataset's.
        info: what it is; whatever this names stays.
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
            with contextlib.suppress(OSError):  # it is not empty, or no folder
                place.rmdir()


def kept_files(info: DatasetInfo, generation: int) -> dict[str, FileSum]:
    """The listed files that are still there after an append.

    Args:
        info: what the dataset was before.
        generation: what it becomes.
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
        generation: the dataset's.
    """
    if found := _REJECTED.fullmatch(name):
        return int(found[1]) > generation
    if found := _OF_GENERATION.fullmatch(name):
        return not generation - 1 <= int(found[1] or found[2]) <= generation
    return any(pattern.fullmatch(name) for pattern in (_SEGMENT, _TEMPORARY))

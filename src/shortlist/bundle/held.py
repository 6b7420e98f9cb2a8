"""Reads the files of a bundle once, so that the checked bytes are those in use.

A program that writes to a mapped file changes answers, and one that truncates it kills
the process (SIGBUS). So files are copied while memory lasts, and a larger file is
mapped only if nobody else may write to it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from shortlist.bundle.manifest import FileEntry
from shortlist.embeddings.table import available_bytes
from shortlist.errors import ArtifactError

_CACHE_LINE = 64
_CHUNK_BYTES = 2**24


def hold_files(
    root: Path,
    entries: Mapping[str, FileEntry],
    *,
    verify: bool,
    memory_bytes: int | None = None,
) -> dict[str, np.ndarray]:
    """Reads every file of a bundle.

    Args:
        root: directory of the bundle.
        entries: sizes and SHA-256 of the files, by relative path.
        verify: compare the SHA-256 of what was read, not only the size.
        memory_bytes: most bytes to copy; half of the free memory by default.

    Returns:
        The bytes of each file, read-only, aligned to a cache line.

    Raises:
        ArtifactError: a file differs from the manifest (`bundle-corrupt`), cannot be
            read (`bundle-unreadable`), or is too large to copy and others may write to
            it (`bundle-writable`).
    """
    if memory_bytes is None:
        free = available_bytes()
        memory_bytes = 2**63 if free is None else free // 2
    held = {}
    # Small files first, so that the large ones are mapped.
    for name in sorted(entries, key=lambda name: entries[name].bytes):
        path, entry = root / name, entries[name]
        held[name] = _hold(path, entry, is_copied=entry.bytes <= memory_bytes)
        memory_bytes -= entry.bytes
        if verify:
            found = hashlib.sha256(held[name].data).hexdigest()
            if found != entry.sha256:
                raise _corrupt(
                    path, f"SHA-256 {entry.sha256[:12]}…", f"SHA-256 {found[:12]}…"
                )
    return held


def _hold(path: Path, entry: FileEntry, *, is_copied: bool) -> np.ndarray:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ArtifactError(
            "bundle-unreadable",
            f"The file {path.name!r} of the bundle cannot be opened: {error.strerror}."
            " Copy or export the bundle again.",
            file=path,
        ) from error
    with open(descriptor, "rb", buffering=0) as file:
        found = os.fstat(descriptor)
        if found.st_size != entry.bytes or not stat.S_ISREG(found.st_mode):
            raise _corrupt(path, f"{entry.bytes} bytes", f"{found.st_size} bytes")
        if entry.bytes == 0:
            return np.empty(0, np.uint8)
        if not is_copied:
            _check_private(path, found)
            return np.memmap(file, np.uint8, "r").view(np.ndarray)
        data = _aligned(entry.bytes)
        view, read = data.data, 0
        while read < entry.bytes:
            size = file.readinto(view[read : read + _CHUNK_BYTES])
            if not size:
                raise _corrupt(path, f"{entry.bytes} bytes", f"{read} bytes")
            read += size
    data.flags.writeable = False
    return data


def _aligned(size: int) -> np.ndarray:
    room = np.empty(size + _CACHE_LINE, np.uint8)
    begin = -room.ctypes.data % _CACHE_LINE
    return room[begin : begin + size]


def _check_private(path: Path, found: os.stat_result) -> None:
    is_foreign = found.st_uid not in (0, os.geteuid())
    if is_foreign or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ArtifactError(
            "bundle-writable",
            f"The file {path.name!r} is too large to be copied into memory, so only its"
            " owner, you or root, may be allowed to write to it: writing changes"
            f" answers. Found mode {found.st_mode & 0o777:o} of user {found.st_uid}."
            " Run chmod go-w on it, and write a new bundle to another directory.",
            file=path,
        )


def _corrupt(path: Path, expected: str, found: str) -> ArtifactError:
    return ArtifactError(
        "bundle-corrupt",
        f"The file {path.name!r} differs from the manifest, which lists {expected}."
        f" Found {found}. Copy or export the bundle again.",
        file=path,
    )

"""How many processors this process may use.

A container limits them in two ways: by the set of processors that a process may run on
(its affinity), and by the share of time that its control group may take (`cpu.max`).
"""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")


@functools.cache
def usable_processors() -> int:
    """The processors that this process may keep busy, at least 1.

    A control group that may take 1.5 processors counts as 2. Asked of the system once.
    """
    limits = [allowed_processors()]
    if (quota := group_quota()) is not None:
        limits.append(max(1, math.ceil(quota)))
    return min(limits)


def allowed_processors() -> int:
    """The processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def group_quota(
    process: Path = Path("/proc/self/cgroup"), groups: Path = _GROUPS
) -> float | None:
    """The processors that the control group may take; `None` without a limit.

    Args:
        process: the file that names the groups of this process.
        groups: where control groups are mounted, of version 2 or 1.
    """
    quotas = []
    for folder in _folders(process, groups):
        if (text := _read(folder / "cpu.max")) is not None:  # version 2
            limit, _, period = text.partition(" ")
        else:
            limit = _read(folder / "cpu.cfs_quota_us") or "-1"
            period = _read(folder / "cpu.cfs_period_us") or ""
        if limit.isdigit() and period.isdigit() and int(limit) and int(period):
            quotas.append(int(limit) / int(period))
    return min(quotas, default=None)


def _folders(process: Path, groups: Path) -> list[Path]:
    """The groups of this process that may limit it, with those around them."""
    folders = []
    for line in (_read(process) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount = groups
        elif "cpu" in controllers.split(","):
            mount = groups / "cpu"
        else:
            continue
        # In a container the group may be mounted as the root itself.
        folder = mount / path.lstrip("/")
        while folder != mount.parent and folder.is_relative_to(mount):
            folders.append(folder)
            folder = folder.parent
    return folders


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None

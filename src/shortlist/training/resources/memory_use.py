"""How much memory this process uses, used at most, and could still have.

Asks the Linux kernel; elsewhere the answer is `None`. Knows nothing of training.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from shortlist.embeddings.table import available_bytes

PROCESS = Path("/proc/self")
# Limit, use and statistics of a container, and the name of what can be dropped there:
# control groups of version 2, then of version 1.
GROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


class MemoryUse(NamedTuple):
    """Bytes of the process now, at most since `forget_peak`, and free beside them."""

    used: int
    peak: int
    free: int


def memory_use(groups: Path = Path("/sys/fs/cgroup")) -> MemoryUse | None:
    """The memory of this process; `None` where the system does not say."""
    free = available_bytes()
    try:
        lines = (PROCESS / "status").read_text().splitlines()
    except OSError:
        return None
    told = dict(line.split(":", 1) for line in lines if ":" in line)
    if free is None or not {"VmRSS", "VmHWM"} <= told.keys():
        return None
    used, peak = (1024 * int(told[name].split()[0]) for name in ("VmRSS", "VmHWM"))
    for names in GROUPS:
        if (left := _left_of_group(groups, *names)) is not None:
            free = min(free, left)
    return MemoryUse(used, peak, free)


def forget_peak() -> None:
    """Makes the peak that of what comes from now on, where the system can."""
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError:
        return


def _left_of_group(
    folder: Path, limit: str, usage: str, statistics: str, droppable: str
) -> int | None:
    """What a container may still take; files that it has read can be dropped."""
    try:
        most = (folder / limit).read_text().strip()
        if most == "max":
            return None
        used = int((folder / usage).read_text())
        pairs = (line.split() for line in (folder / statistics).read_text().split("\n"))
        cached = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
        return int(most) - used + cached.get(droppable, 0)
    except (OSError, ValueError):
        return None

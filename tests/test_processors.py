from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shortlist.processors import group_quota, usable_processors


def groups(folder: Path, process: str, files: dict[str, str]) -> tuple[Path, Path]:
    """The file that names the groups of a process, and where groups are mounted."""
    for name, text in files.items():
        file = folder / "groups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "process").write_text(process)
    return folder / "process", folder / "groups"


@pytest.mark.parametrize(
    ("process", "files", "quota"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n"}, None),
        # The group around it has the tighter limit.
        (
            "0::/a/b\n",
            {"a/cpu.max": "50000 100000", "a/b/cpu.max": "200000 100000"},
            0.5,
        ),
        # A container sees its own group as the root.
        ("0::/\n", {"cpu.max": "300000 100000"}, 3.0),
        ("0::/../other\n", {"cpu.max": "200000 100000"}, 2.0),
        (
            "4:cpu,cpuacct:/x\n1:name=systemd:/\n",
            {"cpu/x/cpu.cfs_quota_us": "25000", "cpu/x/cpu.cfs_period_us": "100000"},
            0.25,
        ),
        (
            "4:cpu:/x\n",
            {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"},
            None,
        ),
        ("0::/a\n", {"a/cpu.max": "0 100000"}, None),
        ("0::/a\n", {"a/cpu.max": "what"}, None),
        ("", {}, None),
    ],
)
def test_the_quota_of_the_group_and_those_around_it(
    tmp_path: Path, process: str, files: dict[str, str], quota: float | None
) -> None:
    assert group_quota(*groups(tmp_path, process, files)) == quota


def test_a_machine_without_groups_has_no_quota(tmp_path: Path) -> None:
    assert group_quota(tmp_path / "none", tmp_path / "neither") is None


@pytest.mark.parametrize("count", [1, 2])
def test_a_process_uses_the_processors_it_may_run_on(count: int) -> None:
    allowed = sorted(os.sched_getaffinity(0))[:count]
    code = (
        f"import os; os.sched_setaffinity(0, {allowed})\n"
        "from shortlist.native import default_threads\n"
        "print(default_threads())"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == min(len(allowed), usable_processors())

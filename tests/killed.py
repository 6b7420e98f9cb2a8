"""Runs of Python that are killed (`kill -9`) or run out of room at a chosen call.

A point is `module:name` and the number of the call before, or after, which the process
kills itself: nothing is left to chance or to a clock.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

WRAPPER = """
import functools, importlib, os, resource, signal, sys

point, when, number, limit, command = sys.argv[1:6]
if point:
    module, _, path = point.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    call, calls = getattr(owner, name), 0

    @functools.wraps(call)
    def counted(*args, **kwargs):
        global calls
        calls += 1
        last = calls == int(number)
        if last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*args, **kwargs)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, counted)
from shortlist.data.read import blocks as events
events.BLOCK_ROWS = 1 << 14
if limit:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), hard))
exec(command)
"""


def run_python(
    command: str,
    *arguments: str | Path,
    point: str = "",
    when: str = "before",
    number: int = 1,
    largest_file: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a command whose `sys.argv[6:]` are `arguments`, in small blocks.

    Args:
        command: Python statements.
        arguments: of the command.
        point: the function at whose call the process kills itself; none by default.
        when: `before` that call or `after` it.
        number: which call of it, from 1.
        largest_file: most bytes a file may have.
    """
    limit = "" if largest_file is None else str(largest_file)
    given = [point, when, str(number), limit, command, *map(str, arguments)]
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", WRAPPER, *given],
        capture_output=True,
        text=True,
        timeout=300,
    )


def run_killed(command: str, *arguments: str | Path, **point: str | int) -> None:
    """`run_python` that must end by the kill."""
    done = run_python(command, *arguments, **point)  # type: ignore[arg-type]
    assert done.returncode == -signal.SIGKILL, (point, done.returncode, done.stderr)


def dead_process() -> int:
    """The number of a process that is gone."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid

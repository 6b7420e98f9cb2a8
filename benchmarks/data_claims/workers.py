"""Sides of a measurement, each an object in a process of its own, asked over a pipe.

Processors, thread limits, peak memory and loaded libraries belong to a process. A
worker is told its processors before it imports anything that counts them.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

BENCHMARKS = Path(__file__).resolve().parent.parent
BUILD = BENCHMARKS.parent / "build"
DATA = BUILD / "bench-data"  # logs and rows: made once, used again

Figure = TypeVar("Figure")


class Worker:
    """An object of class `made` of `data_claims.<module>`, made in a new process.

    Args:
        module: module of this package.
        made: name of the class.
        processors: processors it may run on; all of this process by default.
        arguments: of the class, as JSON carries them.
    """

    def __init__(
        self,
        module: str,
        made: str,
        *,
        processors: int | None = None,
        **arguments: Any,
    ) -> None:
        environment = {
            **os.environ,
            "KERAS_BACKEND": "jax",
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }
        command = [sys.executable, "-m", "data_claims.workers", module]
        if processors is not None:
            environment["POLARS_MAX_THREADS"] = str(processors)
            command.append(str(processors))
        self._process = subprocess.Popen(
            command,
            cwd=BENCHMARKS,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        # Not waited for: the workers of several sides get ready at the same time.
        self._send(made, arguments)
        self._ready = False

    def ask(self, do: str, **arguments: Any) -> Any:
        """What the object's method `do` returns, as JSON carries it.

        Raises:
            RuntimeError: the process ended; its own error is on stderr.
        """
        if not self._ready:
            self._receive()
            self._ready = True
        self._send(do, arguments)
        return self._receive()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _send(self, do: str, arguments: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()

    def _receive(self) -> Any:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"a worker stopped: {self._process.args!r}")
        return json.loads(answer)


def in_turns(
    sides: Mapping[str, Callable[[], Figure]], *, repeats: int
) -> dict[str, list[Figure]]:
    """The figures that each side reports, called in turns.

    The order is reversed every other round, so that neither side always goes first.
    """
    figures: dict[str, list[Figure]] = {name: [] for name in sides}
    for round_number in range(repeats):
        names = list(sides)
        for name in names if round_number % 2 == 0 else reversed(names):
            figures[name].append(sides[name]())
    return figures


def peak_bytes() -> int:
    """Most resident memory of this process so far.

    Not `ru_maxrss`: that survives `exec`, so a worker would begin with its parent's.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if "VmHWM" in line)


def _serve(module: str, processors: int | None) -> None:
    """The other side of `Worker`: answers until the pipe is closed."""
    if processors is not None:
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[:processors])
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    owner: Any = importlib.import_module(f"data_claims.{module}")
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(owner, request.pop("do"))(**request)
        if not isinstance(answer, dict | list | str | int | float | None):
            owner, answer = answer, None  # the first request makes the object
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None)

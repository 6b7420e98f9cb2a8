"""Functions of a module, called in a process of their own.

A backend of Keras is chosen once per process, and peak memory is a process's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent
BUILD = BENCHMARKS.parent / "build"


def call(module: str, function: str, backend: str = "jax", **arguments: Any) -> Any:
    """What `function` of `module`, with its package, returns, as JSON carries it."""
    request = json.dumps({"function": function, "arguments": arguments})
    done = subprocess.run(
        [sys.executable, "-m", module, request],
        cwd=BENCHMARKS,
        env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def serve(*functions: Callable[..., Any]) -> None:
    """The other side of `call`: answers the request on the command line."""
    request = json.loads(sys.argv[1])
    by_name = {function.__name__: function for function in functions}
    print(json.dumps(by_name[request["function"]](**request["arguments"])))

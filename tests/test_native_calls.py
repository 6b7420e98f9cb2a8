"""Wrong calls of the compiled core are exceptions, not crashes.

They run in a process of their own: a crash there is one failed test here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from table_cases import needs_core
from wrong_calls import CASES

ERRORS = {"ValueError", "IndexError", "TypeError", "BufferError"}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str | None]:
    script = Path(__file__).with_name("wrong_calls.py")
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=120
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (lines[-1:], done.stderr)
    return dict(lines)


@needs_core
@pytest.mark.parametrize("name", CASES)
def test_a_wrong_call_is_an_exception(outcomes, name):
    assert outcomes[name] in ERRORS

"""The process of the `shortlist` command. Handles signals before it loads the rest."""

from __future__ import annotations

import os
import sys

from shortlist import interrupts


def main() -> None:
    """Runs the command line and exits with a documented code."""
    interrupts.install()
    # Before any backend is loaded: hides the start-up messages of TensorFlow.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    code = 1
    try:
        from shortlist.cli.app import run

        code = run(sys.argv[1:])
    except BaseException:
        if interrupts.received() is None:
            raise
    number = interrupts.received()
    if number is not None and code != 0:
        code = interrupts.exit_code(number)
    interrupts.leave(code)

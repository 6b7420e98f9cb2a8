"""Ctrl-C and SIGTERM: the process ends within seconds and with the right exit code.

Python runs a signal handler only between two of its own instructions. While the main
thread waits in compiled code (a training step, a compiler, a disk) nothing happens. So
a thread watches for signals too: if the main thread has not ended a few seconds after
the first one, or a second one comes, it ends the process. That is safe at any moment,
because everything on disk is replaced whole.

Only the command line installs this. Knows nothing of what is interrupted.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

GRACE_SECONDS = 5.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)

_is_installed = False
_received: int | None = None
_not_saving = threading.Event()
_not_saving.set()


def install() -> None:
    """Handles SIGINT and SIGTERM from now on; to be called once, by the main thread."""
    global _is_installed
    _is_installed = True
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in handled():
        signal.signal(number, _on_signal)
    sys.unraisablehook = _on_unraisable
    threading.Thread(
        target=_watch, args=(reading,), name="interrupts", daemon=True
    ).start()


def handled() -> list[signal.Signals]:
    """The signals that end the process: those that its parent did not turn off."""
    return [n for n in SIGNALS if signal.getsignal(n) != signal.SIG_IGN]


def received() -> int | None:
    """The number of the first signal that asked the process to end.

    `None` without one, and in a process that did not call `install`.
    """
    return _received


def note(number: int) -> None:
    """For other handlers of these signals: the process has been asked to end."""
    global _received
    if _is_installed and _received is None:
        _received = number


def exit_code(number: int) -> int:
    """The exit code of a process that a signal ended, as a shell reports it."""
    return 128 + number


def raise_for(number: int) -> NoReturn:
    """Raises what ends the process: `KeyboardInterrupt` or `SystemExit`."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(exit_code(number))


@contextlib.contextmanager
def saving() -> Iterator[None]:
    """While state is being saved, only a second signal ends the process at once."""
    _not_saving.clear()
    try:
        yield
    finally:
        _not_saving.set()


def leave(code: int) -> NoReturn:
    """Ends the process with an exit code.

    After an interruption or an error, threads of a backend may still be computing, and
    the end of the interpreter would pull memory from under them. Then the process ends
    without it.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the work is done
    if code == 0:
        sys.exit(0)
    _end(code)


def _on_signal(number: int, _: object) -> None:
    note(number)
    raise_for(number)


def _on_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Stays silent where a finalizer or a callback swallows what ends the process."""
    if unraisable.exc_type not in (KeyboardInterrupt, SystemExit):
        sys.__unraisablehook__(unraisable)


def _watch(reading: int) -> None:
    """Ends the process if its main thread does not."""
    number = _next(reading)
    threading.Thread(target=_end_late, args=(number,), daemon=True).start()
    _end(exit_code(_next(reading)), number)


def _end_late(number: int) -> None:
    time.sleep(GRACE_SECONDS)
    _not_saving.wait()
    _end(exit_code(number), number)


def _next(reading: int) -> int:
    while True:
        for number in os.read(reading, 1):
            if number in SIGNALS:
                return number


def _end(code: int, number: int | None = None) -> NoReturn:
    """Ends the process now."""
    if number is not None:
        word = "interrupted" if number == signal.SIGINT else "terminated"
        # Not through `sys.stderr`: the main thread may hold its lock.
        with contextlib.suppress(OSError):
            os.write(2, f"{word}\n".encode())
        os._exit(code)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)

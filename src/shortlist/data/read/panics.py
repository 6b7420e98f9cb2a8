"""Converts panics of Polars into `LogError`.

A panic of its Rust core is no `Exception` in Python, so `except Exception` misses it.
Rust also prints the panic to file descriptor 2. Polars has no setting against that, and
redirecting the descriptor would hide what other threads write meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from shortlist.errors import LogError


@contextlib.contextmanager
def panics_refused(file: str | Path) -> Iterator[None]:
    """Converts a panic of Polars into a `LogError`.

    Args:
        file: the file the values are of, or the first of several.

    Raises:
        LogError: `log-values-unreadable`.
    """
    try:
        yield
    except pl.exceptions.PanicException as error:
        reason = str(error).strip().splitlines() or ["no reason"]
        raise LogError(
            "log-values-unreadable",
            "Polars cannot process the values of the file. It stopped with:"
            f" {reason[0][:200]}. Look for values or lines that are far longer or"
            " larger than the others, and correct or remove them.",
            file=file,
        ) from error

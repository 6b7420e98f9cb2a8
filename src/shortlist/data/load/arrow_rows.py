"""The rows of flat Arrow files as training examples."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from shortlist.data.kernels.buffer_pool import BufferPool
from shortlist.data.load.examples import Batch
from shortlist.data.store.columns import Columns
from shortlist.errors import InputError

# Rows from which on the memory of a batch is worth reusing.
_LARGE_TAKE = 2**15


class ArrowRows:
    """The rows of flat Arrow IPC files, one file after the other.

    Args:
        files: the files, all with the same columns.
        columns: names of the columns of a batch; all columns by default.

    A batch contains the columns as `Columns.take` returns them.

    Raises:
        InputError: `invalid-loader` without files.
    """

    def __init__(
        self, files: Sequence[str | Path], columns: Sequence[str] | None = None
    ) -> None:
        self.files = [Path(file) for file in files]
        if not self.files:
            raise InputError(
                "invalid-loader",
                "`files` must name at least one Arrow file. Received: none.",
            )
        self._columns = Columns.open(self.files)
        self.columns = tuple(self._columns.names if columns is None else columns)
        self._pool = BufferPool()

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over the column names and the content of the files.

        The first access reads every file once.
        """
        digest = hashlib.blake2b(msgspec.json.encode(self.columns))
        for file in self.files:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "blake2b").digest())
        return digest.hexdigest()[:16]

    @property
    def draws(self) -> bool:
        """False: nothing is random."""
        return False

    def __len__(self) -> int:
        """Number of rows in all files."""
        return len(self._columns)

    def take(self, indices: np.ndarray, generator: np.random.Generator) -> Batch:
        """The columns of the rows at `indices`; `generator` is not used."""
        pool = self._pool if len(indices) >= _LARGE_TAKE else None
        return self._columns.take(indices, self.columns, pool=pool)

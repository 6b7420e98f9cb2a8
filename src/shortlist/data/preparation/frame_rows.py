"""Rows of a frame in any order, gathered by the core where they are numbers."""

from __future__ import annotations

import numpy as np
import polars as pl

from shortlist.data.store.columns import Columns

_NUMBERS = (pl.Int32, pl.Int64, pl.Float32)


class FrameRows:
    """Gathers rows of a frame without joining its chunks.

    A single chunk would need a copy of every column, and would read a memory-mapped
    frame into memory.

    Args:
        frame: without nulls.
    """

    def __init__(self, frame: pl.DataFrame) -> None:
        if len({tuple(map(len, c.get_chunks())) for c in frame.get_columns()}) > 1:
            frame = frame.rechunk()
        self.frame = frame
        numbers = [n for n, dtype in frame.schema.items() if dtype in _NUMBERS]
        self._numbers = Columns.from_chunks(
            {n: [c.to_numpy() for c in frame[n].get_chunks()] for n in numbers}
        )

    def take(self, rows: np.ndarray) -> pl.DataFrame:
        """The rows at `rows`, in that order."""
        taken = self._numbers.take(rows)
        columns = [
            pl.Series(name, taken[name])
            if name in taken
            else self.frame[name].gather(rows)
            for name in self.frame.columns
        ]
        return pl.DataFrame(columns)

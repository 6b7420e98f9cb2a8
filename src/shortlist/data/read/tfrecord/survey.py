"""Collects the column types of all records of some TFRecord files.

Whether a column is a list, text or a narrow integer is known only after the last
record, so files are read once for that, and again (or from memory) for the tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from shortlist.data.kernels.tfrecord_twin import (
    BYTES,
    FLOATS,
    INTEGERS,
    NO_KIND,
    RecordBlock,
    Values,
)
from shortlist.data.read.tfrecord.files import RecordReader
from shortlist.data.read.tfrecord.rows import RecordRows, check_rows_per_record
from shortlist.data.store.arrow import narrow_integer
from shortlist.errors import LogError


class Survey:
    """Iterate over `blocks()` to the end first; types are known only then.

    Args:
        paths: files with the same features.
        rows_per_record: as the caller gave it; see `rows.py`.
        columns: the features wanted, or `None` for all.

    Raises:
        LogError: no files (`log-empty`).
        InputError: `invalid-argument`.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        rows_per_record: int | None,
        columns: Sequence[str] | None,
    ) -> None:
        check_rows_per_record(rows_per_record)
        if not paths:
            raise LogError(
                "log-empty",
                "A log needs at least one file. Received none. Name its files.",
            )
        self._paths = paths
        self._columns = columns
        self._reader = RecordReader(columns)
        self._rows = RecordRows(rows_per_record)
        self._lows: list[int] = []
        self._highs: list[int] = []
        self._is_text: list[bool] = []

    def blocks(self) -> Iterator[RecordBlock]:
        """The records of all files, block after block, while their types are noted.

        Raises:
            LogError: as `RecordReader.blocks` and `RecordRows.add`.
        """
        for path in self._paths:
            self._rows.begin_file()
            for block in self._reader.blocks(path):
                self._note(block, path)
                yield block

    def complete(self) -> None:
        """Goes through all records."""
        for _ in self.blocks():
            pass

    def frames(self) -> Iterator[pl.DataFrame]:
        """The tables; reads the files again."""
        reader = RecordReader(self._columns)
        for path in self._paths:
            yield from map(self.frame, reader.blocks(path))

    def frame(self, block: RecordBlock) -> pl.DataFrame:
        """The rows of a block."""
        columns = {
            name: pl.Series(name, self._rows_of(place, block.columns[place]))
            for place, name in enumerate(self._reader.names)
        }
        return pl.DataFrame(columns)

    def flat_schema(self) -> pa.Schema:
        """The narrowest Arrow types that hold all rows."""
        return pa.schema(
            [
                (name, self._flat_type(place))
                for place, name in enumerate(self._reader.names)
            ]
        )

    def _note(self, block: RecordBlock, path: str | Path) -> None:
        names = self._reader.names
        if not self._is_text:
            self._lows, self._highs = [0] * len(names), [0] * len(names)
            self._is_text = [True] * len(names)
        self._rows.add(block, names, path)
        for place, column in enumerate(block.columns):
            if column.kind == INTEGERS and len(column.values):
                low, high = int(column.values.min()), int(column.values.max())
                self._lows[place] = min(self._lows[place], low)
                self._highs[place] = max(self._highs[place], high)
            elif column.kind == BYTES and self._is_text[place]:
                self._is_text[place] = _is_text(column)

    def _length(self, place: int) -> int | None:
        """Values in each row, `None` if rows differ."""
        if self._rows.widths is not None:
            return self._rows.widths[place]
        fewest, most = self._rows.fewest[place], self._rows.most[place]
        return int(most) if fewest == most else None

    def _flat_type(self, place: int) -> pa.DataType:
        kind = self._reader.kinds[place]
        if kind == FLOATS:
            value = pa.float32()
        elif kind == BYTES:
            value = pa.large_string() if self._is_text[place] else pa.large_binary()
        else:
            value = narrow_integer(self._lows[place], self._highs[place])
        length = self._length(place)
        if length == 1:
            return value
        return pa.list_(value, length) if length else pa.large_list(value)

    def _rows_of(self, place: int, column: Values) -> pa.Array:
        kind = self._reader.kinds[place]
        if kind == BYTES:
            values = _text(column, self._is_text[place])
        elif column.kind == NO_KIND:
            empty = np.float32 if kind == FLOATS else np.int64
            values = pa.array(np.zeros(0, empty))
        else:
            values = pa.array(column.values)
        length = self._length(place)
        if length == 1:
            return values
        if self._rows.widths is None:
            ends = np.cumsum(column.counts, dtype=np.int64)
            offsets = np.concatenate([np.zeros(1, np.int64), ends])
        else:
            offsets = np.arange(0, len(values) + 1, length, dtype=np.int64)
        return pa.LargeListArray.from_arrays(pa.array(offsets), values)


def _text(column: Values, is_text: bool) -> pa.Array:
    ends = np.zeros(0, np.int64) if column.ends is None else column.ends
    offsets = np.concatenate([np.zeros(1, np.int64), ends])
    return pa.Array.from_buffers(
        pa.large_string() if is_text else pa.large_binary(),
        len(ends),
        [None, pa.py_buffer(offsets), pa.py_buffer(column.values)],
    )


def _is_text(column: Values) -> bool:
    """Whether every value is UTF-8."""
    try:
        _text(column, True).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True

"""Segments: immutable Arrow files of events, in record batches of equal size.

Knows columns and bytes; knows nothing of datasets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pyarrow as pa

from shortlist.data.store.arrow import BATCH_ROWS, Compression
from shortlist.native import default_threads


def narrowest(num_rows: int) -> pl.DataType:
    """The narrowest integer type for rows `0..num_rows - 1` of a table."""
    narrow: tuple[tuple[pl.DataType, int], ...] = (
        (pl.UInt8(), 2**8),
        (pl.UInt16(), 2**16),
        (pl.Int32(), 2**31),
    )
    return next(dtype for dtype, limit in narrow if num_rows <= limit)


def write_segment(
    path: Path,
    num_rows: int,
    block: Callable[[int, int], pl.DataFrame],
    *,
    compression: Compression | None = None,
) -> None:
    """Writes an Arrow IPC file, block by block.

    Args:
        path: the file.
        num_rows: total number of rows.
        block: returns rows `begin` to `end` as a frame. Called in several threads for
            whole record batches, and once for no rows.
        compression: `zstd`, or none for a file that can be read in place.
    """
    options = pa.ipc.IpcWriteOptions(compression=compression, use_threads=True)
    schema = _table(block(0, 0)).schema
    with pa.OSFile(str(path), "wb") as sink:
        with pa.ipc.new_file(sink, schema, options=options) as writer:
            for frame in _ahead(num_rows, block):
                for batch in _table(frame).cast(schema).combine_chunks().to_batches():
                    writer.write_batch(batch)


def _ahead(
    num_rows: int, block: Callable[[int, int], pl.DataFrame]
) -> Iterator[pl.DataFrame]:
    """The blocks in order; the next ones are made while one is written."""
    threads = default_threads()
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[pl.DataFrame]] = deque()
        for begin in range(0, num_rows, BATCH_ROWS):
            pending.append(pool.submit(block, begin, min(begin + BATCH_ROWS, num_rows)))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _table(frame: pl.DataFrame) -> pa.Table:
    """A frame as Arrow, with 32-bit list offsets and types without nulls."""
    table = frame.to_arrow()
    fields = [pa.field(f.name, _small(f.type), nullable=False) for f in table.schema]
    return table.cast(pa.schema(fields))


def _small(dtype: pa.DataType) -> pa.DataType:
    if pa.types.is_large_list(dtype):
        return pa.list_(pa.field("item", dtype.value_type, nullable=False))
    return dtype

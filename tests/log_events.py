"""A log read into one frame, for tests."""

from __future__ import annotations

import polars as pl

from shortlist.data.read.blocks import ReadAgain, ReadState, read_blocks
from shortlist.data.read.file_format import FileFormat
from shortlist.data.read.inputs import Paths
from shortlist.data.schema import Schema


def read_events(
    paths: Paths,
    schema: Schema,
    *,
    layout: str | FileFormat | None = None,
    now_ms: int | None = None,
) -> pl.DataFrame:
    """The columns of `Block.events`, duplicates included, in file order."""
    reading = ReadState()
    while True:
        try:
            blocks = read_blocks(paths, schema, reading, layout=layout, now_ms=now_ms)
            return pl.concat([block.events for block in blocks])
        except ReadAgain:
            reading.kinds.clear()

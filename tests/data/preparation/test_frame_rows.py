"""Rows of frames against Polars, and that their chunks are read in place."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortlist.data.kernels import gather
from shortlist.data.preparation.frame_rows import FrameRows


def frame_of(first: int, size: int) -> pl.DataFrame:
    values = np.arange(first, first + size)
    lists = [[v] * (v % 3) for v in values.tolist()]
    return pl.DataFrame(
        {
            "code": values.astype(np.int32),
            "time": values * 10**12,
            "label": (values / 7).astype(np.float32),
            "part": (values % 3).astype(np.int8),
            "tags": pl.Series(lists, dtype=pl.List(pl.Int32)),
        }
    )


def chunked(sizes: list[int]) -> pl.DataFrame:
    begins = np.concatenate([[0], np.cumsum(sizes)])[:-1].tolist()
    frames = [frame_of(b, n) for b, n in zip(begins, sizes, strict=True)]
    return pl.concat(frames, rechunk=False)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.data())
def test_rows_are_those_that_polars_gives(sizes, data):
    frame, total = chunked(sizes), sum(sizes)
    some = st.lists(st.integers(0, max(total - 1, 0)), max_size=12 if total else 0)
    rows = np.array(data.draw(some), np.int64)
    assert FrameRows(frame).take(rows).equals(frame.rechunk()[rows.tolist()])


def test_columns_of_other_chunks_are_rows_of_one_frame():
    frame = chunked([3, 4]).with_columns(pl.Series("other", np.arange(7)))
    found = FrameRows(frame).take(np.array([6, 2, 3]))
    assert found["other"].to_list() == found["code"].to_list() == [6, 2, 3]


def test_no_chunk_is_copied():
    frame = chunked([30, 40, 50])
    chunks = [chunk.to_numpy() for chunk in frame["time"].get_chunks()]
    (stored,) = (FrameRows(frame)._numbers._stored["time"],)
    assert len(stored) == 3
    for mine, theirs in zip(stored, chunks, strict=True):
        assert np.shares_memory(mine, theirs)


def test_a_chunk_longer_than_the_core_counts_is_cut(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gather, "MOST_ROWS_OF_CHUNK", 4)
    frame = chunked([10, 3])
    rows = np.array([12, 0, 9, 4, 3])
    assert FrameRows(frame).take(rows).equals(frame.rechunk()[rows.tolist()])

"""Memory that comes back when nothing refers to it."""

from __future__ import annotations

import gc

import numpy as np

from shortlist.data.kernels.buffer_pool import BufferPool


def test_a_piece_comes_back_when_its_last_view_is_gone() -> None:
    pool = BufferPool()
    first = pool.get(1_000)
    first[:] = 7
    address = first.ctypes.data
    view = first[100:200].view(np.int32).reshape(5, 5)
    part = np.split(view, [2])[1]
    del first, view
    gc.collect()
    other = pool.get(1_000)
    other[:] = 1
    assert other.ctypes.data != address
    assert part.tolist() == [[0x07070707] * 5] * 3
    del part
    gc.collect()
    assert pool.get(900).ctypes.data == address


def test_a_larger_piece_is_made_anew_and_kept_in_place_of_a_smaller_one() -> None:
    pool = BufferPool()
    pool.get(10)
    gc.collect()
    large = pool.get(10_000)
    address = large.ctypes.data
    assert large.shape == (10_000,) and large.dtype == np.uint8
    del large
    gc.collect()
    assert pool.get(10_000).ctypes.data == address

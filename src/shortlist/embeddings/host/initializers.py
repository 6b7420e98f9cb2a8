"""Initializes a host table block by block, without a second copy of it.

The common initializers of Keras are computed with NumPy, in parallel and reproducibly.
Any other initializer is called once for the whole table.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from shortlist.embeddings.table import Table
from shortlist.native import default_threads

_BLOCK_VALUES = 2**20
# Standard deviation of a standard normal cut at 2, by which Keras corrects.
_TRUNCATED_STDDEV = 0.87962566103423978

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def initialize(table: Table, initializer: Any) -> None:
    """Sets the rows of `table`.

    The values depend on the initializer, its seed, the name of the table and its shape,
    not on the number of threads.
    """
    if isinstance(initializer, keras.initializers.Zeros):
        return
    draw = _drawn_by_numpy(initializer, table.num_rows, table.dim)
    if draw is None:
        values = initializer((table.num_rows, table.dim), "float32")
        whole = keras.ops.convert_to_numpy(values)
        table.fill(lambda first, last: whole[first:last])
        return
    seed = getattr(initializer, "seed", 0)
    # One initializer object is often shared by many tables.
    seeds = [int(seed) % 2**64, zlib.crc32(table.name.encode())]
    block = max(1, _BLOCK_VALUES // table.dim)

    def fill(first: int) -> None:
        generator = np.random.Generator(np.random.Philox([*seeds, first // block]))
        last = min(first + block, table.num_rows)
        table.set_rows(first, draw(generator, (last - first, table.dim)))

    with ThreadPoolExecutor(default_threads()) as pool:
        list(pool.map(fill, range(0, table.num_rows, block)))


def _drawn_by_numpy(initializer: Any, num_rows: int, dim: int) -> Draw | None:
    kinds = keras.initializers
    if not isinstance(getattr(initializer, "seed", 0), int):
        return None
    if type(initializer) is kinds.Ones:
        return _constant(1.0)
    if type(initializer) is kinds.Constant and np.ndim(initializer.value) == 0:
        return _constant(float(initializer.value))
    if type(initializer) is kinds.RandomUniform:
        return _uniform(initializer.minval, initializer.maxval)
    if type(initializer) is kinds.RandomNormal:
        return _normal(initializer.mean, initializer.stddev)
    if type(initializer) is kinds.TruncatedNormal:
        return _truncated(initializer.mean, initializer.stddev)
    if isinstance(initializer, kinds.VarianceScaling):
        fans = {
            "fan_in": num_rows,
            "fan_out": dim,
            "fan_avg": (num_rows + dim) / 2,
        }
        if initializer.mode not in fans:
            return None
        variance = initializer.scale / max(1.0, fans[initializer.mode])
        if initializer.distribution == "uniform":
            return _uniform(-((3 * variance) ** 0.5), (3 * variance) ** 0.5)
        if initializer.distribution == "truncated_normal":
            return _truncated(0.0, variance**0.5 / _TRUNCATED_STDDEV)
        return _normal(0.0, variance**0.5)
    return None


def _constant(value: float) -> Draw:
    return lambda generator, shape: np.full(shape, value, np.float32)


def _uniform(low: float, high: float) -> Draw:
    def draw(generator: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        values = generator.random(shape, np.float32)
        values *= np.float32(high - low)
        values += np.float32(low)
        return values

    return draw


def _normal(mean: float, stddev: float) -> Draw:
    def draw(generator: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        values = generator.standard_normal(shape, np.float32)
        return values * np.float32(stddev) + np.float32(mean)

    return draw


def _truncated(mean: float, stddev: float) -> Draw:
    def draw(generator: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        values = generator.standard_normal(shape, np.float32)
        outside = np.abs(values) > 2
        while outside.any():
            values[outside] = generator.standard_normal(int(outside.sum()), np.float32)
            outside = np.abs(values) > 2
        return values * np.float32(stddev) + np.float32(mean)

    return draw

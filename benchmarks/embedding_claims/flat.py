"""Speed of lookups and updates against the size of the table, and a gather loop."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from embedding_claims.tbe import DIM, LEARNING_RATE, filled_table
from harness import Claim, against_rival, interleaved, within_limit
from shortlist.embeddings.host import kernels
from shortlist.embeddings.table import Bags, Gradients, Table
from workers import BENCHMARKS, BUILD

IDS = 26 * 8192
SETS = 8  # of ids, taken in turns
DISTANCES = (0, 2, 4, 8, 16, 32, 64)


def flat(quick: bool) -> Iterator[Claim]:
    """A table ten times as large takes about as long."""
    small, large = (10_000, 100_000) if quick else (1_000_000, 10_000_000)
    count, steps, repeats = (1000, 2, 2) if quick else (IDS, 10, 11)
    seconds = interleaved(
        {
            str(rows): _Steps(rows, count, steps).lookup_and_update
            for rows in (small, large)
        },
        repeats=repeats,
    )
    milliseconds = {rows: each * 1e3 / steps for rows, each in seconds.items()}
    yield within_limit(
        "kernel-flat",
        f"time of lookup and update of {count:,} uniform ids, row-wise Adagrad:"
        f" {large:,} x {DIM} ({milliseconds[str(large)]:.2f} ms) over {small:,} x {DIM}"
        f" ({milliseconds[str(small)]:.2f} ms)",
        ours=milliseconds[str(large)] / milliseconds[str(small)],
        unit="times",
        limit=1.25,
    )


def gather(quick: bool) -> Iterator[Claim]:
    """Lookups against the best of the gather loops over a copy of the rows."""
    rows = 100_000 if quick else 10_000_000
    count, steps, repeats = (1000, 2, 2) if quick else (IDS, 10, 11)
    ours = _Steps(rows, count, steps)
    ceiling = _Ceiling(ours.table, ours.ids, steps)
    ours.lookups(1)
    ceiling.gathers(1, distance=DISTANCES[-1])
    np.testing.assert_array_equal(ours.out[0], ceiling.out)
    seconds = interleaved(
        {
            "ours": ours.lookups,
            **{
                str(distance): lambda d=distance: ceiling.gathers(distance=d)
                for distance in DISTANCES
            },
        },
        repeats=repeats,
    )
    ceiling.close()
    best = min(DISTANCES, key=lambda distance: seconds[str(distance)])
    yield against_rival(
        "gather",
        f"lookup of {count:,} uniform ids of {rows:,} x {DIM} float32, one a bag, all"
        f" threads; rival: a plain C++ gather loop, prefetch {best} ahead (the best of"
        f" {', '.join(map(str, DISTANCES))})",
        ours=count * steps / seconds["ours"],
        rival=count * steps / seconds[str(best)],
        unit="rows/s",
        better="higher",
        reach=0.8,
    )


class _Steps:
    """One table, and ids and gradients for its steps."""

    def __init__(self, rows: int, count: int, steps: int) -> None:
        generator = np.random.default_rng(5)
        self.table: Table = filled_table(f"rows{rows}", rows)
        self.ids = generator.integers(rows, size=(SETS, count), dtype=np.int32)
        gradient = generator.normal(size=(count, DIM)).astype(np.float32) * 0.01
        self.batches = [
            Gradients(features=(Bags(table=0, ids=ids),), gradients=(gradient,))
            for ids in self.ids
        ]
        self.out = [np.empty((count, DIM), np.float32)]
        self.steps = steps

    def lookups(self, steps: int | None = None) -> None:
        """Only lookups."""
        for step in range(steps or self.steps):
            features = self.batches[step % SETS].features
            kernels.lookup([self.table], features, out=self.out)

    def lookup_and_update(self) -> None:
        """What a training step does."""
        for step in range(self.steps):
            batch = self.batches[step % SETS]
            kernels.lookup([self.table], batch.features, out=self.out)
            kernels.update([self.table], [batch], [LEARNING_RATE])


class _Ceiling:
    """The loops of `gather_ceiling.cc` over a copy of the rows."""

    def __init__(self, table: Table, ids: np.ndarray, steps: int) -> None:
        self.library = ctypes.CDLL(str(_compiled()))
        self.library.ceiling_allocate.restype = ctypes.c_void_p
        self.ids, self.steps = ids, steps
        self.rows = self._pages(table.rows.shape)
        self.rows[:] = table.rows
        self.out = self._pages((ids.shape[1], DIM))
        self.threads = len(os.sched_getaffinity(0))

    def gathers(self, steps: int | None = None, *, distance: int) -> None:
        """Copies the rows of one set of ids after another."""
        for step in range(steps or self.steps):
            ids = self.ids[step % SETS]
            self.library.ceiling_gather(
                self.rows.ctypes,
                ids.ctypes,
                ctypes.c_int64(len(ids)),
                ctypes.c_int64(distance),
                ctypes.c_int(self.threads),
                self.out.ctypes,
            )

    def close(self) -> None:
        """Gives the pages back; its arrays must not be read any more."""
        for array in (self.rows, self.out):
            self.library.ceiling_release(array.ctypes, ctypes.c_int64(array.size))

    def _pages(self, shape: tuple[int, int]) -> np.ndarray:
        count = ctypes.c_int64(shape[0] * shape[1])
        address = self.library.ceiling_allocate(count)
        assert address, "no memory"
        pointer = ctypes.cast(address, ctypes.POINTER(ctypes.c_float))
        pages = np.ctypeslib.as_array(pointer, shape)
        pages.fill(0)
        return pages


def _compiled() -> Path:
    library = BUILD / "gather_ceiling.so"
    library.parent.mkdir(exist_ok=True)
    source = BENCHMARKS / "gather_ceiling.cc"
    flags = ["-O3", "-march=native", "-pthread", "-shared", "-fPIC"]
    subprocess.run(["g++", *flags, "-o", str(library), str(source)], check=True)
    return library

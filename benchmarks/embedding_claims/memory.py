"""Memory of tables as the system counts it: resident pages of a process of its own."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import workers
from embedding_claims.tbe import DIM, LEARNING_RATE, filled_table
from harness import Claim, reported, within_limit
from shortlist.embeddings.host import kernels
from shortlist.embeddings.table import Bags, Gradients, Table

SLACK = 1.05
GIB = 2**30


def per_row(quick: bool) -> Iterator[Claim]:
    """Rows and their optimizer state, and what steps need beside them."""
    found = workers.call(__name__, "measure_rows", quick=quick)
    yield within_limit(
        "bytes",
        f"resident bytes per row of {found['rows']:,} x {DIM} float32 trained by"
        f" row-wise Adagrad, all rows touched; the peak of 20 more steps of"
        f" {found['count']:,} ids was {found['peak_growth'] / 2**20:.1f} MiB above, the"
        f" table has {found['table_bytes'] / 2**20:.0f} MiB",
        ours=found["bytes_per_row"],
        unit="bytes",
        limit=(4 * DIM + 4) * SLACK,
    )


def hundred_million(quick: bool) -> Iterator[Claim]:
    """A table that is larger than this machine's memory in stock Keras."""
    found = workers.call(__name__, "measure_hundred_million", quick=quick)
    yield reported(
        "bytes-100m",
        f"peak resident memory of a process: {found['rows']:,} x 32 float16,"
        f" row-wise Adagrad, 10 steps of {found['batch']:,} in stock fit on JAX;"
        f" {found['seconds_per_step']:.4f} s a step, made in"
        f" {found['seconds_to_make']:.1f} s",
        ours=found["peak_bytes"] / GIB,
        unit="GiB",
    )


def measure_rows(quick: bool) -> dict[str, Any]:
    """Growth of the resident memory by one table, and by steps after that."""
    rows, count = (1_000_000, 8192) if quick else (4_000_000, 65_536)
    generator = np.random.default_rng(6)
    ids = generator.permutation(rows).astype(np.int32)
    gradient = generator.normal(size=(count, DIM)).astype(np.float32)
    # What filling and steps leave in the heap belongs to the process, not to the table.
    small = filled_table("small", 2**17)
    _train(small, ids[:count] % small.num_rows, gradient)
    gc.collect()
    before = _resident()
    table = filled_table("rows", rows)
    for first in range(0, rows, count):
        some = ids[first : first + count]
        _train(table, some, gradient[: len(some)])
    gc.collect()
    after = _resident()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    for step in range(20):
        _train(table, ids[step * 1000 :][:count], gradient)
    return {
        "rows": rows,
        "count": count,
        "bytes_per_row": (after - before) / rows,
        "peak_growth": max(0, _status("VmHWM") - after),
        "table_bytes": table.num_bytes,
    }


def measure_hundred_million(quick: bool) -> dict[str, Any]:
    """Trains one large table of two-byte rows through the layer."""
    from embedding_claims.models import Model, shortlist_embedding

    rows, batch, steps = (200_000 if quick else 100_000_000), 8192, 10
    generator = np.random.default_rng(7)
    inputs = {"id": generator.integers(rows, size=steps * batch, dtype=np.int32)}
    labels = (inputs["id"] % 2).astype(np.float32)[:, None]
    began = time.perf_counter()
    embedding = shortlist_embedding(
        {"id": (rows, 32)},
        optimizer="rowwise_adagrad",
        placement="host",
        row_type="float16",
    )
    model = Model(embedding, (64,))
    model.compile(optimizer="adam", loss="mse")
    model.fit({"id": inputs["id"][:batch]}, labels[:batch], batch_size=batch, verbose=0)
    made = time.perf_counter()
    losses = model.fit(inputs, labels, batch_size=batch, verbose=0).history["loss"]
    seconds = time.perf_counter() - made
    assert np.isfinite(losses).all()
    return {
        "rows": rows,
        "batch": batch,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "seconds_per_step": seconds / steps,
        "seconds_to_make": made - began,
    }


def _train(table: Table, ids: np.ndarray, gradient: np.ndarray) -> None:
    batch = Gradients(features=(Bags(table=0, ids=ids),), gradients=(gradient,))
    kernels.lookup([table], batch.features)
    kernels.update([table], [batch], [LEARNING_RATE])


def _resident() -> int:
    return _status("VmRSS")


def _status(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    workers.serve(measure_rows, measure_hundred_million)

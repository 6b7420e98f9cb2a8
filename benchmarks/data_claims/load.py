"""Rows per second of a loader alone, against tf.data over TFRecord files."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from data_claims.rows import Rows, digest
from data_claims.workers import Worker, in_turns
from harness import Claim, against_rival

REACH_PER_EXAMPLE, REACH_BATCHED = 50.0, 5.0
CARDINALITY = 1_000_000
# Rows and records; the rivals' smaller buffers are in their favour.
BUFFERS = {"example": 65_536, "batched": 16}


def rows(quick: bool) -> Rows:
    """About 2 million, also the rows of the parts `bytes` and `threads`."""
    if quick:
        return Rows(shards=2, batches=4, batch=1024, cardinality=CARDINALITY)
    return Rows(shards=10, batches=24, batch=8192, cardinality=CARDINALITY)


def claim(quick: bool) -> Iterator[Claim]:
    """All sides in turns, asserted to give the same rows first."""
    check()
    rates = measure(rows(quick), repeats=2 if quick else 7)
    batch = f"batch {rows(quick).batch:,}"
    arrow = (
        f"Loader(ArrowRows) over {len(rows(quick)):,} rows of 1 label, 10 numbers, 37"
        f" ids and 3 bags of 10 ids, {batch}"
    )
    for id, side, rival, words, reach in (
        ("load-per-example", "windowed", "example", "example", REACH_PER_EXAMPLE),
        ("load-prebatched", "windowed", "batched", "whole batch", REACH_BATCHED),
        ("load-global", "global", "batched", "whole batch", None),
    ):
        yield against_rival(
            id,
            f"{arrow}, shuffle {side}; rival: tf.data over TFRecord, one {words} to a"
            " record",
            ours=rates[side],
            rival=rates[rival],
            unit="rows/s",
            better="higher",
            reach=reach,
        )


def measure(rows: Rows, *, repeats: int) -> dict[str, float]:
    """Median rows per second of each side; all wait for each other."""
    with _sides(rows) as workers:
        for worker in workers.values():
            worker.ask("rate")
        rates = in_turns(
            {side: partial(worker.ask, "rate") for side, worker in workers.items()},
            repeats=repeats,
        )
    return {side: statistics.median(values) for side, values in rates.items()}


def check() -> None:
    """Every side gives each row of a small set once, and not in the files' order."""
    small = Rows(shards=2, batches=4, batch=1024, cardinality=CARDINALITY)
    every = sum(digest(small.shard(number)) for number in range(small.shards))
    with _sides(small) as workers:
        digests = {side: worker.ask("digests") for side, worker in workers.items()}
    for side, batches in digests.items():
        assert len(batches) == small.shards * small.batches, (side, len(batches))
        assert sum(batches) % 2**64 == every % 2**64, f"{side} gives other rows"
    for side in ("windowed", "global"):
        assert not set(digests[side]) & set(digests["batched"]), f"{side} mixes no rows"


@contextlib.contextmanager
def _sides(rows: Rows) -> Iterator[Mapping[str, Worker]]:
    with contextlib.ExitStack() as stack:
        workers = {}
        for layout, buffer in BUFFERS.items():
            files = rows.files(layout)  # type: ignore[arg-type]
            # One example to a record is so slow that one shard of rows is enough.
            files = files[:1] if layout == "example" and rows.shards > 2 else files
            workers[layout] = Worker(
                "tf_data",
                "Rival",
                layout=layout,
                files=files,
                batch=rows.batch,
                buffer=buffer,
            )
            stack.enter_context(workers[layout])
        for shuffle in ("windowed", "global"):
            workers[shuffle] = ours(rows, shuffle)
            stack.enter_context(workers[shuffle])
        yield workers


def ours(rows: Rows, shuffle: str, *, processors: int | None = None) -> Worker:
    """A worker with an `Ours`."""
    return Worker(
        "load",
        "Ours",
        processors=processors,
        files=rows.files("arrow"),
        batch=rows.batch,
        shuffle=shuffle,
    )


class Ours:
    """Epochs of Shortlist's loader over flat Arrow files."""

    def __init__(self, files: list[str], batch: int, shuffle: str) -> None:
        from shortlist.data import ArrowRows, Loader

        self.loader: Any = Loader(ArrowRows(files), batch_size=batch, shuffle=shuffle)

    def rate(self) -> float:
        """Rows per second of the next epoch; every batch exists as arrays."""
        began, rows = time.perf_counter(), 0
        for batch in self.loader.epoch():
            rows += len(batch["label"])
        return rows / (time.perf_counter() - began)

    def digests(self) -> list[int]:
        """`digest` of each batch of the next epoch."""
        return [digest(batch) for batch in self.loader.epoch()]

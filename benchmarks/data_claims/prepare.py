"""A log of 25 million ratings to a dataset, against Polars that only sorts it."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_claims.logs import EVENTS, NUM_ITEMS, NUM_USERS, SCHEMA, log
from data_claims.workers import DATA, Worker, in_turns, peak_bytes
from harness import Claim, against_rival, within_limit

SLOWER = 1.5  # times the rival's time, at most
PEAK_GB = 6.0
CHECKED, REPEATED = 100_000, 1_000


def claim(quick: bool) -> Iterator[Claim]:
    """Time and peak memory of both, each run a new process."""
    events = 200_000 if quick else EVENTS
    path = log(events)
    check()
    runners = {side: runner(side, path) for side in ("Rival", "Ours")}
    runners["Rival"]()  # reads the file into memory once
    measured = in_turns(runners, repeats=2 if quick else 5)
    seconds, peaks = (
        {
            side: statistics.median(run[of] for run in runs)
            for side, runs in measured.items()
        }
        for of in ("seconds", "peak_gb")
    )
    words = f"{events:,} ratings of {NUM_USERS:,} users and {NUM_ITEMS:,} items, CSV"
    yield against_rival(
        "prepare",
        f"prepare of {words}: ids, vocabularies, duplicates, time_cut, dataset on"
        " disk; rival: Polars' read_csv, sort by user and time, write_parquet; asked:"
        f" at most {SLOWER} times its time",
        ours=seconds["Ours"],
        rival=seconds["Rival"],
        unit="s",
        better="lower",
        reach=1 / SLOWER,
    )
    yield within_limit(
        "prepare-memory",
        f"peak resident memory of that process (Polars' {peaks['Rival']:.2f} GB)",
        ours=max(run["peak_gb"] for run in measured["Ours"]),
        unit="GB",
        limit=PEAK_GB,
    )


def runner(
    side: str, path: Path, *, processors: int | None = None
) -> Callable[[], dict[str, float]]:
    """Runs a side once, in a new process, and removes what it wrote."""

    def run() -> dict[str, float]:
        with (
            tempfile.TemporaryDirectory(dir=DATA) as folder,
            Worker("prepare", side, processors=processors) as worker,
        ):
            measured: dict[str, float] = worker.ask(
                "run", path=str(path), folder=folder
            )
            return measured

    return run


class Ours:
    """`shortlist.data.preparation.prepare`."""

    def __init__(self) -> None:
        from shortlist.data import Split, prepare

        self.prepare, self.split = prepare, Split(kind="time_cut")

    def run(self, path: str, folder: str) -> dict[str, float]:
        """Leaves a dataset in `folder`."""
        return _timed(
            lambda: self.prepare(path, SCHEMA, f"{folder}/dataset", split=self.split)
        )


class Rival:
    """Polars alone, with all its threads."""

    def __init__(self) -> None:
        import polars as pl

        self.polars = pl

    def run(self, path: str, folder: str) -> dict[str, float]:
        """Leaves a Parquet file in `folder`."""

        def sort() -> None:
            frame = self.polars.read_csv(path).sort("userId", "timestamp")
            frame.write_parquet(f"{folder}/sorted.parquet")

        return _timed(sort)


def _timed(function: Callable[[], object]) -> dict[str, float]:
    began = time.perf_counter()
    function()
    return {
        "seconds": time.perf_counter() - began,
        "peak_gb": peak_bytes() / 1e9,
    }


def check() -> None:
    """The events of a dataset are Polars' rows, sorted and without duplicates.

    100,000 events, 1,000 of them twice. Ids that only come in the test part have no
    row in a vocabulary; they are null on both sides.
    """
    import polars as pl
    from polars.testing import assert_frame_equal

    from shortlist.data import Split, prepare

    given = pl.read_csv(log(CHECKED))
    event = ["userId", "movieId", "timestamp", "rating"]
    with tempfile.TemporaryDirectory(dir=DATA) as folder:
        repeated = f"{folder}/repeated.csv"
        pl.concat([given, given[:REPEATED]]).write_csv(repeated)
        dataset = prepare(
            repeated, SCHEMA, f"{folder}/dataset", split=Split(kind="time_cut")
        )
        decoded = {
            name: _decoded(dataset, name) for name in ("train", "validation", "test")
        }
    starts = decoded["test"]["timestamp"].min()
    known = given.filter(pl.col("timestamp") < starts)
    assert len(known) == len(given) - len(decoded["test"]) < len(given)
    expected = given.unique().with_columns(
        pl.when(pl.col(name).is_in(known[name].implode())).then(pl.col(name))
        for name in ("userId", "movieId")
    )
    assert_frame_equal(
        pl.concat(decoded.values()).sort(event),
        expected.select(event).sort(event),
        check_dtypes=False,
    )


def _decoded(dataset: Any, name: str) -> Any:
    """A part with external ids; asserts that it is sorted by user and time."""
    import polars as pl

    part = dataset.part(name)
    rows = pl.DataFrame({"user": part.user_index, "time": part.timestamp_ms})
    assert rows.equals(rows.sort("user", "time")), f"{name} is not sorted"
    return pl.DataFrame(
        {
            "userId": dataset.vocabularies["user"].ids.gather(part.user_index),
            "movieId": dataset.vocabularies["item"].ids.gather(part.item_index),
            "timestamp": part.timestamp_ms // 1000,
            "rating": part.label.astype("float64"),
        }
    )

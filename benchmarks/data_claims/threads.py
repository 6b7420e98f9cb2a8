"""What a second processor brings to preparing a log and to loading rows."""

from __future__ import annotations

import contextlib
import os
import statistics
from collections.abc import Callable, Iterator
from functools import partial

from data_claims import load, prepare
from data_claims.logs import log
from data_claims.workers import in_turns
from harness import Claim, against_rival

REACH = 1.7
ONE, TWO = "one", "two"
COUNTS = {ONE: 1, TWO: 2}


def claim(quick: bool) -> Iterator[Claim]:
    """Both on one processor and on two, in processes that see no others."""
    events = 200_000 if quick else 5_000_000
    rows = load.rows(quick)
    enough = len(os.sched_getaffinity(0)) >= 2
    yield _claim(
        "threads-prepare",
        f"prepare of {events:,} ratings",
        "events/s",
        _prepare(quick, events) if enough else {},
    )
    yield _claim(
        "threads-load",
        f"Loader(ArrowRows), windowed, {len(rows):,} rows, batch {rows.batch:,}",
        "rows/s",
        _load(quick) if enough else {},
    )


def _claim(id: str, what: str, unit: str, rates: dict[str, float]) -> Claim:
    name = f"{what}: two processors; rival: the same on one"
    if rates:
        return against_rival(
            id,
            name,
            ours=rates[TWO],
            rival=rates[ONE],
            unit=unit,
            better="higher",
            reach=REACH,
        )
    return Claim(
        id=id,
        name=name,
        ours=None,
        rival=None,
        unit=unit,
        ratio=None,
        reach=REACH,
        met=None,
    )


def _prepare(quick: bool, events: int) -> dict[str, float]:
    """Median events per second by the processors."""
    path = log(events)
    prepare.runner("Rival", path)()  # reads the file into memory once
    found = in_turns(
        {
            name: prepare.runner("Ours", path, processors=count)
            for name, count in COUNTS.items()
        },
        repeats=2 if quick else 9,
    )
    return {
        name: events / statistics.median(run["seconds"] for run in runs)
        for name, runs in found.items()
    }


def _load(quick: bool) -> dict[str, float]:
    """Median rows per second by the processors."""
    with contextlib.ExitStack() as stack:
        sides: dict[str, Callable[[], float]] = {}
        for name, count in COUNTS.items():
            worker = load.ours(load.rows(quick), "windowed", processors=count)
            stack.enter_context(worker)
            worker.ask("rate")
            sides[name] = partial(worker.ask, "rate")
        found = in_turns(sides, repeats=2 if quick else 7)
    return {name: statistics.median(values) for name, values in found.items()}

"""Lookup and update against FBGEMM's CPU table-batched embedding, in turns."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness import Claim, against_rival, interleaved
from shortlist.embeddings.host import kernels
from shortlist.embeddings.rules import Rule
from shortlist.embeddings.table import Bags, Gradients, Table
from workers import BUILD

REQUIREMENTS = ("torch==2.13.0", "fbgemm-gpu-cpu==1.8.0", "numpy")
THREADS = 2
LEARNING_RATE = 0.05
RULE = Rule(
    kind="rowwise_adagrad",
    learning_rate=LEARNING_RATE,
    initial_accumulator=0.0,
    epsilon=1e-8,
)
TOLERANCE = 1e-4
SETS = 4  # of ids, taken in turns
DIM = 64


def one_id(quick: bool) -> Iterator[Claim]:
    """26 tables, one id per bag: forward alone, and with the update."""
    tables, rows, batch = (26, 1000, 256) if quick else (26, 1_000_000, 8192)
    rates = measure(tables, rows, batch, length=1, quick=quick)
    for name, words, reach in (
        ("fwd", "lookup", 4.0),
        ("train", "lookup and update", 3.0),
    ):
        yield against_rival(
            f"tbe-26-{name}",
            f"{words}, {tables} tables of {rows:,} x {DIM} float32, batch {batch:,},"
            f" one uniform id per bag, row-wise Adagrad, {THREADS} threads; rival:"
            " FBGEMM 1.8.0 TBE on the CPU",
            **rates[name],
            unit="rows/s",
            better="higher",
            reach=reach,
        )


def bags(quick: bool) -> Iterator[Claim]:
    """2 tables, 20 ids per bag; the worse of forward and training."""
    rows, batch, length = (1000, 256, 20) if quick else (1_000_000, 8192, 20)
    rates = measure(2, rows, batch, length=length, quick=quick)
    ratios = {name: rate["ours"] / rate["rival"] for name, rate in rates.items()}
    worst = min(ratios, key=lambda name: ratios[name])
    yield against_rival(
        "tbe-bag",
        f"2 tables of {rows:,} x {DIM}, batch {batch:,}, sums of {length} ids, row-wise"
        f" Adagrad: {ratios['fwd']:.2f} times in lookup, {ratios['train']:.2f} times in"
        f" lookup and update (the worse is shown), {THREADS} threads; rival: FBGEMM"
        " 1.8.0 TBE on the CPU",
        **rates[worst],
        unit="rows/s",
        better="higher",
        reach=2.0,
    )


def measure(
    tables: int, rows: int, batch: int, *, length: int, quick: bool
) -> dict[str, dict[str, float]]:
    """Rows per second of `fwd` and `train`, of `ours` and `rival`."""
    steps, repeats = (2, 2) if quick else (10, 9)
    with tempfile.TemporaryDirectory() as folder, _fbgemm() as rival:
        assert_equal(rival, Path(folder) / "equal", tables, min(batch, 1024), length)
        ours = Ours(Path(folder), tables, rows, batch, length)
        rival.ask("prepare", **ours.request(rows))
        rates = {}
        for name, what in (("fwd", "forward"), ("train", "train")):
            seconds = interleaved(
                {
                    "ours": lambda what=what: getattr(ours, what)(steps),
                    "rival": lambda what=what: rival.ask(what, steps=steps),
                },
                repeats=repeats,
            )
            looked_up = tables * batch * length * steps
            rates[name] = {side: looked_up / seconds[side] for side in seconds}
    return rates


def assert_equal(
    rival: Fbgemm, folder: Path, tables: int, batch: int, length: int
) -> None:
    """One lookup, then one update, from the same small tables: the same numbers."""
    rows = 997
    folder.mkdir()
    generator = np.random.default_rng(2)
    given = generator.uniform(-0.05, 0.05, (tables, rows, DIM)).astype(np.float32)
    np.save(folder / "rows.npy", given)
    ours = Ours(folder, tables, rows, batch, length)
    for table, values in zip(ours.tables, given, strict=True):
        table.rows[:] = values
    rival.ask("prepare", **ours.request(rows))
    ours.forward(1)
    output = np.concatenate(ours.output, axis=1)
    ours.train(1)
    for what in ("forward", "train"):
        rival.ask(what, steps=1)
    rival.ask("save")
    np.testing.assert_allclose(
        output, np.load(folder / "output.npy"), rtol=0, atol=TOLERANCE
    )
    updated = np.stack([table.rows for table in ours.tables])
    np.testing.assert_allclose(
        updated, np.load(folder / "updated.npy"), rtol=0, atol=TOLERANCE
    )
    assert np.abs(updated - given).max() > 10 * TOLERANCE, "nothing moved"


class Ours:
    """Tables of Shortlist over ids and gradients that it leaves in `folder`."""

    def __init__(
        self, folder: Path, tables: int, rows: int, batch: int, length: int
    ) -> None:
        self.folder = folder
        generator = np.random.default_rng(3)
        ids = generator.integers(rows, size=(SETS, tables, batch, length))
        # Large enough that one update of a small table is well above the tolerance.
        gradients = generator.normal(size=(tables, batch, DIM)).astype(np.float32)
        np.save(folder / "ids.npy", ids)
        np.save(folder / "gradients.npy", gradients)
        self.tables = [filled_table(f"t{index}", rows) for index in range(tables)]
        self.features = [
            [Bags(table=index, ids=one) for index, one in enumerate(each)]
            for each in (ids if length > 1 else ids[..., 0])
        ]
        self.gradients = list(gradients)
        self.output = [np.empty((batch, DIM), np.float32) for _ in range(tables)]
        self.step = 0

    def request(self, rows: int) -> dict[str, Any]:
        """What the rival must prepare to do the same."""
        return {
            "folder": str(self.folder),
            "rows": rows,
            "dim": DIM,
            "learning_rate": LEARNING_RATE,
            "threads": THREADS,
        }

    def forward(self, steps: int) -> None:
        """Only lookups."""
        for _ in range(steps):
            features = self._next()
            kernels.lookup(self.tables, features, out=self.output, threads=THREADS)

    def train(self, steps: int) -> None:
        """Lookups and updates."""
        rates = [LEARNING_RATE] * len(self.tables)
        for _ in range(steps):
            features = self._next()
            kernels.lookup(self.tables, features, out=self.output, threads=THREADS)
            batch = Gradients(features=tuple(features), gradients=tuple(self.gradients))
            kernels.update(self.tables, [batch], rates, threads=THREADS)

    def _next(self) -> list[Bags]:
        features = self.features[self.step % len(self.features)]
        self.step += 1
        return features


def filled_table(name: str, rows: int) -> Table:
    """A table of `RULE` whose pages have all been touched."""
    table = Table.allocate(name, rows, DIM, RULE)
    generator = np.random.default_rng(4)
    block = generator.uniform(-0.05, 0.05, (2**17, DIM)).astype(np.float32)
    table.fill(lambda first, last: block[: last - first])
    for state in table.slots.values():
        state.fill(0)
    return table


class Fbgemm:
    """The process of `fbgemm_worker.py`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, do: str, **arguments: Any) -> None:
        """Returns when the worker has done it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if answer != "done\n":
            raise RuntimeError(f"the FBGEMM worker stopped at {do!r}: {answer!r}")


@contextlib.contextmanager
def _fbgemm() -> Iterator[Fbgemm]:
    worker = Path(__file__).with_name("fbgemm_worker.py")
    with subprocess.Popen(
        [str(_environment()), str(worker)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Fbgemm(process)


def _environment() -> Path:
    """The interpreter of `build/fbgemm-env`, made when it is missing."""
    folder = BUILD / "fbgemm-env"
    ready = folder / "ready"
    python = folder / "bin" / "python"
    if not ready.exists():
        print(f"install: {', '.join(REQUIREMENTS)}, into {folder.name}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run(
            [python, "-m", "pip", "-q", "install", *REQUIREMENTS], check=True
        )
        ready.touch()
    return python

"""The largest batch of which one step fits in memory, found by trying.

A probe trains separate models and discards them before the training starts, so a run
with probed sizes equals a run of a recipe with these sizes.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras

from shortlist.data.load.loader import Loader
from shortlist.embeddings.table import available_bytes
from shortlist.recipe import Recipe
from shortlist.training.batches.keras_batches import Batches
from shortlist.training.job import Job
from shortlist.training.loop.optimization import precision
from shortlist.training.ranking import make_ranker
from shortlist.training.resources.memory import is_out_of_memory, memory_errors
from shortlist.training.retrieval import make_two_tower

FIRST = 64
LEAST = 2
SHARE = 0.9
"""Share of the memory that a step is allowed to need, as estimated."""

MAKERS: dict[str, Callable[[Job], tuple[keras.Model, Batches]]] = {
    "retrieval": make_two_tower,
    "ranker": make_ranker,
}


PROCESS = Path("/proc/self")
# Limit, use and statistics of a container, and the field of droppable caches: control
# groups of version 2, then of version 1.
GROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


class Probed(NamedTuple):
    """The result of a probe."""

    batch_size: int
    reason: str
    """Why the next power of two is not used."""


def with_sizes(recipe: Recipe, sizes: dict[str, int]) -> Recipe:
    """The recipe with the batch sizes of some of its stages."""
    sections = {
        stage: getattr(recipe, stage).model_copy(update={"batch_size": size})
        for stage, size in sizes.items()
    }
    return recipe.model_copy(update=sections)


def probe(job: Job) -> dict[str, int]:
    """The largest batch size of every model that is trained step by step.

    Args:
        job: of a separate run folder, in which nothing is trained.

    Raises:
        ResourceError: `out-of-memory`, not even the smallest batch fits.
    """
    sizes = {}
    with memory_errors(job), precision(job.recipe.training.precision):
        for stage in job.recipe.trained():
            steps = _Steps(job, stage)
            found = largest_batch(steps, steps.rows)
            sizes[stage] = found.batch_size
            if not job.quiet:
                text = f"{stage}: batch_size {found.batch_size:,}; {found.reason}"
                print(text, file=sys.stderr, flush=True)
            gc.collect()  # models hold reference cycles
    return sizes


class _Steps:
    """Steps of any batch size of the model of a stage, rebuilt after an error."""

    def __init__(self, job: Job, stage: str) -> None:
        self.job = job
        self.stage = stage
        self._made: tuple[keras.Model, Batches] | None = None

    @property
    def rows(self) -> int:
        """Rows of an epoch."""
        return len(self._parts()[1].loader.source)

    def __call__(self, size: int) -> None:
        """Does a step with a batch of `size` rows."""
        model, batches = self._parts()
        source, seed = batches.loader.source, self.job.recipe.seed
        batch = Loader(source, batch_size=size, seed=seed, prefetch=0).batch(0, 0)
        try:
            model.train_on_batch(*batches.convert(batch))
        except Exception:
            self._made = None  # JAX may have lost its weights with the step
            raise

    def _parts(self) -> tuple[keras.Model, Batches]:
        if self._made is None:
            keras.utils.set_random_seed(self.job.recipe.seed)
            self._made = MAKERS[self.stage](self.job)
            model = self._made[0]
            if not model.built:
                model.build()
        return self._made


class MemoryUse(NamedTuple):
    """Bytes used by the process now and at most since `forget_peak`, and free bytes."""

    used: int
    peak: int
    free: int


def memory_use(groups: Path = Path("/sys/fs/cgroup")) -> MemoryUse | None:
    """The memory of this process, from the Linux kernel; `None` on other systems."""
    free = available_bytes()
    try:
        lines = (PROCESS / "status").read_text().splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    if free is None or not {"VmRSS", "VmHWM"} <= fields.keys():
        return None
    used, peak = (1024 * int(fields[name].split()[0]) for name in ("VmRSS", "VmHWM"))
    for names in GROUPS:
        if (left := _left_of_group(groups, *names)) is not None:
            free = min(free, left)
    return MemoryUse(used, peak, free)


def forget_peak() -> None:
    """Resets the peak of `memory_use`, where the system can."""
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError:
        return


def _left_of_group(
    folder: Path, limit: str, usage: str, statistics: str, droppable: str
) -> int | None:
    """Bytes that a container may still use, counting droppable file caches."""
    try:
        most = (folder / limit).read_text().strip()
        if most == "max":
            return None
        used = int((folder / usage).read_text())
        pairs = (line.split() for line in (folder / statistics).read_text().split("\n"))
        cached = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
        return int(most) - used + cached.get(droppable, 0)
    except (OSError, ValueError):
        return None


def largest_batch(
    step: Callable[[int], None],
    rows: int,
    measure: Callable[[], MemoryUse | None] = memory_use,
) -> Probed:
    """The largest power of two with which a step works.

    The size starts at 64 and is doubled until a step runs out of memory, until the next
    step would need more than 90 % of the memory (estimated as twice the last one), or
    until there are too few rows. If 64 fails, it is halved until a step works.

    Args:
        step: does one step with a batch of the given size.
        rows: largest batch size, at least 2.
        measure: returns the memory use of the process.

    Raises:
        Exception: what a step raises, unless it ran out of memory and a smaller batch
            can be tried.
    """
    first = measure()
    size = start = min(FIRST, 1 << (rows.bit_length() - 1))
    while (error := _failure(step, size)) is not None:
        if size <= LEAST:
            raise error
        size //= 2
    if size < start:
        return Probed(size, f"{2 * size:,} ran out of memory")
    while 2 * size <= rows:
        if (reason := _too_much(first, measure(), 2 * size)) is not None:
            return Probed(size, reason)
        if _failure(step, 2 * size) is not None:
            return Probed(size, f"{2 * size:,} ran out of memory")
        size *= 2
    return Probed(size, f"there are {rows:,} rows")


def _failure(step: Callable[[int], None], size: int) -> Exception | None:
    """The error of a step that ran out of memory; raises any other error."""
    forget_peak()
    try:
        step(size)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return error
    return None


def _too_much(first: MemoryUse | None, now: MemoryUse | None, size: int) -> str | None:
    """Why a step of `size` is not tried after one of half of it."""
    if first is None or now is None:
        return None
    needed = 2 * (now.peak - first.used)
    there = now.used - first.used + now.free
    if needed <= SHARE * there:
        return None
    estimate = f"{size:,} would need about {needed / 2**20:,.0f} MiB"
    return f"{estimate} of {there / 2**20:,.0f} MiB"

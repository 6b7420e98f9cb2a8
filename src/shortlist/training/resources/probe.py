"""The largest batch of which one step fits the memory, found by trying.

A probe trains models of its own, which are thrown away, before anything is begun: a run
whose sizes were probed is the run that a recipe with these sizes would have made.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import NamedTuple

import keras

from shortlist.data.load.loader import Loader
from shortlist.recipe import Recipe
from shortlist.training.batches.keras_batches import Batches
from shortlist.training.job import Job
from shortlist.training.loop.optimization import precision
from shortlist.training.ranking import make_ranker
from shortlist.training.resources.memory import is_out_of_memory, memory_errors
from shortlist.training.resources.memory_use import MemoryUse, forget_peak, memory_use
from shortlist.training.retrieval import make_two_tower

FIRST = 64
LEAST = 2
SHARE = 0.9
"""Of the memory there is, that a step may be expected to need."""

MAKERS: dict[str, Callable[[Job], tuple[keras.Model, Batches]]] = {
    "retrieval": make_two_tower,
    "ranker": make_ranker,
}


class Probed(NamedTuple):
    """What a probe has found."""

    batch_size: int
    reason: str
    """Why the next power of two was not taken."""


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
        job: of which nothing is trained, and nothing will be.

    Raises:
        ResourceError: `out-of-memory`, not even the least batch fits.
    """
    sizes = {}
    with memory_errors(job), precision(job.recipe.training.precision):
        for stage in job.recipe.trained():
            steps = _Steps(job, stage)
            found = largest_batch(steps, steps.rows)
            sizes[stage] = found.batch_size
            if not job.quiet:
                told = f"{stage}: batch_size {found.batch_size:,}; {found.reason}"
                print(told, file=sys.stderr, flush=True)
            gc.collect()  # models hold on to themselves in circles
    return sizes


class _Steps:
    """Steps of any size of the model of a stage, which begins anew after an error."""

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


def largest_batch(
    step: Callable[[int], None],
    rows: int,
    measure: Callable[[], MemoryUse | None] = memory_use,
) -> Probed:
    """The largest power of two with which a step works.

    From 64 on the size is doubled until a step runs out of memory, until twice what
    the last one needed would be more than 90 % of what there is, or until there are
    not so many rows. If 64 fails already, it is halved until a step works.

    Args:
        step: does one step with a batch of so many rows.
        rows: most rows of a batch, at least 2.
        measure: tells the memory of the process.

    Raises:
        Exception: what a step raises, unless it is about memory and a smaller batch
            is left to try.
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
    """The error of a step that ran out of memory; raises any other one."""
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
    told = f"{size:,} would need about {needed / 2**20:,.0f} MiB"
    return f"{told} of {there / 2**20:,.0f} MiB"

"""Stock `fit` with checkpoints, progress reports and early stopping."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

import keras

from shortlist.recipe import RankerSection, RetrievalSection
from shortlist.training.batches.keras_batches import Batches
from shortlist.training.job import Job
from shortlist.training.loop.callbacks import EpochReport, StopOnNotFinite
from shortlist.training.loop.checkpointing import Checkpointing
from shortlist.training.loop.cost import MarginalCost
from shortlist.training.loop.endings import Ending
from shortlist.training.loop.stops import (
    Floor,
    NoImprovement,
    Stop,
    TimeBudget,
    mode_of,
)
from shortlist.training.warm_start import warm_start


def fit_model(
    job: Job,
    model: keras.Model,
    batches: Batches,
    section: RetrievalSection | RankerSection,
    callbacks: list[keras.callbacks.Callback],
    validation: Batches | None = None,
) -> int:
    """Trains a compiled model and keeps the weights of its best epoch.

    Resumes from the checkpoint of the job, if it has one of a model of this name.

    Args:
        job: the training job.
        model: compiled, with the name of its stage.
        batches: to train on.
        section: epochs, patience and what is monitored.
        callbacks: those that add metrics to the logs.
        validation: what `val_loss` is measured on.

    Returns: the number of the epoch whose weights were kept, from 1.
    """
    progress = Checkpointing(
        *(job.unfinished, batches, _stops(job, section)),
        epochs=section.epochs if job.steps is None else 1,
        minutes=job.recipe.training.checkpoint_minutes,
    )
    if not progress.is_resumable(model):
        _warm_start(job, model)
    progress.resume(model)
    report = EpochReport(model.name, job.folder / "metrics.jsonl", quiet=job.quiet)
    finite = StopOnNotFinite(progress.first_batch)
    callbacks = [*callbacks, finite, report, *job.callbacks(model.name), progress]
    try:
        with progress.saves_when_interrupted(), _profiled(job, model, batches) as steps:
            # The rest of a resumed epoch is shorter, so it is a separate fit.
            while not progress.is_done:
                rest = progress.first_batch > 0
                model.fit(
                    batches,
                    initial_epoch=progress.epoch,
                    epochs=progress.epoch + 1 if rest else progress.epochs,
                    steps_per_epoch=job.steps,
                    validation_steps=job.steps,
                    validation_data=validation,
                    callbacks=[*callbacks, *steps],
                    shuffle=False,  # the loader has shuffled already
                    verbose=0,
                )
    finally:
        report.close()
        for fed in (batches, validation):
            if fed is not None:
                fed.close()
    kept = progress.restore_best(model)
    if job.steps is None:
        job.notes[model.name] = _note(progress, section, model.name, kept)
    return kept


def _profiled(
    job: Job, model: keras.Model, batches: Batches
) -> AbstractContextManager[list[keras.callbacks.Callback]]:
    if job.profile is None:
        return nullcontext([])
    return job.profile.of_model(model, batches)


def _warm_start(job: Job, model: keras.Model) -> None:
    """Copies the weights of the older run, if the job has one."""
    older = job.unfinished.state.warm_start
    if not older:
        return
    if not model.built:
        model.build()
    taken = warm_start(model, older, job.dataset)
    if not job.quiet:
        text = f"{taken.rows:,} of {taken.of_rows:,} rows and {taken.weights} of"
        text += f" {taken.of_weights} dense weights are copied from {older}"
        print(f"{model.name}: {text}", file=sys.stderr, flush=True)


def _note(
    progress: Checkpointing,
    section: RetrievalSection | RankerSection,
    stage: str,
    kept: int,
) -> str:
    """How the fit ended, as text; empty without a validation part."""
    first = next(iter(progress.stops), None)
    if not isinstance(first, NoImprovement) or progress.best_epoch is None:
        return ""
    return Ending(
        stage=stage,
        monitor=section.monitor,
        epoch=progress.epoch,
        epochs=progress.epochs,
        best_epoch=kept,
        ended_by=progress.ended_by or "epochs",
        fell=first.fell,
        is_metric=first.floor is not None,
    ).note()


def _stops(job: Job, section: RetrievalSection | RankerSection) -> list[Stop]:
    """When to stop; with a validation part the first one decides the best epoch."""
    training, monitor = job.recipe.training, section.monitor
    stops: list[Stop] = []
    if len(job.validation_users):
        mode = mode_of(monitor)
        floor = job.popularity.get(monitor.removeprefix("val_"))
        stops.append(
            NoImprovement(
                *(monitor, mode, section.patience),
                None if floor is None else Floor(floor, len(job.validation_users)),
            )
        )
        if training.min_gain_per_cost is not None:
            worth = MarginalCost(
                monitor,
                mode,
                price_per_hour=training.price_per_hour,
                min_gain_per_cost=training.min_gain_per_cost,
                spent_seconds=lambda: job.unfinished.seconds,
            )
            stops.append(worth)
    if training.time_budget is not None:
        stops.append(TimeBudget(training.time_budget, lambda: job.unfinished.seconds))
    return stops

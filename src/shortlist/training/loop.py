"""Stock `fit` with what every training here has: checkpoints, reports, early stops."""

from __future__ import annotations

import keras

from shortlist.recipe import RankerSection, RetrievalSection
from shortlist.training.batches import Batches
from shortlist.training.callbacks import EpochReport, StopOnNotFinite
from shortlist.training.job import Job
from shortlist.training.progress import Progress
from shortlist.training.stops import NoImprovement, Stop

CHECKPOINT_MINUTES = 10.0
"""Longest time within an epoch without a checkpoint."""


def fit_model(
    job: Job,
    model: keras.Model,
    batches: Batches,
    section: RetrievalSection | RankerSection,
    monitor: str,
    callbacks: list[keras.callbacks.Callback],
    validation: Batches | None = None,
) -> int:
    """Trains a compiled model; the weights of its best epoch are kept.

    Goes on from the checkpoint of the job, if there is one of a model of this name.

    Args:
        job: the training job.
        model: compiled, with the name of its part of the run.
        batches: to train on.
        section: epochs and patience.
        monitor: name in the logs of an epoch that tells which is best; lower is better
            for `val_loss`, higher for all others.
        callbacks: those that add to the logs.
        validation: what `val_loss` is measured on.

    Returns: the number of the epoch whose weights were kept, from 1.
    """
    progress = Progress(
        job.unfinished,
        batches,
        _stops(job, section, monitor),
        epochs=section.epochs,
        minutes=CHECKPOINT_MINUTES,
    )
    progress.resume(model)
    report = EpochReport(model.name, job.folder / "metrics.jsonl", quiet=job.quiet)
    finite = StopOnNotFinite(progress.first_batch)
    try:
        with progress.saves_when_terminated():
            # The rest of an epoch has a length of its own, so it is a fit of its own.
            while not progress.is_done:
                rest = progress.first_batch > 0
                model.fit(
                    batches,
                    initial_epoch=progress.epoch,
                    epochs=progress.epoch + 1 if rest else section.epochs,
                    validation_data=validation,
                    callbacks=[*callbacks, finite, report, progress],
                    shuffle=False,  # the loader has shuffled already
                    verbose=0,
                )
    finally:
        report.close()
    return progress.restore_best(model)


def _stops(
    job: Job, section: RetrievalSection | RankerSection, monitor: str
) -> list[Stop]:
    """When to stop; the first one tells which epoch is best."""
    if not len(job.validation_users):
        return []
    mode = "min" if monitor == "val_loss" else "max"
    return [NoImprovement(monitor, mode, section.patience)]

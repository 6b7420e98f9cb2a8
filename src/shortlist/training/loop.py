"""Stock `fit` with what every training here has: checkpoints, reports, early stops."""

from __future__ import annotations

import keras

from shortlist.embeddings.checkpoint import TableCheckpoint
from shortlist.recipe import RankerSection, RetrievalSection
from shortlist.training.batches import Batches
from shortlist.training.callbacks import (
    EpochReport,
    StopOnNotFinite,
    check_weights_finite,
)
from shortlist.training.job import Job


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
    callbacks = [*callbacks, StopOnNotFinite()]
    report = EpochReport(model.name, job.folder / "metrics.jsonl", quiet=job.quiet)
    callbacks.append(report)
    stopping = None
    if len(job.validation_users):
        stopping = TableCheckpoint(
            None,
            monitor=monitor,
            mode="min" if monitor == "val_loss" else "max",
            patience=section.patience,
            restore_best=True,
        )
        callbacks.append(stopping)
    try:
        history = model.fit(
            batches,
            epochs=section.epochs,
            validation_data=validation,
            callbacks=callbacks,
            shuffle=False,  # the loader has shuffled already
            verbose=0,
        )
    finally:
        report.close()
    check_weights_finite(model)
    if stopping is None or stopping.best_epoch is None:
        return len(history.epoch)
    return int(stopping.best_epoch) + 1

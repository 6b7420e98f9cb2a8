"""Training of the ranker, and the choice of its weight: the second stage of a run."""

from __future__ import annotations

import keras

from shortlist.data.loader import Loader
from shortlist.data.negatives import Negatives
from shortlist.data.rows import TrainingRows
from shortlist.models.pipeline import Pipeline, combine
from shortlist.models.ranker import Ranker
from shortlist.training.batches import Batches
from shortlist.training.job import MONITOR, VALIDATION_K, Job
from shortlist.training.loop import fit_model


def train_ranker(job: Job) -> tuple[Ranker, int]:
    """Trains the ranker; stops when the validation loss stops falling."""
    section = job.recipe.ranker
    explicit = section.objective == "explicit"
    negatives = None if explicit else _uniform(section.negatives)
    loader = job.loader(section, seed=job.recipe.seed + 1, negatives=negatives)
    mean_label = job.dataset.part("train").label.mean() if explicit else 0.0
    model = Ranker(
        job.inputs(section),
        job.dataset.table_rows,
        objective=section.objective,
        hidden_units=section.hidden_units,
        dropout=section.dropout,
        mean_label=float(mean_label),
        table_learning_rate=section.learning_rate,
        name="ranker",
    )
    model.compile(
        optimizer=keras.optimizers.Adam(section.learning_rate),
        loss=model.loss_function(),
    )
    validation = None
    if len(job.validation_users):
        held_out = TrainingRows(
            job.dataset,
            ("validation",),
            history_length=section.history_length,
            negatives=negatives,
            history_parts=("train", "validation"),
        )
        everything = Loader(
            held_out,
            batch_size=section.batch_size,
            seed=job.recipe.seed,
            drop_remainder=False,
        )
        validation = Batches(everything, with_label=True, reshuffle=False)
    batches = Batches(loader, with_label=True)
    epochs = fit_model(job, model, batches, section, "val_loss", [], validation)
    return model, epochs


def weights_tried(job: Job, pipeline: Pipeline) -> dict[float, float]:
    """Validation nDCG of each ranker weight; none without a validation part."""
    if not len(job.validation_users):
        return {}
    users, parts = job.validation_users, ("train",)
    scores, items = pipeline.retrieve(
        users, max(VALIDATION_K, pipeline.candidates), parts
    )
    ranked = pipeline.rank(users, items, parts)
    tried = {}
    for weight in job.recipe.ranker.weights:
        _, best = combine(scores, items, ranked, weight, VALIDATION_K)
        measured = job.validate(job.dataset, users, best, "validation")
        tried[float(weight)] = measured[MONITOR]
    return tried


def _uniform(count: int) -> Negatives | None:
    return Negatives("uniform", count) if count else None

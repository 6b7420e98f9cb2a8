"""The second stage of a run: training of the ranker and choice of its weight."""

from __future__ import annotations

from typing import Any

from shortlist.data.load.examples import TrainingExamples
from shortlist.data.load.loader import Loader
from shortlist.data.load.negatives import Negatives
from shortlist.data.load.options import ExampleOptions
from shortlist.models.multitask import MultiTask
from shortlist.models.pipeline import Pipeline, combine
from shortlist.models.ranker import Ranker
from shortlist.recipe import RankerSection
from shortlist.training.batches.keras_batches import Batches
from shortlist.training.batches.labels import (
    LabelledBatches,
    head_targets,
    positive_target,
)
from shortlist.training.job import MONITOR, VALIDATION_K, Job
from shortlist.training.loop.fit_model import fit_model
from shortlist.training.loop.optimization import Optimization


def train_ranker(job: Job) -> tuple[Ranker | MultiTask, int]:
    """Trains the ranker; stops when the validation loss stops falling."""
    section = job.recipe.ranker
    negatives, keep_label = _rows(section)
    model, batches = make_ranker(job)
    validation = None
    if len(job.validation_users):
        options = ExampleOptions(
            history_length=section.history_length,
            history_parts=("train", "validation"),
            negatives=negatives,
            keep_label=keep_label,
        )
        held_out = TrainingExamples(job.dataset, ("validation",), options)
        everything = Loader(
            held_out,
            batch_size=section.batch_size,
            seed=job.recipe.seed,
            drop_remainder=False,
        )
        validation = _batches(job, everything, reshuffle=False)
    return model, fit_model(job, model, batches, section, [], validation)


def make_ranker(job: Job) -> tuple[Ranker | MultiTask, Batches]:
    """The compiled ranker of a recipe, and its training batches."""
    section = job.recipe.ranker
    negatives, keep_label = _rows(section)
    loader = job.loader(
        section, seed=job.recipe.seed + 1, negatives=negatives, keep_label=keep_label
    )
    batches = _batches(job, loader, reshuffle=True)
    return _compiled(job, section, job.optimization(section, batches)), batches


def ranker_class(recipe: dict[str, Any]) -> type[Ranker] | type[MultiTask]:
    """The class of the ranker of a run, from its recipe."""
    kind = recipe.get("ranker", {}).get("kind", "single_task")
    return MultiTask if kind == "multi_task" else Ranker


def weights_tried(job: Job, pipeline: Pipeline) -> dict[float, float]:
    """Validation nDCG of each ranker weight; empty without a validation part."""
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


def _rows(section: RankerSection) -> tuple[Negatives | None, bool]:
    """The negatives of each event, and whether its label is kept."""
    count = section.negatives_drawn()
    negatives = Negatives("uniform", count) if count else None
    return negatives, section.kind == "multi_task"


def _compiled(
    job: Job, section: RankerSection, moves: Optimization
) -> Ranker | MultiTask:
    labels = section.labels()
    explicit = any(objective == "explicit" for objective, _ in labels.values())
    shared: dict[str, Any] = {
        "list_size": max(1 + section.negatives_drawn(), 2),
        "mean_label": float(job.dataset.part("train").label.mean())
        if explicit
        else 0.0,
        "table_optimizer": moves.table_optimizer,
        "table_learning_rate": moves.table_learning_rate,
        "name": "ranker",
    }
    inputs, rows = job.inputs(section), job.dataset.table_rows
    if section.kind == "multi_task":
        heads = {
            name: head.model_copy(update={"label": labels[name][1]})
            for name, head in section.heads.items()
        }
        several = MultiTask(inputs, rows, section, heads=heads, **shared)
        several.compile(moves.dense)
        return several
    model = Ranker(inputs, rows, section, **shared)
    model.compile(moves.dense, loss=model.loss_function())
    return model


def _batches(job: Job, loader: Loader, *, reshuffle: bool) -> Batches:
    section = job.recipe.ranker
    labels = {name: label for name, (_, label) in section.labels().items()}
    positive_from = job.dataset.schema.positive_from
    if section.kind == "multi_task":
        targets = head_targets(
            labels,
            positive_from=positive_from,
            list_size=1 + section.negatives_drawn(),
        )
        return LabelledBatches(loader, targets, reshuffle=reshuffle)
    if labels[""] == "positive":
        targets = positive_target(positive_from)
        return LabelledBatches(loader, targets, reshuffle=reshuffle)
    return Batches(loader, with_label=True, reshuffle=reshuffle)

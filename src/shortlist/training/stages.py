"""The stages of a training: retrieval, the ranker and its weight, the run's files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from shortlist.atomic import disk_errors
from shortlist.models.multitask import MultiTask
from shortlist.models.pipeline import Pipeline
from shortlist.models.ranker import Ranker
from shortlist.models.scorers.scorer import Scorer
from shortlist.recipe import Recipe
from shortlist.training.job import Job
from shortlist.training.loop.cost import cost
from shortlist.training.loop.optimization import precision
from shortlist.training.loop.randomness import random_state, restore_random_state
from shortlist.training.new_days import trained_files
from shortlist.training.ranking import ranker_class, train_ranker, weights_tried
from shortlist.training.resources.memory import memory_errors
from shortlist.training.retrieval import train_retrieval
from shortlist.training.runs.checkpoint import load_model, save_model
from shortlist.training.runs.run import (
    ENVIRONMENT_FILE,
    RECIPE_FILE,
    SCHEMA_FILE,
    RunInfo,
    environment,
    now,
    write_json,
    write_run,
)
from shortlist.training.scorers import load_retrieval, save_retrieval
from shortlist.training.warm_start import keep_vocabularies

Files = tuple[Callable[[Path, Any], None], Callable[[Path], Any]]
"""How a trained model is written and read."""

UNTRIED_WEIGHT = 0.0
"""Weight of the ranker when there is no validation part to choose it on."""


def train_stages(job: Job) -> None:
    """Trains the stages that are not finished, and writes the files of the run."""
    out, name = job.unfinished.out, job.recipe.training.precision
    with disk_errors(out), memory_errors(job), precision(name):
        _train_all(job)


def _train_all(job: Job) -> None:
    dataset, recipe, folder = job.dataset, job.recipe, job.folder
    if dataset.info.parts["validation"] and not job.validation_users.size:
        _print(
            job,
            "warning: no validation user has an unseen known item, so early stopping"
            " and the choice of the ranker weight are off. Hold out more events, check"
            " positive_from, or set evaluation.repeats if users interact with items"
            " repeatedly.",
        )
    keras.utils.set_random_seed(recipe.seed)
    write_json(folder / RECIPE_FILE, recipe.to_record())
    (folder / SCHEMA_FILE).write_bytes(dataset.schema.to_json())
    keep_vocabularies(dataset, folder)
    write_json(folder / ENVIRONMENT_FILE, environment(keras.backend.backend()))
    retrieval, retrieval_epochs = _stage(
        job, "retrieval", train_retrieval, _retrieval_files(job)
    )
    pipeline = job.pipeline(retrieval, None, 0.0)
    epochs = {"retrieval": retrieval_epochs}
    validation: dict[str, Any] = {"retrieval": job.measure(pipeline)}
    if recipe.ranker.enabled:
        ranker, epochs["ranker"] = _stage(
            job, "ranker", train_ranker, _ranker_files(recipe)
        )
        pipeline = job.pipeline(retrieval, ranker, 0.0)
        tried = weights_tried(job, pipeline)
        pipeline.ranker_weight = max(
            tried, key=lambda w: (tried[w], -w), default=UNTRIED_WEIGHT
        )
        validation["ranker_weights"] = {str(w): score for w, score in tried.items()}
        validation["pipeline"] = job.measure(pipeline)
    if job.profile is not None:
        job.profile.write(folder)
        _print(job, job.profile.text())
    write_run(folder, _run_info(job, pipeline, epochs, validation))


def _run_info(
    job: Job, pipeline: Pipeline, epochs: dict[str, int], validation: dict[str, Any]
) -> RunInfo:
    unfinished = job.unfinished
    return RunInfo(
        created_at=now(),
        dataset=str(job.dataset.path),
        dataset_fingerprint=job.dataset.info.fingerprint,
        backend=keras.backend.backend(),
        retrieval_history=job.recipe.retrieval.history_length,
        ranker_history=pipeline.ranker_history,
        ranker_weight=pipeline.ranker_weight,
        candidates=pipeline.candidates,
        objective=_objective(pipeline.retrieval, pipeline.ranker),
        epochs=epochs,
        validation=validation,
        popularity=job.popularity,
        notes=tuple(note for note in job.notes.values() if note),
        seconds={
            "retrieval": round(unfinished.stages["retrieval"].seconds, 3),
            "total": round(unfinished.seconds, 3),
        },
        warm_start=unfinished.state.warm_start,
        trained_on=trained_files(job.dataset),
        new_files=tuple(unfinished.state.new_files),
        profile={} if job.profile is None else job.profile.report(),
        cost=cost(unfinished.seconds, job.recipe.training.price_per_hour),
    )


def _print(job: Job, text: str) -> None:
    if not job.quiet:
        print(text, file=sys.stderr, flush=True)


def _retrieval_files(job: Job) -> Files:
    history = job.recipe.retrieval.history_length
    return save_retrieval, lambda path: load_retrieval(path, job.dataset, history)


def _ranker_files(recipe: Recipe) -> Files:
    kind = ranker_class(recipe.to_builtins())
    return save_model, lambda path: load_model(path, kind)


def _stage(
    job: Job, name: str, fit: Callable[[Job], tuple[Any, int]], files: Files
) -> tuple[Any, int]:
    """A trained model and its epochs, from an earlier process if it finished there."""
    save, load = files
    done = job.unfinished.stages.get(name)
    if done is not None:
        model = load(job.folder / name)
        restore_random_state(done.random)  # last: making a model uses random numbers
        job.notes[name] = done.note
        return model, done.epochs
    model, epochs = fit(job)
    save(job.folder / name, model)
    note = job.notes.get(name, "")
    job.unfinished.finish_stage(name, epochs, random_state(), note)
    return model, epochs


def _objective(retrieval: Scorer, ranker: Ranker | MultiTask | None) -> str | None:
    """What the score of a pair is: `explicit` if it predicts the label."""
    if ranker is not None:
        return ranker.objective
    return "explicit" if retrieval.predicts_label else None

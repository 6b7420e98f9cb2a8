"""DATASET + MODEL -> RUN: stock `fit` with early stopping on the validation part."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import keras

from shortlist.atomic import atomic_directory, check_absent
from shortlist.data.dataset import Dataset
from shortlist.data.schema import USER
from shortlist.errors import InputError
from shortlist.models.pipeline import Pipeline
from shortlist.models.two_tower import TwoTower
from shortlist.recipe import Recipe
from shortlist.training.checkpoint import load_model, save_model
from shortlist.training.job import Job, Validate
from shortlist.training.labels import check_labels
from shortlist.training.ranking import ranker_class, train_ranker, weights_tried
from shortlist.training.retrieval import train_retrieval
from shortlist.training.runs import RUN_FILE, Run, RunInfo, environment, now, write_json

UNTRIED_WEIGHT = 0.0
"""Weight of the ranker where there is nothing to choose it on."""


def train(
    dataset: Dataset,
    out: str | Path,
    recipe: Recipe,
    *,
    validate: Validate,
    overwrite: bool = False,
    quiet: bool = False,
) -> Run:
    """Trains retrieval and ranking and writes a run directory.

    Args:
        dataset: a prepared dataset.
        out: the run directory; must not exist unless `overwrite`.
        recipe: hyper-parameters and seed.
        validate: metrics of recommendations on the validation part; must return
            `ndcg@10`. `shortlist.evaluation.ranking_metrics` is the one to pass.
        overwrite: replace an existing run.
        quiet: show no progress.

    Raises:
        InputError: the dataset holds nothing to train on, or `out` exists.
        ResourceError: the run cannot be written.
    """
    out = Path(out)
    check_absent(out, overwrite=overwrite, marker=RUN_FILE)
    _check_parts(dataset, recipe)
    with atomic_directory(out, overwrite=overwrite, marker=RUN_FILE) as folder:
        _train_into(folder, dataset, recipe, validate, quiet)
    return Run.open(out)


def load_pipeline(run: Run, dataset: Dataset) -> Pipeline:
    """The trained models of a run over its dataset, ready to recommend."""
    run.check_dataset(dataset.info.fingerprint)
    retrieval = load_model(run.path / "retrieval", TwoTower)
    ranker = None
    if (run.path / "ranker").is_dir():
        ranker = load_model(run.path / "ranker", ranker_class(run.recipe))
    return Pipeline(
        dataset,
        retrieval,
        ranker,
        retrieval_history=run.info.retrieval_history,
        ranker_history=run.info.ranker_history,
        ranker_weight=run.info.ranker_weight,
        candidates=run.info.candidates,
    )


def _train_into(
    folder: Path, dataset: Dataset, recipe: Recipe, validate: Validate, quiet: bool
) -> None:
    started = time.perf_counter()
    keras.utils.set_random_seed(recipe.seed)
    write_json(folder / "recipe.json", recipe.to_builtins())
    (folder / "schema.json").write_bytes(dataset.schema.to_json())
    write_json(folder / "environment.json", environment(keras.backend.backend()))
    job = Job(folder, dataset, recipe, validate, quiet)
    retrieval, retrieval_epochs = train_retrieval(job)
    save_model(folder / "retrieval", retrieval)
    retrieval_seconds = time.perf_counter() - started
    pipeline = job.pipeline(retrieval, None, 0.0)
    epochs = {"retrieval": retrieval_epochs}
    validation: dict[str, Any] = {"retrieval": job.measure(pipeline)}
    if recipe.ranker.enabled:
        ranker, epochs["ranker"] = train_ranker(job)
        save_model(folder / "ranker", ranker)
        pipeline = job.pipeline(retrieval, ranker, 0.0)
        tried = weights_tried(job, pipeline)
        pipeline.ranker_weight = max(
            tried, key=lambda w: (tried[w], -w), default=UNTRIED_WEIGHT
        )
        validation["ranker_weights"] = {str(w): score for w, score in tried.items()}
        validation["pipeline"] = job.measure(pipeline)
    write_json(
        folder / RUN_FILE,
        RunInfo(
            created_at=now(),
            dataset=str(dataset.path),
            dataset_fingerprint=dataset.info.fingerprint,
            backend=keras.backend.backend(),
            retrieval_history=pipeline.retrieval_history,
            ranker_history=pipeline.ranker_history,
            ranker_weight=pipeline.ranker_weight,
            candidates=pipeline.candidates,
            objective=pipeline.ranker.objective if pipeline.ranker else None,
            epochs=epochs,
            validation=validation,
            seconds={
                "retrieval": round(retrieval_seconds, 3),
                "total": round(time.perf_counter() - started, 3),
            },
        ),
    )


def _check_parts(dataset: Dataset, recipe: Recipe) -> None:
    """Checks that the events and labels fit the recipe before any work starts."""
    if not dataset.info.parts.get("train"):
        raise InputError(
            "part-empty",
            "The training part must hold events. Received: none. Hold out fewer"
            " events and prepare again.",
        )
    if recipe.ranker.enabled:
        check_labels(dataset, recipe.ranker)
    if len(dataset.vocabularies[USER]) < 3:
        raise InputError(
            "log-too-small", "Training needs at least 2 users. Prepare more events."
        )

"""DATASET + MODEL -> RUN: stock `fit` with early stopping on the validation part."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import msgspec

from shortlist.atomic import check_absent, disk_errors
from shortlist.data.schema import USER
from shortlist.data.store.dataset import Dataset
from shortlist.errors import InputError, ResourceError
from shortlist.models.multitask import MultiTask
from shortlist.models.pipeline import Pipeline
from shortlist.models.ranker import Ranker
from shortlist.models.scorers.scorer import Scorer
from shortlist.outputs import RUN
from shortlist.recipe import Recipe
from shortlist.training.checkpoint import load_model, save_model
from shortlist.training.cost import cost
from shortlist.training.held_out import check_held_out
from shortlist.training.job import Job, Validate, Watch
from shortlist.training.keras_imports import without_tensorflow
from shortlist.training.labels import check_labels
from shortlist.training.memory import memory_errors
from shortlist.training.new_days import files_since, trained_files
from shortlist.training.optimization import check_updates, precision
from shortlist.training.probe import probe, with_sizes
from shortlist.training.profile import Profile
from shortlist.training.randomness import random_state, restore_random_state
from shortlist.training.ranking import ranker_class, train_ranker, weights_tried
from shortlist.training.retrieval import train_retrieval
from shortlist.training.runs import (
    ENVIRONMENT_FILE,
    RECIPE_FILE,
    RUN_FILE,
    SCHEMA_FILE,
    Run,
    RunInfo,
    environment,
    now,
    write_json,
    write_run,
)
from shortlist.training.scorers import load_retrieval, save_retrieval
from shortlist.training.trackers import Tracker, Tracking, Training
from shortlist.training.unfinished import (
    State,
    Unfinished,
    begun_recipe,
    differing_fields,
    kept,
    unfinished_folder,
)
from shortlist.training.warm_start import check_warm_start, keep_vocabularies

Files = tuple[Callable[[Path, Any], None], Callable[[Path], Any]]
"""How a trained model is written and read."""

UNTRIED_WEIGHT = 0.0
"""Weight of the ranker where there is nothing to choose it on."""


@without_tensorflow()
def train(
    dataset: Dataset,
    out: str | Path,
    recipe: Recipe,
    *,
    validate: Validate,
    overwrite: bool = False,
    resume: bool = False,
    warm_start: str | Path | None = None,
    new_days: bool = False,
    probe_batch_size: bool = False,
    profile: bool = False,
    quiet: bool = False,
    trackers: Sequence[Tracker] = (),
    watches: Sequence[Watch] = (),
) -> Run:
    """Trains retrieval and ranking and writes a run directory.

    Until the run is finished its state lies beside it, from where a training that was
    interrupted goes on; see `Unfinished`.

    Args:
        dataset: a prepared dataset.
        out: the run directory; must not exist unless `overwrite`.
        recipe: hyper-parameters and seed.
        validate: metrics of recommendations on the validation part; must return
            `ndcg@10`. `shortlist.evaluation.ranking_metrics` is the one to pass.
        overwrite: replace an existing run; without `resume`, also begin anew where
            a training was interrupted.
        resume: go on with a training that was interrupted at `out`. Without one, begin;
            with a run of this recipe and dataset at `out`, return it.
        warm_start: an older run whose rows and dense weights this one begins with.
        new_days: train only on the events that were appended since that run.
        probe_batch_size: take the largest batches of which a step fits the memory, and
            note them in the recipe of the run; see `largest_batch`. A training that
            goes on keeps those it began with.
        profile: measure where the time of the steps goes, and write a trace of them
            into the run; see `shortlist.training.profile`.
        quiet: show no progress.
        trackers: who is told of the training; `trackers.open_trackers` makes those of
            a recipe. One that fails is shown as a warning.
        watches: make further Keras callbacks for the fit of every model.

    Raises:
        InputError: the dataset holds nothing to train on, `out` exists, or what was
            interrupted there is of another recipe, dataset or backend.
        ArtifactError: the older run of a warm start cannot be one.
        ResourceError: the run cannot be written, or another process trains it.
    """
    out = Path(out)
    _check_parts(dataset, recipe)
    begun = _beginning(dataset, recipe, warm_start, new_days)
    if probe_batch_size:
        older = _sizes_begun_with(out, recipe, overwrite) if resume else None
        if older is None:
            check_absent(out, overwrite=overwrite, kind=RUN)
        recipe = with_sizes(recipe, older or _probed(dataset, recipe, begun, quiet))
        begun.recipe = recipe.to_record()
    if resume and not overwrite and _is_finished(out, begun):
        return Run.open(out)
    with Unfinished(out, begun, overwrite=overwrite, resume=resume) as unfinished:
        if unfinished.is_published:
            unfinished.remove()
            return Run.open(out)
        with Tracking(trackers, _training(dataset, recipe)) as tracking:
            job = Job(
                *(unfinished, dataset, recipe, validate, quiet),
                watches=(tracking.callbacks, *watches),
                profile=Profile() if profile else None,
            )
            try:
                _train_into(job)
                unfinished.publish()
            except ResourceError as error:
                raise kept(error, unfinished) from error
            run = Run.open(out)
            tracking.finish(run)
    return run


def fast_dev_run(
    dataset: Dataset,
    recipe: Recipe,
    *,
    validate: Validate,
    warm_start: str | Path | None = None,
    new_days: bool = False,
) -> RunInfo:
    """One batch through every stage, its checkpoint and its validation; nothing stays.

    What it returns is what a run would say, from one batch. Everything is written and
    read as by `train`, to a temporary folder.

    Args:
        dataset: a prepared dataset.
        recipe: hyper-parameters and seed.
        validate: as for `train`.
        warm_start: as for `train`.
        new_days: as for `train`.
    """
    _check_parts(dataset, recipe)
    begun = _beginning(dataset, recipe, warm_start, new_days)
    with (
        tempfile.TemporaryDirectory(prefix="shortlist-") as folder,
        Unfinished(Path(folder) / "run", begun) as unfinished,
    ):
        _train_into(Job(unfinished, dataset, recipe, validate, quiet=True, steps=1))
        unfinished.publish()
        run = Run.open(unfinished.out)
        load_pipeline(run, dataset)
    return run.info


@without_tensorflow()
def load_pipeline(run: Run, dataset: Dataset, *, repeats: bool = False) -> Pipeline:
    """The trained models of a run over its dataset, ready to recommend.

    Args:
        run: a finished run.
        dataset: the one it was trained on.
        repeats: recommend items again that a user has taken before.
    """
    run.check_contents(dataset)
    run.verify("retrieval")
    run.verify("ranker")
    history = run.info.retrieval_history
    retrieval = load_retrieval(run.path / "retrieval", dataset, history)
    ranker = None
    if (run.path / "ranker").is_dir():
        ranker = load_model(run.path / "ranker", ranker_class(run.recipe))
    return Pipeline(
        dataset,
        retrieval,
        ranker,
        ranker_history=run.info.ranker_history,
        ranker_weight=run.info.ranker_weight,
        candidates=run.info.candidates,
        repeats=repeats,
    )


def _beginning(
    dataset: Dataset, recipe: Recipe, warm_start: str | Path | None, new_days: bool
) -> State:
    older, files = "", tuple[str, ...]()
    if warm_start is not None:
        run = Run.open(warm_start)
        check_warm_start(run, recipe)
        older = str(run.path.resolve())
        files = files_since(run, dataset) if new_days else ()
    elif new_days:
        raise InputError(
            "new-days-alone",
            "New days are those since an older run. Received: no older run. Name one"
            " with warm_start, on the command line --warm-start RUN.",
        )
    return State(
        recipe=recipe.to_record(),
        dataset_fingerprint=dataset.info.fingerprint,
        backend=keras.backend.backend(),
        warm_start=older,
        new_files=list(files),
    )


def _sizes_begun_with(
    out: Path, recipe: Recipe, overwrite: bool
) -> dict[str, int] | None:
    """The batch sizes of what is unfinished or, if it may stay, finished at `out`."""
    older = begun_recipe(out)
    if older is None and not overwrite and (out / RUN_FILE).is_file():
        older = Run.open(out).recipe
    if older is None:
        return None
    return {stage: older[stage]["batch_size"] for stage in recipe.trained()}


def _probed(
    dataset: Dataset, recipe: Recipe, begun: State, quiet: bool
) -> dict[str, int]:
    state = msgspec.structs.replace(begun)
    with (
        tempfile.TemporaryDirectory(prefix="shortlist-") as folder,
        Unfinished(Path(folder) / "run", state) as unfinished,
    ):
        return probe(Job(unfinished, dataset, recipe, lambda *_: {}, quiet))


def _training(dataset: Dataset, recipe: Recipe) -> Training:
    return Training(
        name=recipe.name,
        dataset=str(dataset.path),
        dataset_fingerprint=dataset.info.fingerprint,
        backend=keras.backend.backend(),
        recipe=recipe.to_record(),
    )


def _is_finished(out: Path, begun: State) -> bool:
    """Whether the run at `out` is the one to be trained, and nothing is under way."""
    if unfinished_folder(out).exists() or not (out / RUN_FILE).is_file():
        return False
    run = Run.open(out)
    return (
        run.info.dataset_fingerprint == begun.dataset_fingerprint
        and run.info.backend == begun.backend
        and begun.warm_start in ("", run.info.warm_start)
        and begun.new_files in ([], list(run.info.new_files))
        and not differing_fields(run.recipe, begun.recipe)
    )


def _train_into(job: Job) -> None:
    """Trains what is not trained yet, and writes the files of the run."""
    out, name = job.unfinished.out, job.recipe.training.precision
    with disk_errors(out), memory_errors(job), precision(name):
        _train_stages(job)


def _train_stages(job: Job) -> None:
    dataset, recipe, folder = job.dataset, job.recipe, job.folder
    if dataset.info.parts["validation"] and not job.validation_users.size:
        _tell(
            job,
            "warning: nobody took an item in the validation part that is known and new"
            " to them, so nothing stops training early and the ranker gets no weight."
            " Hold out more events, look at positive_from, or set evaluation.repeats"
            " if users take items again.",
        )
    keras.utils.set_random_seed(recipe.seed)
    write_json(folder / RECIPE_FILE, recipe.to_record())
    (folder / SCHEMA_FILE).write_bytes(dataset.schema.to_json())
    keep_vocabularies(dataset, folder)
    write_json(folder / ENVIRONMENT_FILE, environment(keras.backend.backend()))
    retrieval, retrieval_epochs = _stage(
        job, "retrieval", train_retrieval, _retrieval_files(job)
    )
    seconds = {"retrieval": round(job.unfinished.stages["retrieval"].seconds, 3)}
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
        _tell(job, job.profile.text())
    write_run(
        folder,
        RunInfo(
            created_at=now(),
            dataset=str(dataset.path),
            dataset_fingerprint=dataset.info.fingerprint,
            backend=keras.backend.backend(),
            retrieval_history=recipe.retrieval.history_length,
            ranker_history=pipeline.ranker_history,
            ranker_weight=pipeline.ranker_weight,
            candidates=pipeline.candidates,
            objective=_objective(retrieval, pipeline.ranker),
            epochs=epochs,
            validation=validation,
            popularity=job.popularity,
            notes=tuple(note for note in job.notes.values() if note),
            seconds={**seconds, "total": round(job.unfinished.seconds, 3)},
            warm_start=job.unfinished.state.warm_start,
            trained_on=trained_files(dataset),
            new_files=tuple(job.unfinished.state.new_files),
            profile={} if job.profile is None else job.profile.report(),
            cost=cost(job.unfinished.seconds, recipe.training.price_per_hour),
        ),
    )


def _tell(job: Job, text: str) -> None:
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
    """One trained model and its epochs; trained now unless it was before."""
    save, load = files
    done = job.unfinished.stages.get(name)
    if done is not None:
        model = load(job.folder / name)
        restore_random_state(done.random)  # last: a model draws when it is made
        job.notes[name] = done.note
        return model, done.epochs
    model, epochs = fit(job)
    save(job.folder / name, model)
    note = job.notes.get(name, "")
    job.unfinished.finish_stage(name, epochs, random_state(), note)
    return model, epochs


def _objective(retrieval: Scorer, ranker: Ranker | MultiTask | None) -> str | None:
    """What the score of a pair is: `explicit` where it predicts the label."""
    if ranker is not None:
        return ranker.objective
    return "explicit" if retrieval.predicts_label else None


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
    # At most so many batches: what is left out of training is not known yet.
    for stage, section in recipe.trained().items():
        most = -(-dataset.info.parts["train"] // section.batch_size)
        check_updates(recipe.training, stage, most, section.epochs)
    if len(dataset.vocabularies[USER]) < 3:
        raise InputError(
            "log-too-small", "Training needs at least 2 users. Prepare more events."
        )
    if not recipe.evaluation.repeats:
        check_held_out(dataset)

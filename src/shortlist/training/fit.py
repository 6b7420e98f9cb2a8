"""DATASET + MODEL -> RUN: stock `fit` with early stopping on the validation part."""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras
import msgspec

from shortlist.atomic import check_absent
from shortlist.data.schema import USER
from shortlist.data.store.dataset import Dataset
from shortlist.errors import InputError, ResourceError
from shortlist.outputs import RUN
from shortlist.recipe import Recipe
from shortlist.training.batches.labels import check_labels
from shortlist.training.held_out import check_held_out
from shortlist.training.job import Job, Monitoring, Validate
from shortlist.training.keras_imports import without_tensorflow
from shortlist.training.load import load_pipeline
from shortlist.training.loop.optimization import check_updates
from shortlist.training.new_days import files_since
from shortlist.training.options import TrainOptions
from shortlist.training.resources.probe import probe, with_sizes
from shortlist.training.resources.profile import Profile
from shortlist.training.runs.run import RUN_FILE, Run, RunInfo
from shortlist.training.runs.unfinished import (
    State,
    Unfinished,
    begun_recipe,
    differing_fields,
    kept,
    unfinished_folder,
)
from shortlist.training.stages import train_stages
from shortlist.training.trackers import Tracking, Training
from shortlist.training.warm_start import check_warm_start


@without_tensorflow()
def train(
    dataset: Dataset,
    out: str | Path,
    recipe: Recipe,
    *,
    validate: Validate,
    overwrite: bool = False,
    quiet: bool = False,
    options: TrainOptions | None = None,
) -> Run:
    """Trains retrieval and ranking and writes a run directory.

    Until the run is finished its state is kept next to `out`, so that an interrupted
    training can be resumed; see `Unfinished`.

    Args:
        dataset: a prepared dataset.
        out: the run directory; must not exist unless `overwrite`.
        recipe: hyper-parameters and seed.
        validate: metrics of recommendations on the validation part; must return
            `ndcg@10`. `shortlist.evaluation.ranking_metrics` is the one to pass.
        overwrite: replace an existing run. Without `options.resume`, also discard an
            interrupted training.
        quiet: show no progress.
        options: how to start, resume and observe the training; see `TrainOptions`.

    Raises:
        InputError: the dataset has nothing to train on, `out` exists, or the
            interrupted training there has another recipe, dataset or backend.
        ArtifactError: the older run of a warm start does not fit.
        ResourceError: the run cannot be written, or another process trains it.
    """
    options, out = options or TrainOptions(), Path(out)
    _check_parts(dataset, recipe)
    begun = _initial_state(dataset, recipe, options)
    if options.probe_batch_size:
        older = _sizes_of(out, recipe, overwrite) if options.resume else None
        if older is None:
            check_absent(out, overwrite=overwrite, kind=RUN)
        recipe = with_sizes(recipe, older or _probed(dataset, recipe, begun, quiet))
        begun.recipe = recipe.to_record()
    if options.resume and not overwrite and _is_finished(out, begun):
        return Run.open(out)
    with Unfinished(
        out, begun, overwrite=overwrite, resume=options.resume
    ) as unfinished:
        if unfinished.is_published:
            unfinished.remove()
            return Run.open(out)
        with Tracking(options.trackers, _training(dataset, recipe)) as tracking:
            monitoring = Monitoring(
                quiet=quiet,
                callbacks=(tracking.callbacks, *options.callbacks),
                profile=Profile() if options.profile else None,
            )
            run = _run_of(Job(unfinished, dataset, recipe, validate, monitoring))
            tracking.finish(run)
    return run


def _run_of(job: Job) -> Run:
    """Trains and publishes the run of a job.

    Raises:
        ResourceError: with a note on what is kept and how to resume.
    """
    try:
        train_stages(job)
        job.unfinished.publish()
    except ResourceError as error:
        raise kept(error, job.unfinished) from error
    return Run.open(job.unfinished.out)


def fast_dev_run(
    dataset: Dataset,
    recipe: Recipe,
    *,
    validate: Validate,
    warm_start: str | Path | None = None,
    new_days: bool = False,
) -> RunInfo:
    """Runs one batch through every stage, its checkpoint and its validation.

    Everything is written and read as by `train`, but to a temporary folder.

    Args:
        dataset: a prepared dataset.
        recipe: hyper-parameters and seed.
        validate: as for `train`.
        warm_start: as for `train`.
        new_days: as for `train`.

    Returns: what `run.json` would say, from one batch.
    """
    _check_parts(dataset, recipe)
    begun = _initial_state(
        dataset, recipe, TrainOptions(warm_start=warm_start, new_days=new_days)
    )
    with (
        tempfile.TemporaryDirectory(prefix="shortlist-") as folder,
        Unfinished(Path(folder) / "run", begun) as unfinished,
    ):
        quiet = Monitoring(quiet=True)
        train_stages(Job(unfinished, dataset, recipe, validate, quiet, steps=1))
        unfinished.publish()
        run = Run.open(unfinished.out)
        load_pipeline(run, dataset)
    return run.info


def _initial_state(dataset: Dataset, recipe: Recipe, options: TrainOptions) -> State:
    older, files = "", tuple[str, ...]()
    if options.warm_start is not None:
        run = Run.open(options.warm_start)
        check_warm_start(run, recipe)
        older = str(run.path.resolve())
        files = files_since(run, dataset) if options.new_days else ()
    elif options.new_days:
        raise InputError(
            "new-days-alone",
            "new_days needs warm_start: the older run to compare the dataset with. On"
            " the command line, --new-days needs --warm-start RUN.",
        )
    return State(
        recipe=recipe.to_record(),
        dataset_fingerprint=dataset.info.fingerprint,
        backend=keras.backend.backend(),
        warm_start=older,
        new_files=list(files),
    )


def _sizes_of(out: Path, recipe: Recipe, overwrite: bool) -> dict[str, int] | None:
    """The batch sizes of the unfinished or, without `overwrite`, finished run."""
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
        monitoring = Monitoring(quiet=quiet)
        return probe(Job(unfinished, dataset, recipe, lambda *_: {}, monitoring))


def _training(dataset: Dataset, recipe: Recipe) -> Training:
    return Training(
        name=recipe.name,
        dataset=str(dataset.path),
        dataset_fingerprint=dataset.info.fingerprint,
        backend=keras.backend.backend(),
        recipe=recipe.to_record(),
    )


def _is_finished(out: Path, begun: State) -> bool:
    """Whether the run at `out` is the requested one, and no training is unfinished."""
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

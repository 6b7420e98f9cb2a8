"""The stages of a recipe as functions, for the commands and the demo."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortlist.cli.options import beside, need_backend
from shortlist.cli.places import check_outputs
from shortlist.data.split import Split
from shortlist.data.store.dataset import Dataset
from shortlist.data.store.file_fingerprints import changed
from shortlist.errors import ArtifactError
from shortlist.packages import need_package

if TYPE_CHECKING:
    from shortlist.bundle.export import History
    from shortlist.bundle.manifest import Manifest
    from shortlist.data.findings import Finding
    from shortlist.data.read.inputs import LogFiles, ReadOptions
    from shortlist.recipe import PathOrPaths, Recipe
    from shortlist.recipe.log import LogSection
    from shortlist.training.options import TrainOptions
    from shortlist.training.runs.run import Run, RunInfo
    from shortlist.training.search.tuning import Tuned


def prepare_stage(recipe: Recipe, path: Path, *, overwrite: bool) -> Dataset:
    """LOG -> DATASET."""
    check_outputs(recipe, path)
    from shortlist.data.preparation.prepare import prepare

    packed = recipe.output.compression
    return prepare(
        log_files(recipe, path),
        recipe.columns,
        beside(path, recipe.output.dataset),
        split=recipe.split,
        options=read_options(recipe.log),
        compression=None if packed == "none" else packed,
        overwrite=overwrite,
    )


def append_stage(
    recipe: Recipe, path: Path, files: list[Path]
) -> tuple[tuple[Finding, ...], Dataset]:
    """Appends new days to the dataset, as its test part.

    Returns: the earlier findings, and the dataset.
    """
    from shortlist.data.preparation.append import append
    from shortlist.data.read.inputs import LogFiles

    dataset = _dataset(recipe, path, rereads_attributes=True)
    found = dataset.info.findings
    given = log_files(recipe, path)
    days = LogFiles(files, given.users, given.items, given.users_id, given.items_id)
    return found, append(dataset.path, days, options=read_options(recipe.log))


def log_files(recipe: Recipe, path: Path) -> LogFiles:
    """The files that a recipe names; relative paths start at the recipe's folder."""
    from shortlist.data.read.inputs import LogFiles

    log = recipe.log
    return LogFiles(
        _paths(path, log.events) or [],
        users=beside(path, log.users) if log.users else None,
        items=beside(path, log.items) if log.items else None,
        users_id=log.users_id,
        items_id=log.items_id,
        test_events=_paths(path, log.test_events),
        validation_events=_paths(path, log.validation_events),
    )


def read_options(log: LogSection) -> ReadOptions:
    """How a recipe says that its files are read."""
    from shortlist.data.read.inputs import ReadOptions

    return ReadOptions(
        format=log.file_format(),
        users_format=log.users_format.file_format(),
        items_format=log.items_format.file_format(),
        on_error=log.on_error,
    )


def train_stage(
    recipe: Recipe,
    path: Path,
    *,
    overwrite: bool,
    options: TrainOptions | None = None,
) -> Run:
    """DATASET + MODEL -> RUN."""
    check_outputs(recipe, path)
    need_backend()
    dataset = _dataset(recipe, path)

    from shortlist.evaluation import ranking_metrics
    from shortlist.training import TrainOptions, train
    from shortlist.training.trackers import open_trackers

    trackers = open_trackers(recipe.tracking, path.parent)
    return train(
        dataset,
        beside(path, recipe.output.run),
        recipe,
        validate=ranking_metrics,
        overwrite=overwrite,
        options=dataclasses.replace(options or TrainOptions(), trackers=trackers),
    )


def fast_dev_run_stage(
    recipe: Recipe,
    path: Path,
    *,
    warm_start: Path | None = None,
    new_days: bool = False,
) -> RunInfo:
    """One batch of each stage of `train_stage`; nothing is written."""
    need_backend()
    dataset = _dataset(recipe, path)

    from shortlist.evaluation import ranking_metrics
    from shortlist.training import fast_dev_run

    return fast_dev_run(
        dataset,
        recipe,
        validate=ranking_metrics,
        warm_start=warm_start,
        new_days=new_days,
    )


def tune_stage(recipe: Recipe, path: Path, *, resume: bool, overwrite: bool) -> Tuned:
    """DATASET + SPACE -> the best settings on the validation part."""
    check_outputs(recipe, path)
    need_backend()
    need_package("optuna", "tune")
    dataset = _dataset(recipe, path)

    from shortlist.evaluation import ranking_metrics
    from shortlist.training import tune
    from shortlist.training.trackers import open_trackers

    return tune(
        dataset,
        beside(path, recipe.tune.folder),
        recipe,
        validate=ranking_metrics,
        resume=resume,
        overwrite=overwrite,
        trackers=open_trackers(recipe.tracking, path.parent),
    )


def evaluate_stage(
    recipe: Recipe, path: Path, slices: Sequence[str] = ()
) -> dict[str, Any]:
    """SCORES -> METRICS; also written to the run, with the metrics of each user.

    Args:
        recipe: what is measured.
        path: of the recipe.
        slices: features to divide the report by, in addition to the recipe's.
    """
    need_backend()
    dataset, run = _open(recipe, path)

    from shortlist.evaluation import EvaluationOptions, evaluate_pipeline
    from shortlist.training import load_pipeline

    evaluation = evaluate_pipeline(
        load_pipeline(run, dataset, repeats=recipe.evaluation.repeats),
        EvaluationOptions(
            objective=run.info.objective,
            ks=recipe.evaluation.ks,
            resamples=recipe.evaluation.resamples,
            seed=recipe.seed,
            metrics=recipe.evaluation.metrics or None,
            slices=[*recipe.evaluation.slices, *slices],
            taste=recipe.evaluation.taste or None,
        ),
    )
    if "ranker" in run.info.epochs:
        evaluation.report["ranker_weight"] = run.info.ranker_weight
    evaluation.save(run.path)
    if recipe.tracking.store is not None:
        from shortlist.training.runs.run_store import RunStore

        RunStore(beside(path, recipe.tracking.store)).add(run)
    return evaluation.report


def export_stage(
    recipe: Recipe, path: Path, *, history: History, overwrite: bool
) -> Manifest:
    """RUN -> ONE DIRECTORY."""
    check_outputs(recipe, path)
    need_backend()
    dataset, run = _open(recipe, path)

    from shortlist.bundle.export import export_bundle
    from shortlist.training import load_pipeline

    evaluation = run.evaluation() or {}
    validation = verdict_of_run(run)
    return export_bundle(
        beside(path, recipe.output.bundle),
        load_pipeline(run, dataset),
        name=recipe.name,
        history=history,
        metrics={"validation": validation} | evaluation if validation else evaluation,
        repeats=recipe.serving.repeats,
        overwrite=overwrite,
    )


def verdict_of_run(run: Run) -> dict[str, Any] | None:
    """Whether a run is better than popularity on the validation part."""
    from shortlist.evaluation.verdict import validation_verdict

    info = run.info
    best = info.validation.get("pipeline") or info.validation.get("retrieval") or {}
    kind = run.recipe.get("retrieval", {}).get("kind", "two_tower")
    return validation_verdict(best, info.popularity, kind)


def _open(recipe: Recipe, path: Path) -> tuple[Dataset, Run]:
    from shortlist.training.runs.run import Run

    run = Run.open(beside(path, recipe.output.run))
    dataset = _dataset(recipe, path)
    run.check_dataset(dataset.info.fingerprint)
    return dataset, run


def _dataset(
    recipe: Recipe, path: Path, *, rereads_attributes: bool = False
) -> Dataset:
    """Opens the dataset and checks that this recipe prepared it."""
    dataset = Dataset.open(beside(path, recipe.output.dataset))
    differing = [
        name
        for name, given, prepared in (
            ("columns", recipe.columns, dataset.schema),
            # Fields that earlier versions did not have get their defaults.
            ("split", recipe.split, Split(**dataset.info.split)),
        )
        if given != prepared
    ]
    if differing:
        raise ArtifactError(
            "dataset-mismatch",
            f"The dataset was prepared with other settings: {differing} differ from the"
            " recipe. Run `shortlist prepare --overwrite`, or restore the settings.",
            file=dataset.path,
        )
    read = dataset.info.log if rereads_attributes else dataset.info.source_files
    if stale := changed(read):
        raise ArtifactError(
            "dataset-stale",
            f"Input files changed after the dataset was prepared: {stale}. Run"
            " `shortlist prepare --overwrite`, or restore the files.",
            file=dataset.path,
        )
    return dataset


def _paths(recipe_path: Path, named: PathOrPaths | None) -> list[Path] | None:
    """Files that a recipe names."""
    if named is None:
        return None
    names = [named] if isinstance(named, str) else named
    return [beside(recipe_path, name) for name in names]

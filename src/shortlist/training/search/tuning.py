"""Hyperparameter search: trials of a recipe, measured on the validation part.

The test part is never opened. The study decides which values are tried next and which
trials are pruned.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from shortlist.data.store.dataset import Dataset
from shortlist.errors import InputError, ShortlistError, did_you_mean
from shortlist.packages import need_package
from shortlist.recipe import Recipe
from shortlist.recipe.search import TuneSection
from shortlist.training.fit import train
from shortlist.training.held_out import measurable_users
from shortlist.training.job import VALIDATION_K, Validate, validator
from shortlist.training.loop.stops import mode_of
from shortlist.training.options import TrainOptions
from shortlist.training.runs.records import Pruned, best_metrics
from shortlist.training.runs.run import Run
from shortlist.training.runs.unfinished import FREE_FIELDS
from shortlist.training.search.search_space import recipe_with, space_of
from shortlist.training.trackers import Store, Tracker

if TYPE_CHECKING:
    from shortlist.training.options import CallbackFactory
    from shortlist.training.search.study import RunningTrial, Study, Trial

# Errors caused by the values of a trial; every other error ends the search.
BLAMED = ("loss-not-finite", "out-of-memory")


class Tuned(NamedTuple):
    """The result of a search.

    Args:
        best: the best trial.
        recipe: the recipe with its values.
        trials: all trials, by number.
    """

    best: Trial
    recipe: Recipe
    trials: list[Trial]

    def counts(self) -> dict[str, int]:
        """Number of trials by how they ended."""
        counted = Counter(trial.state for trial in self.trials)
        return {name: counted[name] for name in ("finished", "pruned", "failed")}


def tune(
    dataset: Dataset,
    folder: str | Path,
    recipe: Recipe,
    *,
    validate: Validate,
    resume: bool = False,
    overwrite: bool = False,
    trackers: Sequence[Tracker] = (),
) -> Tuned:
    """Searches the space of `recipe.tune` for the best metric on the validation part.

    Each trial trains the recipe with other values and the same seed. After
    `min_epochs`, `halving` times as many, and so on, a trial continues only if it is
    among the best 1/`halving` of the trials that came so far (successive halving). A
    trial whose values cannot be trained is marked failed, and the search continues.

    Args:
        dataset: a prepared dataset.
        folder: of the study, which stores every trial.
        recipe: fixed settings, and in `[tune]` the space to search.
        validate: as for `train`.
        resume: resume an interrupted search, or extend one with more trials; the
            unfinished trial continues from its checkpoint.
        overwrite: replace an existing study.
        trackers: receive every trial; a `Store` keeps the runs.

    Raises:
        InputError: `tune-space`, `tune-metric`, `tune-validation`, `tune-no-trial`,
            `study-exists` or `resume-mismatch`.
        ArtifactError: `study-damaged`.
        ResourceError: `package-missing`, `training-locked`, or the folder cannot be
            written.
    """
    need_package("optuna", "tune")
    from shortlist.training.search.study import Study

    section, space = recipe.tune, space_of(recipe)
    _check_metric(dataset, recipe, validate)
    modes = {"min": "minimize", "max": "maximize"}
    direction = section.direction or modes[mode_of(section.metric)]
    with Study(
        Path(folder),
        section,
        space,
        direction=direction,
        begun=_begun(dataset, recipe, direction),
        resume=resume,
        overwrite=overwrite,
    ) as study:
        while _goes_on(study.trials, section):
            trial = study.begin()
            _run_trial(trial, dataset, recipe, validate, trackers)
            _show(study, trial.number, section)
        best, trials = study.best, study.trials
    if best is None:
        raise _no_trial(trials, folder)
    return Tuned(best=best, recipe=recipe_with(recipe, best.values), trials=trials)


def _no_trial(trials: list[Trial], folder: str | Path) -> InputError:
    errors = [trial.error for trial in trials if trial.error]
    return InputError(
        "tune-no-trial",
        f"None of {len(trials)} trials finished."
        + (f" The last error: {errors[-1]}" if errors else " Search for longer."),
        file=folder,
    )


def _goes_on(trials: list[Trial], section: TuneSection) -> bool:
    done = [trial for trial in trials if trial.state != "running"]
    spent = sum(trial.seconds for trial in done)
    in_time = section.time_budget is None or spent < 60 * section.time_budget
    return len(done) < section.trials and in_time


def _run_trial(
    trial: RunningTrial,
    dataset: Dataset,
    recipe: Recipe,
    validate: Validate,
    trackers: Sequence[Tracker],
) -> None:
    began = time.perf_counter()
    try:
        tried = _recipe_of(trial, recipe)
        run = train(
            dataset,
            trial.folder,
            tried,
            validate=validate,
            quiet=True,
            options=TrainOptions(
                resume=True,
                trackers=trackers,
                callbacks=[pruning(trial, recipe.tune.metric)],
            ),
        )
    except Pruned:
        trial.prune(time.perf_counter() - began)
    except ShortlistError as error:
        if not isinstance(error, InputError) and error.code not in BLAMED:
            raise
        trial.fail(f"{error.code}: {error}", time.perf_counter() - began)
    else:
        result = best_metrics(run.info)[recipe.tune.metric]
        trial.finish(result, run.info.seconds["total"], _kept(run, trackers))
    keras.utils.clear_session()  # frees the models: there may be many trials


def _recipe_of(trial: RunningTrial, recipe: Recipe) -> Recipe:
    """The recipe of a trial, without the space: its run is an ordinary run."""
    named = {"name": f"{recipe.name} trial {trial.number}", "tune": {}}
    return recipe_with(recipe, trial.values | named)


def _kept(run: Run, trackers: Sequence[Tracker]) -> str | None:
    """The id of a run in the store of the trackers, if one is among them."""
    for tracker in trackers:
        if isinstance(tracker, Store):
            # Again: the process may have been killed before the tracker had the run.
            return tracker.store.add(run).id
    return None


def pruning(trial: RunningTrial, metric: str) -> CallbackFactory:
    """Makes the callback that prunes a trial during the fit of retrieval."""

    def callbacks(stage: str, _: Path) -> list[keras.callbacks.Callback]:
        return [PruneTrial(trial, metric)] if stage == "retrieval" else []

    return callbacks


class PruneTrial(keras.callbacks.Callback):  # type: ignore[misc]
    """Stops the training of a trial that is pruned.

    Args:
        trial: receives the metric of every epoch.
        metric: on the validation part.
    """

    def __init__(self, trial: RunningTrial, metric: str) -> None:
        super().__init__()
        self.trial = trial
        self.metric = metric

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Reports the metric.

        Raises:
            Pruned: the trial is not among the best so far.
        """
        value = float((logs or {})[f"val_{self.metric}"])
        if self.trial.is_pruned_after(epoch + 1, value):
            raise Pruned(
                f"trial {self.trial.number} was not among the best after epoch"
                f" {epoch + 1}, with {self.metric} {value:.4f}"
            )


def _check_metric(dataset: Dataset, recipe: Recipe, validate: Validate) -> None:
    """Checks before any training that the metric can be measured."""
    metric, repeats = recipe.tune.metric, recipe.evaluation.repeats
    users = measurable_users(dataset, repeats=repeats)
    if not len(users):
        raise InputError(
            "tune-validation",
            "A search needs validation users with unseen known items; there are none."
            " Hold out more with `validation` in [split] and prepare again, or set"
            " `repeats` in [evaluation] if users interact with items repeatedly.",
            file=dataset.path,
        )
    items = np.arange(1, 1 + min(VALIDATION_K, dataset.num_items - 1))
    ranked = np.full((1, VALIDATION_K), -1, np.int64)
    ranked[0, : len(items)] = items
    measure = validator(validate, repeats=repeats)
    known = measure(dataset, users[:1], ranked, "validation")
    if metric not in known:
        raise InputError(
            "tune-metric",
            f"`metric` in [tune] must be measured on the validation part:"
            f" {', '.join(known)}. Received: {metric!r}.{did_you_mean(metric, known)}",
        )


def _begun(dataset: Dataset, recipe: Recipe, direction: str) -> dict[str, Any]:
    """Everything that the results of a search depend on, by its name in messages."""
    plain = recipe.to_builtins()
    searched = plain["tune"]
    begun = {name: value for name, value in plain.items() if name not in FREE_FIELDS}
    for name in ("metric", "seed", "halving", "min_epochs", "space"):
        begun[f"tune.{name}"] = searched[name]
    if recipe.evaluation.repeats:
        begun["evaluation.repeats"] = True
    return begun | {
        "tune.direction": direction,
        "dataset fingerprint": dataset.info.fingerprint,
        "backend": keras.backend.backend(),
    }


def _show(study: Study, number: int, section: TuneSection) -> None:
    trials, best = study.trials, study.best
    trial = trials[number]
    values = "  ".join(f"{n} {_short(value)}" for n, value in trial.values.items())
    told = trial.error or trial.state
    if trial.state == "pruned":
        last = max(trial.epochs)
        told += f" after epoch {last}, {section.metric} {trial.epochs[last]:.4f}"
    elif trial.result is not None:
        told = f"{section.metric} {trial.result:.4f}"
    if best is not None:
        told += f", best {best.result:.4f} of trial {best.number}"
    text = f"trial {number}, {len(trials)} of {section.trials}: {told}: {values}"
    print(f"{text}  ({trial.seconds:.1f} s)", file=sys.stderr, flush=True)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

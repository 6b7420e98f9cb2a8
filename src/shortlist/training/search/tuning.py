"""A search for better settings: trials of a recipe, measured on the validation part.

The test part is never opened. Knows recipes and trainings; what is tried next and what
is given up early is decided by the study.
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
from shortlist.training.job import VALIDATION_K, Validate, Watch, validator
from shortlist.training.loop.stops import mode_of
from shortlist.training.runs.run import Run
from shortlist.training.runs.run_store import Pruned, best_metrics
from shortlist.training.runs.unfinished import FREE_FIELDS
from shortlist.training.search.search_space import recipe_with, space_of
from shortlist.training.trackers import Store, Tracker

if TYPE_CHECKING:
    from shortlist.training.search.study import RunningTrial, Study, Trial

# What the values of a trial are to blame for; everything else ends the search.
BLAMED = ("loss-not-finite", "out-of-memory")


class Tuned(NamedTuple):
    """What a search found.

    Args:
        best: the best trial.
        recipe: the recipe with its values.
        trials: all of them, by number.
    """

    best: Trial
    recipe: Recipe
    trials: list[Trial]

    def counts(self) -> dict[str, int]:
        """How many trials ended how."""
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
    quiet: bool = False,
    trackers: Sequence[Tracker] = (),
) -> Tuned:
    """Searches the space of `recipe.tune` for the best metric on the validation part.

    Each trial is a training of the recipe with other values, and with its seed. After
    `min_epochs`, and `halving` times as many, and so on, retrieval goes on only in a
    trial that is among the best so far (successive halving). A trial whose values
    cannot be trained with counts as failed, and the search goes on.

    Args:
        dataset: a prepared dataset.
        folder: of the study; its file remembers every trial.
        recipe: what is not searched, and in `[tune]` what is.
        validate: as for `train`.
        resume: go on with a search that was interrupted, or that shall have more
            trials; the trial under way goes on where it was.
        overwrite: begin anew where a study is.
        quiet: show no progress.
        trackers: who is told of every trial; a `Store` keeps their runs.

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
            if not quiet:
                _show(study, trial.number, section)
        best, trials = study.best, study.trials
    if best is None:
        errors = [t.error for t in trials if t.error]
        raise InputError(
            "tune-no-trial",
            f"A trial must finish. None of {len(trials)} did."
            + (f" The last error: {errors[-1]}" if errors else " Search for longer."),
            file=folder,
        )
    return Tuned(best=best, recipe=recipe_with(recipe, best.values), trials=trials)


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
            resume=True,
            quiet=True,
            trackers=trackers,
            watches=[watch_of(trial, recipe.tune.metric)],
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
    keras.utils.clear_session()  # what is left of models: trials may be many


def _recipe_of(trial: RunningTrial, recipe: Recipe) -> Recipe:
    """What the trial trains, without what is searched: its run is one like any."""
    named = {"name": f"{recipe.name} trial {trial.number}", "tune": {}}
    return recipe_with(recipe, trial.values | named)


def _kept(run: Run, trackers: Sequence[Tracker]) -> str | None:
    """The id of a run in the store of the trackers, if one is among them."""
    for tracker in trackers:
        if isinstance(tracker, Store):
            # Once more: a process may have been killed before its tracker was told.
            return tracker.store.add(run).id
    return None


def watch_of(trial: RunningTrial, metric: str) -> Watch:
    """Tells a trial of the epochs of retrieval, and ends it if it is given up."""

    def watch(stage: str, _: Path) -> list[keras.callbacks.Callback]:
        return [PruneTrial(trial, metric)] if stage == "retrieval" else []

    return watch


class PruneTrial(keras.callbacks.Callback):  # type: ignore[misc]
    """Ends the training of a trial that is not worth going on.

    Args:
        trial: told of every epoch.
        metric: on the validation part.
    """

    def __init__(self, trial: RunningTrial, metric: str) -> None:
        super().__init__()
        self.trial = trial
        self.metric = metric

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Tells the trial.

        Raises:
            Pruned: it is given up.
        """
        value = float((logs or {})[f"val_{self.metric}"])
        if self.trial.is_pruned_after(epoch + 1, value):
            raise Pruned(
                f"trial {self.trial.number} was not among the best after epoch"
                f" {epoch + 1}, with {self.metric} {value:.4f}"
            )


def _check_metric(dataset: Dataset, recipe: Recipe, validate: Validate) -> None:
    """Checks before any training that there is something to measure."""
    metric, repeats = recipe.tune.metric, recipe.evaluation.repeats
    users = measurable_users(dataset, repeats=repeats)
    if not len(users):
        raise InputError(
            "tune-validation",
            "A search needs a validation part whose users have items left to find."
            " Received: none. Hold out more with `validation` in [split] and prepare"
            " again, or set `repeats` in [evaluation] if users take items again.",
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
    """All that the results of a search depend on, by a name for messages."""
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

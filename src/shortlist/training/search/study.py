"""The trials of a search, in an SQLite file that Optuna reads and writes.

    FOLDER/
      study.sqlite   the space, and every trial: values, epochs, result
      lock           locked by the process that searches; see `lock.py`
      trial-00003/   the run of the running trial, and its state next to it

A process may be killed at any moment: a resumed search continues the running trial, and
the values of later trials depend only on the seed, their number and earlier trials.
This is the only module that uses Optuna.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np
import optuna
import sqlalchemy.exc
from optuna.trial import TrialState

from shortlist.atomic import disk_errors
from shortlist.errors import ArtifactError, InputError, ResourceError
from shortlist.outputs import TRIAL, remove_ours
from shortlist.recipe.search import SearchSection, TuneSection, as_text
from shortlist.training.runs.databases import check_database, remove_database
from shortlist.training.runs.unfinished import training_lock
from shortlist.training.search.search_space import Dimension

STUDY_FILE = "study.sqlite"
NAME = "shortlist"
FORMAT_VERSION = 1
STORAGE_ERRORS = (
    optuna.exceptions.StorageInternalError,
    sqlalchemy.exc.SQLAlchemyError,
)
STARTUP_TRIALS = 8  # random trials before TPE has enough data


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One trial of a study.

    Args:
        number: from 0.
        state: `running`, `finished`, `pruned` or `failed`.
        values: by dotted name of the field.
        result: the metric of a finished trial.
        epochs: the metric after each reported epoch.
        seconds: duration.
        run: id in the run store, if there is one.
        error: why it failed.
    """

    number: int
    state: str
    values: dict[str, Any]
    result: float | None = None
    epochs: dict[int, float] = {}
    seconds: float = 0.0
    run: str | None = None
    error: str | None = None


class Study:
    """A running search, locked inside the context.

    Args:
        folder: of the study.
        section: settings of the search.
        space: fields to search.
        direction: `maximize` or `minimize`.
        begun: everything that the results depend on, as plain JSON.
        resume: continue an existing study, if there is one.
        overwrite: replace an existing study.

    Raises:
        InputError: `study-exists` or `resume-mismatch`.
        ArtifactError: `study-damaged`.
        ResourceError: `training-locked`, or the folder cannot be written; at the end of
            the context `study-write`.
    """

    def __init__(
        self,
        folder: Path,
        section: TuneSection,
        space: list[Dimension],
        *,
        direction: str,
        begun: dict[str, Any],
        resume: bool,
        overwrite: bool,
    ) -> None:
        self.folder = folder
        self.section = section
        self.space = space
        self.direction = direction
        self.file = folder / STUDY_FILE
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = training_lock(folder)
        try:
            self._make_room(resume, overwrite)
            self._open(begun)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()
        self._lock.release()
        if isinstance(error, STORAGE_ERRORS):
            raise ResourceError(
                "study-write",
                f"The study could not be written: {str(error)[:200]}. Free space on the"
                " disk or end other programs that use it, then continue with"
                " --resume.",
                file=self.file,
            ) from error

    @property
    def trials(self) -> list[Trial]:
        """All trials so far, by number."""
        return [self._plain(frozen) for frozen in self._study.get_trials()]

    @property
    def best(self) -> Trial | None:
        """The finished trial with the best result; the first of equal ones."""
        finished = [t for t in self.trials if t.result is not None]
        sign = 1 if self.direction == "minimize" else -1
        return min(finished, key=lambda t: sign * (t.result or 0.0), default=None)

    def begin(self) -> RunningTrial:
        """Continues an interrupted trial, else starts a new one."""
        under_way = self._study.get_trials(states=(TrialState.RUNNING,))
        if under_way:
            number = under_way[0].number
            self._study.sampler = self._sampler(number)
            asked = optuna.trial.Trial(self._study, under_way[0]._trial_id)
        else:
            self._remove_trials()
            self._study.sampler = self._sampler(len(self._study.get_trials()))
            asked = self._study.ask()
        for name, search, is_integer in self.space:
            _suggest(asked, name, search, is_integer)
        return RunningTrial(self, asked)

    def _make_room(self, resume: bool, overwrite: bool) -> None:
        check_database(self.file, "SELECT study_name FROM studies", NAME)
        if not self.file.exists() or (resume and not overwrite):
            return
        if not overwrite:
            raise InputError(
                "study-exists",
                "There is a study already. Continue it with --resume, or start again"
                " with --overwrite.",
                file=self.file,
            )
        with disk_errors(self.folder):
            remove_database(self.file)
            self._remove_trials()

    def _open(self, begun: dict[str, Any]) -> None:
        with _quiet(), self._sound():
            self._storage = optuna.storages.RDBStorage(
                f"sqlite:///{self.file.resolve()}"
            )
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=NAME,
                direction=self.direction,
                pruner=self._pruner(),
                load_if_exists=True,
            )
            found = self._study.user_attrs.get("begun")
            begun = msgspec.json.decode(msgspec.json.encode(begun))
            if found is None:
                self._study.set_user_attr("begun", begun)
        try:
            if found is not None:
                self._check_same(found, begun)
        except BaseException:
            self._close()
            raise

    @contextlib.contextmanager
    def _sound(self) -> Iterator[None]:
        """Turns errors of Optuna and SQLite about the file into ours."""
        try:
            yield
        except (sqlalchemy.exc.OperationalError, sqlite3.OperationalError) as error:
            raise ResourceError(
                "study-write",
                f"The study could not be opened: {str(error)[:200]}. A study is used"
                " by one search at a time: wait for the other search, or free space"
                " on the disk.",
                file=self.file,
            ) from error
        except (
            sqlalchemy.exc.DatabaseError,
            sqlite3.DatabaseError,
            RuntimeError,
            ValueError,
        ) as error:
            raise ArtifactError(
                "study-damaged",
                "The study is damaged or of another version of Optuna:"
                f" {type(error).__name__}: {str(error)[:200]}. Start again with"
                " --overwrite.",
                file=self.file,
            ) from error

    def _check_same(self, found: dict[str, Any], begun: dict[str, Any]) -> None:
        differing = sorted(
            name
            for name in found.keys() | begun.keys()
            if found.get(name) != begun.get(name)
        )
        if differing:
            raise InputError(
                "resume-mismatch",
                "A search is resumed with the dataset, backend, recipe and space it"
                f" was started with. These differ: {', '.join(differing)}. Restore"
                " them, or start again with --overwrite.",
                file=self.file,
            )

    def _close(self) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _remove_trials(self) -> None:
        remove_ours(self.folder, TRIAL)

    def _sampler(self, number: int) -> Any:
        """TPE (Bergstra et al., 2011), created for each trial, so without state."""
        seed = np.random.SeedSequence((self.section.seed, number)).generate_state(1)
        return optuna.samplers.TPESampler(
            seed=int(seed[0]), n_startup_trials=STARTUP_TRIALS
        )

    def _pruner(self) -> Any:
        """Asynchronous successive halving (Li et al., 2020)."""
        if self.section.halving is False:
            return optuna.pruners.NopPruner()
        return optuna.pruners.SuccessiveHalvingPruner(
            min_resource=self.section.min_epochs, reduction_factor=self.section.halving
        )

    def _plain(self, frozen: Any) -> Trial:
        known = frozen.user_attrs
        state = {
            TrialState.COMPLETE: "finished",
            TrialState.PRUNED: "pruned",
            TrialState.FAIL: "failed",
        }.get(frozen.state, "running")
        error = known.get("error")
        return Trial(
            number=frozen.number,
            state="failed" if error else state,
            values=self.values_of(frozen.params),
            result=frozen.value if state == "finished" else None,
            epochs=dict(frozen.intermediate_values),
            seconds=known.get("seconds", 0.0),
            run=known.get("run"),
            error=error,
        )

    def values_of(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """The values of a trial, in the types of the recipe."""
        values = {}
        for name, search, _ in self.space:
            if name in parameters:
                value = parameters[name]
                is_text = search.choices is not None
                values[name] = msgspec.json.decode(value) if is_text else value
        return values


class RunningTrial:
    """A running trial, which receives its epochs and its end.

    Args:
        study: of the trial.
        asked: the trial of Optuna.
    """

    def __init__(self, study: Study, asked: Any) -> None:
        self.study = study
        self.number: int = asked.number
        self.values = study.values_of(asked.params)
        self.folder = study.folder / f"trial-{asked.number:05d}"
        self._asked = asked
        frozen = study._study.get_trials()[asked.number]
        self._reported = set(frozen.intermediate_values)
        self._is_given_up = "given_up" in frozen.user_attrs

    def is_pruned_after(self, epoch: int, value: float) -> bool:
        """Whether the trial is pruned, given the metric after an epoch from 1."""
        if epoch not in self._reported:  # else: by an earlier process that was killed
            self._reported.add(epoch)
            self._asked.report(value, epoch)
        # Stored, as the process may be killed before the trial ends.
        if not self._is_given_up and self._asked.should_prune():
            self._is_given_up = True
            self._note(given_up=epoch)
        return self._is_given_up

    def finish(self, result: float, seconds: float, run: str | None) -> None:
        """The trial was trained and measured."""
        self._note(seconds=seconds, run=run)
        self._tell(result, None)

    def prune(self, seconds: float) -> None:
        """The trial was pruned."""
        self._note(seconds=seconds)
        self._tell(None, TrialState.PRUNED)

    def fail(self, error: str, seconds: float) -> None:
        """The trial failed because of its values."""
        self._note(error=error, seconds=seconds)
        # Pruned, not failed, so that the sampler learns to avoid its values.
        self._tell(None, TrialState.PRUNED)

    def _note(self, **noted: Any) -> None:
        for name, value in noted.items():
            self._asked.set_user_attr(name, value)

    def _tell(self, result: float | None, state: Any) -> None:
        with _quiet():
            self.study._study.tell(self._asked, result, state)
        self.study._remove_trials()


def _suggest(asked: Any, name: str, search: SearchSection, is_integer: bool) -> None:
    """Chooses a value; a resumed trial keeps its own."""
    if search.choices is not None:
        # As text: Optuna takes no lists, and 1 and 1.0 are equal to it.
        asked.suggest_categorical(name, [*map(as_text, search.choices)])
    elif is_integer:
        asked.suggest_int(
            name, search.low, search.last(), step=search.step or 1, log=search.log
        )
    else:
        asked.suggest_float(
            name, search.low, search.last(), step=search.step, log=search.log
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the log lines of Optuna."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)

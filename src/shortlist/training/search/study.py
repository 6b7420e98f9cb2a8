"""The trials of a search, in an SQLite file that Optuna reads and writes.

    FOLDER/
      study.sqlite   what is searched, and every trial: values, epochs, result
      lock           who searches; see `lock.py`
      trial-00003/   the run of the trial under way, and its state beside it

A process may be killed at any moment: a trial that was under way goes on, and what the
next ones try depends on the seed, their number and the trials before them alone.

Knows Optuna; knows nothing of datasets or training.
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
STARTUP_TRIALS = 8  # before TPE has seen enough to model


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One trial as it stands in the study.

    Args:
        number: from 0.
        state: `running`, `finished`, `pruned` or `failed`.
        values: by dotted name of the field.
        result: the metric, of a trial that finished.
        epochs: the metric after each epoch reported.
        seconds: it took.
        run: id in the run store, if it is kept.
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
    """A search that is under way, locked while the context lasts.

    Args:
        folder: of the study.
        section: how is searched.
        space: what is searched.
        direction: `maximize` or `minimize`.
        begun: all that the results depend on, as plain JSON.
        resume: go on with what is there, if anything is.
        overwrite: begin anew where a study is.

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
                "A study must be writable while a search lasts. Writing it failed:"
                f" {str(error)[:200]}. Make room or let others go, then go on with"
                " --resume.",
                file=self.file,
            ) from error

    @property
    def trials(self) -> list[Trial]:
        """All trials so far, by number."""
        return [self._plain(frozen) for frozen in self._study.get_trials()]

    @property
    def best(self) -> Trial | None:
        """The finished trial with the best result, the earliest of equals."""
        finished = [t for t in self.trials if t.result is not None]
        sign = 1 if self.direction == "minimize" else -1
        return min(finished, key=lambda t: sign * (t.result or 0.0), default=None)

    def begin(self) -> RunningTrial:
        """Goes on with the trial that was interrupted, else begins another."""
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
                "A search must begin where none was before. Found one. Go on with"
                " --resume, or start anew with --overwrite.",
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
        """Turns what Optuna says of a file that is none of ours into our error."""
        try:
            yield
        except (sqlalchemy.exc.OperationalError, sqlite3.OperationalError) as error:
            raise ResourceError(
                "study-write",
                "A study must be readable and writable, by one search at a time."
                f" Opening it failed: {str(error)[:200]}. Wait for the other search,"
                " or free space on the disk.",
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
                "A study must be what this version of Optuna reads. Reading it failed:"
                f" {type(error).__name__}: {str(error)[:200]}. Start anew with"
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
                "A search goes on with the dataset, the backend, the recipe and the"
                f" space it was begun with. These differ: {', '.join(differing)}. Set"
                " them back, or start anew with --overwrite.",
                file=self.file,
            )

    def _close(self) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _remove_trials(self) -> None:
        remove_ours(self.folder, TRIAL)

    def _sampler(self, number: int) -> Any:
        """TPE (Bergstra et al., 2011), for one trial: nothing to remember between."""
        drawn = np.random.SeedSequence((self.section.seed, number)).generate_state(1)
        return optuna.samplers.TPESampler(
            seed=int(drawn[0]), n_startup_trials=STARTUP_TRIALS
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
        """The values of a trial as the recipe takes them."""
        values = {}
        for name, search, _ in self.space:
            if name in parameters:
                value = parameters[name]
                is_text = search.choices is not None
                values[name] = msgspec.json.decode(value) if is_text else value
        return values


class RunningTrial:
    """A trial under way, which is told of epochs and of its end.

    Args:
        study: it belongs to.
        asked: of Optuna.
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
        """Whether, with the metric after an epoch from 1, it is not worth going on."""
        if epoch not in self._reported:  # in an earlier process that was killed
            self._reported.add(epoch)
            self._asked.report(value, epoch)
        # The pruner forgets what it said: a process may be killed before the end.
        if not self._is_given_up and self._asked.should_prune():
            self._is_given_up = True
            self._note(given_up=epoch)
        return self._is_given_up

    def finish(self, result: float, seconds: float, run: str | None) -> None:
        """It is trained and measured."""
        self._note(seconds=seconds, run=run)
        self._tell(result, None)

    def prune(self, seconds: float) -> None:
        """It was given up."""
        self._note(seconds=seconds)
        self._tell(None, TrialState.PRUNED)

    def fail(self, error: str, seconds: float) -> None:
        """Its values cannot be trained with."""
        self._note(error=error, seconds=seconds)
        # Pruned, not failed: the sampler learns from it to keep away.
        self._tell(None, TrialState.PRUNED)

    def _note(self, **noted: Any) -> None:
        for name, value in noted.items():
            self._asked.set_user_attr(name, value)

    def _tell(self, result: float | None, state: Any) -> None:
        with _quiet():
            self.study._study.tell(self._asked, result, state)
        self.study._remove_trials()


def _suggest(asked: Any, name: str, search: SearchSection, is_integer: bool) -> None:
    """Chooses a value; a trial that has one keeps it."""
    if search.choices is not None:
        # As text: Optuna takes no lists, and holds 1 and 1.0 for the same.
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
    """Without the lines that Optuna writes of every trial."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)

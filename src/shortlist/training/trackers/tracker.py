"""The interface of trackers, and handling of their failures.

Independent of the packages of trackers; imports Keras only for callbacks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from shortlist.recipe.secrets import redacted
from shortlist.training.runs.records import best_metrics
from shortlist.training.runs.run import Run

if TYPE_CHECKING:
    import keras

Metrics = dict[str, float]


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """A training that starts.

    Args:
        name: of the recipe.
        dataset: folder of the dataset.
        dataset_fingerprint: of the dataset.
        backend: of Keras.
        recipe: as plain JSON values.
    """

    name: str
    dataset: str
    dataset_fingerprint: str
    backend: str
    recipe: dict[str, Any]


class Tracker:
    """Receives the events of trainings; every method is optional.

    Errors of a method are shown as a warning: a tracker never ends a training.
    """

    name = "tracker"
    address = ""
    """Its address, with passwords and keys that no message may show."""

    def check(self) -> None:
        """Raises `ResourceError` if a package is missing. Called before any work."""

    def start(self, training: Training) -> None:
        """Called when a training starts."""

    def epoch(self, stage: str, epoch: int, metrics: Metrics) -> None:
        """Called after an epoch, from 1; `stage` is `retrieval` or `ranker`."""

    def callbacks(self, stage: str, folder: Path) -> list[keras.callbacks.Callback]:
        """Keras callbacks for the fit of a model, whose run is written to `folder`."""
        return []

    def finish(self, run: Run, metrics: Metrics, seconds: float) -> None:
        """Called when the run is complete, with its validation metrics."""

    def fail(self, error: BaseException, seconds: float) -> None:
        """Called when the training failed or was interrupted."""


class Tracking:
    """Notifies all trackers of one training; a context around it.

    Args:
        trackers: to notify; their `check` is called immediately.
        training: the training that starts with the context.

    Raises:
        ResourceError: the package of a tracker is missing.
    """

    def __init__(self, trackers: Sequence[Tracker], training: Training) -> None:
        for tracker in trackers:
            tracker.check()
        self.trackers = list(trackers)
        self.training = training
        self.is_finished = False
        self._silent: set[int] = set()

    def __enter__(self) -> Self:
        self.began = time.perf_counter()
        started = []
        for tracker in self.trackers:
            if self.tell(tracker, lambda t: t.start(self.training)):
                started.append(tracker)
        self.trackers = started
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and not self.is_finished:
            reason, seconds = error, self.seconds
            for tracker in self.trackers:
                self.tell(tracker, lambda t: t.fail(reason, seconds))

    @property
    def seconds(self) -> float:
        """Seconds since the training started."""
        return time.perf_counter() - self.began

    def callbacks(self, stage: str, folder: Path) -> list[keras.callbacks.Callback]:
        """Keras callbacks that notify all trackers of the epochs of a model."""
        if not self.trackers:
            return []
        from shortlist.training.trackers.epochs import Shielded, TrackedEpochs

        made: list[keras.callbacks.Callback] = [TrackedEpochs(self.epoch, stage)]
        for tracker in self.trackers:
            guard = self._guard(tracker)
            own: list[keras.callbacks.Callback] = []
            guard(partial(_collect, tracker, stage, folder, own))
            made += [Shielded(callback, guard) for callback in own]
        return made

    def epoch(self, stage: str, epoch: int, metrics: Metrics) -> None:
        """Reports an epoch; a tracker that failed is called again only at the end."""
        for tracker in self.trackers:
            if id(tracker) not in self._silent:
                self.tell(tracker, lambda t: t.epoch(stage, epoch, metrics))

    def finish(self, run: Run) -> None:
        """Reports the complete run."""
        self.is_finished = True
        metrics, seconds = best_metrics(run.info), self.seconds
        for tracker in self.trackers:
            self.tell(tracker, lambda t: t.finish(run, metrics, seconds))

    def tell(self, tracker: Tracker, message: Callable[[Tracker], None]) -> bool:
        """Whether the call succeeded; shows the first failure of a tracker."""
        try:
            message(tracker)
        except Exception as error:
            if id(tracker) not in self._silent:
                self._silent.add(id(tracker))
                reason = redacted(f"{type(error).__name__}: {error}", tracker.address)
                print(
                    f"warning[tracker-failed]: {tracker.name} failed, and the training"
                    f" continues: {reason}",
                    file=sys.stderr,
                    flush=True,
                )
            return False
        return True

    def _guard(self, tracker: Tracker) -> Callable[[Callable[[], None]], None]:
        def guarded(action: Callable[[], None]) -> None:
            self.tell(tracker, lambda _: action())

        return guarded


def _collect(
    tracker: Tracker,
    stage: str,
    folder: Path,
    found: list[keras.callbacks.Callback],
) -> None:
    found += tracker.callbacks(stage, folder)

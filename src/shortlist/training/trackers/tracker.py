"""What is told to a tracker of trainings, and what happens when one fails.

Knows nothing of any tracker's package; loads Keras only for callbacks.
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
    """A training that begins.

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
    """Somebody who wants to know of trainings; every method may be left out.

    What a method raises is shown as a warning: a tracker never ends a training.
    """

    name = "tracker"
    address = ""
    """Where it is told, with passwords and keys that no message may show."""

    def check(self) -> None:
        """Raises `ResourceError` if a package is missing; before any work starts."""

    def start(self, training: Training) -> None:
        """A training begins."""

    def epoch(self, stage: str, epoch: int, metrics: Metrics) -> None:
        """A model finished an epoch, from 1; `stage` is `retrieval` or `ranker`."""

    def callbacks(self, stage: str, folder: Path) -> list[keras.callbacks.Callback]:
        """Keras callbacks for the fit of a model, whose run is made in `folder`."""
        return []

    def finish(self, run: Run, metrics: Metrics, seconds: float) -> None:
        """The run is whole, at its place; metrics of the validation part."""

    def fail(self, error: BaseException, seconds: float) -> None:
        """The training ended with an error, or was interrupted."""


class Tracking:
    """Tells all trackers of one training, as a context around it.

    Args:
        trackers: whom to tell; their `check` is called at once.
        training: what begins with the context.

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
        """Since the training began."""
        return time.perf_counter() - self.began

    def callbacks(self, stage: str, folder: Path) -> list[keras.callbacks.Callback]:
        """Keras callbacks that tell all trackers of the epochs of a model."""
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
        """Passes an epoch on; a tracker that failed once is asked again at the end."""
        for tracker in self.trackers:
            if id(tracker) not in self._silent:
                self.tell(tracker, lambda t: t.epoch(stage, epoch, metrics))

    def finish(self, run: Run) -> None:
        """The run is whole, at its place."""
        self.is_finished = True
        metrics, seconds = best_metrics(run.info), self.seconds
        for tracker in self.trackers:
            self.tell(tracker, lambda t: t.finish(run, metrics, seconds))

    def tell(self, tracker: Tracker, message: Callable[[Tracker], None]) -> bool:
        """Whether the tracker took it; the first failure is shown."""
        try:
            message(tracker)
        except Exception as error:
            if id(tracker) not in self._silent:
                self._silent.add(id(tracker))
                reason = redacted(f"{type(error).__name__}: {error}", tracker.address)
                print(
                    f"warning[tracker-failed]: {tracker.name} could not be told of this"
                    f" training, which goes on: {reason}",
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

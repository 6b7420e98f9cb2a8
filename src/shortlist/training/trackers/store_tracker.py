"""Tracks trainings in our run store."""

from __future__ import annotations

from shortlist.training.runs.records import failure_now
from shortlist.training.runs.run import Run
from shortlist.training.runs.run_store import RunStore
from shortlist.training.trackers.tracker import Metrics, Tracker, Training


class Store(Tracker):
    """Stores finished runs, and a record of other trainings.

    Args:
        store: the run store.
    """

    name = "the run store"

    def __init__(self, store: RunStore) -> None:
        self.store = store

    def start(self, training: Training) -> None:
        """Stores the training for `fail`."""
        self.training = training

    def finish(self, run: Run, metrics: Metrics, seconds: float) -> None:
        """Adds the run."""
        self.store.add(run)

    def fail(self, error: BaseException, seconds: float) -> None:
        """Adds a record."""
        failure = failure_now(
            error,
            fingerprint=self.training.dataset_fingerprint,
            backend=self.training.backend,
            seconds=seconds,
        )
        self.store.add_failure(failure, self.training.recipe)

"""Trainings as runs of our own store."""

from __future__ import annotations

from shortlist.training.runs.records import failure_now
from shortlist.training.runs.run import Run
from shortlist.training.runs.run_store import RunStore
from shortlist.training.trackers.tracker import Metrics, Tracker, Training


class Store(Tracker):
    """Keeps every finished run, and a record of those that did not finish.

    Args:
        store: where.
    """

    name = "the run store"

    def __init__(self, store: RunStore) -> None:
        self.store = store

    def start(self, training: Training) -> None:
        """Remembers what begins."""
        self.training = training

    def finish(self, run: Run, metrics: Metrics, seconds: float) -> None:
        """Keeps the run."""
        self.store.add(run)

    def fail(self, error: BaseException, seconds: float) -> None:
        """Keeps a record."""
        failure = failure_now(
            error,
            fingerprint=self.training.dataset_fingerprint,
            backend=self.training.backend,
            seconds=seconds,
        )
        self.store.add_failure(failure, self.training.recipe)

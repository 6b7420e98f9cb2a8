"""Early stopping, from the logs of epochs and without Keras.

A stop is called after each epoch. Its state is a few plain values, so that a resumed
training stops at the same epoch as an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from shortlist.errors import InputError, did_you_mean
from shortlist.evaluation.metrics.table import bare_name, higher_is_better

LEAST_FALL = 0.001
"""Minimum relative fall of the loss for an epoch to count as one with a fall."""
CLEAR = 3.0
"""Standard errors by which a metric must be better than its floor."""


class Verdict(NamedTuple):
    """The decision of a stop after an epoch."""

    stop: bool
    is_best: bool = False


class Floor(NamedTuple):
    """The value of popularity; below it a metric does not show what was learned."""

    value: float
    users: int
    """Number of users in the mean."""


class Stop(Protocol):
    """Decides after each epoch whether to stop."""

    name: str
    """What ended a training: `patience`, `time_budget`, ..."""

    def after_epoch(self, epoch: int, logs: Mapping[str, float]) -> Verdict:
        """Whether to stop after epoch `epoch`, from 1, with these logs."""
        ...

    def memory(self) -> dict[str, Any]:
        """Its state, as plain JSON."""
        ...

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Restores what `memory` returned."""
        ...


class NoImprovement:
    """Stops when a metric has not improved for some epochs.

    With a `floor`, an epoch without improvement counts only once the metric has been
    significantly better than the floor, or if the training loss did not fall in it.
    Before that the metric of a sparse log is noise, although the model learns.

    Args:
        monitor: name of the metric in the logs of an epoch.
        mode: `min` or `max`; what is better.
        patience: epochs without improvement.
        floor: the metric of popularity.
    """

    name = "patience"

    def __init__(
        self, monitor: str, mode: str, patience: int, floor: Floor | None = None
    ) -> None:
        self.monitor = monitor
        self.mode = mode
        self.patience = patience
        self.floor = floor
        self.best: float | None = None
        self.waited = 0
        self.is_above = floor is None
        self.lowest_loss: float | None = None
        self.fell = 0.0
        """By which share of the lowest loss before it the last epoch was below it."""

    def after_epoch(self, epoch: int, logs: Mapping[str, float]) -> Verdict:
        """Whether patience is at an end, and whether this epoch is the best so far.

        Raises:
            InputError: `monitor-unknown`.
        """
        value = monitored(self.monitor, logs)
        self._note_loss(logs.get("loss"))
        if not is_better(value, self.best, self.mode):
            if self.is_above or self.fell < LEAST_FALL:
                self.waited += 1
            return Verdict(stop=self.waited >= self.patience)
        self.best, self.waited = value, 0
        if self.floor is not None and is_clear_of(value, self.floor, self.mode):
            self.is_above = True
        return Verdict(stop=False, is_best=True)

    def memory(self) -> dict[str, Any]:
        """The best value, the epochs since then, and the fall of the loss."""
        return {
            "best": self.best,
            "waited": self.waited,
            "is_above": self.is_above,
            "lowest_loss": self.lowest_loss,
            "fell": self.fell,
        }

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Restores what `memory` returned, in this or an earlier version."""
        self.best, self.waited = memory["best"], memory["waited"]
        self.is_above = memory.get("is_above", self.is_above)
        self.lowest_loss = memory.get("lowest_loss")
        self.fell = memory.get("fell", 0.0)

    def _note_loss(self, loss: float | None) -> None:
        self.fell = 0.0
        if loss is None or not math.isfinite(loss):
            return
        if self.lowest_loss is None:
            self.fell, self.lowest_loss = 1.0, float(loss)  # nothing to compare with
        elif loss < self.lowest_loss:
            self.fell = (self.lowest_loss - loss) / abs(self.lowest_loss or 1.0)
            self.lowest_loss = float(loss)


class TimeBudget:
    """Stops when the next epoch would exceed the time budget.

    Args:
        minutes: of the whole training.
        spent_seconds: returns the time spent, including earlier processes.
    """

    name = "time_budget"

    def __init__(self, minutes: float, spent_seconds: Callable[[], float]) -> None:
        self.minutes = minutes
        self.spent_seconds = spent_seconds
        self._began = spent_seconds()
        self._epochs = 0

    def after_epoch(self, epoch: int, logs: Mapping[str, float]) -> Verdict:
        """Whether another epoch of average length would exceed the budget."""
        self._epochs += 1
        spent = self.spent_seconds()
        of_epoch = (spent - self._began) / self._epochs
        return Verdict(stop=spent + of_epoch > 60 * self.minutes)

    def memory(self) -> dict[str, Any]:
        """Nothing: `spent_seconds` returns the time."""
        return {}

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Does nothing."""


def monitored(monitor: str, logs: Mapping[str, float]) -> float:
    """The monitored metric of an epoch.

    Raises:
        InputError: `monitor-unknown`.
    """
    if monitor not in logs:
        raise InputError(
            "monitor-unknown",
            f"`monitor` must be a metric of an epoch: {', '.join(sorted(logs))}."
            f" Received: {monitor!r}.{did_you_mean(monitor, logs)}",
        )
    return float(logs[monitor])


def mode_of(monitor: str) -> str:
    """`min` for losses, errors and metrics that are better when lower, else `max`."""
    name = bare_name(monitor.removeprefix("val_").rpartition(".")[2])
    is_error = name.endswith(("loss", "error", "rmse", "mae", "mse"))
    return "min" if is_error or higher_is_better(name) is False else "max"


def is_better(value: float, best: float | None, mode: str) -> bool:
    """Whether a metric has improved; NaN and infinity never do."""
    if not math.isfinite(value):
        return False
    return best is None or (value < best if mode == "min" else value > best)


def is_clear_of(value: float, floor: Floor, mode: str) -> bool:
    """Whether a mean over users is significantly better than that of popularity.

    Values from 0 to 1 with mean m have a variance of at most m (1 - m) (Bhatia and
    Davis, 2000, https://doi.org/10.2307/2589180). Means outside that range are compared
    without a margin.
    """
    spread = max(value * (1.0 - value), 0.0) / max(floor.users, 1)
    margin = CLEAR * math.sqrt(spread)
    return is_better(
        value - margin if mode == "max" else value + margin, floor.value, mode
    )

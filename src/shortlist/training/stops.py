"""When a training ends before its last epoch. Knows logs of epochs, nothing of Keras.

A stop is asked after each epoch and keeps what it must know in a few plain values, so
that a training that goes on after an interruption ends where it would have ended.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from shortlist.errors import InputError, did_you_mean
from shortlist.evaluation.leaderboard import LOWER_IS_BETTER, bare_name


class Verdict(NamedTuple):
    """What a stop says after an epoch."""

    stop: bool
    is_best: bool = False


class Stop(Protocol):
    """Asked after each epoch whether it was the last one."""

    def after_epoch(self, epoch: int, logs: Mapping[str, float]) -> Verdict:
        """Whether to stop after epoch `epoch`, from 1, with these logs."""
        ...

    def memory(self) -> dict[str, Any]:
        """What it must know of the epochs so far, as plain JSON."""
        ...

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Goes on with what `memory` returned."""
        ...


class NoImprovement:
    """Stops when a metric has not improved for some epochs.

    Args:
        monitor: name of the metric in the logs of an epoch.
        mode: `min` or `max`; what is better.
        patience: epochs without improvement.
    """

    def __init__(self, monitor: str, mode: str, patience: int) -> None:
        self.monitor = monitor
        self.mode = mode
        self.patience = patience
        self.best: float | None = None
        self.waited = 0

    def after_epoch(self, epoch: int, logs: Mapping[str, float]) -> Verdict:
        """Whether patience is at an end, and whether this epoch is the best so far.

        Raises:
            InputError: `monitor-unknown`.
        """
        value = monitored(self.monitor, logs)
        if not is_better(value, self.best, self.mode):
            self.waited += 1
            return Verdict(stop=self.waited >= self.patience)
        self.best, self.waited = value, 0
        return Verdict(stop=False, is_best=True)

    def memory(self) -> dict[str, Any]:
        """The best value, and the epochs since then."""
        return {"best": self.best, "waited": self.waited}

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Goes on with what `memory` returned."""
        self.best, self.waited = memory["best"], memory["waited"]


class TimeBudget:
    """Stops when the next epoch would end after the time that there is.

    Args:
        minutes: of the whole training.
        spent_seconds: tells how long it has lasted, earlier processes included.
    """

    def __init__(self, minutes: float, spent_seconds: Callable[[], float]) -> None:
        self.minutes = minutes
        self.spent_seconds = spent_seconds
        self._began = spent_seconds()
        self._epochs = 0

    def after_epoch(self, epoch: int, logs: Mapping[str, float]) -> Verdict:
        """Whether an epoch like those of this process would take too long."""
        self._epochs += 1
        spent = self.spent_seconds()
        of_epoch = (spent - self._began) / self._epochs
        return Verdict(stop=spent + of_epoch > 60 * self.minutes)

    def memory(self) -> dict[str, Any]:
        """Nothing: the time spent is told from outside."""
        return {}

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Does nothing."""


def monitored(monitor: str, logs: Mapping[str, float]) -> float:
    """The metric of an epoch that was asked for.

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
    """`min` for losses, errors and what else is better when lower, else `max`."""
    name = bare_name(monitor.removeprefix("val_").rpartition(".")[2])
    is_error = name.endswith(("loss", "error", "rmse", "mae", "mse"))
    return "min" if is_error or name in LOWER_IS_BETTER else "max"


def is_better(value: float, best: float | None, mode: str) -> bool:
    """Whether a metric has improved; NaN and infinity never have."""
    if not math.isfinite(value):
        return False
    return best is None or (value < best if mode == "min" else value > best)

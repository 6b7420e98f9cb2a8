"""The cost of a training, and a stop when the next epoch is not worth it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from shortlist.training.loop.stops import Verdict, monitored

WINDOW = 3
"""Epochs from which the next one is predicted."""


class MarginalCost:
    """Stops when the expected gain of the next epoch is too small for its cost.

    The expected gain is the mean gain of the last three epochs. The gain of an epoch is
    its improvement of the best value so far, at least 0; the expected cost is the mean
    time of these epochs at the price. As gains usually shrink, it stops slightly late.

    Args:
        monitor: name of the metric in the logs of an epoch.
        mode: `min` or `max`; what is better.
        price_per_hour: of the machine, in any currency.
        min_gain_per_cost: minimum gain of the metric per unit of that currency.
        spent_seconds: returns the time spent, including earlier processes.
    """

    name = "cost"

    def __init__(
        self,
        monitor: str,
        mode: str,
        *,
        price_per_hour: float,
        min_gain_per_cost: float,
        spent_seconds: Callable[[], float],
    ) -> None:
        self.monitor = monitor
        self.mode = mode
        self.price_per_hour = price_per_hour
        self.min_gain_per_cost = min_gain_per_cost
        self.spent_seconds = spent_seconds
        self._last = spent_seconds()
        self._best: float | None = None
        self._gains: list[float] = []
        self._seconds: list[float] = []

    def after_epoch(self, epoch: int, logs: Mapping[str, float]) -> Verdict:
        """Whether the next epoch is expected to gain too little for its price."""
        now = self.spent_seconds()
        self._seconds = [*self._seconds, now - self._last][-WINDOW:]
        self._last = now
        value = monitored(self.monitor, logs)
        if self._best is None:
            self._best = value
            return Verdict(stop=False)
        gain = self._best - value if self.mode == "min" else value - self._best
        self._gains = [*self._gains, max(gain, 0.0)][-WINDOW:]
        if gain > 0:
            self._best = value
        if len(self._gains) < WINDOW:
            return Verdict(stop=False)
        expected = sum(self._gains) / WINDOW
        price = cost(sum(self._seconds) / len(self._seconds), self.price_per_hour)
        return Verdict(stop=expected < self.min_gain_per_cost * price)

    def memory(self) -> dict[str, Any]:
        """The last gains and times."""
        return {
            "cost_best": self._best,
            "cost_gains": self._gains,
            "cost_seconds": self._seconds,
        }

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Restores what `memory` returned."""
        self._best = memory.get("cost_best")
        self._gains = list(memory.get("cost_gains", []))
        self._seconds = list(memory.get("cost_seconds", []))


def cost(seconds: float, price_per_hour: float) -> float:
    """The cost of a duration at an hourly price."""
    return seconds / 3600 * price_per_hour

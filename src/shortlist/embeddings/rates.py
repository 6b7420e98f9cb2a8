"""Learning rates of tables that follow the optimizer of their model.

A layer of Keras does not know which optimizer trains it, nor that a callback has
changed its rate. So the optimizer is taken from the trainer that runs, and its rate is
read whenever Keras reads the weights: under JAX before the first step after a callback.

Knows Keras optimizers and trainers; knows nothing of lookups.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Sequence
from types import FrameType
from typing import Any

import keras

from shortlist.embeddings.host import backends
from shortlist.embeddings.host.lookup_call import Rates
from shortlist.embeddings.specs import FollowedRate, TableSpec
from shortlist.errors import InputError

_TRAINERS = (
    "keras.src.backend.jax.trainer",
    "keras.src.backend.tensorflow.trainer",
    "keras.src.backend.torch.trainer",
    "keras.src.trainers.trainer",
)


def rates_of(specs: Sequence[TableSpec]) -> Rates:
    """Learning rates of tables, or a function that gives them for an update."""
    if all(spec.schedule is None for spec in specs):
        return [spec.rule.learning_rate for spec in specs]

    def at_step(step: Any) -> list[Any]:
        return [
            keras.ops.cast(
                spec.rule.learning_rate
                if spec.schedule is None
                else spec.schedule(step),
                "float32",
            )
            for spec in specs
        ]

    return at_step


class RateWatch:
    """The optimizer that trains a layer, and its rate.

    Args:
        specs: the tables of the layer.
    """

    def __init__(self, specs: Sequence[TableSpec]) -> None:
        trained = [spec for spec in specs if spec.trainable]
        self._followed = [
            spec.schedule for spec in trained if isinstance(spec.schedule, FollowedRate)
        ]
        self._fixed = [spec for spec in trained if spec.schedule is None]
        self._optimizer: weakref.ref[Any] | None = None
        self._first: float | None = None
        self._rate: float | None = None

    def look(self, frame: FrameType | None) -> None:
        """Finds the optimizer of the trainer that runs, and reads its rate.

        Warns once if the rate has changed and some tables have a fixed rate.
        """
        if not self._followed and not self._fixed:
            return
        optimizer = _running_optimizer(frame)
        if optimizer is None:
            return
        if self._optimizer is None or self._optimizer() is not optimizer:
            self._optimizer = weakref.ref(optimizer)
            self._first = None
        rate = optimizer._learning_rate
        schedule = rate if _is_schedule(rate) else None
        for one in self._followed:
            one.schedule = schedule
        now = None if schedule is not None else _number(rate)
        if now is None:
            return
        self._rate = now
        if self._first is None:
            self._first = now
        elif now != self._first and self._fixed:
            self._warn(now)

    def current(self) -> float:
        """The rate of the optimizer now, for tables that follow it.

        Raises:
            InputError: `optimizer-unknown`.
        """
        if keras.backend.backend() != "jax" and self._optimizer is not None:
            optimizer = self._optimizer()
            now = None if optimizer is None else _number(optimizer._learning_rate)
            self._rate = self._rate if now is None else now
        if self._rate is None:
            raise InputError(
                "optimizer-unknown",
                "A table with learning_rate='optimizer' must be trained by fit() or"
                " train_on_batch() of a compiled model whose optimizer has one rate."
                " Received another training loop. Give the table a number or a"
                " schedule.",
            )
        return self._rate

    def _warn(self, now: float) -> None:
        names = ", ".join(repr(spec.name) for spec in self._fixed)
        warnings.warn(
            f"The learning rate of the optimizer was set to {now:g}. Tables with a rate"
            f" of their own do not follow it: {names}. Pass"
            " TableConfig(learning_rate='optimizer') to tables that should.",
            UserWarning,
            stacklevel=2,
        )
        self._fixed = []


def _running_optimizer(frame: FrameType | None) -> Any:
    """The optimizer of the model whose trainer runs, without loss scaling."""
    while frame is not None:
        if frame.f_globals.get("__name__") in _TRAINERS:
            optimizer = getattr(frame.f_locals.get("self"), "optimizer", None)
            optimizer = getattr(optimizer, "inner_optimizer", optimizer)
            several = hasattr(optimizer, "optimizers")  # a MultiOptimizer
            if isinstance(optimizer, keras.optimizers.Optimizer) and not several:
                return optimizer
        frame = frame.f_back
    return None


def _is_schedule(rate: Any) -> bool:
    return isinstance(rate, keras.optimizers.schedules.LearningRateSchedule)


def _number(rate: Any) -> float | None:
    """A rate as a number; `None` while a compiled step has it."""
    if isinstance(rate, keras.Variable):
        value = rate._value
        if value is None or getattr(value, "is_deleted", bool)():
            return None
        if not backends.is_readable(value):
            return None
        return float(backends.to_number(value))
    return float(rate() if callable(rate) else rate)

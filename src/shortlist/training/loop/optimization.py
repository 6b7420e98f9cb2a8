"""The optimizer of a recipe, for dense weights and tables.

Tables have separate optimizers, so the settings are returned twice: as an object for
`compile`, and as a name and learning rate for the tables.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
from keras import ops

from shortlist.errors import InputError
from shortlist.recipe import TrainingSection


class Optimization(NamedTuple):
    """The optimizers of a model."""

    dense: keras.optimizers.Optimizer
    """For `compile`."""
    table_optimizer: str
    table_learning_rate: Any
    """A number, or a schedule as plain values that a configuration can hold."""


@keras.saving.register_keras_serializable(package="shortlist")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """Linear warm-up to a rate, then constant or decaying to zero.

    With w warm-up updates of n, update t from 0 to n - 1 has the rate times

        (t + 1) / w                          while t < w
        1                                    `constant`
        1 - (t - w) / (n - w)                `linear`
        (1 + cos(pi (t - w) / (n - w))) / 2  `cosine` (Loshchilov and Hutter, 2017)

    Args:
        learning_rate: the highest rate.
        kind: `constant`, `linear` or `cosine`.
        warmup_steps: updates of the warm-up; may be 0.
        total_steps: total number of updates.
        steps_per_update: steps per update: with gradient accumulation the dense
            optimizer counts batches, tables count updates.
    """

    def __init__(
        self,
        learning_rate: float,
        kind: str = "constant",
        warmup_steps: int = 0,
        total_steps: int = 1,
        steps_per_update: int = 1,
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.kind = kind
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        self.steps_per_update = steps_per_update

    def __call__(self, step: Any) -> Any:
        """The rate of a step, from 0."""
        update = ops.floor(ops.cast(step, "float32") / self.steps_per_update)
        left = max(self.total_steps - self.warmup_steps, 1)
        share = ops.clip((update - self.warmup_steps) / left, 0.0, 1.0)
        factor = ops.ones_like(share)
        if self.kind == "linear":
            factor = 1.0 - share
        elif self.kind == "cosine":
            factor = 0.5 * (1.0 + ops.cos(math.pi * share))
        rise = ops.minimum((update + 1.0) / max(self.warmup_steps, 1), 1.0)
        return self.learning_rate * factor * rise

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments as plain values."""
        return {
            "learning_rate": self.learning_rate,
            "kind": self.kind,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
            "steps_per_update": self.steps_per_update,
        }


def optimization(
    training: TrainingSection, learning_rate: float, total_batches: int
) -> Optimization:
    """The optimizers of a stage.

    Args:
        training: optimizer, schedule, clipping and accumulation.
        learning_rate: of dense weights and tables; the maximum of a schedule.
        total_batches: of all epochs.
    """
    rate: Any = learning_rate
    table_rate: Any = learning_rate
    if training.schedule != "constant" or training.warmup_steps:
        total = -(-total_batches // training.accumulate)
        shape = (learning_rate, training.schedule, training.warmup_steps, total)
        rate = WarmUp(*shape, steps_per_update=training.accumulate)
        table_rate = keras.optimizers.schedules.serialize(WarmUp(*shape))
    kinds = {
        "adagrad": keras.optimizers.Adagrad,
        "adam": keras.optimizers.Adam,
        "ftrl": keras.optimizers.Ftrl,
        "rowwise_adagrad": keras.optimizers.Adagrad,  # row-wise only for tables
        "sgd": keras.optimizers.SGD,
    }
    dense = kinds[training.optimizer](
        rate,
        # Keras numbers unnamed optimizers; the number would differ after a resume.
        name=training.optimizer,
        global_clipnorm=training.clip_norm,
        gradient_accumulation_steps=training.accumulate
        if training.accumulate > 1
        else None,
    )
    return Optimization(dense, training.optimizer, table_rate)


def check_updates(
    training: TrainingSection, stage: str, batches: int, epochs: int
) -> None:
    """Checks that a stage has enough updates for `accumulate` and `warmup_steps`.

    Args:
        training: its settings.
        stage: name of the stage.
        batches: batches per epoch.
        epochs: maximum number of epochs.

    Raises:
        InputError: `training-too-short`.
    """
    if batches < training.accumulate:
        raise InputError(
            "training-too-short",
            "`accumulate` must be at most the number of batches in an epoch. Received:"
            f" accumulate = {training.accumulate}, and {batches} batches of {stage} in"
            " an epoch. Lower accumulate or batch_size.",
        )
    updates = batches * epochs // training.accumulate
    if training.warmup_steps > updates:
        raise InputError(
            "training-too-short",
            f"`warmup_steps` must be at most the {updates:,} updates of {stage}, so"
            " that the learning rate is reached. Received:"
            f" {training.warmup_steps:,}. Lower it, or raise epochs.",
        )


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Models built inside compute in this precision; weights and tables are float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)

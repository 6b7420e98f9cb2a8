"""`[training]`: optimizer, schedule, precision and limits of a training."""

from __future__ import annotations

from typing import Literal, Self

import pydantic

from shortlist.errors import did_you_mean
from shortlist.options import (
    AboveZero,
    NotNegative,
    Options,
    Positive,
    Weight,
)

OPTIMIZERS = ("adagrad", "adam", "ftrl", "rowwise_adagrad", "sgd")


class TrainingSection(Options):
    """How the models of both stages are trained."""

    optimizer: str = "adam"
    """of dense weights and tables; one of `OPTIMIZERS`"""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: NotNegative = 0
    clip_norm: AboveZero | None = None
    """largest norm of the gradient of all dense weights together"""
    accumulate: Positive = 1
    """batches whose gradients are averaged into one update"""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    time_budget: AboveZero | None = None
    """minutes; no epoch starts that would end later"""
    price_per_hour: Weight = 0.0
    min_gain_per_cost: AboveZero | None = None
    """smallest gain of the monitored metric per unit of currency"""
    checkpoint_minutes: Weight = 10.0
    """longest time without a checkpoint; 0 for none within epochs"""

    @pydantic.field_validator("optimizer")
    @classmethod
    def _optimizer_is_known(cls, name: str) -> str:
        if name not in OPTIMIZERS:
            close = did_you_mean(name, OPTIMIZERS)
            raise ValueError(f"must be one of {', '.join(OPTIMIZERS)}.{close}")
        return name

    @pydantic.model_validator(mode="after")
    def _gain_needs_a_price(self) -> Self:
        if self.min_gain_per_cost is not None and not self.price_per_hour:
            raise ValueError("min_gain_per_cost needs a price_per_hour above 0")
        return self

"""`[tune]` of a recipe: which fields are searched, among which values, and how long.

Says what a search is; knows neither the fields of the other sections nor Optuna.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal, Self

import msgspec
import pydantic
from pydantic import Field

from shortlist.options import AboveZero, Options, Positive

Number = Annotated[
    Annotated[int, Field(strict=True)]
    | Annotated[float, Field(strict=True, allow_inf_nan=False)],
    Field(union_mode="left_to_right"),
]


class SearchSection(Options):
    """The values searched for one field: a range of numbers, or a list of choices."""

    low: Number | None = None
    high: Number | None = None
    """included if `step` reaches it"""
    log: Annotated[bool, Field(strict=True)] = False
    """search on a logarithmic scale"""
    step: Number | None = None
    choices: list[Any] | None = None

    @pydantic.model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.choices is not None:
            self._check_choices(self.choices)
        elif self.low is None or self.high is None:
            raise ValueError("needs low and high, or choices")
        elif not self.low < self.high:
            raise ValueError(
                f"low must be below high, received {self.low} and {self.high}"
            )
        elif self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs a low above 0 and no step")
        elif self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(
                f"step must be above 0 and at most high - low, received {self.step}"
            )
        return self

    def _check_choices(self, choices: list[Any]) -> None:
        if self.low is not None or self.high is not None or self.step is not None:
            raise ValueError("takes choices, or low, high and step, not both")
        if self.log:
            raise ValueError("log is of a range, not of choices")
        if len({as_text(choice) for choice in choices}) < max(2, len(choices)):
            raise ValueError("choices must be two or more, all different")

    def last(self) -> int | float:
        """The greatest value of a range: `high`, or what `step` reaches below it."""
        assert self.low is not None and self.high is not None
        if self.step is None:
            return self.high
        low, high, step = (Decimal(str(v)) for v in (self.low, self.high, self.step))
        reached = low + (high - low) // step * step
        numbers = (self.low, self.step)
        return (
            int(reached) if all(isinstance(v, int) for v in numbers) else float(reached)
        )


class TuneSection(Options):
    """A search for better settings, measured on the validation part alone."""

    trials: Positive = 30
    metric: str = "ndcg@10"
    direction: Literal["maximize", "minimize"] | None = None
    """by default that of the metric"""
    seed: Annotated[int, Field(ge=0, lt=2**32, strict=True)] = 0
    time_budget: AboveZero | None = None
    """minutes; no trial starts later"""
    halving: Annotated[int, Field(ge=2, strict=True)] | Literal[False] = 3
    """one trial in so many goes on after a rung; `false` for all"""
    min_epochs: Positive = 2
    """epochs before the first rung"""
    folder: str = "tune"
    space: dict[str, SearchSection] = {}

    @pydantic.field_validator("space", mode="before")
    @classmethod
    def _flat(cls, space: Any) -> Any:
        return _flat(space) if isinstance(space, dict) else space


def _flat(space: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Names with dots, whether TOML was given them in quotes or not."""
    found: dict[str, Any] = {}
    for name, value in space.items():
        inner = (
            isinstance(value, dict)
            and value
            and all(isinstance(v, dict) for v in value.values())
        )
        found |= _flat(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return found


def as_text(value: Any) -> str:
    """A value as JSON, which tells 1 from 1.0 and true."""
    return msgspec.json.encode(value).decode()

"""`[ranker]` and its heads."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import pydantic
from pydantic import Field

from shortlist.errors import did_you_mean
from shortlist.recipe.section import (
    AboveZero,
    Flag,
    NotNegative,
    Positive,
    Rate,
    Section,
    Weight,
)

Objective = Literal["explicit", "binary", "listwise"]
Label = Literal["label", "positive", "taken"]


class HeadSection(Section):
    """One head of a multi-task ranker."""

    objective: Objective
    weight: AboveZero = 1.0
    """Of its loss in the sum of all."""
    label: Label | None = None
    """`label`, `positive` or `taken`; by default the objective's, in that order."""

    def label_learned(self) -> Label:
        """The label as given, or the default of the objective."""
        default: dict[str, Label] = {
            "explicit": "label",
            "binary": "positive",
            "listwise": "taken",
        }
        return self.label or default[self.objective]


class RankerSection(Section):
    """The ranker; `enabled = false` serves retrieval alone."""

    enabled: Flag = True
    kind: Literal["single_task", "multi_task"] = "single_task"
    objective: Objective = "binary"
    interaction: Literal[
        "mlp", "ncf", "wide_deep", "deepfm", "dcn", "dcn_low_rank", "dlrm"
    ] = "mlp"
    cross_layers: Positive = 2
    low_rank_dim: Positive | None = None
    """Of `dcn_low_rank`; a quarter of the width of the input by default."""
    embedding_dim: Positive = 32
    feature_dim: Positive = 8
    hidden_units: list[Positive] = [64, 32]
    history_length: NotNegative = 10
    dropout: Rate = 0.2
    unknown_rate: Rate = 0.05
    table_l2: Weight = 0.0
    negatives: NotNegative = 4
    epochs: Positive = 10
    batch_size: Positive = 1024
    learning_rate: AboveZero = 1e-3
    patience: Positive = 2
    monitor: str = "val_loss"
    candidates: Positive = 100
    weights: Annotated[list[Weight], Field(min_length=1)] = [0, 0.1, 0.2, 0.5, 1, 2]
    """Weights tried on the validation part; the best one is kept."""
    bottom: Literal["shared", "mmoe"] = "shared"
    num_experts: Positive = 4
    tower_units: list[Positive] = [16]
    score: str | dict[str, float] | None = None
    """The head, or the weights of heads, that re-orders candidates."""
    heads: dict[str, HeadSection] = {}

    @pydantic.model_validator(mode="after")
    def _heads_are_those_of_many_tasks(self) -> Self:
        several = self.kind == "multi_task"
        if several != bool(self.heads):
            raise ValueError(
                "kind = 'multi_task' and [ranker.heads.<name>] go together"
            )
        if several and self.interaction != "mlp":
            raise ValueError("kind = 'multi_task' has no interaction but 'mlp'")
        scored = [self.score] if isinstance(self.score, str) else self.score or ()
        for name in scored:
            if name not in self.heads:
                close = did_you_mean(name, self.heads)
                raise ValueError(f"score must name heads, received {name!r}.{close}")
        for name, (objective, label) in self.labels().items():
            if objective == "listwise" and label != "taken":
                raise ValueError(
                    f"head {name!r} of objective = 'listwise' needs label = 'taken', an"
                    f" event beside the items drawn for it, received {label!r}"
                )
            if label == "taken" and self.enabled and self.negatives < 1:
                who = f"head {name!r}" if name else f"objective = {objective!r}"
                raise ValueError(f"{who} needs negatives of at least 1")
        return self

    def labels(self) -> dict[str, tuple[Objective, Label]]:
        """Objective and label of each head; the single task is named ''."""
        if self.kind == "multi_task":
            return {
                name: (head.objective, head.label_learned())
                for name, head in self.heads.items()
            }
        if self.objective == "explicit":
            return {"": ("explicit", "label")}
        # Click or not: without items drawn beside them, labels are told apart.
        drawn = self.negatives > 0 or self.objective == "listwise"
        return {"": (self.objective, "taken" if drawn else "positive")}

    def negatives_drawn(self) -> int:
        """Items drawn per event: none where every label is that of an event."""
        taken = any(label == "taken" for _, label in self.labels().values())
        return self.negatives if taken else 0

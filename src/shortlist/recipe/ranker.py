"""`[ranker]`: the options of both rankers, and how one is trained."""

from __future__ import annotations

from typing import Annotated, Self

import pydantic
from pydantic import Field

from shortlist.models.options import (
    Label,
    MultiTaskOptions,
    Objective,
    RankerKind,
    RankerOptions,
)
from shortlist.options import AboveZero, NotNegative, Positive, Rate, Weight


# pydantic takes the fields of the last base first: `enabled` comes before the others.
class RankerSection(MultiTaskOptions, RankerOptions, RankerKind):
    """The ranker of one task or several."""

    embedding_dim: Positive = 32
    """width of the id tables"""
    feature_dim: Positive = 8
    """width of the tables of side features"""
    history_length: NotNegative = 10
    """newest items that it reads; 0 for none"""
    unknown_rate: Rate = 0.05
    """share of events trained as an unknown user"""
    negatives: NotNegative = 4
    """items sampled per event for binary and listwise objectives"""
    epochs: Positive = 10
    """at most; training stops earlier by `patience`"""
    batch_size: Positive = 1024
    """events per batch"""
    learning_rate: AboveZero = 1e-3
    """of the optimizer; at most 1 unless it is sgd"""
    patience: Positive = 2
    """epochs without a better `monitor` before training stops"""
    monitor: str = "val_loss"
    """metric of an epoch that decides which epoch is the best"""
    candidates: Positive = 100
    """items that it re-scores; at least the longest of evaluation.ks"""
    weights: Annotated[list[Weight], Field(min_length=1)] = [0, 0.1, 0.2, 0.5, 1, 2]
    """score = retrieval + weight x ranker; the best on the validation part is kept"""

    @pydantic.model_validator(mode="after")
    def _heads_are_those_of_many_tasks(self) -> Self:
        several = self.kind == "multi_task"
        if several != bool(self.heads):
            raise ValueError(
                "kind = 'multi_task' and [ranker.heads.<name>] go together"
            )
        if several and self.interaction != "mlp":
            raise ValueError("kind = 'multi_task' has no interaction but 'mlp'")
        for name, (objective, label) in self.labels().items():
            if objective == "listwise" and label != "taken":
                raise ValueError(
                    f"head {name!r} of objective = 'listwise' needs label = 'taken',"
                    f" which compares an event with sampled items, received {label!r}"
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
        # Without sampled items the label says which events are positive.
        sampled = self.negatives > 0 or self.objective == "listwise"
        return {"": (self.objective, "taken" if sampled else "positive")}

    def negatives_drawn(self) -> int:
        """Items sampled per event; none where every label is that of an event."""
        taken = any(label == "taken" for _, label in self.labels().values())
        return self.negatives if taken else 0

"""`[retrieval]`: the options of the retrieval models, and how one is trained."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import pydantic
from pydantic import Field

from shortlist.models.options import RetrievalKind, TwoTowerOptions
from shortlist.options import AboveZero, NotNegative, Positive, Rate


# pydantic takes the fields of the last base first: `kind` comes before the others.
class RetrievalSection(TwoTowerOptions, RetrievalKind):
    """The retrieval model: the two-tower model, or the scorer that `kind` names."""

    feature_dim: Positive = 8
    """width of the tables of side features"""
    history_length: NotNegative = 10
    """newest items that the user tower reads; 0 for none"""
    unknown_rate: Rate = 0.05
    """share of events trained as an unknown user, for cold starts"""
    history_from: Literal["before", "others"] = "before"
    """items before the event, or others: all but its own, for parts without time"""
    history_dropout: Rate = 0.0
    """share of the items of a history left out in training"""
    unknown_within: AboveZero | None = None
    """with others: seconds around an event that an unknown user's history spans"""
    mixed_negatives: Positive = 1024
    """items sampled uniformly per batch for negatives = mixed"""
    epochs: Positive = 40
    """at most; training stops earlier by `patience`"""
    batch_size: Annotated[int, Field(ge=2, strict=True)] = 1024
    """events per batch; the items of the other events are negatives"""
    learning_rate: AboveZero = 3e-3
    """of the optimizer; at most 1 unless it is sgd"""
    patience: Positive = 3
    """epochs without a better `monitor` before training stops"""
    monitor: str = "val_ndcg@10"
    """metric of an epoch that decides which epoch is the best"""

    @pydantic.model_validator(mode="after")
    def _unknown_users_have_others(self) -> Self:
        if self.unknown_within is not None and self.history_from != "others":
            raise ValueError("unknown_within needs history_from = 'others'")
        return self

    @pydantic.model_validator(mode="after")
    def _order_needs_a_history(self) -> Self:
        if self.history != "mean" and self.history_length < 1:
            raise ValueError(
                f"history = {self.history!r} needs a history_length of at least 1"
            )
        return self

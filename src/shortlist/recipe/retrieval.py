"""`[retrieval]` and its tables: the two-tower, the scorers, and what they are."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import pydantic
from pydantic import Field

from shortlist.recipe.section import (
    AboveZero,
    Flag,
    NotNegative,
    Positive,
    Rate,
    Section,
    Weight,
    check_kind,
)

RETRIEVAL_KINDS = (
    "two_tower",
    "als",
    "burst_als",
    "ease",
    "factorization",
    "item_knn",
    "popularity",
    "blend",
)


class PopularitySection(Section):
    """What most people took: of all time, lately, or by a feature of users."""

    half_life_days: AboveZero | None = None
    window_days: AboveZero | None = None
    segment: str | None = None
    smoothing: Weight = 10.0


class ItemKnnSection(Section):
    """Item-based nearest neighbours."""

    similarity: Literal["cooccurrence", "cosine", "jaccard", "lift"] = "cosine"
    neighbours: Positive | None = 200
    shrinkage: Weight = 20.0
    half_life_days: AboveZero | None = None
    rating_weights: Flag = False


class EaseSection(Section):
    """EASE, in closed form."""

    l2: AboveZero = 500.0
    dropout: Rate = 0.0
    memory_limit_gb: AboveZero = 8.0


class AlsSection(Section):
    """Implicit ALS."""

    factors: Positive = 64
    regularization: AboveZero = 30.0
    alpha: AboveZero = 2.0
    iterations: Positive = 15
    frequency: Weight = 0.0


class BurstAlsSection(Section):
    """Implicit ALS that also learns from what was taken together."""

    factors: Positive = 48
    regularization: AboveZero = 0.4
    unobserved: AboveZero = 0.13
    frequency: Weight = 0.5
    iterations: Positive = 12
    burst_seconds: Annotated[AboveZero, Field(le=1e10)] = 600.0
    burst_weight: Weight = 0.5
    user_balance: Weight = 0.0
    label_weight: Weight = 0.1


class FactorizationSection(Section):
    """The biased factorization, which predicts the label."""

    factors: Positive = 10
    sweeps: Positive = 20


class BlendSection(Section):
    """The blend; options of a member are those of its own section."""

    members: Annotated[list[str], Field(min_length=1)] = ["ease", "item_knn"]

    @pydantic.field_validator("members")
    @classmethod
    def _distinct_kinds(cls, members: list[str]) -> list[str]:
        for kind in members:
            check_kind(kind, RETRIEVAL_KINDS[:-1])
        if len(set(members)) < len(members):
            raise ValueError("every kind may be a member once")
        return members


class RetrievalSection(Section):
    """The retrieval model: the two-tower model, or the scorer that `kind` names."""

    kind: str = "two_tower"
    popularity: PopularitySection = PopularitySection()
    item_knn: ItemKnnSection = ItemKnnSection()
    ease: EaseSection = EaseSection()
    als: AlsSection = AlsSection()
    burst_als: BurstAlsSection = BurstAlsSection()
    factorization: FactorizationSection = FactorizationSection()
    blend: BlendSection = BlendSection()
    embedding_dim: Positive = 64
    feature_dim: Positive = 8
    hidden_units: list[Positive] = []
    history_length: NotNegative = 10
    dropout: Rate = 0.4
    unknown_rate: Rate = 0.05
    temperature: AboveZero = 0.2
    learned_temperature: Flag = False
    similarity: Literal["cosine", "dot"] = "cosine"
    item_bias: Flag = False
    projection: Literal["dense", "sum"] = "dense"
    history_from: Literal["before", "others"] = "before"
    """What a row's history may hold: what came before, or all but the row itself."""
    history_dropout: Rate = 0.0
    unknown_within: AboveZero | None = None
    """With `others`, the seconds that the history of a hidden user spans."""
    num_queries: Positive = 1
    history: Literal["mean", "gru", "attention"] = "mean"
    num_blocks: Positive = 2
    num_heads: Positive = 1
    loss: Literal["sampled_softmax", "bpr", "hinge"] = "sampled_softmax"
    margin: AboveZero = 1.0
    negatives: Literal["in_batch", "mixed", "all"] = "in_batch"
    mixed_negatives: Positive = 1024
    """Items drawn beside those of a batch, with `negatives = "mixed"`."""
    sampling_correction: Flag = True
    hard_negatives: NotNegative = 0
    """Negatives of a row that count; 0 for all."""
    epochs: Positive = 40
    batch_size: Annotated[int, Field(ge=2, strict=True)] = 1024
    """At least 2: the other rows of a batch are the negatives of a row."""
    learning_rate: AboveZero = 3e-3
    patience: Positive = 3
    monitor: str = "val_ndcg@10"
    """Metric of an epoch that tells which one is best."""

    @pydantic.model_validator(mode="after")
    def _hidden_users_have_others(self) -> Self:
        if self.unknown_within is not None and self.history_from != "others":
            raise ValueError("unknown_within needs history_from = 'others'")
        if self.item_bias and self.embedding_dim < 2:
            raise ValueError("item_bias needs an embedding_dim of at least 2")
        return self

    @pydantic.model_validator(mode="after")
    def _order_needs_a_history(self) -> Self:
        if self.history != "mean" and self.history_length < 1:
            raise ValueError(
                f"history = {self.history!r} needs a history_length of at least 1"
            )
        return self

    @pydantic.field_validator("kind")
    @classmethod
    def _known_kind(cls, kind: str) -> str:
        return check_kind(kind, RETRIEVAL_KINDS)

"""The options of every model: name, limits, default and a one-line note of each.

A model is constructed from these structures, the recipe has them as sections, and
`shortlist init` and docs/recipe.md print their notes. Imports no Keras.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import pydantic
from pydantic import Field

from shortlist.errors import did_you_mean
from shortlist.options import (
    AboveZero,
    Flag,
    NotNegative,
    Options,
    Positive,
    Rate,
    Weight,
    check_kind,
)

History = Literal["mean", "gru", "attention"]
Interaction = Literal[
    "mlp", "ncf", "wide_deep", "deepfm", "dcn", "dcn_low_rank", "dlrm"
]
Label = Literal["label", "positive", "taken"]
LossName = Literal["sampled_softmax", "bpr", "hinge"]
Objective = Literal["explicit", "binary", "listwise"]
Similarity = Literal["cosine", "dot"]


class TwoTowerOptions(Options):
    """Options of the two-tower model."""

    embedding_dim: Positive = 64
    """width of the user and item vectors and of the id tables"""
    hidden_units: list[Positive] = []
    """widths of the hidden layers of each tower, such as [128]"""
    dropout: Rate = 0.0
    """share of the looked-up inputs dropped in training"""
    temperature: AboveZero = 0.2
    """scores are divided by it; a smaller value makes the softmax sharper"""
    learned_temperature: Flag = False
    """train the temperature, starting at `temperature`"""
    similarity: Similarity = "cosine"
    """of a user and an item vector: cosine or dot (product)"""
    item_bias: Flag = False
    """add a bias per item to its scores; it is not divided by the temperature"""
    projection: Literal["dense", "sum"] = "dense"
    """dense: a last linear layer; sum: add the inputs, all of width embedding_dim"""
    num_queries: Positive = 1
    """user vectors per user; the score is the highest of them"""
    history: History = "mean"
    """mean of the items, or gru or attention over their order"""
    num_blocks: Positive = 2
    """blocks of attention"""
    num_heads: Positive = 1
    """heads of attention"""
    loss: LossName = "sampled_softmax"
    """sampled_softmax, or over pairs of items bpr or hinge"""
    margin: AboveZero = 1.0
    """of hinge: by how much the positive item should score higher"""
    negatives: Literal["in_batch", "mixed", "all"] = "in_batch"
    """in_batch, mixed (and uniform samples) or all (items of a small catalogue)"""
    sampling_correction: Flag = True
    """subtract the log probability of sampling a negative from its logit"""
    hard_negatives: Annotated[
        NotNegative, pydantic.BeforeValidator(lambda n: 0 if n is None else n)
    ] = 0
    """keep only this many negatives per row, the highest-scoring; 0 keeps all"""

    @pydantic.model_validator(mode="after")
    def _bias_has_a_column(self) -> Self:
        if self.item_bias and self.embedding_dim < 2:
            raise ValueError("item_bias needs an embedding_dim of at least 2")
        return self


class PopularityOptions(Options):
    """Options of popularity."""

    half_life_days: AboveZero | None = None
    """an event this much older than the newest one counts half; needs times"""
    window_days: AboveZero | None = None
    """events older than this do not count; needs times"""
    segment: str | None = None
    """categorical user feature; items are counted for each of its values"""
    smoothing: Weight = 10.0
    """weight of the overall shares in the counts of a segment, in events"""


class ItemKnnOptions(Options):
    """Options of item-based nearest neighbours."""

    similarity: Literal["cooccurrence", "cosine", "jaccard", "lift"] = "cosine"
    """of the users of two items: cosine, jaccard, lift or cooccurrence"""
    neighbours: Positive | None = 200
    """most similar items kept per item"""
    shrinkage: Weight = 20.0
    """added to the denominator; lowers similarities that rest on few users"""
    half_life_days: AboveZero | None = None
    """an item this much older than the user's newest counts half; needs times"""
    rating_weights: Flag = False
    """weigh the items of a user by their labels"""


class EaseOptions(Options):
    """Options of EASE."""

    l2: AboveZero = 500.0
    """regularization; higher for a sparser log"""
    dropout: Rate = 0.0
    """share of the inputs dropped, in expectation (EDLAE)"""
    memory_limit_gb: AboveZero = 8.0
    """refuse a catalogue that needs more: 28 bytes x items squared"""


class AlsOptions(Options):
    """Options of implicit ALS."""

    factors: Positive = 64
    """width of the factors"""
    regularization: AboveZero = 30.0
    """of the factors"""
    alpha: AboveZero = 2.0
    """an observed pair has the confidence 1 + alpha, any other pair 1"""
    iterations: Positive = 15
    """times that users and items are solved in turn"""
    frequency: Weight = 0.0
    """exponent by which regularization grows with the events of a user or item"""


class BurstAlsOptions(Options):
    """Options of ALS with bursts."""

    factors: Positive = 48
    """width of the factors"""
    regularization: AboveZero = 0.4
    """of a row with n of N pairs: times (n + unobserved x N) ** frequency"""
    unobserved: AboveZero = 0.13
    """confidence of a pair that was not observed"""
    frequency: Weight = 0.5
    """exponent by which regularization grows with the pairs of a row"""
    iterations: Positive = 12
    """times that rows and items are solved in turn"""
    burst_seconds: Annotated[AboveZero, Field(le=1e10)] = 600.0
    """longest time from the first to the last event of a burst"""
    burst_weight: Weight = 0.5
    """weight of a burst relative to a user; 0 leaves bursts out"""
    user_balance: Weight = 0.0
    """a user of n items has the weight n ** -user_balance"""
    label_weight: Weight = 0.1
    """confidence per standard deviation of the label above its mean"""


class FactorizationOptions(Options):
    """Options of the biased factorization, which predicts the label."""

    factors: Positive = 10
    """width of the factors; those that explain nothing vanish"""
    sweeps: Positive = 20
    """times that users and items are solved in turn"""


class BlendOptions(Options):
    """Options of the blend; those of a member are in its own table."""

    members: Annotated[list[str], Field(min_length=1)] = ["ease", "item_knn"]
    """kinds, each once; their weights are fitted on the validation part"""

    @pydantic.field_validator("members")
    @classmethod
    def _distinct_kinds(cls, members: list[str]) -> list[str]:
        for kind in members:
            check_kind(kind, RETRIEVAL_KINDS[:-1])
        if len(set(members)) < len(members):
            raise ValueError("every kind may be a member once")
        return members


class RetrievalKind(Options):
    """Which retrieval model, and the options of each kind but the two-tower model."""

    kind: str = "two_tower"
    """or ease, burst_als, item_knn, als, popularity, factorization, blend"""
    popularity: PopularityOptions = PopularityOptions()
    item_knn: ItemKnnOptions = ItemKnnOptions()
    ease: EaseOptions = EaseOptions()
    als: AlsOptions = AlsOptions()
    burst_als: BurstAlsOptions = BurstAlsOptions()
    factorization: FactorizationOptions = FactorizationOptions()
    blend: BlendOptions = BlendOptions()

    @pydantic.field_validator("kind")
    @classmethod
    def _known_kind(cls, kind: str) -> str:
        return check_kind(kind, RETRIEVAL_KINDS)


RETRIEVAL_KINDS: tuple[str, ...] = (
    "two_tower",
    *sorted({*RetrievalKind.model_fields} - {"kind", "blend"}),
    "blend",
)
"""What `kind` may be."""


class DenseOptions(Options):
    """Options that both rankers have."""

    hidden_units: list[Positive] = [64, 32]
    """widths of the hidden layers"""
    dropout: Rate = 0.0
    """share of the looked-up inputs dropped in training"""
    table_l2: Weight = 0.0
    """adds table_l2 x row to the gradient of every table row of a batch"""


class RankerOptions(DenseOptions):
    """Options of the ranker."""

    objective: Objective = "binary"
    """explicit: the label; binary: chance of an event; listwise: the order"""
    interaction: Interaction = "mlp"
    """or ncf, wide_deep, deepfm, dcn, dcn_low_rank, dlrm"""
    cross_layers: Positive = 2
    """cross layers of dcn and dcn_low_rank"""
    low_rank_dim: Positive | None = None
    """rank of the matrices of dcn_low_rank; a quarter of the input's width if unset"""


class Head(Options):
    """One output of a multi-task ranker."""

    objective: Objective
    """explicit, binary or listwise, as of a ranker"""
    weight: AboveZero = 1.0
    """of its loss in the sum of all losses"""
    label: Label | None = None
    """label, positive or taken; by default that of its objective, in this order"""

    def label_learned(self) -> Label:
        """The label as given, or the default of the objective."""
        default: dict[str, Label] = {
            "explicit": "label",
            "binary": "positive",
            "listwise": "taken",
        }
        return self.label or default[self.objective]


class MultiTaskOptions(DenseOptions):
    """Options of the multi-task ranker."""

    bottom: Literal["shared", "mmoe"] = "shared"
    """of multi_task: shared (one perceptron for all heads) or mmoe"""
    num_experts: Positive = 4
    """perceptrons of mmoe, each with hidden_units"""
    tower_units: list[Positive] = [16]
    """of multi_task: widths of the hidden layers of each head"""
    score: str | dict[str, Annotated[float, Field(allow_inf_nan=False)]] | None = None
    """of multi_task: the head, or weights of heads, that re-order the candidates"""
    heads: dict[str, Head] = {}
    """of multi_task: a table [ranker.heads.NAME] for each head"""

    @pydantic.model_validator(mode="after")
    def _score_names_heads(self) -> Self:
        for name in self.shares():
            if name not in self.heads:
                close = did_you_mean(name, self.heads)
                raise ValueError(f"score must name heads, received {name!r}.{close}")
        return self

    @pydantic.model_validator(mode="after")
    def _experts_have_layers(self) -> Self:
        if self.heads and self.bottom == "mmoe" and not self.hidden_units:
            raise ValueError("bottom = 'mmoe' needs hidden_units for its experts")
        return self

    def shares(self) -> dict[str, float]:
        """The weight of each head in the score; empty where `score` is not set."""
        if isinstance(self.score, str):
            return {self.score: 1.0}
        return dict(self.score or {})


class RankerKind(Options):
    """Whether there is a ranker, and of which kind."""

    enabled: Flag = True
    """false serves retrieval alone"""
    kind: Literal["single_task", "multi_task"] = "single_task"
    """or multi_task: several heads, such as a rating and the chance of an event"""

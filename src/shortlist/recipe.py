"""The recipe: everything a user decides, in one file, `shortlist.toml`.

Validated by pydantic; every run stores the recipe it used. `docs/recipe.md` explains
the fields.
"""

from __future__ import annotations

import datetime as dt
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import msgspec
import pydantic
from pydantic import Field

from shortlist.data.schema import Feature, Schema
from shortlist.data.split import Split
from shortlist.errors import RecipeError, did_you_mean
from shortlist.search import SearchSection, TuneSection

# Strict: `epochs = true` and `epochs = "3"` are mistakes, not numbers.
Positive = Annotated[int, Field(ge=1, strict=True)]
NotNegative = Annotated[int, Field(ge=0, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]
Rate = Annotated[float, Field(ge=0, lt=1, strict=True)]
AboveZero = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
PathOrPaths = str | list[str]

METRIC_NAMES = (
    "recall",
    "ndcg",
    "mrr",
    "map",
    "hit_rate",
    "precision",
    "novelty",
    "diversity",
    "arp",
    "taste_divergence",
    "coverage",
    "gini",
    "popularity_lift",
    "personalization",
)
"""Metrics of lists that `[evaluation] metrics` chooses from; docs/evaluation.md."""


class Section(pydantic.BaseModel):
    """One table of the recipe file."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class LogSection(Section):
    """Where the log and the attribute files are, relative to the recipe file."""

    events: PathOrPaths
    users: str | None = None
    items: str | None = None
    users_id: str | None = None
    items_id: str | None = None
    test_events: PathOrPaths | None = None
    validation_events: PathOrPaths | None = None
    layout: str | None = None
    on_error: Literal["raise", "skip"] = "raise"
    """What a bad row does: an error, or it is set aside and counted."""


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
    burst_seconds: AboveZero = 600.0
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
            _check_kind(kind, RETRIEVAL_KINDS[:-1])
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
        return _check_kind(kind, RETRIEVAL_KINDS)


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


OPTIMIZERS = ("adagrad", "adam", "ftrl", "rowwise_adagrad", "sgd")


class TrainingSection(Section):
    """How the models of both stages are trained."""

    optimizer: str = "adam"
    """Of dense weights and tables; one of `OPTIMIZERS`."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: NotNegative = 0
    clip_norm: AboveZero | None = None
    """Greatest length of the gradient of all dense weights together."""
    accumulate: Positive = 1
    """Batches whose gradients are averaged into one update."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    time_budget: AboveZero | None = None
    """Minutes; no epoch begins that would end later."""
    price_per_hour: Weight = 0.0
    min_gain_per_cost: AboveZero | None = None
    """Least gain of the monitored metric per unit of the price's currency."""
    checkpoint_minutes: Weight = 10.0
    """Longest time within an epoch without a checkpoint; 0 for none within epochs."""

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


class EvaluationSection(Section):
    """What is measured on the test part."""

    ks: Annotated[list[Positive], Field(min_length=1)] = [5, 10, 20]
    resamples: Positive = 1000
    metrics: list[str] = []
    """What is measured; everything when empty."""
    slices: list[str] = []
    """Features the report is divided by, beside the built-in slices."""
    taste: str = ""
    """Item feature that tastes are measured in; found out when empty."""

    @pydantic.field_validator("metrics")
    @classmethod
    def _metrics_are_known(cls, metrics: list[str]) -> list[str]:
        for name in metrics:
            if name not in METRIC_NAMES:
                hint = did_you_mean(name, METRIC_NAMES)
                raise ValueError(f"{name!r} is no metric.{hint} {METRIC_NAMES}")
        return metrics


class OutputSection(Section):
    """Where things are written, relative to the recipe file."""

    dataset: str = "dataset"
    compression: Literal["none", "zstd"] = "none"
    """Of the dataset: smaller, but read into memory instead of in place."""
    run: str = "run"
    bundle: str = "bundle"


class TrackingSection(Section):
    """Who is told of trainings; paths are relative to the recipe file."""

    store: str | None = None
    """Folder in which every run is kept."""
    mlflow: str | None = None
    """Tracking URI, or the path of an SQLite file."""
    experiment: str = "shortlist"
    wandb: str | None = None
    """Name of the project."""
    wandb_mode: Literal["offline", "online"] = "offline"
    tensorboard: Flag = False


def _check_kind(kind: str, known: tuple[str, ...]) -> str:
    if kind not in known:
        raise ValueError(f"must be one of {known}.{did_you_mean(kind, known)}")
    return kind


def _schema(value: Any) -> Any:
    if isinstance(value, Schema):
        return value
    try:
        return msgspec.convert(value, Schema)
    except msgspec.ValidationError as error:
        raise ValueError(f"{error}{_misspelt(str(error))}") from error


class Recipe(Section):
    """The whole recipe."""

    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True
    )

    version: Literal[1] = 1
    name: str = "recommender"
    seed: Seed = 0
    log: LogSection
    columns: Annotated[pydantic.InstanceOf[Schema], pydantic.BeforeValidator(_schema)]
    split: Split = Split()
    retrieval: RetrievalSection = RetrievalSection()
    ranker: RankerSection = RankerSection()
    training: TrainingSection = TrainingSection()
    evaluation: EvaluationSection = EvaluationSection()
    output: OutputSection = OutputSection()
    tracking: TrackingSection = TrackingSection()
    tune: TuneSection = TuneSection()

    @pydantic.model_validator(mode="after")
    def _rates_are_those_of_steps(self) -> Self:
        name = self.training.optimizer
        for stage, section in self.trained().items():
            # Of SGD alone a step is as long as the gradient, which may be tiny.
            if section.learning_rate > 1 and name != "sgd":
                raise ValueError(
                    f"{stage}.learning_rate must be at most 1 with optimizer ="
                    f" {name!r}, which moves weights by about the rate, received"
                    f" {section.learning_rate!r}"
                )
        return self

    @pydantic.model_validator(mode="after")
    def _lists_are_within_the_candidates(self) -> Self:
        longest = max(self.evaluation.ks)
        if self.ranker.enabled and longest > self.ranker.candidates:
            raise ValueError(
                f"ranker.candidates must be at least the longest of evaluation.ks,"
                f" {longest}, or the lists measured are not those served"
            )
        return self

    def trained(self) -> dict[str, RetrievalSection | RankerSection]:
        """The sections of the models that are trained step by step, by stage."""
        kinds = [self.retrieval.kind]
        if kinds == ["blend"]:
            kinds = self.retrieval.blend.members
        found: dict[str, RetrievalSection | RankerSection] = {}
        if "two_tower" in kinds:
            found["retrieval"] = self.retrieval
        if self.ranker.enabled:
            found["ranker"] = self.ranker
        return found

    def to_builtins(self) -> dict[str, Any]:
        """The recipe as plain JSON values."""
        plain: dict[str, Any] = msgspec.to_builtins(
            {name: _plain(getattr(self, name)) for name in type(self).model_fields}
        )
        return plain


def load_recipe(path: str | Path, settings: list[str] | None = None) -> Recipe:
    """Reads a recipe file.

    Args:
        path: the file.
        settings: overrides of the form `section.field=value`, values in TOML.

    Raises:
        RecipeError: no such file, no TOML, or a field that cannot be used.
    """
    path = Path(path)
    if not path.is_file():
        raise RecipeError(
            "recipe-missing",
            f"A recipe must be at {str(path)!r}. There is no such file. Write one with"
            " `shortlist init LOG`, or name it with --recipe.",
            file=path,
        )
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(
            "recipe-syntax",
            f"A recipe must be valid TOML in UTF-8. Reading it failed: {error}.",
            file=path,
        ) from error
    for setting in settings or []:
        _apply(raw, setting)
    return build_recipe(raw, file=path)


def build_recipe(raw: dict[str, Any], *, file: object = None) -> Recipe:
    """Validates plain values as a recipe; raises `RecipeError`."""
    version = raw.get("version", 1)
    if isinstance(version, int) and version > 1:
        raise RecipeError(
            "recipe-newer",
            f"The version of a recipe must be at most 1. Received: {version}. Update"
            " shortlist, or write the recipe with this version's `shortlist init`.",
            file=file,
        )
    try:
        return Recipe.model_validate(raw)
    except pydantic.ValidationError as error:
        problems = "; ".join(_problem(e) for e in error.errors())
        raise RecipeError(
            "recipe-invalid",
            f"The recipe cannot be used: {problems.rstrip('.')}"
            f"{'' if problems.endswith('?') else '.'} docs/recipe.md lists the fields.",
            file=file,
        ) from error


def _misspelt(message: str) -> str:
    """The closest column role or feature field to the unknown one of a message."""
    found = re.search(r"unknown field `(.*?)`", message)
    section = Feature if "$.features" in message else Schema
    return did_you_mean(found.group(1), section.__struct_fields__) if found else ""


def _plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, pydantic.BaseModel) else value


def _apply(raw: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise RecipeError(
            "setting-invalid",
            f"--set takes section.field=value. Received: {setting!r}.",
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    if isinstance(value, dt.date | dt.time):
        value = text.strip()  # and so is a moment: no field takes a TOML date
    *sections, name = key.strip().split(".")
    for section in sections:
        raw = raw.setdefault(section, {})
        if not isinstance(raw, dict):
            raise RecipeError(
                "setting-invalid",
                f"--set takes section.field=value. {section!r} in {setting!r} is a"
                " field, not a section.",
            )
    raw[name] = value


def _problem(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "recipe"
    message = str(error["msg"]).removeprefix("Value error, ")
    received = error.get("input")
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _known_fields(error["loc"])
        return f"`{where}` is not a field.{did_you_mean(error['loc'][-1], known)}"
    if error["type"] == "literal_error":
        message += f", received {received!r}"
        close = did_you_mean(
            received, re.findall(r"'([^']*)'", error["ctx"]["expected"])
        )
        return f"`{where}`: {message}{close and '.' + close}"
    shown = f", received {received!r}" if not isinstance(received, dict) else ""
    return f"`{where}`: {message}{shown}"


def _known_fields(location: tuple[Any, ...]) -> list[str]:
    fields: dict[str, Any] = Recipe.model_fields
    if location[:2] == ("ranker", "heads"):
        return list(HeadSection.model_fields)
    if location[:2] == ("tune", "space"):
        return list(SearchSection.model_fields)
    for name in location[:-1]:
        section = getattr(fields.get(name), "annotation", None)
        fields = getattr(section, "model_fields", None) or getattr(
            section, "__dataclass_fields__", {}
        )
    return list(fields)

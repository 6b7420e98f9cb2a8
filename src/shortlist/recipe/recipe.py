"""The recipe: everything a user decides, in one file, `shortlist.toml`.

Validated by pydantic; every run stores the recipe it used. `docs/recipe.md` explains
the fields.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

import msgspec
import pydantic
from pydantic import Field

from shortlist.data.schema import Feature, Schema
from shortlist.data.split import Split
from shortlist.errors import did_you_mean
from shortlist.evaluation.metrics.table import LIST_METRICS
from shortlist.options import (
    Flag,
    Options,
    Positive,
    Seed,
)
from shortlist.recipe.log import LogSection
from shortlist.recipe.ranker import RankerSection
from shortlist.recipe.retrieval import RetrievalSection
from shortlist.recipe.search import TuneSection
from shortlist.recipe.secrets import redacted
from shortlist.recipe.training import TrainingSection


class EvaluationSection(Options):
    """How the test part is evaluated."""

    ks: Annotated[list[Positive], Field(min_length=1)] = [5, 10, 20]
    """lengths of the lists that are measured"""
    resamples: Positive = 1000
    """of the bootstrap, for 95 % intervals; at most 200 for slices"""
    metrics: list[str] = []
    """all metrics if empty"""
    slices: list[str] = []
    """features by which the report is divided, besides the built-in slices"""
    taste: str = ""
    """item feature in which taste is measured; chosen if empty"""
    repeats: Flag = False
    """true: items a user had before count and stay in the lists"""

    @pydantic.field_validator("metrics")
    @classmethod
    def _metrics_are_known(cls, metrics: list[str]) -> list[str]:
        for name in metrics:
            if name not in LIST_METRICS:
                hint = did_you_mean(name, LIST_METRICS)
                known = ", ".join(LIST_METRICS)
                raise ValueError(f"{name!r} must be one of {known}.{hint}")
        return metrics


class ServingSection(Options):
    """Defaults of the server."""

    repeats: Flag = False
    """true: items a user had before are recommended again"""


class OutputSection(Options):
    """Folders of the outputs, relative to the recipe file."""

    dataset: str = "dataset"
    compression: Literal["none", "zstd"] = "none"
    """of the dataset; zstd is smaller, but is read into memory instead of mapped"""
    run: str = "run"
    bundle: str = "bundle"


class TrackingSection(Options):
    """Where trainings are logged; paths are relative to the recipe file."""

    store: str | None = None
    """folder in which every run is kept"""
    mlflow: str | None = None
    """tracking URI, or the path of an SQLite file"""
    experiment: str = "shortlist"
    wandb: str | None = None
    """name of the project"""
    wandb_mode: Literal["offline", "online"] = "offline"
    tensorboard: Flag = False


def _schema(value: Any) -> Any:
    if isinstance(value, Schema):
        return value
    try:
        return msgspec.convert(value, Schema)
    except msgspec.ValidationError as error:
        raise ValueError(f"{error}{_misspelt(str(error))}") from error


class Recipe(Options):
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
    serving: ServingSection = ServingSection()
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

    def to_record(self) -> dict[str, Any]:
        """As `to_builtins`, without passwords and keys: for whatever is written."""
        plain = self.to_builtins()
        uri = plain["tracking"]["mlflow"]
        if uri is not None:
            plain["tracking"]["mlflow"] = redacted(uri)
        return plain

    def to_builtins(self) -> dict[str, Any]:
        """The recipe as plain JSON values."""
        plain: dict[str, Any] = msgspec.to_builtins(
            {name: _plain(getattr(self, name)) for name in type(self).model_fields}
        )
        return plain


def _misspelt(message: str) -> str:
    """The closest column role or feature field to the unknown one, and all of them."""
    found = re.search(r"unknown field `(.*?)`", message)
    if found is None:
        return ""
    section = Feature if "$.features" in message else Schema
    known = section.__struct_fields__
    return f".{did_you_mean(found.group(1), known)} The fields are {', '.join(known)}"


def _plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, pydantic.BaseModel) else value

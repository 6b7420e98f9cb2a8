"""SHORTLIST.TOML -> DECISIONS: one file for all that a user decides."""

from shortlist.recipe.load import build_recipe, load_reading, load_recipe
from shortlist.recipe.log import LogSection, PathOrPaths
from shortlist.recipe.ranker import HeadSection, RankerSection
from shortlist.recipe.recipe import (
    EvaluationSection,
    OutputSection,
    Recipe,
    ServingSection,
    TrackingSection,
)
from shortlist.recipe.retrieval import RETRIEVAL_KINDS, RetrievalSection
from shortlist.recipe.search import SearchSection, TuneSection
from shortlist.recipe.section import Section
from shortlist.recipe.training import OPTIMIZERS, TrainingSection

__all__ = [
    "EvaluationSection",
    "HeadSection",
    "LogSection",
    "OPTIMIZERS",
    "OutputSection",
    "PathOrPaths",
    "RETRIEVAL_KINDS",
    "RankerSection",
    "Recipe",
    "RetrievalSection",
    "SearchSection",
    "Section",
    "ServingSection",
    "TrackingSection",
    "TrainingSection",
    "TuneSection",
    "build_recipe",
    "load_reading",
    "load_recipe",
]

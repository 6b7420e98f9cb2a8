"""SHORTLIST.TOML -> DECISIONS: one file for all that a user decides."""

from shortlist.recipe.load import build_recipe, load_reading, load_recipe
from shortlist.recipe.log import LogSection, PathOrPaths
from shortlist.recipe.ranker import RankerSection
from shortlist.recipe.recipe import (
    EvaluationSection,
    OutputSection,
    Recipe,
    ServingSection,
    TrackingSection,
)
from shortlist.recipe.retrieval import RetrievalSection
from shortlist.recipe.search import SearchSection, TuneSection
from shortlist.recipe.training import OPTIMIZERS, TrainingSection

__all__ = [
    "EvaluationSection",
    "LogSection",
    "OPTIMIZERS",
    "OutputSection",
    "PathOrPaths",
    "RankerSection",
    "Recipe",
    "RetrievalSection",
    "SearchSection",
    "ServingSection",
    "TrackingSection",
    "TrainingSection",
    "TuneSection",
    "build_recipe",
    "load_reading",
    "load_recipe",
]

"""VECTORS -> SCORES. The names below load Keras when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from shortlist.backend import choose_backend

if TYPE_CHECKING:
    from shortlist.models.multitask import MultiTask
    from shortlist.models.options import Head
    from shortlist.models.pipeline import Pipeline
    from shortlist.models.ranker import Ranker
    from shortlist.models.scorers.popularity import Popularity
    from shortlist.models.tower_scorer import TowerScorer
    from shortlist.models.two_tower import TwoTower

__all__ = [
    "Head",
    "MultiTask",
    "Pipeline",
    "Popularity",
    "Ranker",
    "TowerScorer",
    "TwoTower",
]

_HOMES = {
    "Head": "options",
    "MultiTask": "multitask",
    "Pipeline": "pipeline",
    "Popularity": "scorers.popularity",
    "Ranker": "ranker",
    "TowerScorer": "tower_scorer",
    "TwoTower": "two_tower",
}

choose_backend()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

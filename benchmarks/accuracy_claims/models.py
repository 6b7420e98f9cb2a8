"""The models of the table, made of their settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shortlist.models.scorers import Scorer, make_scorer

SETTINGS_FILE = Path(__file__).parent.parent / "accuracy_settings.json"

RATING = "factorization"
BLEND = "blend"
TWO_TOWER = "two_tower"
SINGLE = ("popularity", "item_knn", "ease", "als", "burst_als", TWO_TOWER)
ALL = (*SINGLE, RATING, BLEND)
RANDOM = ("als", "burst_als", TWO_TOWER, RATING, BLEND)
"""Models whose training draws numbers: measured with three seeds."""

Settings = dict[str, Any]


def stored() -> dict[str, Settings]:
    """What `tune_accuracy.py` chose, by model."""
    models: dict[str, Settings] = json.loads(SETTINGS_FILE.read_text())["models"]
    return models


def best_single() -> str:
    """The single model with the highest nDCG@10 on the validation splits."""
    found = json.loads(SETTINGS_FILE.read_text())["validation"]
    return max(SINGLE, key=lambda name: float(found[name]["ndcg"]))


def make(name: str, settings: Mapping[str, Any], seed: int) -> Scorer:
    """An unfitted scorer."""
    drawn = {"seed": seed} if name in RANDOM else {}
    return make_scorer(name, {**settings, **drawn})

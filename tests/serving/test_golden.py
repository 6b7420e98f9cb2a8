"""Bundles of every released format still load and still answer the same.

A directory in tests/golden is never rewritten. A new format gets a new one.
"""

import json
from pathlib import Path

import msgspec
import pytest

from shortlist.serving.recommender import Recommender

GOLDEN = Path(__file__).parents[1] / "golden"


def approximate(value):
    """Scores may differ in the last bits between processors."""
    if isinstance(value, float):
        return pytest.approx(value, abs=1e-4)
    if isinstance(value, dict):
        return {key: approximate(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [approximate(inner) for inner in value]
    return value


@pytest.mark.parametrize("name", ["bundle-v1", "bundle-v2"])
def test_a_golden_bundle_gives_its_pinned_answers(name):
    expected = json.loads((GOLDEN / f"{name}.json").read_text())
    recommender = Recommender.load(GOLDEN / name)
    answers = {
        "recommend": recommender.recommend("ann", k=3),
        "rank": recommender.rank("bob", ["heat", "a/b", "nowhere"]),
        "similar": recommender.similar("it's 🎬", 2),
        "popular": recommender.recommend(k=2),
    }
    assert msgspec.to_builtins(answers) == approximate(expected)

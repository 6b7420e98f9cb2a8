"""Every example runs, and what it prints is what it promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

pytestmark = pytest.mark.backend


def printed(name: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def number(text: str, before: str) -> float:
    """The number that follows `before`."""
    found = re.search(rf"{re.escape(before)} ([-+.e\d]+)", text)
    assert found, text
    return float(found.group(1))


@pytest.mark.slow
def test_retrieval_beats_popularity() -> None:
    text = printed("retrieval")
    ndcg = {who: number(text, f"{who}: ndcg@10") for who in ("model", "popularity")}
    assert ndcg["model"] > 1.2 * ndcg["popularity"]
    scores = [float(s) for s in re.findall(r"^item \d+: (\S+)$", text, re.MULTILINE)]
    assert len(scores) == 5 and scores == sorted(scores, reverse=True)


@pytest.mark.slow
def test_rankers_beat_the_mean_rating() -> None:
    text = printed("ranking")
    mean = number(text, "mean rating: rmse")
    for interaction in ("mlp", "deepfm"):
        assert number(text, f"{interaction}: rmse") < 0.93 * mean


@pytest.mark.slow
def test_both_heads_learn_and_their_score_is_exported() -> None:
    text = printed("multi_task")
    assert number(text, "rating: rmse") < 0.88
    assert number(text, "like: auc") > 0.65
    assert number(text, "onnx: differs by") < 1e-4


@pytest.mark.slow
def test_all_three_ways_train_and_export() -> None:
    text = printed("three_ways")
    for name in ("sequential", "functional", "subclassed"):
        found = re.search(rf"{name}: loss (\S+) (\S+), onnx (\S+)", text)
        assert found, text
        first, last, difference = map(float, found.groups())
        assert last < 0.97 * first and difference < 1e-4


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.stem)
def test_examples_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 100

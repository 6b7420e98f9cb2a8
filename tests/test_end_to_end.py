"""A raw log to a served request, as the example shows it to users."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "end_to_end.py"

pytestmark = pytest.mark.backend


def test_the_example_goes_from_a_raw_log_to_a_served_answer() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    answer = json.loads(lines[-1].removeprefix("answer: "))
    assert answer["source"] == "model"
    assert len(answer["items"]) == 5
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    assert all(item["title"] for item in answer["items"])
    ndcg = {
        line.split(":")[0]: float(line.split()[-1])
        for line in lines
        if "ndcg@10" in line
    }
    assert ndcg["model"] > ndcg["popularity"]


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 100

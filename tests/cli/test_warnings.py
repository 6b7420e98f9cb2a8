"""What is warned of when a bundle is packed or served."""

from __future__ import annotations

from typing import Any

import pytest

from shortlist.cli.warnings import below_popularity, warn_of_repeats

BELOW = {
    "is_below": True,
    "result": "worse",
    "text": "Worse than popularity: ndcg@10 0.01.",
}
ABOVE = {"is_below": False, "text": "Better than popularity: ndcg@10 0.2."}


@pytest.mark.parametrize(
    "metrics",
    [
        {"verdict": BELOW},
        {"verdict": BELOW, "validation": ABOVE},  # the test part counts
        {"validation": BELOW},
        {"comparison": {"ndcg@10": {"difference": -0.05}}},  # of an earlier version
    ],
)
def test_a_model_below_popularity_is_warned_of(metrics: dict[str, Any]) -> None:
    assert "orse than popularity: ndcg@10" in below_popularity(metrics)


def test_what_may_be_chance_is_told_as_such() -> None:
    told = {"is_below": True, "result": "unsure", "text": "Not surely worse."}
    for metrics in ({"verdict": told}, {"validation": told}):
        shown = below_popularity(metrics)
        then = "Recommending popular items may serve as well."
        assert shown == f"Not surely worse. {then}"
    shown = below_popularity({"verdict": BELOW})
    assert shown.endswith("Recommending popular items would serve better.")


@pytest.mark.parametrize(
    "metrics",
    [
        {},
        {"verdict": ABOVE},
        {"verdict": ABOVE, "validation": BELOW},
        {"verdict": None, "comparison": {"ndcg@10": {"difference": -0.05}}},
        {"validation": ABOVE},
        {"comparison": {"ndcg@10": {"difference": 0.05}}},
        {"comparison": {"recall@10": {"difference": -0.05}}},
        # Figures of a bundle may be anything.
        {"verdict": "good", "validation": 7},
        {"comparison": [], "verdict": {"is_below": "yes"}},
        {"comparison": {"ndcg@10": {"difference": "less"}}},
        {"ndcg@10": 0.25},
    ],
)
def test_nothing_is_said_of_another(metrics: dict[str, Any]) -> None:
    assert below_popularity(metrics) == ""


@pytest.mark.parametrize(
    ("evaluated", "served", "words"),
    [
        (True, False, "kept items that users had interacted with before, but the bun"),
        (False, True, "left out items that users had interacted with before, but the"),
        (True, True, ""),
        (False, False, ""),
        (None, True, ""),  # it was not evaluated
    ],
)
def test_serving_otherwise_than_evaluated_is_warned_of(
    capsys: pytest.CaptureFixture[str],
    evaluated: bool | None,
    served: bool,
    words: str,
) -> None:
    warn_of_repeats(evaluated, served)
    told = capsys.readouterr()
    assert told.out == ""
    assert words in told.err and bool(told.err) is bool(words)

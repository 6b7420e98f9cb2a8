"""Whether a model is better than popularity, by how much, and whether that is sure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shortlist.evaluation.evaluate import compare, evaluate_rankings
from shortlist.evaluation.metrics.rankings import build_csr
from shortlist.evaluation.metrics.table import (
    COUNTS,
    LIST_METRICS,
    METRICS,
    higher_is_better,
    meanings_of,
)
from shortlist.evaluation.verdict import (
    advice,
    percent_text,
    validation_verdict,
    verdict_of,
)
from shortlist.models.options import RETRIEVAL_KINDS


def report(
    model: float,
    popularity: float,
    low: float,
    high: float,
    *,
    users: int = 500,
    metric: str = "ndcg@10",
    ks: tuple[int, ...] = (5, 10, 20),
) -> dict[str, Any]:
    compared = {"difference": model - popularity, "low": low, "high": high}
    return {
        "ks": list(ks),
        "users": users,
        "metrics": {"model": {metric: model}, "popularity": {metric: popularity}},
        "comparison": {metric: {**compared, "ratio": None}},
    }


@pytest.mark.parametrize(
    ("given", "result", "percent", "text"),
    [
        (
            report(0.25, 0.125, 0.1, 0.15),
            "better",
            100.0,
            "Better than popularity: ndcg@10 0.2500 against 0.1250 (+100 %); 95 %"
            " interval +80 % to +120 %, 500 users.",
        ),
        (
            report(0.01, 0.04, -0.04, -0.02),
            "worse",
            -75.0,
            "Worse than popularity: ndcg@10 0.0100 against 0.0400 (-75 %); 95 %"
            " interval -100 % to -50 %, 500 users.",
        ),
        (
            report(0.0412, 0.04, -0.001, 0.002),
            "unsure",
            3.0,
            "Not surely better than popularity: ndcg@10 0.0412 against 0.0400 (+3.0 %);"
            " 95 % interval -2.5 % to +5.0 %, 500 users: it includes 0.",
        ),
        (
            report(0.2, 0.1, 0.05, 0.15, users=14),
            "unsure",
            100.0,
            "Not surely better than popularity: ndcg@10 0.2000 against 0.1000 (+100 %);"
            " 95 % interval +50 % to +150 %, 14 users, which are too few to tell.",
        ),
        (
            report(0.1, 0.11, -0.03, 0.01),
            "unsure",
            -100 / 11,
            "Not surely worse than popularity",
        ),
        (
            report(0.0126, 0.0, 0.01, 0.02),
            "better",
            None,
            "Better than popularity: ndcg@10 0.0126 against 0.0000; 95 % interval"
            " +0.0100 to +0.0200, 500 users.",
        ),
        (report(0.1, 0.1, 0.0, 0.0), "equal", 0.0, "The same as popularity: ndcg@10"),
        # Lower is better.
        (
            report(0.5, 1.0, -0.6, -0.4, metric="taste_divergence@10"),
            "better",
            -50.0,
            "Better than popularity: taste_divergence@10 0.5000 against 1.0000 (-50 %)",
        ),
        (
            report(1.0, 0.5, 0.4, 0.6, metric="taste_divergence@10"),
            "worse",
            100.0,
            "Worse than popularity: taste_divergence@10",
        ),
    ],
)
def test_one_sentence_answers_the_question(
    given: dict[str, Any], result: str, percent: float | None, text: str
) -> None:
    found = verdict_of(given, "two_tower")
    assert found is not None
    assert found["result"] == result
    assert found["percent"] == pytest.approx(percent)
    assert found["text"].startswith(text)
    assert found["is_below"] is (result == "worse" or "worse" in text)
    assert found["next"] and found["next"].endswith(".")


@pytest.mark.parametrize(
    ("names", "ks", "chosen"),
    [
        (["recall@5", "ndcg@5", "recall@10", "ndcg@10"], [5, 10], "ndcg@10"),
        (["ndcg@3", "recall@3", "ndcg@7", "recall@7"], [3, 7], "ndcg@7"),
        (["arp@10", "recall@10"], [10], "recall@10"),
        (["mrr@20"], [20], "mrr@20"),
        (["arp@10"], [10], None),
        ([], [10], None),
    ],
)
def test_the_main_metric_decides(
    names: list[str], ks: list[int], chosen: str | None
) -> None:
    each = {"difference": 0.1, "low": 0.05, "high": 0.2}
    found = verdict_of(
        {
            "ks": ks,
            "users": 100,
            "metrics": {
                "model": dict.fromkeys(names, 0.2),
                "popularity": dict.fromkeys(names, 0.1),
            },
            "comparison": dict.fromkeys(names, each),
        },
        "ease",
    )
    assert (found and found["metric"]) == chosen


def test_the_interval_is_that_of_the_paired_bootstrap() -> None:
    # 200 users with one relevant item each: the model finds it for 150 of them, the
    # baseline for 50 of the same ones, always at the first place.
    users = np.arange(200)
    truth = build_csr(users, np.ones(200, np.int64), 200)
    model = np.where(users < 150, 1, 2)[:, None]
    baseline = np.where(users < 50, 1, 2)[:, None]
    reports = [
        evaluate_rankings(ranked, truth, ks=(1,), num_items=2, resamples=400)
        for ranked in (model, baseline)
    ]
    compared = compare(*reports)["ndcg@1"]
    found = verdict_of(
        report(
            *(0.75, 0.25, compared.low, compared.high),
            users=200,
            metric="ndcg@1",
            ks=(1,),
        ),
        "ease",
    )
    assert found is not None and found["result"] == "better"
    # The difference of a user is 1 with chance 1/2: its error is 0.5 / sqrt(200).
    assert found["low"] == pytest.approx(0.5 - 1.96 * 0.5 / 200**0.5, abs=0.02)
    assert "(+200 %); 95 % interval +1" in found["text"]


@pytest.mark.parametrize("kind", RETRIEVAL_KINDS)
def test_what_to_do_next_is_something_else(kind: str) -> None:
    assert "shortlist export" in advice("better", kind)
    for result in ("worse", "unsure", "equal"):
        step = advice(result, kind)
        assert f"retrieval.kind={kind} " not in step
        other = "item_knn" if kind == "ease" else "ease"
        assert f"retrieval.kind={other}" in step


@pytest.mark.parametrize(
    ("ours", "theirs", "result"),
    [(0.2, 0.1, "better"), (0.01, 0.0565, "worse"), (0.0, 0.0, "equal")],
)
def test_a_training_is_judged_on_its_validation_part(
    ours: float, theirs: float, result: str
) -> None:
    found = validation_verdict({"ndcg@10": ours}, {"ndcg@10": theirs}, "two_tower")
    assert found is not None
    assert found["result"] == result and found["is_below"] is (result == "worse")
    assert f"ndcg@10 {ours:.4f} against {theirs:.4f}" in found["text"]
    assert "on validation" in found["text"]
    assert ("shortlist evaluate" in found["next"]) is (result == "better")


def test_without_a_validation_part_there_is_no_verdict() -> None:
    assert validation_verdict({}, {}, "ease") is None
    assert validation_verdict({"ndcg@10": 0.1}, {}, "ease") is None


def test_percentages_have_the_digits_that_say_something() -> None:
    given = (2863.2, 105.24, 10.0, 3.04, -0.06, -88.3)
    shown = ["+2,863 %", "+105 %", "+10 %", "+3.0 %", "-0.1 %", "-88 %"]
    assert [percent_text(value) for value in given] == shown


def test_every_metric_has_a_meaning_that_fits_a_line() -> None:
    pairs = {"auc", "auc_per_user", "rmse", "mae", "log_loss", "calibration_error"}
    assert set(METRICS) == {*LIST_METRICS, *pairs, *COUNTS}
    for name, metric in METRICS.items():
        assert 20 < len(metric.meaning) < 66, name
        assert metric.name == name
        says_lower = "lower is better" in metric.meaning
        assert says_lower <= (higher_is_better(name) is False), name
    found = meanings_of(["ndcg@5", "ndcg@10", "arp@5", "click: auc", "pairs"])
    assert [name for name, _ in found] == ["ndcg", "arp", "pairs"]

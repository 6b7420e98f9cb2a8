"""Summaries of folds against the statistics of the standard library."""

from __future__ import annotations

import statistics

import pytest

from shortlist.evaluation.cross_validation import (
    cross_validation_table,
    summarize_folds,
)

NDCG, BESIDE = [0.3, 0.1, 0.25], [0.2, 0.2, 0.2]


def report(place: int, **metrics: float) -> dict:
    return {
        "users": 10 + place,
        "metrics": {
            "model": {"ndcg@10": NDCG[place], "arp@10": 7.0, **metrics},
            "popularity": {"ndcg@10": BESIDE[place], "arp@10": 9.0, **metrics},
        },
        "pairs": {"pairs": 100, "rmse": 1.0 + place},
    }


def test_mean_and_spread_of_each_metric() -> None:
    summary = summarize_folds([report(0, **{"mrr@10": 1.0}), report(1), report(2)])
    ndcg = summary["metrics"]["ndcg@10"]
    assert ndcg["values"] == NDCG
    assert ndcg["mean"] == pytest.approx(statistics.mean(NDCG))
    assert ndcg["spread"] == pytest.approx(statistics.stdev(NDCG))
    assert (ndcg["low"], ndcg["high"]) == (0.1, 0.3)
    assert summary["popularity"]["ndcg@10"]["spread"] == 0.0
    assert summary["better_than_popularity"] == {"ndcg@10": 2, "arp@10": 0}
    assert summary["pairs"]["rmse"]["mean"] == 2.0
    assert summary["users"] == [10, 11, 12]
    assert "mrr@10" not in summary["metrics"]  # one fold alone has it


def test_the_table_has_a_row_per_metric_of_hits_and_pairs() -> None:
    summary = summarize_folds([report(n) for n in range(3)])
    table = cross_validation_table(summary, is_short=True)
    rows = {row[0]: row for row in table.rows}
    assert set(rows) == {"ndcg@10", "rmse"}
    shown = ("0.2167", "0.1041", "0.3000 0.1000 0.2500", "0.2000", "2 of 3")
    assert rows["ndcg@10"][1:] == shown
    assert rows["rmse"][1:] == ("2.0000", "1.0000", "1.0000 2.0000 3.0000", "-", "-")

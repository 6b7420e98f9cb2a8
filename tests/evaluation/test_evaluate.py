"""Reports and comparisons on rankings whose metrics are known."""

from __future__ import annotations

import numpy as np
import pytest

from shortlist.errors import InputError
from shortlist.evaluation.evaluate import compare, evaluate_rankings
from shortlist.evaluation.metrics.rankings import Csr, build_csr, popularity_ranking

RANKED = np.array([[1, 2], [3, 4], [5, 6], [1, -1]], np.int32)


def truth(sets: list[list[int]]) -> Csr:
    users = [user for user, items in enumerate(sets) for _ in items]
    items = [item for items in sets for item in items]
    return build_csr(np.array(users, int), np.array(items, int), len(sets))


RELEVANT = truth([[1], [4], [], [2, 3]])


def test_report_holds_the_means_over_users_with_relevant_items() -> None:
    report = evaluate_rankings(RANKED, RELEVANT, ks=(2, 1), num_items=10)
    assert (report.num_users, report.num_excluded) == (3, 1)
    assert report.users.tolist() == [0, 1, 3]
    found = report.to_dict()
    assert found["recall@1"] == pytest.approx(1 / 3)
    assert found["recall@2"] == pytest.approx(2 / 3)
    assert found["hit_rate@2"] == pytest.approx(2 / 3)
    assert found["precision@2"] == pytest.approx(1 / 3)
    assert found["mrr@2"] == pytest.approx((1 + 1 / 2) / 3)
    assert found["map@2"] == pytest.approx((1 + 1 / 2) / 3)
    assert found["ndcg@2"] == pytest.approx((1 + 1 / np.log2(3)) / 3)
    assert found["coverage@2"] == 0.6
    assert list(found)[:6] == [
        f"{name}@1"
        for name in ("recall", "ndcg", "mrr", "map", "hit_rate", "precision")
    ]


def test_interval_encloses_the_mean_and_is_the_same_for_the_same_seed() -> None:
    rng = np.random.default_rng(0)
    ranked = rng.permuted(np.tile(np.arange(1, 31), (400, 1)), axis=1)[:, :10]
    relevant = build_csr(np.arange(400), rng.integers(1, 31, 400), 400)
    first = evaluate_rankings(ranked, relevant, ks=(10,), num_items=30, resamples=200)
    again = evaluate_rankings(ranked, relevant, ks=(10,), num_items=30, resamples=200)
    assert first.intervals() == again.intervals()
    assert set(first.intervals()) == set(first.names)
    for name, (low, high) in first.intervals().items():
        assert low < first.to_dict()[name] < high
    # A share of 1/3 among 400 users: standard error 0.0236.
    low, high = first.intervals()["hit_rate@10"]
    assert high - low == pytest.approx(2 * 1.96 * 0.0236, rel=0.2)


def test_no_relevant_item_at_all_is_refused() -> None:
    with pytest.raises(InputError, match="4 users, none of them with any") as caught:
        evaluate_rankings(RANKED, truth([[], [], [], []]), ks=(1,), num_items=10)
    assert caught.value.code == "no-relevant-items"


def test_no_k_at_all_is_refused() -> None:
    with pytest.raises(InputError, match="at least one k") as caught:
        evaluate_rankings(RANKED, RELEVANT, ks=(), num_items=10)
    assert caught.value.code == "ks-empty"


def test_repeated_item_is_refused() -> None:
    with pytest.raises(InputError, match="twice in list 0") as caught:
        evaluate_rankings(np.array([[1, 1]]), truth([[1]]), ks=(1,), num_items=3)
    assert caught.value.code == "ranking-duplicate"


def test_comparison_pairs_the_users() -> None:
    # The model hits for 75 of 100 users, the baseline for 25 of the same 75.
    relevant = truth([[1]] * 100)
    model = np.array([[1]] * 75 + [[2]] * 25)
    baseline = np.array([[1]] * 25 + [[2]] * 75)
    reports = [
        evaluate_rankings(ranked, relevant, ks=(1,), num_items=2)
        for ranked in (model, baseline)
    ]
    row = compare(*reports)["recall@1"]
    assert (row.model, row.baseline, row.ratio, row.difference) == (
        0.75,
        0.25,
        3.0,
        0.5,
    )
    # The difference is 1 for half of the users: standard error 0.05.
    assert row.low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.021)
    assert row.high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.021)


def test_ratio_to_a_baseline_without_hits_is_none() -> None:
    relevant = truth([[1], [1]])
    model = evaluate_rankings(np.array([[1], [1]]), relevant, ks=(1,), num_items=2)
    none = evaluate_rankings(np.array([[2], [2]]), relevant, ks=(1,), num_items=2)
    row = compare(model, none)["ndcg@1"]
    assert row.ratio is None
    assert (row.low, row.high) == (1.0, 1.0)


def test_comparison_keeps_to_the_metrics_of_both() -> None:
    short = evaluate_rankings(RANKED, RELEVANT, ks=(1,), num_items=10)
    long = evaluate_rankings(RANKED, RELEVANT, ks=(1, 2), num_items=10)
    assert tuple(compare(long, short)) == short.names


def test_reports_on_other_users_are_not_compared() -> None:
    one = evaluate_rankings(RANKED, RELEVANT, ks=(1,), num_items=10)
    other = evaluate_rankings(RANKED, truth([[1], [], [1], [1]]), ks=(1,), num_items=10)
    with pytest.raises(InputError, match="the same users") as caught:
        compare(one, other)
    assert caught.value.code == "reports-not-paired"


def test_popularity_is_evaluated_like_a_model() -> None:
    # Everyone likes item 1 best; who has seen it likes item 2 next.
    seen, relevant = truth([[], [1]]), truth([[1], [2]])
    ranked = popularity_ranking(np.array([0, 9, 5, 1]), seen, 2)
    report = evaluate_rankings(ranked, relevant, ks=(1,), num_items=3)
    assert report.to_dict()["recall@1"] == 1.0

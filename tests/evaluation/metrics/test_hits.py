"""Ranking metrics against literals and five-line formulas in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.errors import InputError
from shortlist.evaluation.metrics import hits as metrics
from shortlist.evaluation.metrics.hits import (
    FORMULAS,
    average_precision,
    coverage,
    find_hits,
    hit_rate,
    mrr,
    ndcg,
    precision,
    recall,
)
from shortlist.evaluation.metrics.rankings import Csr, build_csr
from shortlist.evaluation.metrics.table import HIT_METRICS


def csr_of(sets: list[list[int]]) -> Csr:
    users = [user for user, items in enumerate(sets) for _ in items]
    items = [item for items in sets for item in items]
    return build_csr(np.array(users, int), np.array(items, int), len(sets))


def padded(lists: list[list[int]], width: int) -> np.ndarray:
    rows = [row + [-1] * (width - len(row)) for row in lists]
    return np.array(rows, np.int32).reshape(len(lists), width)


def plain_recall(ranked: list[int], relevant: list[int], k: int) -> float:
    return len(set(ranked[:k]) & set(relevant)) / len(relevant)


def plain_precision(ranked: list[int], relevant: list[int], k: int) -> float:
    return len(set(ranked[:k]) & set(relevant)) / k


def plain_hit_rate(ranked: list[int], relevant: list[int], k: int) -> float:
    return float(any(item in relevant for item in ranked[:k]))


def plain_mrr(ranked: list[int], relevant: list[int], k: int) -> float:
    places = [p for p, item in enumerate(ranked[:k], 1) if item in relevant]
    return 1 / places[0] if places else 0.0


def plain_ndcg(ranked: list[int], relevant: list[int], k: int) -> float:
    gain = sum(
        1 / math.log2(p + 1) for p, i in enumerate(ranked[:k], 1) if i in relevant
    )
    return gain / sum(1 / math.log2(p + 1) for p in range(1, min(k, len(relevant)) + 1))


def plain_precision_sum(ranked: list[int], relevant: list[int], k: int) -> float:
    hits = [item in relevant for item in ranked[:k]]
    return sum(sum(hits[: p + 1]) / (p + 1) for p, hit in enumerate(hits) if hit)


def plain_map(ranked: list[int], relevant: list[int], k: int) -> float:
    return plain_precision_sum(ranked, relevant, k) / min(k, len(relevant))


def plain_map_all(ranked: list[int], relevant: list[int], k: int) -> float:
    return plain_precision_sum(ranked, relevant, k) / len(relevant)


PAIRS = [
    (recall, plain_recall),
    (precision, plain_precision),
    (hit_rate, plain_hit_rate),
    (mrr, plain_mrr),
    (ndcg, plain_ndcg),
    (average_precision, plain_map),
    (lambda hits, k: average_precision(hits, k, normalize="all"), plain_map_all),
]


@settings(deadline=None, max_examples=80)
@given(
    cases=st.lists(
        st.tuples(
            st.lists(st.integers(1, 12), unique=True, max_size=6),
            st.lists(st.integers(1, 12), unique=True, max_size=8),
        ),
        min_size=1,
        max_size=7,
    ),
    k=st.integers(1, 9),
    block=st.integers(1, 4),
)
def test_metrics_equal_the_plain_formulas(
    cases: list[tuple[list[int], list[int]]], k: int, block: int
) -> None:
    ranked = padded([row for row, _ in cases], 6)
    relevant = csr_of([items for _, items in cases])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_BLOCK_USERS", block)
        hits = find_hits(ranked, relevant)
    for metric, plain in PAIRS:
        expected = [plain(r, t, k) if t else math.nan for r, t in cases]
        np.testing.assert_allclose(metric(hits, k), expected, rtol=1e-12)


def test_metrics_equal_values_computed_by_hand() -> None:
    # Hits at places 1 and 3 of 4; three items are relevant.
    hits = find_hits(np.array([[8, 5, 2, 6]]), csr_of([[2, 8, 9]]))
    assert recall(hits, 4)[0] == pytest.approx(2 / 3)
    assert precision(hits, 4)[0] == 0.5
    assert hit_rate(hits, 1)[0] == 1.0
    assert mrr(hits, 4)[0] == 1.0
    # (1 + 1/2) / (1 + 1/log2(3) + 1/2) = 1.5 / 2.1309297535714573
    assert ndcg(hits, 4)[0] == pytest.approx(0.7039180890341347)
    # (1/1 + 2/3) / 3
    assert average_precision(hits, 4)[0] == pytest.approx(0.5555555555555556)


def test_map_normalized_by_all_divides_by_every_relevant_item() -> None:
    hits = find_hits(np.array([[1, 2]]), csr_of([[1, 2, 3, 4]]))
    assert average_precision(hits, 2)[0] == 1.0
    assert average_precision(hits, 2, normalize="all")[0] == 0.5


def test_late_first_hit_halves_mrr() -> None:
    hits = find_hits(np.array([[4, 7, 9]]), csr_of([[7]]))
    assert mrr(hits, 3)[0] == 0.5
    assert mrr(hits, 1)[0] == 0.0
    assert ndcg(hits, 3)[0] == pytest.approx(1 / math.log2(3))


def test_user_without_relevant_items_has_no_metric() -> None:
    hits = find_hits(np.array([[1, 2], [1, 2]]), csr_of([[], [1]]))
    for metric, _ in PAIRS:
        values = metric(hits, 2)
        assert math.isnan(values[0]) and values[1] > 0
    assert hits.num_relevant.tolist() == [0, 1]


def test_k_beyond_the_list_counts_missing_places_as_misses() -> None:
    hits = find_hits(np.array([[3, -1]]), csr_of([[3, 4]]))
    assert precision(hits, 10)[0] == 0.1
    assert recall(hits, 10)[0] == 0.5
    assert ndcg(hits, 10)[0] == pytest.approx(1 / (1 + 1 / math.log2(3)))


def test_lists_without_places_score_zero() -> None:
    hits = find_hits(np.zeros((1, 0), np.int32), csr_of([[3]]))
    for metric, _ in PAIRS:
        assert metric(hits, 5).tolist() == [0.0]


def test_unknown_items_are_relevant_but_never_hit() -> None:
    hits = find_hits(np.array([[0, 1]]), csr_of([[0, 0, 1]]))
    assert hits.num_relevant.tolist() == [3]
    assert hits.places.tolist() == [[False, True]]


def test_relevant_item_named_twice_counts_once() -> None:
    hits = find_hits(np.array([[5]]), csr_of([[5, 5]]))
    assert recall(hits, 1)[0] == 1.0


def test_item_of_another_user_is_no_hit() -> None:
    hits = find_hits(np.array([[1], [2]]), csr_of([[2], [1]]))
    assert not hits.places.any()


def test_repeated_item_is_refused_with_the_number_of_its_list() -> None:
    ranked = padded([[1, 2], [1, 2], [2, 2]], 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_BLOCK_USERS", 2)
        with pytest.raises(InputError, match="item row 2 twice in list 2") as caught:
            find_hits(ranked, csr_of([[1], [1], [1]]))
    assert caught.value.code == "ranking-duplicate"


def test_truth_for_other_users_is_refused() -> None:
    with pytest.raises(InputError, match="3 offsets for 2 users") as caught:
        find_hits(np.array([[1], [2]]), csr_of([[1]]))
    assert caught.value.code == "relevance-shape"


def test_k_of_zero_is_refused() -> None:
    hits = find_hits(np.array([[1]]), csr_of([[1]]))
    with pytest.raises(InputError, match="k must be at least 1. Received: 0") as caught:
        recall(hits, 0)
    assert caught.value.code == "k-out-of-range"


def test_coverage_is_the_share_of_the_catalogue_in_the_first_k() -> None:
    ranked = np.array([[1, 2, 3], [1, 4, -1], [0, 5, -1]])
    assert coverage(ranked, 1, num_items=10) == 0.1
    assert coverage(ranked, 2, num_items=10) == 0.4
    assert coverage(ranked, 9, num_items=10) == 0.5


@pytest.mark.parametrize("num_items", [0, 2])
def test_coverage_refuses_rows_outside_the_catalogue(num_items: int) -> None:
    with pytest.raises(InputError, match=f"num_items={num_items}") as caught:
        coverage(np.array([[1, 3]]), 2, num_items=num_items)
    assert caught.value.code == "ranking-out-of-range"


def test_every_metric_of_hits_in_the_table_has_a_formula() -> None:
    assert tuple(FORMULAS) == HIT_METRICS

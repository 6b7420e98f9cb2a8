"""The report against plain loops over users, on a small prepared log."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fixed_lists import FixedLists
from shortlist.data import Dataset, Schema, Split, prepare
from shortlist.errors import InputError
from shortlist.evaluation.options import EvaluationOptions
from shortlist.evaluation.report import (
    evaluate_pipeline,
    ranking_metrics,
    relevant_items,
)

SCHEMA = Schema(
    user_id="user",
    item_id="item",
    timestamp="time",
    label="stars",
    label_kind="explicit",
    positive_from=4,
    label_min=1,
    label_max=5,
)


class Fixed(FixedLists):
    """Recommends the unseen items in row order and scores a pair by its item row."""

    def recommend(
        self, user_index: np.ndarray, k: int, *, parts: tuple[str, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        events = self.dataset.part(*parts)
        lists = np.full((len(user_index), k), -1, np.int32)
        for place, user in enumerate(user_index):
            seen = set(events.item_index[events.user_index == user].tolist())
            rows = [r for r in range(1, self.dataset.num_items) if r not in seen][:k]
            lists[place, : len(rows)] = rows
        return np.zeros(lists.shape, np.float32), lists

    def score_pairs(
        self, user_index: np.ndarray, item_index: np.ndarray, parts: tuple[str, ...]
    ) -> np.ndarray:
        return item_index.astype(np.float32)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("report")
    generator = np.random.default_rng(5)
    rows = [
        (user, item, int(generator.integers(1, 6)), 1_000_000 * user + place)
        for user in range(1, 13)
        for place, item in enumerate(generator.permutation(20)[:10].tolist())
    ]
    rows += [(1, 999, 5, 90_000_000), (2, rows[10][1], 5, 90_000_001)]  # new; repeated
    log = pl.DataFrame(rows, schema=["user", "item", "stars", "time"], orient="row")
    log.write_csv(folder / "log.csv")
    return prepare(
        folder / "log.csv", SCHEMA, folder / "dataset", split=Split(test=0.3)
    )


def held_out(dataset: Dataset, user: int) -> list[int]:
    """Rows of the user's test items: unseen ones once, unknown ones as 0."""
    test, known = dataset.part("test"), dataset.part("train", "validation")
    seen = set(known.item_index[known.user_index == user].tolist())
    mine = test.item_index[test.user_index == user].tolist()
    return [r for r in mine if r == 0] + sorted({r for r in mine if r} - seen)


def test_relevant_items_are_new_to_the_user_and_count_unknown_ones(
    dataset: Dataset,
) -> None:
    users = np.arange(1, dataset.num_users)
    offsets, items = relevant_items(dataset, users, "test")
    for place, user in enumerate(users):
        mine = items[offsets[place] : offsets[place + 1]].tolist()
        assert sorted(mine) == sorted(held_out(dataset, int(user)))
    assert 0 in items  # item 999 came in the test part only


def test_metrics_are_means_of_a_plain_formula_over_users(dataset: Dataset) -> None:
    report = evaluate_pipeline(
        Fixed(dataset), EvaluationOptions(ks=(3, 5), resamples=50)
    ).report
    users = np.arange(1, dataset.num_users)
    _, lists = Fixed(dataset).recommend(users, 5, parts=("train", "validation"))
    recalls, gains = [], []
    for user, ranked in zip(users, lists, strict=True):
        truth = held_out(dataset, int(user))
        hits = [row in truth and row > 0 for row in ranked.tolist()]
        recalls.append(sum(hits) / len(truth))
        best = sum(1 / math.log2(p + 2) for p in range(min(5, len(truth))))
        gains.append(sum(h / math.log2(p + 2) for p, h in enumerate(hits)) / best)
    model = report["metrics"]["model"]
    assert model["recall@5"] == pytest.approx(np.mean(recalls))
    assert model["ndcg@5"] == pytest.approx(np.mean(gains))
    low, high = report["intervals"]["model"]["ndcg@5"]
    assert low <= model["ndcg@5"] <= high
    assert report["users"] == len(users)
    measured = ranking_metrics(dataset, users, lists, "test")
    assert measured["ndcg@5"] == pytest.approx(np.mean(gains))


def test_popularity_stands_beside_with_the_same_keys(dataset: Dataset) -> None:
    report = evaluate_pipeline(
        Fixed(dataset), EvaluationOptions(ks=(3,), resamples=50)
    ).report
    metrics = report["metrics"]
    assert set(metrics["model"]) == set(metrics["popularity"])
    counts = dataset.item_counts("train", "validation")
    known = dataset.part("train", "validation")
    recalls = []
    for user in range(1, dataset.num_users):
        seen = set(known.item_index[known.user_index == user].tolist())
        free = [r for r in range(1, dataset.num_items) if r not in seen]
        ranked = sorted(free, key=lambda row: (-counts[row], row))[:3]
        truth = held_out(dataset, user)
        recalls.append(sum(row in truth for row in ranked) / len(truth))
    assert metrics["popularity"]["recall@3"] == pytest.approx(np.mean(recalls))
    compared = report["comparison"]["recall@3"]
    difference = metrics["model"]["recall@3"] - metrics["popularity"]["recall@3"]
    assert compared["difference"] == pytest.approx(difference)
    assert compared["low"] <= compared["difference"] <= compared["high"]


def test_pair_metrics_are_over_known_pairs(dataset: Dataset) -> None:
    report = evaluate_pipeline(
        Fixed(dataset), EvaluationOptions(objective="explicit", ks=(3,), resamples=50)
    ).report
    test = dataset.part("test")
    test = test.take((test.user_index > 0) & (test.item_index > 0))
    predicted = np.clip(test.item_index.astype(float), 1, 5)
    pairs = report["pairs"]
    assert pairs["pairs"] == len(test)
    assert pairs["rmse"] == pytest.approx(
        math.sqrt(np.mean((predicted - test.label) ** 2))
    )
    assert pairs["mae"] == pytest.approx(np.mean(np.abs(predicted - test.label)))
    positive = test.item_index[test.label >= 4].tolist()
    negative = test.item_index[test.label < 4].tolist()
    wins = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert pairs["auc"] == pytest.approx(np.mean(wins))
    without = evaluate_pipeline(
        Fixed(dataset), EvaluationOptions(ks=(3,), resamples=50)
    ).report
    assert "rmse" not in without["pairs"]


def test_k_beyond_the_catalogue_counts_the_missing_places_as_misses(
    dataset: Dataset,
) -> None:
    report = evaluate_pipeline(
        Fixed(dataset), EvaluationOptions(ks=(1000,), resamples=50)
    ).report
    reachable = [
        sum(row > 0 for row in truth) / len(truth)
        for truth in (held_out(dataset, user) for user in range(1, dataset.num_users))
    ]
    recall = report["metrics"]["model"]["recall@1000"]
    assert recall == pytest.approx(np.mean(reachable))


def test_nothing_held_out_is_said(dataset: Dataset, tmp_path: Path) -> None:
    log = dataset.path.parent / "log.csv"
    everything = prepare(log, SCHEMA, tmp_path / "d", split=Split(test=0))
    with pytest.raises(InputError, match="must hold events of known users") as empty:
        evaluate_pipeline(Fixed(everything)).report
    assert empty.value.code == "no-relevant-items"

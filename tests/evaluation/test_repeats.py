"""Logs whose users take items again: seen items in the lists and in the truth."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from fixed_lists import FixedLists
from repeat_logs import groceries
from shortlist.data import Dataset
from shortlist.errors import ArtifactError, InputError
from shortlist.evaluation.leaderboard import rank_runs
from shortlist.evaluation.options import EvaluationOptions
from shortlist.evaluation.report import (
    evaluate_pipeline,
    ranking_metrics,
)
from shortlist.evaluation.truth import relevant_items
from shortlist.models.scorers import ItemKnn, Popularity

KNOWN = {"test": ("train", "validation"), "validation": ("train",)}


class Ranked(FixedLists):
    """The order of a scorer, with or without what users have taken: plain loops."""

    def recommend(
        self, user_index: np.ndarray, k: int, *, parts: tuple[str, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        lists = np.full((len(user_index), k), -1, np.int32)
        for place, user in enumerate(user_index.tolist()):
            left_out = set() if self.repeats else set(taken(self.dataset, user, *parts))
            order = np.argsort(-self.dataset.item_counts(*parts)[1:], kind="stable") + 1
            rows = [row for row in order.tolist() if row not in left_out][:k]
            lists[place, : len(rows)] = rows
        return np.zeros(lists.shape, np.float32), lists

    def score_pairs(
        self, user_index: np.ndarray, item_index: np.ndarray, parts: tuple[str, ...]
    ) -> np.ndarray:
        return item_index.astype(np.float32)


def taken(dataset: Dataset, user: int, *parts: str) -> list[int]:
    events = dataset.part(*parts)
    found: list[int] = events.item_index[events.user_index == user].tolist()
    return found


@pytest.fixture
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.mark.parametrize("new_every", [0, 2, 1])
@pytest.mark.parametrize("part", ["test", "validation"])
def test_the_truth_is_all_that_was_held_out(
    base: Path, new_every: int, part: str
) -> None:
    dataset = groceries(base, new_every)
    users = np.arange(1, dataset.num_users)
    for repeats in (True, False):
        offsets, items = relevant_items(dataset, users, part, repeats=repeats)
        for place, user in enumerate(users.tolist()):
            expected = set(taken(dataset, user, part))
            if not repeats:
                expected -= set(taken(dataset, user, *KNOWN[part]))
            assert items[offsets[place] : offsets[place + 1]].tolist() == sorted(
                expected
            )


@pytest.mark.parametrize("new_every", [0, 2])
def test_metrics_popularity_and_slices_hold_seen_items(
    base: Path, new_every: int
) -> None:
    dataset = groceries(base, new_every)
    model = Ranked(dataset, Popularity().fit(dataset), repeats=True)
    report = evaluate_pipeline(
        model, EvaluationOptions(ks=(3,), resamples=20, slices=["user_events"])
    ).report
    counts = dataset.item_counts("train", "validation")
    listed = (np.argsort(-counts[1:], kind="stable") + 1)[:3].tolist()
    gains = []
    for user in range(1, dataset.num_users):
        truth = set(taken(dataset, user, "test"))
        hits = [1 / math.log2(p + 2) for p, row in enumerate(listed) if row in truth]
        best = sum(1 / math.log2(p + 2) for p in range(min(3, len(truth))))
        gains.append(sum(hits) / best)
    assert report["repeats"] is True
    assert report["users"] == len(gains) and report["users_excluded"] == 0
    for who in ("model", "popularity"):  # one and the same list
        assert report["metrics"][who]["ndcg@3"] == pytest.approx(np.mean(gains))
    (group,) = (s for s in report["slices"] if s["slice"] == "user_events")
    assert group["users"] == len(gains)
    assert group["metrics"]["model"]["ndcg@3"] == pytest.approx(np.mean(gains))
    users = np.arange(1, dataset.num_users)
    ranked = np.tile(np.array(listed, np.int32), (len(users), 1))
    measured = ranking_metrics(dataset, users, ranked, "test", repeats=True)
    assert measured["ndcg@3"] == pytest.approx(np.mean(gains))


def test_without_repeats_the_error_names_the_cause_and_the_setting(base: Path) -> None:
    dataset = groceries(base)
    model = Ranked(dataset, ItemKnn().fit(dataset), repeats=False)
    with pytest.raises(InputError, match="repeat purchases") as caught:
        evaluate_pipeline(model, EvaluationOptions(ks=(3,), resamples=20)).report
    assert caught.value.code == "no-relevant-items"
    assert "`repeats = true` in [evaluation]" in str(caught.value)
    assert "The test part" in str(caught.value)


def test_runs_with_and_without_seen_items_are_not_compared(base: Path) -> None:
    dataset = groceries(base, 1)
    runs = {
        str(repeats): evaluate_pipeline(
            Ranked(dataset, ItemKnn().fit(dataset), repeats=repeats),
            EvaluationOptions(ks=(3,), resamples=20),
        )
        for repeats in (False, True)
    }
    with pytest.raises(ArtifactError, match=r"evaluation\.repeats") as caught:
        rank_runs(runs)
    assert caught.value.code == "compare-repeats"
    # Reports of earlier versions do not say it: they left seen items out.
    del runs["False"].report["repeats"]
    older = {"old": runs["False"], "new": runs["False"]}
    assert rank_runs(older)["metric"] == "ndcg@3"
    with pytest.raises(ArtifactError, match=r"repeats = False of .* and True"):
        rank_runs(runs)

"""The leaderboard of runs made by hand, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortlist.errors import ArtifactError, InputError
from shortlist.evaluation.leaderboard import (
    open_evaluations,
    rank_runs,
)
from shortlist.evaluation.metrics.table import LIST_METRICS, higher_is_better
from shortlist.evaluation.user_values import Evaluation

NAMES = ("ndcg@5", "recall@5", "ndcg@10", "recall@10", "arp@10")


def run_of(
    ndcg: list[float],
    users: list[int] | None = None,
    names: tuple[str, ...] = NAMES,
    pairs: dict[str, float] | None = None,
    **report: Any,
) -> Evaluation:
    """A run whose metrics of a user are all the same number."""
    column = np.array(ndcg)
    values = np.repeat(column[:, None], len(names), axis=1)
    means = dict.fromkeys(names, float(column.mean()))
    return Evaluation(
        report={
            "part": "test",
            "ks": [5, 10],
            "dataset_fingerprint": "f" * 16,
            "users": len(ndcg),
            "metrics": {"model": means, "popularity": dict.fromkeys(names, 0.1)},
            "intervals": {"model": dict.fromkeys(names, [0.0, 1.0])},
            "pairs": pairs or {},
            "slices": [],
            **report,
        },
        users=np.array(users or range(1, len(ndcg) + 1)),
        names=names,
        values=values,
    )


def three() -> dict[str, Evaluation]:
    return {
        "low": run_of([0.1, 0.2, 0.1, 0.0], pairs={"pairs": 9, "rmse": 0.9}),
        "high": run_of([0.5, 0.5, 0.25, 0.25], pairs={"pairs": 9, "rmse": 1.1}),
        "same": run_of([0.5, 0.5, 0.25, 0.25], pairs={"pairs": 9, "rmse": 0.9}),
    }


def test_the_best_run_comes_first_and_ties_are_all_marked() -> None:
    board = rank_runs(three())
    assert board["metric"] == "ndcg@10"
    assert board["higher_is_better"]
    assert [row["run"] for row in board["runs"]] == ["high", "same", "low"]
    assert board["runs"][0]["metrics"]["ndcg@10"] == pytest.approx(0.375)
    assert board["runs"][2]["users"] == 4
    assert board["best"]["recall@5"] == ["high", "same"]
    assert board["best"]["rmse"] == ["low", "same"]
    assert "arp@10" not in board["best"]  # neither end is better
    assert "pairs" not in board["runs"][0]["metrics"]
    assert board["popularity"]["ndcg@10"] == 0.1


def test_every_pair_is_tested_and_corrected() -> None:
    board = rank_runs(three())
    found = {(p["first"], p["second"]): p for p in board["pairs"]}
    assert list(found) == [("high", "same"), ("high", "low"), ("same", "low")]
    equal, better = found["high", "same"], found["high", "low"]
    assert (equal["difference"], equal["p"], equal["p_holm"]) == (0.0, 1.0, 1.0)
    assert (equal["low"], equal["high"]) == (0.0, 0.0)
    # All four differences are above 0: 2 of the 16 flips are as far from it.
    assert better["difference"] == pytest.approx(0.275)
    assert (better["p"], better["exact"]) == (2 / 16, True)
    assert better["p_holm"] == 3 * 2 / 16
    assert 0.15 <= better["low"] < better["difference"] < better["high"] <= 0.4


def test_a_pair_is_compared_on_the_users_that_both_have() -> None:
    runs = {
        "a": run_of([0.9, 0.5, 0.1], users=[7, 2, 4]),
        "b": run_of([0.25, 0.0, 0.0], users=[2, 9, 7]),
    }
    (pair,) = rank_runs(runs)["pairs"]
    assert pair["users"] == 2
    assert pair["difference"] == pytest.approx((0.9 - 0.0 + 0.5 - 0.25) / 2)
    third = rank_runs({**runs, "c": run_of([0.5, 0.75], users=[2, 7])})
    without = [{k: v for k, v in p.items() if k != "p_holm"} for p in third["pairs"]]
    assert {k: v for k, v in pair.items() if k != "p_holm"} in without
    apart = {"a": runs["a"], "c": run_of([0.1], users=[99])}
    with pytest.raises(ArtifactError) as caught:
        rank_runs(apart)
    assert caught.value.code == "compare-users"


def test_users_without_a_value_are_in_no_difference(tmp_path: Path) -> None:
    one = run_of([0.25, 0.5, math.nan, 0.75], users=[1, 2, 3, 4])
    other = run_of([0.0, math.nan, math.nan, 0.25], users=[1, 2, 3, 4])
    for run in (one, other):
        run.report["metrics"]["model"] = dict.fromkeys(NAMES, 0.5)
    (pair,) = rank_runs({"a": one, "b": other})["pairs"]
    assert (pair["users"], pair["difference"]) == (2, (0.25 + 0.5) / 2)
    one.save(tmp_path)
    again = Evaluation.load(tmp_path).values
    np.testing.assert_array_equal(again, one.values)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("recall", "recall@10"), ("recall@5", "recall@5"), (None, "ndcg@10")],
)
def test_a_metric_is_named_with_or_without_its_k(wanted, found) -> None:
    assert rank_runs(three(), wanted)["metric"] == found


def test_lower_is_better_where_it_is() -> None:
    names = ("taste_divergence@3",)
    runs = {
        "far": run_of([0.9, 0.8], names=names, ks=[3]),
        "near": run_of([0.1, 0.2], names=names, ks=[3]),
    }
    board = rank_runs(runs)
    assert (board["metric"], board["higher_is_better"]) == (names[0], False)
    assert board["runs"][0]["run"] == "near"
    assert board["best"] == {names[0]: ["near"]}


def test_what_has_no_better_end_ranks_no_runs() -> None:
    names = ("arp@5", "arp@10")
    runs = {"low": run_of([0.1, 0.2], names=names), "high": run_of([0.5], names=names)}
    board = rank_runs(runs)
    assert (board["metric"], board["higher_is_better"]) == ("arp@10", None)
    assert [run["run"] for run in board["runs"]] == ["low", "high"]  # as given
    assert board["best"] == {}
    for wanted in ("arp", "arp@10", "popularity_lift"):
        with pytest.raises(InputError, match="ndcg@10, recall@10") as caught:
            rank_runs(three(), wanted)
        assert caught.value.code == "compare-metric"


def test_every_metric_has_a_better_end_or_is_known_to_have_none() -> None:
    without = {name for name in LIST_METRICS if higher_is_better(name) is None}
    lower = {name for name in LIST_METRICS if higher_is_better(name) is False}
    assert without == {"arp", "popularity_lift"}
    assert lower == {"gini", "taste_divergence"}
    assert [higher_is_better(name) for name in ("rmse", "auc")] == [False, True]


@pytest.mark.parametrize("wanted", ["ndgc", "ndcg@7", "coverage@10", "rmse"])
def test_an_unknown_metric_is_refused(wanted: str) -> None:
    with pytest.raises(InputError, match="recall@10") as caught:
        rank_runs(three(), wanted)
    assert caught.value.code == "compare-metric"
    if wanted == "ndgc":
        assert "Did you mean 'ndcg'?" in str(caught.value)


@pytest.mark.parametrize(
    ("code", "changed"),
    [
        ("compare-dataset", {"dataset_fingerprint": "0" * 16}),
        ("compare-part", {"part": "validation"}),
        ("compare-ks", {"ks": [5, 20]}),
    ],
)
def test_what_was_measured_otherwise_is_refused(code: str, changed: dict) -> None:
    runs = {"a": run_of([0.1, 0.2]), "b": run_of([0.1, 0.2], **changed)}
    with pytest.raises(ArtifactError, match="of 'a' and .* of 'b'") as caught:
        rank_runs(runs)
    assert caught.value.code == code


def test_metrics_measured_in_different_things_are_left_out() -> None:
    names = ("ndcg@10", "diversity@10", "taste_divergence@10")
    own = {"diversity": "item vectors of the model", "taste_divergence": "feature x"}
    runs = {
        name: run_of([0.1, 0.2], names=names, measured_in=own) for name in ("a", "b")
    }
    board = rank_runs(runs)
    assert set(board["runs"][0]["metrics"]) == {"ndcg@10", "taste_divergence@10"}
    assert board["notes"] == [
        "diversity is not compared: each run measured it with the item vectors of"
        " its own model"
    ]
    with pytest.raises(InputError) as caught:
        rank_runs(runs, "diversity")
    assert caught.value.code == "compare-metric"
    other = {"diversity": "item features", "taste_divergence": "feature y"}
    runs["b"] = run_of([0.1, 0.2], names=names, measured_in=other)
    assert set(rank_runs(runs)["runs"][0]["metrics"]) == {"ndcg@10"}


def test_runs_are_read_from_their_folders(tmp_path: Path) -> None:
    for name, run in three().items():
        (tmp_path / name).mkdir()
        run.save(tmp_path / name)
    read = open_evaluations([tmp_path / "low", tmp_path / "high"])
    assert list(read) == [str(tmp_path / "low"), str(tmp_path / "high")]
    assert rank_runs(read)["runs"][0]["run"] == str(tmp_path / "high")
    (tmp_path / "bare").mkdir()
    for folders, code in (
        ([tmp_path / "low"], "compare-too-few"),
        ([tmp_path / "low", tmp_path / "high" / ".." / "low"], "compare-repeated"),
        ([tmp_path / "low", tmp_path / "none"], "run-missing"),
        ([tmp_path / "low", tmp_path / "bare"], "evaluation-missing"),
    ):
        with pytest.raises((InputError, ArtifactError)) as caught:
            open_evaluations(folders)
        assert caught.value.code == code
    with pytest.raises(InputError):
        rank_runs({"one": run_of([0.5])})

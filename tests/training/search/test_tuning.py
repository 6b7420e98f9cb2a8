"""Searches over real trainings: what is measured, kept and never looked at."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

import shortlist.training.search.tuning as tuning
from killed import run_killed
from shortlist import packages
from shortlist.data import Dataset, Split, prepare
from shortlist.errors import InputError, ResourceError
from shortlist.evaluation import ranking_metrics
from shortlist.recipe import Recipe, build_recipe
from shortlist.training import train, tune
from shortlist.training.runs.run_store import RunStore
from shortlist.training.search.search_space import recipe_with
from shortlist.training.search.tuning import Tuned
from shortlist.training.trackers import Store
from toy import CHECKERBOARD_SCHEMA, checkerboard, recipe

pytestmark = pytest.mark.backend

SMALL = {"epochs": 4, "patience": 4, "batch_size": 96, "embedding_dim": 4}
RATES = {"low": 1e-4, "high": 0.1, "log": True}


def searching(
    space: dict[str, Any], retrieval: dict[str, Any] | None = None, **section: Any
) -> Recipe:
    made = recipe(CHECKERBOARD_SCHEMA, retrieval=SMALL | (retrieval or {}))
    tuned = {"tune": {"space": space, "trials": 4, **section}}
    return build_recipe(made.to_builtins() | tuned)


TOWER = searching({"retrieval.learning_rate": RATES}, min_epochs=1, seed=3)
# No epochs, and thus fast: for what does not depend on the kind of training.
SCORER = searching(
    {"retrieval.ease.l2": {"low": 1.0, "high": 1e4, "log": True}}, {"kind": "ease"}
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard(tmp_path_factory.getbasetemp())


def searched(dataset: Dataset, folder: Path, given: Recipe, **others: Any) -> Tuned:
    return tune(dataset, folder, given, **{"validate": ranking_metrics} | others)


@pytest.fixture(scope="module")
def towers(
    dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tuned, RunStore]:
    """A search over the two-tower model, and the store of its trials."""
    folder = tmp_path_factory.mktemp("towers")
    store = RunStore(folder / "runs")
    return searched(dataset, folder / "tune", TOWER, trackers=[Store(store)]), store


def test_trials_end_early_and_the_best_settings_repeat_the_best_trial(
    dataset: Dataset, towers: tuple[Tuned, RunStore], tmp_path: Path
) -> None:
    tuned, store = towers
    counts = tuned.counts()
    assert counts["finished"] >= 1 and counts["pruned"] >= 1
    for trial in tuned.trials:
        if trial.state == "pruned":
            assert list(trial.epochs) in ([1], [1, 2, 3])  # a rung, and no epoch more
    results = [trial.result for trial in tuned.trials if trial.result is not None]
    assert tuned.best.result == max(results)
    rate = tuned.recipe.retrieval.learning_rate
    assert tuned.best.values == {"retrieval.learning_rate": rate}
    assert (tuned.recipe.name, tuned.recipe.tune) == (TOWER.name, TOWER.tune)
    run = train(
        dataset, tmp_path, tuned.recipe, validate=ranking_metrics, overwrite=True
    )
    assert run.info.validation["retrieval"]["ndcg@10"] == tuned.best.result


def test_every_trial_is_in_the_store(towers: tuple[Tuned, RunStore]) -> None:
    tuned, store = towers
    kept = {record.name: record for record in store.records()}
    assert len(kept) == len(tuned.trials)
    for trial in tuned.trials:
        record = kept[f"{TOWER.name} trial {trial.number}"]
        assert record.state == trial.state
        if trial.state == "finished":
            assert record.validation["ndcg@10"] == trial.result
            assert record.id == trial.run
    (best,) = store.records(sort="ndcg@10", state="finished", limit=1)
    assert best.id == tuned.best.run


def test_no_way_of_searching_opens_the_test_part(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(dataset.path, tmp_path / "dataset")
    copy = Dataset.open(tmp_path / "dataset")
    for segment in copy.info.segments:
        if segment.part == "test":  # whoever reads it reads nonsense
            file = copy.path / segment.file
            file.write_bytes(b"\0" * file.stat().st_size)
    asked = []
    for name in ("columns", "stored_columns"):
        original = getattr(Dataset, name)

        def spy(self: Dataset, *names: Any, original: Any = original) -> Any:
            asked.append(names)
            assert "test" not in str(names), "the test part was asked for"
            return original(self, *names)

        monkeypatch.setattr(Dataset, name, spy)
    space = {"retrieval.kind": {"choices": ["two_tower", "ease", "blend"]}}
    one_epoch = {"epochs": 1, "patience": 1}
    raw = searching(space, one_epoch, trials=3, seed=2).to_builtins()
    raw["retrieval"]["blend"]["members"] = ["ease", "popularity"]
    raw["ranker"] |= {"enabled": True, "epochs": 1, "batch_size": 96, "negatives": 1}
    tuned = searched(copy, tmp_path / "tune", build_recipe(raw))
    kinds = {trial.values["retrieval.kind"] for trial in tuned.trials}
    assert kinds == {"two_tower", "ease", "blend"}, "choose another seed"
    assert tuned.counts() == {"finished": 3, "pruned": 0, "failed": 0}
    assert asked


def test_a_scorer_is_searched_without_epochs(dataset: Dataset, tmp_path: Path) -> None:
    tuned = searched(dataset, tmp_path, SCORER)
    assert tuned.counts() == {"finished": 4, "pruned": 0, "failed": 0}
    assert [trial.epochs for trial in tuned.trials] == [{}] * 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "study.sqlite"]


def test_values_that_cannot_be_trained_with_fail_alone(
    dataset: Dataset, tmp_path: Path
) -> None:
    broken = {"kind": "popularity", "popularity": {"segment": "planet"}}
    space = {"retrieval.kind": {"choices": ["ease", "popularity"]}}
    tuned = searched(dataset, tmp_path / "one", searching(space, broken))
    assert tuned.counts()["failed"] and tuned.counts()["finished"]
    for trial in tuned.trials:
        failed = trial.values["retrieval.kind"] == "popularity"
        assert (trial.state == "failed") is failed
        assert (trial.error or "").startswith("segment-unknown") is failed
    space = {"retrieval.popularity.smoothing": {"low": 1.0, "high": 4.0}}
    hopeless = searching(space, broken, trials=2)
    with pytest.raises(
        InputError, match="None of 2 trials finished. The last error: s"
    ) as told:
        searched(dataset, tmp_path / "other", hopeless)
    assert told.value.code == "tune-no-trial"


def test_a_search_may_be_made_longer_and_ends_in_time(
    dataset: Dataset, tmp_path: Path
) -> None:
    whole = searched(dataset, tmp_path / "whole", SCORER)
    tune_of = SCORER.to_builtins()["tune"]

    def with_tune(**changes: Any) -> Recipe:
        return build_recipe(SCORER.to_builtins() | {"tune": tune_of | changes})

    short = with_tune(time_budget=1e-9)
    begun = searched(dataset, tmp_path / "parts", short)
    assert len(begun.trials) == 1  # the first is always begun
    longer = searched(dataset, tmp_path / "parts", SCORER, resume=True)
    results = [(trial.values, trial.result) for trial in longer.trials]
    assert results == [(trial.values, trial.result) for trial in whole.trials]
    with pytest.raises(InputError, match="differ: tune.seed"):
        searched(dataset, tmp_path / "parts", with_tune(seed=9), resume=True)


KILLED = """
import sys, warnings
warnings.resetwarnings()  # those of Keras
import msgspec
from shortlist.data.store.dataset import Dataset
from shortlist.evaluation import ranking_metrics
from shortlist.recipe import build_recipe
from shortlist.training import tune
path, folder, text = sys.argv[6:]
recipe = build_recipe(msgspec.json.decode(text))
tune(Dataset.open(path), folder, recipe, validate=ranking_metrics, resume=True)
"""


@pytest.mark.slow
def test_a_killed_search_ends_as_one_that_was_not(
    dataset: Dataset, towers: tuple[Tuned, RunStore], tmp_path: Path
) -> None:
    whole = towers[0].trials
    text = msgspec.json.encode(TOWER.to_builtins()).decode()
    run_killed(
        *(KILLED, dataset.path, tmp_path / "tune", text),
        point="shortlist.training.search.study:RunningTrial.is_pruned_after",
        when="after",
        number=2,  # told of the epoch, but its checkpoint is not written
    )
    left = searched(dataset, tmp_path / "tune", TOWER, resume=True).trials
    for name in ("values", "result", "epochs", "state"):
        for one, other in zip(left, whole, strict=True):
            assert getattr(one, name) == getattr(other, name)


def test_what_cannot_be_measured_is_refused_before_any_training(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = searching(SCORER.to_builtins()["tune"]["space"], metric="ndgc@10")
    with pytest.raises(InputError, match="Did you mean 'ndcg@10'") as caught:
        searched(dataset, tmp_path / "tune", unknown)
    assert caught.value.code == "tune-metric"
    log = Path(dataset.path).parent / "checkerboard.csv"
    split = Split(kind="last_n", test=2, validation=0)
    bare = prepare(log, CHECKERBOARD_SCHEMA, tmp_path / "bare", split=split)
    with pytest.raises(InputError) as caught:
        searched(bare, tmp_path / "tune", SCORER)
    assert caught.value.code == "tune-validation"
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ResourceError, match=r"shortlist\[tune\]") as missing:
        searched(dataset, tmp_path / "tune", SCORER)
    assert missing.value.code == "package-missing"
    assert not (tmp_path / "tune").exists()


def test_other_errors_end_the_search_and_leave_the_trial_to_go_on_with(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise ResourceError("no-space", "The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "train", full)
        with pytest.raises(ResourceError, match="The disk is full"):
            searched(dataset, tmp_path / "tune", SCORER)
    tuned = searched(dataset, tmp_path / "tune", SCORER, resume=True)
    whole = recipe_with(SCORER, tuned.best.values)
    assert tuned.recipe == whole and len(tuned.trials) == 4

"""Studies of made-up trials: who goes on, and what an interruption leaves."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy.exc

from shortlist.errors import ArtifactError, InputError, ResourceError
from shortlist.recipe import build_recipe
from shortlist.training.search.search_space import space_of
from shortlist.training.search.study import STUDY_FILE, Study, Trial

SPACE = {
    "retrieval.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "retrieval.embedding_dim": {"low": 8, "high": 64, "step": 8},
    "retrieval.hidden_units": {"choices": [[], [16], [32, 16]]},
}
EPOCHS = 9
MANY = 12  # more than are drawn before the sampler models what it saw


class Interrupted(Exception):
    """In place of the end of a process."""


def opened(folder: Path, **others: Any) -> Study:
    tune = {"space": SPACE, "seed": 5, **others.pop("tune", {})}
    recipe = build_recipe(
        {
            "log": {"events": "log.csv"},
            "columns": {"user_id": "user", "item_id": "item"},
            "tune": tune,
        }
    )
    given = {"direction": "maximize", "begun": {"seed": 5}, "resume": False} | others
    space = space_of(recipe)
    given.setdefault("overwrite", False)
    return Study(folder, recipe.tune, space, **given)


def curve(values: dict[str, Any], epoch: int) -> float:
    """Some metric after an epoch."""
    rate = math.log10(values["retrieval.learning_rate"])
    depth = len(values["retrieval.hidden_units"])
    return (
        -((rate + 2) ** 2) + depth / 9 + epoch * values["retrieval.embedding_dim"] / 99
    )


def run(study: Study, trials: int, stops: list[int]) -> None:
    """Trials of `curve`; raises when so many more epochs are done."""
    while sum(t.state != "running" for t in study.trials) < trials:
        trial = study.begin()
        for epoch in range(1, EPOCHS + 1):
            if stops and stops[0] == 0:
                stops.pop(0)
                raise Interrupted
            if stops:
                stops[0] -= 1
            if trial.is_pruned_after(epoch, curve(trial.values, epoch)):
                trial.prune(1.0)
                break
        else:
            trial.finish(curve(trial.values, EPOCHS), 1.0, None)


def trials_of(folder: Path, stops: list[int], trials: int = MANY) -> list[Trial]:
    """All trials of a study that is interrupted after so many epochs, and again."""
    while True:
        try:
            with opened(folder, resume=True) as study:
                run(study, trials, stops)
                return study.trials
        except Interrupted:
            continue


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Trial]:
    """The trials of a search that nothing interrupted."""
    return trials_of(tmp_path_factory.mktemp("whole"), [])


def test_an_interrupted_search_ends_as_one_that_was_not(
    whole: list[Trial], tmp_path: Path
) -> None:
    assert {trial.state for trial in whole} == {"finished", "pruned"}
    assert trials_of(tmp_path, [4], trials=9) == whole[:9]  # and a longer one
    assert trials_of(tmp_path, [0, 1, 1, 3]) == whole


def test_who_is_given_up_stays_so_when_killed_right_then(
    whole: list[Trial], tmp_path: Path
) -> None:
    first = next(trial for trial in whole if trial.state == "pruned")
    trials_of(tmp_path, [], trials=first.number)
    for _ in range(2):
        with opened(tmp_path, resume=True) as study:
            trial, last = study.begin(), max(first.epochs)
            assert trial.number == first.number
            told = [
                trial.is_pruned_after(epoch, curve(trial.values, epoch))
                for epoch in range(1, last + 1)
            ]
        assert told[-1]
    assert trials_of(tmp_path, [], trials=first.number + 1) == whole[: first.number + 1]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_one_trial_in_three_goes_on_at_each_rung(
    tmp_path: Path, direction: str
) -> None:
    with opened(tmp_path, direction=direction, tune={"min_epochs": 1}) as study:
        run(study, 14, [])
        trials = study.trials
    sign = 1 if direction == "maximize" else -1
    seen: dict[int, list[float]] = {1: [], 3: [], 9: []}
    for trial in trials:  # asynchronous successive halving, in its own words
        expected = EPOCHS
        for rung, others in seen.items():
            value = sign * curve(trial.values, rung)
            others.append(value)
            kept = max(len(others) // 3, 1)
            if value < sorted(others)[-kept]:
                expected = rung
                break
        assert max(trial.epochs) == expected, trial
    assert study.section.halving == 3 and any(max(t.epochs) == 3 for t in trials)


def test_nothing_is_given_up_without_halving(tmp_path: Path) -> None:
    with opened(tmp_path, tune={"halving": False}) as study:
        run(study, 5, [])
        assert {trial.state for trial in study.trials} == {"finished"}
        results = [trial.result for trial in study.trials]
        assert study.best is not None and study.best.result == max(results)


def test_values_lie_in_the_space_and_come_from_the_seed(
    whole: list[Trial], tmp_path: Path
) -> None:
    values = [trial.values for trial in whole]
    for tried in values:
        assert 1e-4 <= tried["retrieval.learning_rate"] <= 1e-1
        assert tried["retrieval.embedding_dim"] in range(8, 65, 8)
        assert tried["retrieval.hidden_units"] in ([], [16], [32, 16])
    with opened(tmp_path / "other", tune={"seed": 6}) as study:
        assert study.begin().values != values[0]
    assert len({t["retrieval.learning_rate"] for t in values}) == len(values)


def test_a_failed_trial_is_told_and_never_the_best(tmp_path: Path) -> None:
    with opened(tmp_path) as study:
        assert study.best is None
        study.begin().fail("loss-not-finite: no", 2.0)
        run(study, 2, [])
        failed, finished = study.trials
        assert (failed.state, failed.error, failed.result) == (
            "failed",
            "loss-not-finite: no",
            None,
        )
        assert study.best == finished


def test_a_study_is_not_begun_anew_by_mistake(tmp_path: Path) -> None:
    with opened(tmp_path) as study:
        run(study, 2, [])
    with pytest.raises(InputError, match="--resume") as caught:
        opened(tmp_path)
    assert caught.value.code == "study-exists"
    with pytest.raises(InputError, match="These differ: seed") as caught:
        opened(tmp_path, begun={"seed": 6}, resume=True)
    assert caught.value.code == "resume-mismatch"
    with opened(tmp_path, begun={"seed": 6}, overwrite=True) as study:
        assert study.trials == []


def test_two_searches_in_one_folder_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(ResourceError) as caught:
        opened(tmp_path, resume=True)
    assert caught.value.code == "training-locked"


def test_a_file_that_is_no_study_is_refused_and_replaced(tmp_path: Path) -> None:
    (tmp_path / STUDY_FILE).write_bytes(b"no database" * 200)
    with pytest.raises(ArtifactError) as caught:
        opened(tmp_path, resume=True)
    assert caught.value.code == "study-damaged"
    with opened(tmp_path, overwrite=True) as study:
        assert study.trials == []


def test_a_full_disk_is_told_and_the_trial_goes_on_later(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="--resume") as caught:
        with opened(tmp_path) as study:
            values = study.begin().values
            raise sqlalchemy.exc.OperationalError("INSERT", None, Exception("full"))
    assert caught.value.code == "study-write"
    with opened(tmp_path, resume=True) as study:
        assert study.begin().values == values


def test_only_folders_of_trials_are_removed(tmp_path: Path) -> None:
    (tmp_path / "trial-notes").mkdir()
    (tmp_path / "trial-00003").mkdir()
    with opened(tmp_path) as study:
        study.begin()
    assert (tmp_path / "trial-notes").is_dir()
    assert not (tmp_path / "trial-00003").exists()


def test_a_study_in_use_is_not_called_damaged(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    other = sqlite3.connect(tmp_path / STUDY_FILE, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ResourceError, match="by one search at a time") as caught:
        opened(tmp_path, resume=True)
    assert caught.value.code == "study-write"
    other.close()

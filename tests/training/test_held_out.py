"""What can be measured on held-out parts, and trainings of users who repeat items."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from repeat_logs import (
    GROCERY_SCHEMA,
    USERS,
    groceries,
    repeats_in_the_test_part,
)
from shortlist.bundle.export import export_bundle
from shortlist.data import Dataset, Schema, Split, prepare
from shortlist.errors import InputError
from shortlist.evaluation import EvaluationOptions, evaluate_pipeline, ranking_metrics
from shortlist.recipe import EvaluationSection, Recipe
from shortlist.serving.recommender import Recommender
from shortlist.training import Run, load_pipeline, train
from shortlist.training.held_out import (
    check_held_out,
    holds_only_repeats,
    measurable_users,
    repeats_warning,
)
from shortlist.training.runs.unfinished import differing_fields
from toy import recipe

pytestmark = pytest.mark.backend

KNOWN = ("train", "validation")
TIE = 1e-5


@pytest.fixture
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


def chosen(kind: str, *, repeats: bool = True, **options: Any) -> Recipe:
    """A recipe; with a ranker and a few epochs for the two-tower."""
    small: dict[str, Any] = {"epochs": 2, "batch_size": 64}
    ranker = {**small, "negatives": 2, "weights": [0, 1]} if kind == "two_tower" else {}
    made = recipe(
        GROCERY_SCHEMA,
        retrieval={"kind": kind, **small, **options},
        ranker=ranker or None,
    )
    return made.model_copy(update={"evaluation": EvaluationSection(repeats=repeats)})


@functools.cache
def run_of(base: Path, kind: str) -> Run:
    return train(
        *(groceries(base), base / f"groceries-{kind}", chosen(kind)),
        validate=ranking_metrics,
        quiet=True,
    )


def only_unclicked(folder: Path) -> Dataset:
    """Of a log of clicks, all that is new to users in the test part is not clicked."""
    rows = [
        (f"u{u}", f"i{i % 3}", t, 1) for u in range(4) for t, i in enumerate(range(9))
    ]
    rows += [(f"u{u}", f"i{3 + u}", 9, 0) for u in range(4)]
    rows += [(f"u{u}", "i9", 0, u % 2) for u in range(4)]  # all items are known
    log = pl.DataFrame(rows, schema=["user", "item", "time", "click"], orient="row")
    log.write_csv(folder / "clicks.csv")
    schema = Schema(
        user_id="user",
        item_id="item",
        timestamp="time",
        label="click",
        label_kind="binary",
    )
    split = Split(kind="last_n", test=2, validation=2)
    return prepare(folder / "clicks.csv", schema, folder / "clicks", split=split)


def test_only_repeats_are_told_from_parts_with_something_new(
    base: Path, tmp_path: Path
) -> None:
    assert holds_only_repeats(groceries(base), "test")
    assert holds_only_repeats(groceries(base), "validation")
    assert holds_only_repeats(only_unclicked(tmp_path), "test")
    for new_every in (1, 2, USERS):  # of all users, half of them, and one
        assert not holds_only_repeats(groceries(base, new_every), "test")
        check_held_out(groceries(base, new_every))


def test_the_test_part_stays_closed_where_the_validation_part_can_be_measured(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, asked = groceries(base, 2), list[str]()
    part = Dataset.part

    def spy(self: Dataset, *names: str) -> Any:
        asked.extend(names)
        return part(self, *names)

    monkeypatch.setattr(Dataset, "part", spy)
    check_held_out(dataset)
    assert set(asked) == {"train", "validation"}


def test_a_part_of_unknown_items_or_of_nothing_is_no_repetition(tmp_path: Path) -> None:
    rows = [(f"u{u}", f"i{t}", t) for u in range(4) for t in range(6)]
    rows += [(f"u{u}", "new", 9) for u in range(4)]
    log = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    log.write_csv(tmp_path / "log.csv")
    for test, folder in ((1, "one"), (0, "none")):
        split = Split(kind="last_n", test=test, validation=0)
        out = tmp_path / folder
        dataset = prepare(tmp_path / "log.csv", GROCERY_SCHEMA, out, split=split)
        assert not holds_only_repeats(dataset, "test")
        check_held_out(dataset)


def test_repeats_in_the_test_part_alone_are_a_warning(
    base: Path, tmp_path: Path
) -> None:
    dataset = repeats_in_the_test_part(tmp_path)
    assert holds_only_repeats(dataset, "test")
    assert not holds_only_repeats(dataset, "validation")
    check_held_out(dataset)
    assert "test part holds only items that their users had" in repeats_warning(dataset)
    # It can still be trained on.
    made, out = chosen("ease", repeats=False), tmp_path / "run"
    assert train(dataset, out, made, validate=ranking_metrics).path.is_dir()
    for other in (groceries(base, 2), only_unclicked(tmp_path)):
        expected = holds_only_repeats(other, "test")
        assert bool(repeats_warning(other)) == expected


def test_users_can_be_measured_where_an_item_can_be_found(base: Path) -> None:
    everybody = np.arange(1, USERS + 1)
    for new_every, fresh in ((0, 0), (2, USERS // 2), (1, USERS)):
        dataset = groceries(base, new_every)
        assert len(measurable_users(dataset)) == fresh
        found = measurable_users(dataset, repeats=True)
        np.testing.assert_array_equal(found, everybody)


def test_the_cause_is_told_before_training_starts(base: Path, tmp_path: Path) -> None:
    for kind in ("two_tower", "ease"):
        with pytest.raises(InputError, match="repeat purchases") as caught:
            train(
                *(groceries(base), tmp_path / "run", chosen(kind, repeats=False)),
                validate=ranking_metrics,
            )
        assert caught.value.code == "no-relevant-items"
        assert "`repeats = true` in [evaluation]" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "kind",
    [
        *("two_tower", "ease", "item_knn"),
        pytest.param("blend", marks=pytest.mark.slow),
    ],
)
def test_seen_items_count_in_training_evaluation_and_serving_alike(
    base: Path, tmp_path: Path, kind: str
) -> None:
    run, dataset = run_of(base, kind), groceries(base)
    assert run.recipe["evaluation"]["repeats"] is True
    pipeline = load_pipeline(run, dataset, repeats=True)
    users = np.arange(1, dataset.num_users)
    _, rows = pipeline.recommend(users, 10, parts=("train",))
    validated = ranking_metrics(dataset, users, rows, "validation", repeats=True)
    told = run.info.validation.get("pipeline") or run.info.validation["retrieval"]
    assert told == pytest.approx(validated)
    if kind == "two_tower":
        weights = run.info.validation["ranker_weights"]
        assert max(weights.values()) == pytest.approx(validated["ndcg@10"])
    report = evaluate_pipeline(
        pipeline, EvaluationOptions(ks=(10,), resamples=20)
    ).report
    # A list has all 10 items, and so all that users take again.
    assert report["metrics"]["model"]["recall@10"] == 1
    export_bundle(
        tmp_path / "b", pipeline, name="b", history="evaluation", repeats=True
    )
    recommender = Recommender.load(tmp_path / "b")
    scores, rows = pipeline.recommend(users, 12, parts=KNOWN)
    ids = [dataset.vocabularies["user"].id(int(user)) for user in users]
    answers = recommender.recommend_batch(ids, 10)
    for answer, row, score in zip(answers, rows, scores, strict=True):
        served = [dataset.vocabularies["item"].row(i.item_id) for i in answer.items]
        expected = dict(zip(row.tolist(), score.tolist(), strict=True))
        np.testing.assert_allclose(
            [expected[r] for r in served], score[: len(served)], atol=1e-4
        )
        assert len(served) == min(10, (row > 0).sum())


def test_what_is_measured_belongs_to_what_a_training_goes_on_with() -> None:
    one = chosen("ease").to_builtins()
    other = chosen("ease", repeats=False).to_builtins()
    assert differing_fields(one, other) == ["evaluation.repeats"]
    older = {name: value for name, value in other.items() if name != "serving"}
    older["evaluation"] = {
        name: value for name, value in other["evaluation"].items() if name != "repeats"
    }
    assert differing_fields(other, older) == []
    assert differing_fields(one, older) == ["evaluation.repeats"]
    wide = {**other, "evaluation": {**other["evaluation"], "ks": [3]}}
    assert differing_fields(wide, other) == []

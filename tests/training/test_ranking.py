"""Rankers from the recipe to a run, and from there to a server that answers alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from shortlist.bundle.export import export_bundle
from shortlist.data import (
    Dataset,
    ExampleOptions,
    Loader,
    Negatives,
    Schema,
    Split,
    TrainingExamples,
    prepare,
)
from shortlist.errors import InputError
from shortlist.evaluation import EvaluationOptions, evaluate_pipeline, ranking_metrics
from shortlist.models.multitask import MultiTask
from shortlist.models.pipeline import Pipeline
from shortlist.serving.recommender import Recommender
from shortlist.training import Run, load_pipeline, train
from shortlist.training.batches.labels import (
    LabelledBatches,
    head_targets,
    positive_target,
)
from toy import CHECKERBOARD_SCHEMA, SYNTHETIC_SCHEMA, recipe, synthetic

pytestmark = pytest.mark.backend

PARTS = ("train", "validation")
RETRIEVAL = {"epochs": 1, "temperature": 0.3}
HEADS = {
    "rating": {"objective": "explicit"},
    "like": {"objective": "binary", "weight": 2.0},
    "click": {"objective": "binary", "label": "taken"},
}
MULTI = {
    "kind": "multi_task",
    "heads": HEADS,
    "bottom": "mmoe",
    "num_experts": 2,
    "score": {"click": 1.0, "rating": 0.25},
    "negatives": 2,
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return synthetic(tmp_path_factory.getbasetemp())


def trained(dataset: Dataset, out: Path, **ranker: Any) -> Run:
    options = {"epochs": 2, "candidates": 20, "weights": [0.5], **ranker}
    chosen = recipe(SYNTHETIC_SCHEMA, retrieval=RETRIEVAL, ranker=options)
    return train(dataset, out, chosen, validate=ranking_metrics, quiet=True)


def assert_served(pipeline: Pipeline, folder: Path) -> None:
    """The server scores pairs and lists items as the pipeline does."""
    export_bundle(folder, pipeline, name="toy", history="evaluation")
    dataset = pipeline.dataset
    users, items = (dataset.vocabularies[name] for name in ("user", "item"))
    rows = np.arange(1, 25)
    recommender = Recommender.load(folder)
    for user in (1, 7, 30):
        expected = pipeline.score_pairs(np.full(len(rows), user), rows, PARTS)
        ids = [items.id(int(row)) for row in rows]
        scores = recommender.score(users.id(user), ids)
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
        best, _ = pipeline.recommend(np.array([user]), 10, parts=PARTS)
        served = [item.score for item in recommender.recommend(users.id(user)).items]
        np.testing.assert_allclose(served, best[0], rtol=1e-4, atol=1e-4)
    recommender.close()


@pytest.mark.parametrize(
    "ranker",
    [
        {"interaction": "dcn", "objective": "listwise", "table_l2": 0.001},
        {"interaction": "dcn_low_rank", "low_rank_dim": 4, "cross_layers": 3},
        *[
            pytest.param(ranker, marks=pytest.mark.slow)
            for ranker in (
                {"interaction": "ncf"},
                {"interaction": "wide_deep"},
                {"interaction": "deepfm", "objective": "explicit"},
                {"interaction": "dlrm", "negatives": 0},
            )
        ],
    ],
    ids=lambda ranker: ranker["interaction"],
)
def test_every_interaction_is_trained_from_the_recipe_and_served(
    dataset: Dataset, tmp_path: Path, ranker: dict[str, Any]
) -> None:
    run = trained(dataset, tmp_path / "run", **ranker)
    pipeline = load_pipeline(run, dataset)
    model = pipeline.ranker
    assert model is not None and not isinstance(model, MultiTask)
    assert model.options.interaction == ranker["interaction"]
    assert run.info.objective == model.objective == ranker.get("objective", "binary")
    assert model.lookup.table_l2 == ranker.get("table_l2", 0.0)
    if ranker["interaction"] == "dcn_low_rank":
        assert (model.options.low_rank_dim, model.options.cross_layers) == (4, 3)
    assert_served(pipeline, tmp_path / "bundle")


@pytest.fixture(scope="module")
def multi_run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("multi") / "run"
    return trained(dataset, out, **{**MULTI, "epochs": 4})


def test_a_multi_task_ranker_is_trained_from_the_recipe_and_served(
    dataset: Dataset, multi_run: Run, tmp_path: Path
) -> None:
    pipeline = load_pipeline(multi_run, dataset)
    model = pipeline.ranker
    assert isinstance(model, MultiTask)
    assert (model.options.bottom, model.options.num_experts, model.list_size) == (
        "mmoe",
        2,
        3,
    )
    assert {n: h.label for n, h in model.heads.items()} == {
        "rating": "label",
        "like": "positive",
        "click": "taken",
    }
    assert multi_run.info.objective == "listwise"
    assert_served(pipeline, tmp_path / "bundle")


def test_every_head_is_evaluated_and_has_learned(
    dataset: Dataset, multi_run: Run
) -> None:
    pipeline = load_pipeline(multi_run, dataset)
    report = evaluate_pipeline(
        pipeline, EvaluationOptions(objective=multi_run.info.objective)
    ).report
    heads = report["heads"]
    assert {name: sorted(found) for name, found in heads.items()} == {
        "rating": ["mae", "rmse"],
        "like": ["auc"],
        "click": ["auc"],
    }
    part = dataset.part("test")
    pairs = part.take((part.user_index > 0) & (part.item_index > 0))
    mean = dataset.part("train").label.mean()
    assert heads["rating"]["rmse"] < 0.95 * np.sqrt(np.mean((pairs.label - mean) ** 2))
    assert heads["like"]["auc"] > 0.6
    # Items nobody drew for these users, scored against those they took.
    taken = pipeline.score_heads(pairs.user_index, pairs.item_index, PARTS)["click"][1]
    other = np.random.default_rng(0).integers(1, dataset.num_items, len(pairs))
    drawn = pipeline.score_heads(pairs.user_index, other, PARTS)["click"][1]
    assert np.mean(taken > drawn) > 0.55


def test_a_single_task_has_no_heads_to_report(dataset: Dataset, tmp_path: Path) -> None:
    run = trained(dataset, tmp_path / "run", objective="explicit", epochs=1)
    report = evaluate_pipeline(
        load_pipeline(run, dataset), EvaluationOptions(resamples=10)
    ).report
    assert "heads" not in report


# Labels.


def test_heads_get_the_labels_they_learn(dataset: Dataset) -> None:
    negatives = ExampleOptions(negatives=Negatives("uniform", 2), keep_label=True)
    rows = TrainingExamples(dataset, options=negatives)
    plain = TrainingExamples(dataset)
    loaders = [Loader(r, batch_size=8, seed=4, shuffle="none") for r in (rows, plain)]
    labels = {"rating": "label", "like": "positive", "click": "taken"}
    targets = head_targets(labels, positive_from=4.0, list_size=3)
    features, label, weight = LabelledBatches(loaders[0], targets)[0]
    own = loaders[1].batch(0, 0)["label"]
    np.testing.assert_array_equal(
        label["rating"], np.column_stack([own, 0 * own, 0 * own]).ravel()
    )
    np.testing.assert_array_equal(label["like"][::3], own >= 4)
    np.testing.assert_array_equal(label["click"], [1, 0, 0] * 8)
    # The mean over the rows is the mean over the events.
    np.testing.assert_array_equal(weight["rating"], [3, 0, 0] * 8)
    np.testing.assert_array_equal(weight["like"], [3, 0, 0] * 8)
    np.testing.assert_array_equal(weight["click"], np.ones(24))
    assert not {"label", "event_label", "sample_weight"} & set(features)


def test_weights_of_events_weigh_every_head() -> None:
    batch = {
        "user_index": np.array([1, 1], np.int32),
        "label": np.array([1, 0], np.float32),
        "event_label": np.array([5, np.nan], np.float32),
        "sample_weight": np.array([7, 1], np.float32),
    }
    labels = {"rating": "label", "click": "taken"}
    _, label, weight = head_targets(labels, positive_from=4, list_size=2)(batch)
    assert label["rating"].tolist() == [5, 0]
    assert weight["rating"].tolist() == [14, 0]
    assert weight["click"].tolist() == [7, 1]


def test_without_negatives_a_binary_label_is_told_from_the_log() -> None:
    batch = {
        "user_index": np.array([1, 1], np.int32),
        "label": np.array([3, 4], np.float32),
    }
    features, label = positive_target(4.0)(batch)
    assert label.tolist() == [0, 1] and list(features) == ["user_index"]
    batch["sample_weight"] = np.array([1, 2], np.float32)
    assert positive_target(4.0)(batch)[2].tolist() == [1, 2]


def test_batches_end_where_the_loader_does(dataset: Dataset) -> None:
    loader = Loader(TrainingExamples(dataset), batch_size=64)
    batches = LabelledBatches(loader, positive_target(4.0))
    with pytest.raises(IndexError, match="no batch"):
        batches[len(batches)]


def untrained(*args: Any) -> dict[str, float]:
    raise AssertionError("training began")


@pytest.mark.parametrize(
    ("schema", "ranker", "code", "words"),
    [
        ({}, {"negatives": 0}, "ranker-needs-label", "objective = 'binary'"),
        (
            {},
            {"kind": "multi_task", "heads": HEADS},
            "ranker-needs-label",
            "of head 'rating'",
        ),
        ({"label": "rating"}, {"negatives": 0}, "label-one-class", "positives only"),
        (
            {"label": "rating", "label_kind": "explicit", "positive_from": 9.0},
            {"kind": "multi_task", "heads": {"like": {"objective": "binary"}}},
            "label-one-class",
            "negatives only",
        ),
        (
            {"label": "rating", "label_kind": "explicit"},
            {
                "kind": "multi_task",
                "heads": {"like": {"objective": "binary", "label": "label"}},
            },
            "label-not-binary",
            "'like'.* labels are explicit",
        ),
    ],
)
def test_labels_that_cannot_be_learned_are_refused_before_any_work(
    tmp_path: Path,
    schema: dict[str, Any],
    ranker: dict[str, Any],
    code: str,
    words: str,
) -> None:
    log = {
        "user": [1, 1, 2, 2, 3, 3],
        "item": [1, 2, 1, 2, 1, 2],
        "time": range(1_600_000_000, 1_600_000_006),
        "rating": [1, 2, 3, 4, 5, 5],
    }
    pl.DataFrame(log).write_csv(tmp_path / "log.csv")
    names = {
        name: getattr(CHECKERBOARD_SCHEMA, name)
        for name in ("user_id", "item_id", "timestamp")
    }
    columns = Schema(**names, **schema)
    split = Split(kind="last_n", test=0, validation=0)
    dataset = prepare(tmp_path / "log.csv", columns, tmp_path / "dataset", split=split)
    chosen = recipe(columns, ranker=ranker)
    with pytest.raises(InputError, match=words) as caught:
        train(dataset, tmp_path / "run", chosen, validate=untrained)
    assert caught.value.code == code
    assert not (tmp_path / "run").exists()

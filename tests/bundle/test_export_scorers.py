"""A run of every kind of scorer, from the recipe to the answers of its bundle."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortlist.bundle.bundle import read_bundle
from shortlist.bundle.export import export_bundle
from shortlist.errors import ArtifactError
from shortlist.evaluation import EvaluationOptions, evaluate_pipeline, ranking_metrics
from shortlist.models.pipeline import Pipeline
from shortlist.models.scorers import Blend, Ease, KnownItems, Scorer
from shortlist.serving.recommender import Recommender
from shortlist.training import load_pipeline, train
from shortlist.training.runs.run import Run
from toy import SYNTHETIC_SCHEMA, recipe, synthetic

pytestmark = pytest.mark.backend

KNOWN = ("train", "validation")
TIE = 1e-5  # scores closer than this are equal to float32 sums
ALS = {"factors": 8, "iterations": 4}
KNN = {"half_life_days": 30.0, "rating_weights": True}
CASES: dict[str, dict[str, Any]] = {
    "popularity": {"popularity": {"half_life_days": 20.0, "segment": "segment"}},
    "item_knn": {"item_knn": KNN},
    "ease": {"ease": {"l2": 50.0}},
    "als": {"als": ALS},
    "burst_als": {"burst_als": {**ALS, "burst_seconds": 86_400.0}},
    "factorization": {"factorization": {"factors": 4, "sweeps": 5}},
    "blend": {
        "blend": {"members": ["ease", "item_knn", "als", "two_tower"]},
        "als": ALS,
        "item_knn": KNN,
        "epochs": 2,
    },
}


@functools.cache
def run_of(base: Path, kind: str) -> Run:
    return train(
        synthetic(base),
        base / f"run-{kind}",
        recipe(SYNTHETIC_SCHEMA, retrieval={"kind": kind, **CASES[kind]}),
        validate=ranking_metrics,
        quiet=True,
    )


@functools.cache
def pipeline_of(base: Path, kind: str) -> Pipeline:
    pipeline = load_pipeline(run_of(base, kind), synthetic(base))
    if kind == "blend":  # whatever the fitted weights are, every member shall count
        pipeline.retrieval.weights = dict.fromkeys(pipeline.retrieval.members, 0.5)
    return pipeline


@functools.cache
def bundle_of(base: Path, kind: str) -> Path:
    path = base / f"bundle-{kind}"
    export_bundle(path, pipeline_of(base, kind), name=kind, history="evaluation")
    return path


@pytest.fixture(params=CASES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


def test_a_bundle_gives_the_top_10_of_the_pipeline_to_every_user(
    base: Path, kind: str
) -> None:
    pipeline = pipeline_of(base, kind)
    dataset = pipeline.dataset
    users = np.arange(1, dataset.num_users)
    scores, rows = pipeline.recommend(users, 15, parts=KNOWN)
    recommender = Recommender.load(bundle_of(base, kind))
    user_ids = [dataset.vocabularies["user"].id(int(user)) for user in users]
    items = dataset.vocabularies["item"]
    for i, answer in enumerate(recommender.recommend_batch(user_ids, 10)):
        listed = rows[i] >= 0
        ids = [items.id(int(row)) for row in rows[i][listed]]
        expected = dict(zip(ids, scores[i][listed].tolist(), strict=True))
        assert len(answer.items) == min(10, len(ids))
        for item, at_its_place in zip(answer.items, scores[i], strict=False):
            assert item.score == pytest.approx(expected[item.item_id], abs=TIE, rel=TIE)
            assert item.score == pytest.approx(float(at_its_place), abs=TIE, rel=TIE)
        assert answer.source == "model" and not answer.degraded


def test_pair_scores_are_those_of_the_pipeline(base: Path, kind: str) -> None:
    pipeline = pipeline_of(base, kind)
    dataset = pipeline.dataset
    recommender = Recommender.load(bundle_of(base, kind))
    items = np.arange(1, dataset.num_items)
    item_ids = [dataset.vocabularies["item"].id(int(row)) for row in items]
    for user in (1, 17, dataset.num_users - 1):
        expected = pipeline.score_pairs(np.full(len(items), user), items, KNOWN)
        user_id = dataset.vocabularies["user"].id(user)
        scores = recommender.score(user_id, item_ids)
        np.testing.assert_allclose(scores, expected, atol=TIE, rtol=TIE)
        ranked = recommender.rank(user_id, item_ids)
        best = max(zip(expected.tolist(), item_ids, strict=True))
        assert ranked.items[0].score == pytest.approx(best[0], abs=TIE, rel=TIE)


def test_similar_items_are_those_of_the_scorer(base: Path, kind: str) -> None:
    pipeline = pipeline_of(base, kind)
    recommender = Recommender.load(bundle_of(base, kind))
    vocabulary = pipeline.dataset.vocabularies["item"]
    answer = recommender.similar(vocabulary.id(3), 5)
    expected = pipeline.retrieval.similar(3)
    if kind == "popularity":
        assert expected is None and answer.source == "popular"
        return
    expected[[0, 3]] = -np.inf
    assert answer.source == "model" and len(answer.items) == 5
    for item, score in zip(answer.items, np.sort(expected)[::-1], strict=False):
        assert item.score == pytest.approx(float(score), abs=TIE)
        row = vocabulary.row(item.item_id)
        assert item.score == pytest.approx(float(expected[row]), abs=TIE)


@pytest.mark.parametrize("kind", ["item_knn", "ease", "als", "blend"], indirect=True)
def test_a_posted_event_changes_the_next_answer(base: Path, kind: str) -> None:
    recommender = Recommender.load(bundle_of(base, kind))
    items = recommender.catalogue.vocabulary
    before = recommender.recommend("nobody yet", k=20)
    assert before.source == "popular"
    first = recommender.recommend("nobody yet", k=1).items[0].item_id
    recommender.add_event("nobody yet", first, 1_700_000_000_000, 5.0)
    after = recommender.recommend("nobody yet", k=20)
    assert after.source == "history" and after.cold_start
    assert first not in [item.item_id for item in after.items]
    seen = Recommender.load(bundle_of(base, kind)).recommend(history=[first], k=20)
    assert [i.item_id for i in seen.items] == [i.item_id for i in after.items]
    other = items.id(40)
    recommender.add_event("nobody yet", other, 1_700_000_100_000, 4.0)
    scores = {i.item_id: i.score for i in after.items}
    last = recommender.recommend("nobody yet", k=20)
    assert scores != {i.item_id: i.score for i in last.items}


def test_popularity_of_late_answers_strangers_too(base: Path) -> None:
    pipeline = pipeline_of(base, "popularity")
    recommender = Recommender.load(bundle_of(base, "popularity"))
    answer = recommender.recommend(k=5)
    assert answer.source == "popular" and not answer.degraded
    overall = pipeline.retrieval.scores[0]
    rows = np.argsort(-overall, kind="stable")[:5]
    ids = [pipeline.dataset.vocabularies["item"].id(int(row)) for row in rows]
    assert [item.item_id for item in answer.items] == ids


def test_a_run_gives_back_the_scorer_it_fitted(base: Path, kind: str) -> None:
    run, dataset = run_of(base, kind), synthetic(base)
    scorer = load_pipeline(run, dataset).retrieval
    assert isinstance(scorer, Scorer) and scorer.kind == kind
    assert not [f for f in (run.path / "retrieval").rglob("*") if "pickle" in f.name]
    queries = KnownItems(dataset, ("train",), values=True).everyone()
    if isinstance(scorer, Blend):
        assert set(scorer.members) == set(CASES["blend"]["blend"]["members"])
        assert any(scorer.weights.values())
        return
    again = type(scorer)(**scorer.get_config()).fit(dataset)
    np.testing.assert_array_equal(again.score_all(queries), scorer.score_all(queries))


def test_evaluation_measures_every_kind(base: Path, kind: str) -> None:
    run = run_of(base, kind)
    pipeline = load_pipeline(run, synthetic(base))
    report = evaluate_pipeline(
        pipeline, EvaluationOptions(objective=run.info.objective, resamples=20)
    ).report
    assert 0 <= report["metrics"]["model"]["ndcg@10"] <= 1
    assert ("rmse" in report["pairs"]) == (kind == "factorization")
    if kind == "factorization":
        labels = synthetic(base).part("test").label
        assert report["pairs"]["rmse"] < labels.std()


def test_a_ranker_re_scores_what_a_scorer_retrieves(base: Path) -> None:
    dataset = synthetic(base)
    made = recipe(
        SYNTHETIC_SCHEMA,
        retrieval={"kind": "ease"},
        ranker={
            "objective": "explicit",
            "epochs": 1,
            "candidates": 20,
            "weights": [1.0],
        },
    )
    run = train(dataset, base / "r", made, validate=ranking_metrics, quiet=True)
    pipeline = load_pipeline(run, dataset)
    assert pipeline.ranker_weight == 1.0 and pipeline.ranker is not None
    export_bundle(base / "b", pipeline, name="ranked", history="evaluation")
    recommender = Recommender.load(base / "b")
    scores, rows = pipeline.recommend(np.array([5]), 10, parts=KNOWN)
    answer = recommender.recommend(dataset.vocabularies["user"].id(5), k=10)
    np.testing.assert_allclose([i.score for i in answer.items], scores[0], atol=1e-4)


def test_times_and_labels_are_kept_where_a_scorer_looks_at_them(base: Path) -> None:
    columns = read_bundle(bundle_of(base, "item_knn")).contents.users.columns
    assert {"history_times", "history_values"} <= set(columns)
    columns = read_bundle(bundle_of(base, "ease")).contents.users.columns
    assert not {"history_times", "history_values"} & set(columns)


def test_a_scorer_of_another_dataset_is_refused(base: Path, tmp_path: Path) -> None:
    scorer = Ease().fit(synthetic(base))
    scorer.weights = np.eye(3, dtype=np.float32)
    with pytest.raises(ArtifactError, match="'weights' as float32 of shape"):
        export_bundle(tmp_path / "b", Pipeline(synthetic(base), scorer), name="x")

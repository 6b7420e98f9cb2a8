"""A bundle of every kind of two-tower model answers as its pipeline does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortlist.bundle.export import export_bundle
from shortlist.evaluation import ranking_metrics
from shortlist.models.pipeline import Pipeline
from shortlist.serving.recommender import Recommender
from shortlist.training import load_pipeline, train
from toy import CHECKERBOARD_SCHEMA, checkerboard, recipe

pytestmark = pytest.mark.backend

KNOWN = ("train", "validation")
VARIANTS: list[dict[str, Any]] = [
    {"history": "attention", "num_queries": 2, "negatives": "all"},
    {"history": "gru", "learned_temperature": True, "similarity": "dot"},
    {"item_bias": True, "projection": "sum", "feature_dim": 8, "embedding_dim": 8},
    {"negatives": "mixed", "mixed_negatives": 16, "loss": "bpr", "hard_negatives": 4},
]


def check_similar(pipeline: Pipeline, recommender: Recommender) -> None:
    """Similar items are those of the highest cosine, whatever their biases."""
    tower = pipeline.retrieval
    vectors = tower.item_vectors
    places = vectors[:, :-1] if tower.model.item_bias else vectors
    norms = np.linalg.norm(places[1:], axis=1)
    cosines = places[2:] @ places[1] / norms[1:] / norms[0]
    ids = pipeline.dataset.vocabularies["item"]
    answer = recommender.similar(ids.id(1), k=3)
    np.testing.assert_allclose(
        [item.score for item in answer.items], np.sort(cosines)[::-1][:3], atol=1e-4
    )


# Each is trained and exported: two of them have every kind of part.
@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(variant, marks=[pytest.mark.slow] if place % 2 else [])
        for place, variant in enumerate(VARIANTS)
    ],
    ids=str,
)
def test_the_bundle_gives_the_top_10_and_scores_of_the_pipeline(
    variant: dict[str, Any],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    dataset = checkerboard(tmp_path_factory.getbasetemp())
    small = {"batch_size": 64, "epochs": 2}
    wanted = recipe(CHECKERBOARD_SCHEMA, retrieval=small | variant)
    run = train(dataset, tmp_path / "run", wanted, validate=ranking_metrics, quiet=True)
    pipeline = load_pipeline(run, dataset)
    export_bundle(tmp_path / "bundle", pipeline, name="toy", history="evaluation")
    users = np.arange(1, dataset.num_users)
    scores, rows = pipeline.recommend(users, 10, parts=KNOWN)
    ids = dataset.vocabularies["item"]
    recommender = Recommender.load(tmp_path / "bundle")
    for user, best, listed in zip(users.tolist(), scores, rows, strict=True):
        user_id = dataset.vocabularies["user"].id(user)
        answer = recommender.recommend(user_id, k=10)
        assert answer.source == "model"
        np.testing.assert_allclose(
            [item.score for item in answer.items], best[listed >= 0], atol=1e-4
        )
        if (np.abs(np.diff(best)) > 1e-4).all():
            assert [i.item_id for i in answer.items] == [ids.id(int(r)) for r in listed]
        first = answer.items[0]
        pair = recommender.score(user_id, [first.item_id])
        assert pair[0] == pytest.approx(first.score, abs=1e-4)
    check_similar(pipeline, recommender)
    known = pipeline.score_pairs(users, rows[:, 0], KNOWN)
    np.testing.assert_allclose(known, scores[:, 0], atol=1e-4)
    recommender.close()

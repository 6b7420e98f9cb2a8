"""A bundle answers as the trained Keras models do, and without Keras."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from shortlist.bundle.bundle import read_bundle
from shortlist.bundle.export import export_bundle, to_onnx
from shortlist.errors import ArtifactError, InputError
from shortlist.models.pipeline import Pipeline
from shortlist.serving.recommender import Recommender
from shortlist.training import load_pipeline
from toy import checkerboard, checkerboard_run, synthetic, synthetic_run

pytestmark = pytest.mark.backend

KNOWN = ("train", "validation")
TIE = 1e-5  # scores closer than this are equal to float32 sums
LEARNED = [(synthetic, synthetic_run), (checkerboard, checkerboard_run)]
NAMES = ["synthetic", "checkerboard"]


@pytest.fixture(scope="module", params=LEARNED, ids=NAMES)
def pipeline(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Pipeline:
    base = tmp_path_factory.getbasetemp()
    dataset, run = request.param
    return load_pipeline(run(base), dataset(base))


@pytest.fixture(scope="module")
def bundle(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "bundle"
    export_bundle(path, pipeline, name="toy", history="evaluation")
    return path


def test_the_recommender_gives_the_top_10_of_the_trained_model_to_every_user(
    pipeline: Pipeline, bundle: Path
) -> None:
    users = np.arange(1, pipeline.dataset.num_users)
    # Longer than 10: scores that are equal but for the last bit may change places.
    scores, rows = pipeline.recommend(users, 15, parts=KNOWN)
    items = pipeline.dataset.vocabularies["item"]
    recommender = Recommender.load(bundle)
    for user, user_scores, user_rows in zip(users, scores, rows, strict=True):
        user_id = pipeline.dataset.vocabularies["user"].id(int(user))
        answer = recommender.recommend(user_id, k=10)
        assert answer.source == "model"
        listed = user_rows >= 0
        expected = dict(
            zip(
                map(items.id, user_rows[listed].tolist()),
                user_scores[listed],
                strict=True,
            )
        )
        best = user_scores[listed][:10]
        assert len(answer.items) == len(best)
        got = [expected[item.item_id] for item in answer.items]
        np.testing.assert_allclose(got, best, atol=TIE)
        served = [item.score for item in answer.items]
        np.testing.assert_allclose(served, got, atol=1e-4)
    recommender.close()


def test_the_ranker_has_its_share_in_that_equality(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    base = tmp_path_factory.getbasetemp()
    pipeline = load_pipeline(synthetic_run(base), synthetic(base))
    users = np.arange(1, pipeline.dataset.num_users)
    assert pipeline.ranker_weight == 0.5
    _, with_ranker = pipeline.recommend(users, 10, parts=KNOWN)
    _, without = pipeline.retrieve(users, 10, KNOWN)
    assert (with_ranker != without).any(axis=1).mean() > 0.5


def test_pair_scores_are_those_of_the_trained_ranker(
    pipeline: Pipeline, bundle: Path
) -> None:
    rows = np.arange(1, min(pipeline.dataset.num_items, 30))
    user = np.full(len(rows), 3)
    expected = pipeline.score_pairs(user, rows, KNOWN)
    vocabularies = pipeline.dataset.vocabularies
    recommender = Recommender.load(bundle)
    ids = [vocabularies["item"].id(int(row)) for row in rows]
    scores = recommender.score(vocabularies["user"].id(3), ids)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    recommender.close()


def test_graphs_equal_the_keras_models_at_any_batch_size(pipeline: Pipeline) -> None:
    assert pipeline.ranker is not None
    for model in (pipeline.retrieval.model.user_tower, pipeline.ranker.scorer):
        session = onnxruntime.InferenceSession(to_onnx(model))
        (source,) = session.get_inputs()
        width = model.input_shape[-1]
        for batch_size in (1, 7, 64):
            generator = np.random.default_rng(batch_size)
            vectors = generator.normal(size=(batch_size, width)).astype(np.float32)
            (found,) = session.run(None, {source.name: vectors})
            expected = module_output(model, vectors)
            np.testing.assert_allclose(found, expected, atol=1e-5)


def module_output(model: object, vectors: np.ndarray) -> np.ndarray:
    import keras

    output = model(vectors, training=False)  # type: ignore[operator]
    return np.asarray(keras.ops.convert_to_numpy(output))


def test_the_bundle_knows_the_events_it_is_told_to(
    pipeline: Pipeline, bundle: Path, tmp_path: Path
) -> None:
    export_bundle(tmp_path / "all", pipeline, name="toy")
    dataset = pipeline.dataset
    for path, parts in ((bundle, KNOWN), (tmp_path / "all", (*KNOWN, "test"))):
        histories = read_bundle(path).contents.users["history"]
        events = dataset.part(*parts)
        for row in (0, 1, dataset.num_users - 1):
            mine = (events.user_index == row) & (events.item_index > 0) & (row > 0)
            assert histories[row].to_list() == events.item_index[mine].tolist()


def test_metrics_and_environment_travel_with_the_bundle(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    metrics = {"metrics": {"model": {"ndcg@10": 0.5}}}
    manifest = export_bundle(tmp_path / "b", pipeline, name="toy", metrics=metrics)
    assert manifest.metrics == metrics
    assert manifest.environment["packages"]["shortlist"] == manifest.shortlist_version
    with pytest.raises(InputError, match="exists already") as exists:
        export_bundle(tmp_path / "b", pipeline, name="toy")
    assert exists.value.code == "output-exists"


def test_a_model_with_nan_is_refused_and_leaves_nothing(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    engine = pipeline.retrieval.model.lookup.embedding
    rows = engine.get_embedding_tables()["user"].copy()
    broken = rows.copy()
    broken[2] = np.nan
    engine.set_embedding_tables({"user": broken})
    try:
        with pytest.raises(ArtifactError, match="must be finite") as caught:
            export_bundle(tmp_path / "bundle", pipeline, name="toy")
    finally:
        engine.set_embedding_tables({"user": rows})
    assert caught.value.code == "bundle-not-finite"
    assert list(tmp_path.iterdir()) == []


def test_serving_loads_no_training_framework(bundle: Path) -> None:
    code = (
        "import json, sys\n"
        "from shortlist.serving.recommender import Recommender\n"
        f"answer = Recommender.load({str(bundle)!r}).recommend(3, k=5)\n"
        "heavy = ('keras', 'keras_rs', 'jax', 'tensorflow', 'torch')\n"
        "print(json.dumps([len(answer.items), [m for m in heavy if m in sys.modules]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found, heavy = json.loads(done.stdout)
    assert found > 0
    assert heavy == []

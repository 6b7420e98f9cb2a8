"""Hashed, bucketized and limited features from the log to an answer of the server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from shortlist.bundle.bundle import read_bundle
from shortlist.bundle.export import export_bundle
from shortlist.data import Dataset, Feature, LogFiles, Schema, Split, prepare
from shortlist.embeddings.inputs import model_inputs
from shortlist.models.pipeline import Pipeline
from shortlist.models.ranker import Ranker
from shortlist.models.tower_scorer import TowerScorer
from shortlist.models.two_tower import TwoTower
from shortlist.serving.recommender import Recommender

pytestmark = pytest.mark.backend

NUM_USERS, NUM_ITEMS, HISTORY = 12, 16, 4
FEATURES = (
    Feature(name="zip", owner="user", kind="categorical", hash_buckets=5),
    Feature(name="age", owner="user", kind="bucketized", num_buckets=3),
    Feature(name="job", owner="user", kind="categorical", min_count=2, oov_buckets=3),
    Feature(
        name="words", owner="item", kind="multi_valued", hash_buckets=7, max_length=2
    ),
    Feature(name="price", owner="item", kind="bucketized", boundaries=(2.0, 9.99)),
    Feature(name="brand", owner="item", kind="categorical", max_size=2, oov_buckets=2),
    Feature(name="year", owner="item", kind="numeric", transform="quantile"),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", item, 1_600_000_000 + 60 * place)
        for user in range(NUM_USERS)
        for place, item in enumerate(rng.permutation(NUM_ITEMS)[:9].tolist())
    ]
    log = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    log.write_csv(folder / "log.csv")
    users = range(NUM_USERS - 1)  # the last one has no attributes
    pl.DataFrame(
        {
            "user": [f"u{n}" for n in users],
            "zip": [f"{n:05}" for n in users],
            "age": [None, *(20.0 + n for n in users[1:])],
            "job": ["pilot", "writer", "baker"] * 3 + ["spy", None],
        }
    ).write_parquet(folder / "users.parquet")
    pl.DataFrame(
        {
            "item": range(NUM_ITEMS),
            "words": [f"w{n}|w{n % 3}|more" if n % 5 else "" for n in range(NUM_ITEMS)],
            "price": [None, *(9.99 * n / 8 for n in range(1, NUM_ITEMS))],
            "brand": [*"aaabbbccddefghij"],
            "year": [1990.0 + n for n in range(NUM_ITEMS)],
        }
    ).write_parquet(folder / "items.parquet")
    schema = Schema(user_id="user", item_id="item", timestamp="time", features=FEATURES)
    return prepare(
        LogFiles(
            folder / "log.csv",
            users=folder / "users.parquet",
            items=folder / "items.parquet",
        ),
        schema,
        folder / "dataset",
        split=Split(kind="last_n", test=1, validation=1),
    )


def untrained(dataset: Dataset) -> Pipeline:
    """Untrained models: what they answer is as good a test as any."""
    inputs = model_inputs(
        dataset.schema, embedding_dim=6, feature_dim=3, history_length=HISTORY
    )
    retrieval = TwoTower(inputs, dataset.table_rows, embedding_dim=6)
    ranker = Ranker(inputs, dataset.table_rows, hidden_units=(5,))
    retrieval.build()
    ranker.build()
    return Pipeline(
        dataset,
        TowerScorer(retrieval, dataset, HISTORY),
        ranker,
        ranker_history=HISTORY,
        ranker_weight=0.5,
        candidates=NUM_ITEMS,
    )


def test_server_answers_as_the_models_over_every_kind_of_feature(
    dataset: Dataset, tmp_path: Path
) -> None:
    pipeline = untrained(dataset)
    export_bundle(tmp_path / "bundle", pipeline, name="kinds")
    tables = read_bundle(tmp_path / "bundle").contents.ranker.tables
    sizes = {name: len(rows) for name, rows in tables.items()}
    assert sizes == dataset.table_rows
    assert (sizes["zip"], sizes["words"], sizes["price"]) == (6, 8, 4)
    assert (sizes["job"], sizes["brand"]) == (3 + 3, 2 + 2)
    parts = ("train", "validation", "test")
    rows = np.arange(1, dataset.num_users)
    scores, listed = pipeline.recommend(rows, 5, parts=parts)
    recommender = Recommender.load(tmp_path / "bundle")
    users, items = (dataset.vocabularies[name] for name in ("user", "item"))
    for row, best, found in zip(rows.tolist(), scores, listed, strict=True):
        answer = recommender.recommend(users.id(row), k=5)
        assert answer.source == "model"
        np.testing.assert_allclose(
            [item.score for item in answer.items], best, atol=1e-4
        )
        gaps = np.abs(np.diff(best)) > 1e-5
        if gaps.all():
            assert [item.item_id for item in answer.items] == [
                items.id(int(item)) for item in found
            ]
    recommender.close()

"""The baseline: counts of events."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from shortlist.data import Dataset, Schema, Split, prepare
from shortlist.models.scorers.popularity import Popularity
from shortlist.models.scorers.queries import Queries
from shortlist.models.scorers.scorer import LAST


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    log = {
        "user": ["a"] * 4 + ["b"] * 4 + ["c"] * 4,
        "item": ["v", "x", "y", "z", "x", "v", "z", "y", "x", "z", "y", "w"],
        "time": [1_600_000_000 + i for i in range(12)],
    }
    pl.DataFrame(log).write_csv(tmp_path / "log.csv")
    schema = Schema(user_id="user", item_id="item", timestamp="time")
    split = Split(kind="last_n", test=1, validation=1)
    return prepare(tmp_path / "log.csv", schema, tmp_path / "dataset", split=split)


def test_counts_are_the_events_of_the_training_part(dataset: Dataset) -> None:
    rows = dataset.vocabularies["item"].lookup(["v", "x", "y", "z", "w"])
    assert rows[4] == 0  # "w" came in the test part alone
    model = Popularity().fit(dataset)
    assert model.counts[rows[:4]].tolist() == [2, 3, 0, 1]
    assert model.counts[0] == 0 and model.counts.dtype == np.int64


def test_counts_of_more_parts_are_added_up(dataset: Dataset) -> None:
    rows = dataset.vocabularies["item"].lookup(["v", "x", "y", "z"])
    model = Popularity().fit(dataset, ("train", "validation"))
    assert model.counts[rows].tolist() == [2, 3, 2, 2]


def test_everybody_gets_the_same_score(dataset: Dataset) -> None:
    model = Popularity().fit(dataset, ("train", "validation"))
    x, y = dataset.vocabularies["item"].lookup(["x", "y"])
    queries = Queries.from_lists([1, 2, 3], [[], [x], []])
    scores = model.score(queries, np.arange(3), np.array([x, x, y]))
    assert scores.tolist() == [3.0, 3.0, 2.0] and scores.dtype == np.float32


def test_an_unknown_item_scores_last(dataset: Dataset) -> None:
    model = Popularity().fit(dataset, ("train", "validation", "test"))
    scores = model.score(Queries.from_lists([1], [[]]), np.array([0]), np.array([0]))
    assert scores.tolist() == [LAST]

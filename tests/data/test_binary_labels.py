"""With a binary label, what was shown and not clicked was not taken."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

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
from shortlist.evaluation.truth import relevant_items

SCHEMA = Schema(
    user_id="user",
    item_id="item",
    timestamp="time",
    label="click",
    label_kind="binary",
    label_min=0,
    label_max=1,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("clicks")
    generator = np.random.default_rng(0)
    rows = [
        (user, f"i{item}", int(generator.random() < 0.4), 1_000_000 * user + place)
        for user in range(1, 9)
        for place, item in enumerate(generator.permutation(12).tolist())
    ]
    # An advertisement that everybody saw and nobody clicked.
    rows += [(user, "ad", 0, 1_000_000 * user + 500_000) for user in range(1, 9)]
    log = pl.DataFrame(rows, schema=["user", "item", "click", "time"], orient="row")
    log.write_csv(folder / "log.csv")
    split = Split(kind="last_n", test=4, validation=2)
    return prepare(folder / "log.csv", SCHEMA, folder / "dataset", split=split)


def test_counts_and_histories_hold_clicks_only(dataset: Dataset) -> None:
    train = dataset.part("train")
    clicked = train.item_index[(train.label == 1) & (train.item_index > 0)]
    counts = dataset.item_counts("train")
    assert counts.sum() == len(clicked)
    users = np.arange(1, dataset.num_users)
    offsets, items = dataset.histories("train").seen(users)
    assert sorted(items.tolist()) == sorted(clicked.tolist())
    known = dataset.interactions("train", "validation")
    vocabulary = dataset.vocabularies["item"]
    expected = np.bincount(known.item_index, minlength=len(vocabulary))
    assert vocabulary.counts.tolist() == expected.tolist()


def test_retrieval_is_trained_on_clicks_only(dataset: Dataset) -> None:
    rows = TrainingExamples(
        dataset, options=ExampleOptions(history_length=3, interactions_only=True)
    )
    train = dataset.part("train")
    assert len(rows) == int((train.label == 1).sum())
    batch = rows.take(np.arange(len(rows)), np.random.default_rng(0))
    np.testing.assert_array_equal(
        batch["item_index"], train.item_index[train.label == 1]
    )
    assert set(batch["label"].tolist()) == {1.0}


def test_a_ranker_keeps_what_was_not_clicked_as_a_negative(dataset: Dataset) -> None:
    options = ExampleOptions(negatives=Negatives("uniform", 2))
    rows = TrainingExamples(dataset, options=options)
    loader = Loader(rows, batch_size=8)
    train = dataset.part("train")
    labels = {
        (int(user), int(item)): float(label)
        for user, item, label in zip(
            train.user_index, train.item_index, train.label, strict=True
        )
    }
    seen = 0
    for batch in loader.epoch(0):
        own = slice(None, None, 3)  # the event, then its two drawn items
        for user, item, label in zip(
            batch["user_index"][own],
            batch["item_index"][own],
            batch["label"][own],
            strict=True,
        ):
            assert labels[int(user), int(item)] == label
            seen += label == 0
        assert batch["label"].reshape(-1, 3)[:, 1:].max() == 0
    assert seen > 0


@pytest.mark.backend
def test_users_with_a_new_click_are_the_ones_validated(dataset: Dataset) -> None:
    from shortlist.training.job import measurable_users

    offsets, _ = relevant_items(dataset, np.arange(dataset.num_users), "validation")
    assert (
        measurable_users(dataset).tolist() == np.flatnonzero(np.diff(offsets)).tolist()
    )


def test_only_clicks_are_relevant(dataset: Dataset) -> None:
    users = np.arange(1, dataset.num_users)
    offsets, items = relevant_items(dataset, users, "test")
    test = dataset.part("test")
    for place, user in enumerate(users):
        mine = test.item_index[(test.user_index == user) & (test.label == 1)]
        found = items[offsets[place] : offsets[place + 1]]
        assert sorted(found.tolist()) == sorted(mine.tolist())
    assert not (test.label == 1).all()

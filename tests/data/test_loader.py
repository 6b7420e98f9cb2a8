"""Batches: what an epoch visits, what each row holds and how it is repeated."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from shortlist.data.dataset import Dataset
from shortlist.data.loader import Loader, item_features, pair_features, user_features
from shortlist.data.prepare import prepare
from shortlist.data.schema import Feature, Schema
from shortlist.data.split import Split
from shortlist.data.synthetic import SyntheticLog, generate
from shortlist.errors import InputError

SCHEMA = Schema(
    user_id="user_id",
    item_id="item_id",
    timestamp="timestamp_ms",
    label="rating",
    label_kind="explicit",
    features=(
        Feature(name="segment", owner="user", kind="categorical"),
        Feature(name="tags", owner="item", kind="multi_valued"),
        Feature(name="price", owner="item", kind="numeric"),
    ),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("loader")
    log = generate(SyntheticLog(num_users=30, num_items=20, num_events=500, seed=1))
    for table in ("events", "users", "items"):
        log.write_csv(folder / f"{table}.csv", table)
    return prepare(
        folder / "events.csv",
        SCHEMA,
        folder / "dataset",
        users=folder / "users.csv",
        items=folder / "items.csv",
    )


def loader(dataset: Dataset, **options) -> Loader:
    return Loader(dataset, **{"batch_size": 32, "history_length": 4, **options})


def keys(batch, rows=slice(None)):
    """(user, item, label) of the rows of a batch."""
    columns = (
        batch[name][rows].tolist() for name in ("user_index", "item_index", "label")
    )
    return list(zip(*columns, strict=True))


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_every_batch_has_the_same_shapes_and_types(dataset):
    batches = list(loader(dataset).epoch(0))
    assert len(batches) == len(loader(dataset)) == len(dataset.part("train")) // 32
    expected = {
        "user_index": (np.int32, (32,)),
        "item_index": (np.int32, (32,)),
        "segment": (np.int32, (32,)),
        "tags": (np.int32, (32, 2)),
        "price": (np.float32, (32,)),
        "history": (np.int32, (32, 4)),
        "sampling_probability": (np.float32, (32,)),
        "label": (np.float32, (32,)),
    }
    for batch in batches:
        assert {k: (v.dtype, v.shape) for k, v in batch.items()} == expected


def test_epoch_visits_every_event_at_most_once_and_most_of_them(dataset):
    one = loader(dataset)
    order = one.order(3)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(one.events)))
    part = dataset.part("train")
    columns = (part.user_index, part.item_index, part.label)
    left = list(zip(*(c.tolist() for c in columns), strict=True))
    for batch in one.epoch(3):
        for key in keys(batch):
            left.remove(key)  # fails at a second visit
    assert len(left) == len(part) % 32


def test_part_smaller_than_a_batch_makes_one_batch(dataset):
    one = loader(dataset, batch_size=10_000)
    (batch,) = one.epoch(0)
    assert len(one) == 1
    assert len(batch["label"]) == len(dataset.part("train"))


def test_epochs_repeat_by_seed_and_number_alone(dataset):
    options = {"seed": 5, "negatives": 2, "unknown_rate": 0.3}
    first = loader(dataset, **options)
    list(first.epoch(0))  # what was read before makes no difference
    again = loader(dataset, **options)
    for one, other in zip(first.epoch(2), again.epoch(2), strict=True):
        assert_same(one, other)
    single = again.batch(again.order(2), 4, 2)
    assert_same(single, next(itertools.islice(first.epoch(2), 4, None)))


def test_epochs_and_seeds_differ(dataset):
    orders = [
        loader(dataset, seed=seed).order(epoch).tolist()
        for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]
    assert len({tuple(order) for order in orders}) == 4


def test_random_draws_of_a_batch_are_not_those_of_its_order(dataset):
    # The generators of (seed, epoch) and (seed, epoch, 0) would be one and the same.
    one = loader(dataset, seed=7, unknown_rate=0.5, batch_size=400)
    batch = one.batch(np.arange(400), 0, 1)
    same_stream = np.random.default_rng([7, 1]).random(len(batch["label"])) < 0.5
    assert ((batch["user_index"] == 0) != same_stream).any()


def test_features_are_those_of_the_row(dataset):
    features = dataset.features
    for batch in loader(dataset, negatives=1, unknown_rate=0.2).epoch(0):
        users, items = batch["user_index"], batch["item_index"]
        np.testing.assert_array_equal(batch["segment"], features["segment"][users])
        np.testing.assert_array_equal(batch["tags"], features["tags"][items])
        np.testing.assert_array_equal(batch["price"], features["price"][items])


def test_features_agree_with_the_attribute_file(dataset):
    items = pl.read_csv(dataset.path.parent / "items.csv")
    rows = dataset.vocabularies["item"].lookup(items["item_id"].to_list())
    found = item_features(dataset, rows)
    tags = dataset.vocabularies["tags"]
    for n, text in enumerate(items["tags"].to_list()):
        names = [tags.id(row) for row in found["tags"][n].tolist() if row != -1]
        assert "|".join(names) == text or rows[n] == 0
    known = rows > 0
    prices = items["price"].to_numpy()[known]
    expected = (prices - prices.mean()) / prices.std(ddof=1)
    np.testing.assert_allclose(found["price"][known], expected, rtol=1e-4, atol=1e-5)


def test_history_is_the_training_events_before_the_event(dataset):
    part = dataset.part("train")
    one = loader(dataset, batch_size=len(part))
    order = np.arange(len(part))
    history = one.batch(order, 0, 0)["history"]
    events = list(
        zip(
            part.user_index.tolist(),
            part.timestamp_ms.tolist(),
            part.item_index.tolist(),
        )
    )
    for (user, time, _), row in zip(events, history.tolist(), strict=True):
        before = [item for u, t, item in events if u == user and t < time][-4:]
        assert row == before + [-1] * (4 - len(before))


def test_history_may_come_from_other_parts(dataset):
    held_out = loader(
        dataset, parts=("validation",), history_parts=("train", "validation")
    )
    known = dataset.part("train", "validation")
    batch = held_out.batch(np.arange(len(held_out.events)), 0, 0)
    for n in range(held_out.batch_size):
        user, time = held_out.events.user_index[n], held_out.events.timestamp_ms[n]
        mine = (known.user_index == user) & (known.timestamp_ms < time)
        before = known.item_index[mine][-4:].tolist()
        assert batch["history"][n].tolist() == before + [-1] * (4 - len(before))


def test_without_history_there_is_no_such_key(dataset):
    batch = next(loader(dataset, history_length=0).epoch(0))
    assert "history" not in batch


def test_sampling_probability_is_the_share_of_training_events(dataset):
    counts = np.bincount(dataset.part("train").item_index, minlength=dataset.num_items)
    shares = counts / counts.sum()
    for batch in loader(dataset).epoch(0):
        np.testing.assert_allclose(
            batch["sampling_probability"], shares[batch["item_index"]], rtol=1e-6
        )


def test_negatives_are_other_items_with_label_zero(dataset):
    one = loader(dataset, negatives=3)
    plain = loader(dataset)
    candidates = set(dataset.part("train").item_index.tolist())
    drawn = []
    for batch, positives in zip(one.epoch(1), plain.epoch(1), strict=True):
        assert len(batch["label"]) == 32 * 4
        np.testing.assert_array_equal(batch["label"], [1, 0, 0, 0] * 32)
        own = batch["item_index"][::4]
        np.testing.assert_array_equal(own, positives["item_index"])
        for name in ("user_index", "history", "segment"):
            np.testing.assert_array_equal(
                batch[name], np.repeat(positives[name], 4, axis=0)
            )
        others = batch["item_index"].reshape(32, 4)[:, 1:]
        assert (others != own[:, None]).all()
        drawn += others.ravel().tolist()
    assert set(drawn) == candidates


def test_negatives_are_uniform_over_the_other_items(dataset):
    one = loader(dataset)
    one.negatives = 20_000
    candidates = one.candidates
    for item in (candidates[0], candidates[7], candidates[-1]):
        others = one._others(np.array([item]), np.random.default_rng(0))
        counts = np.bincount(others[0], minlength=dataset.num_items)
        assert counts[item] == 0 and counts[0] == 0
        expected = 20_000 / (len(candidates) - 1)
        rest = counts[candidates[candidates != item]]
        assert np.abs(rest - expected).max() < 6 * np.sqrt(expected)
    # An item that is no candidate leaves all of them.
    others = one._others(np.array([0]), np.random.default_rng(0))
    assert set(others[0].tolist()) == set(candidates.tolist())


def test_without_negatives_the_label_is_the_event_s_own(dataset):
    labels = np.concatenate([b["label"] for b in loader(dataset).epoch(0)])
    assert set(labels.tolist()) <= {1.0, 2.0, 3.0, 4.0, 5.0}
    assert len(set(labels.tolist())) > 2


def test_unknown_rate_hides_users_but_not_their_history(dataset):
    known = np.concatenate([b["user_index"] for b in loader(dataset).epoch(0)])
    assert (known > 0).all()
    hidden = []
    pairs = zip(
        loader(dataset, unknown_rate=0.4).epoch(0),
        loader(dataset).epoch(0),
        strict=True,
    )
    for batch, plain in pairs:
        unknown = batch["user_index"] == 0
        hidden += unknown.tolist()
        np.testing.assert_array_equal(
            batch["user_index"][~unknown], plain["user_index"][~unknown]
        )
        assert (batch["segment"][unknown] == dataset.features["segment"][0]).all()
        for name in ("item_index", "history", "label"):
            np.testing.assert_array_equal(batch[name], plain[name])
    share, n = np.mean(hidden), len(hidden)
    assert abs(share - 0.4) < 4 * np.sqrt(0.4 * 0.6 / n)


def test_pairs_hold_both_sides(dataset):
    users, items = np.array([1, 2]), np.array([3, 0])
    expected = user_features(dataset, users) | item_features(dataset, items)
    assert_same(pair_features(dataset, users, items), expected)
    assert set(expected) == {"user_index", "item_index", "segment", "tags", "price"}


def write_log(path: Path, rows: list[tuple[str, str, int]]) -> Path:
    pl.DataFrame(rows, schema=["u", "i", "t"], orient="row").write_csv(path)
    return path


def test_empty_part_is_refused(tmp_path):
    rows = [(u, i, t) for u in "ab" for t, i in enumerate("xyz", start=10**9)]
    dataset = prepare(
        write_log(tmp_path / "log.csv", rows),
        Schema(user_id="u", item_id="i", timestamp="t"),
        tmp_path / "dataset",
        split=Split(test=0, validation=0),
    )
    assert len(loader(dataset).events) == 6
    with pytest.raises(InputError, match=r"\('test',\) must hold events") as caught:
        loader(dataset, parts=("test",))
    assert caught.value.code == "part-empty"


def test_negatives_need_a_second_item(tmp_path):
    rows = [(u, i, t) for u in "ab" for t, i in enumerate("xyx", start=10**9)]
    dataset = prepare(
        write_log(tmp_path / "log.csv", rows),
        Schema(user_id="u", item_id="i", timestamp="t"),
        tmp_path / "dataset",
        split=Split(kind="last_n", test=1, validation=0),
    )
    assert len(loader(dataset, parts=("test",)).events) == 2
    with pytest.raises(InputError, match="at least 2 items") as caught:
        loader(dataset, parts=("test",), negatives=1)
    assert caught.value.code == "log-too-small"

"""Sources: what each row of a batch holds, and what is drawn beside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from shortlist.data import (
    Dataset,
    ExampleOptions,
    Feature,
    Loader,
    LogFiles,
    Negatives,
    Schema,
    Split,
    TrainingExamples,
    prepare,
)
from shortlist.data.load.examples import (
    Batch,
    item_features,
    pair_features,
    user_features,
)
from shortlist.data.store.columns import Columns
from shortlist.errors import InputError
from shortlist.public_data.synthetic import SyntheticLog, generate

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
        LogFiles(
            folder / "events.csv",
            users=folder / "users.csv",
            items=folder / "items.csv",
        ),
        SCHEMA,
        folder / "dataset",
    )


def rows(dataset: Dataset, parts: tuple[str, ...] = ("train",), **options: Any):
    return TrainingExamples(
        dataset, parts, ExampleOptions(**{"history_length": 4, **options})
    )


def loader(dataset: Dataset, **options: Any) -> Loader:
    return Loader(rows(dataset, **options), batch_size=32)


def everything(source: TrainingExamples, seed: int = 0) -> Batch:
    """All rows of a source, in order."""
    return source.take(np.arange(len(source)), np.random.default_rng(seed))


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


def test_features_are_those_of_the_row(dataset):
    features = dataset.features
    for batch in loader(
        dataset, negatives=Negatives("uniform", 1), unknown_rate=0.2
    ).epoch(0):
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


def test_rows_are_the_events_in_order(dataset):
    part = dataset.part("train")
    found = everything(rows(dataset))
    assert len(rows(dataset)) == len(part)
    for name in ("user_index", "item_index", "label"):
        np.testing.assert_array_equal(found[name], getattr(part, name))
    some = np.array([7, 3, 7])
    taken = rows(dataset).take(some, np.random.default_rng(0))
    assert_same(taken, {name: values[some] for name, values in found.items()})


def test_no_rows_make_an_empty_batch(dataset):
    source = rows(dataset, negatives=Negatives("popularity", 2))
    empty = source.take(np.arange(0), np.random.default_rng(0))
    some = source.take(np.arange(1), np.random.default_rng(0))
    for name, values in some.items():
        assert empty[name].dtype == values.dtype
        assert empty[name].shape == (0, *values.shape[1:])


def test_history_is_the_training_events_before_the_event(dataset):
    history = everything(rows(dataset))["history"]
    for event, row in zip(events_of(dataset, "train"), history.tolist(), strict=True):
        assert row == before(event, events_of(dataset, "train"))


def test_history_may_come_from_other_parts(dataset):
    known = ("train", "validation")
    held_out = rows(dataset, ("validation",), history_parts=known)
    events = events_of(dataset, "validation")
    mine = [event for event in events if event[0] and event[2]]
    history = everything(held_out)["history"]
    for event, row in zip(mine, history.tolist(), strict=True):
        assert row == before(event, events_of(dataset, *known))


@pytest.mark.parametrize("minutes", [0.5, 40_000, 400_000])
def test_a_history_may_be_that_of_the_session_alone(dataset, monkeypatch, minutes):
    monkeypatch.setattr(Schema, "session_gap_minutes", minutes, raising=False)
    source = rows(dataset, session_only=True)
    events = events_of(dataset, "train")
    lengths = []
    for event, row in zip(events, everything(source)["history"].tolist(), strict=True):
        session, moment = [], event[1]
        for user, time, item in reversed(events):
            if user == event[0] and time < event[1]:
                if moment - time > minutes * 60_000:
                    break
                session, moment = [item, *session], time
        assert row == padded(session[-4:])
        lengths.append(len(session))
    assert 0 in lengths and (max(lengths) > 4) == (minutes > 1)


def test_a_session_needs_its_gap(dataset):
    with pytest.raises(InputError, match="needs `session_gap_minutes`") as caught:
        rows(dataset, session_only=True)
    assert caught.value.code == "invalid-loader"


def events_of(dataset: Dataset, *parts: str) -> list[tuple[int, int, int]]:
    """(user, time, item) by user and time."""
    part = dataset.part(*parts)
    columns = (part.user_index, part.timestamp_ms, part.item_index)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def before(event: tuple[int, int, int], known: list) -> list[int]:
    user, time, _ = event
    return padded([i for u, t, i in known if u == user and t < time and i > 0][-4:])


def padded(items: list[int]) -> list[int]:
    return items + [-1] * (4 - len(items))


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


@pytest.mark.parametrize("kind", ["uniform", "popularity"])
def test_negatives_are_other_items_with_label_zero(dataset, kind):
    one = loader(dataset, negatives=Negatives(kind, 3, 0.5))
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


def test_items_of_the_batch_serve_without_a_draw(dataset):
    plain = everything(rows(dataset))
    assert_same(everything(rows(dataset, negatives=Negatives("in_batch"))), plain)


def test_mixed_negatives_stand_beside_the_batch(dataset):
    source = rows(dataset, negatives=Negatives("mixed", 600))
    batch, plain = everything(source), everything(rows(dataset))
    own = {name: values for name, values in batch.items() if name in plain}
    assert_same(own, plain)
    assert set(batch) - set(plain) == {
        *("negative_item_index", "negative_tags", "negative_price"),
        *("negative_sampling_probability", "negative_share"),
    }
    items = batch["negative_item_index"]
    assert items.dtype == np.int32 and items.shape == (600,)
    candidates = np.unique(dataset.part("train").item_index)
    assert set(items.tolist()) == set(candidates[candidates > 0].tolist())
    for name in ("tags", "price"):
        expected = dataset.features[name][items]
        np.testing.assert_array_equal(batch[f"negative_{name}"], expected)
    chance = batch["negative_sampling_probability"]
    np.testing.assert_array_equal(chance, np.float32(1 / (candidates > 0).sum()))
    again = source.take(np.arange(3), np.random.default_rng(1))
    assert (again["negative_item_index"] != items).any()


def test_the_share_of_a_drawn_item_is_that_of_the_batch_s_own(dataset):
    batch = everything(rows(dataset, negatives=Negatives("mixed", 600)))
    shares = dict(
        zip(
            batch["item_index"].tolist(),
            batch["sampling_probability"].tolist(),
            strict=True,
        )
    )
    expected = [shares[item] for item in batch["negative_item_index"].tolist()]
    assert batch["negative_share"].tolist() == expected


def test_all_negatives_are_the_catalogue_in_every_batch(dataset):
    source = rows(dataset, negatives=Negatives("all"))
    assert source.draws
    batch = source.take(np.arange(3), np.random.default_rng(0))
    items = np.arange(1, dataset.num_items)
    np.testing.assert_array_equal(batch["negative_item_index"], items)
    np.testing.assert_array_equal(batch["negative_tags"], dataset.features["tags"][1:])


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


def test_others_hold_all_else_and_hidden_users_what_is_near(dataset):
    columns = dataset.part("train")
    options = {"history_from": "others", "history_length": 200}
    source = rows(dataset, **options, unknown_rate=0.5, unknown_within=120.0)
    every = np.arange(len(source))
    batch = source.take(every, np.random.default_rng(0))
    hidden = batch["user_index"] == 0
    assert 0.2 < hidden.mean() < 0.8
    for row in every[:200]:
        own = columns.user_index == columns.user_index[row]
        own &= columns.item_index != columns.item_index[row]
        if hidden[row]:
            apart = columns.timestamp_ms - columns.timestamp_ms[row]
            own &= np.abs(apart) <= 120_000
        found = batch["history"][row]
        np.testing.assert_array_equal(found[found >= 0], columns.item_index[own])


def test_dropout_thins_histories_and_is_part_of_the_fingerprint(dataset):
    options = {"history_from": "others", "history_length": 200}
    whole, thinned = (
        rows(dataset, **options),
        rows(dataset, **options, history_dropout=0.25),
    )
    every = np.arange(len(whole))
    full = whole.take(every, np.random.default_rng(0))["history"]
    kept = thinned.take(every, np.random.default_rng(0))["history"]
    assert ((kept == full) | (kept == -1)).all()
    share, n = (kept >= 0).sum() / (full >= 0).sum(), (full >= 0).sum()
    assert abs(share - 0.75) < 4 * np.sqrt(0.75 * 0.25 / n)
    assert thinned.draws and not whole.draws
    prints = {rows(dataset).fingerprint, whole.fingerprint, thinned.fingerprint}
    assert len(prints) == 3


def test_pairs_hold_both_sides(dataset):
    users, items = np.array([1, 2]), np.array([3, 0])
    expected = user_features(dataset, users) | item_features(dataset, items)
    assert_same(pair_features(dataset, users, items), expected)
    assert set(expected) == {"user_index", "item_index", "segment", "tags", "price"}


def write_log(path: Path, rows: list[tuple[str, str, int]]) -> Path:
    pl.DataFrame(rows, schema=["u", "i", "t"], orient="row").write_csv(path)
    return path


def prepared(folder: Path, rows: list[tuple[str, str, int]], split: Split) -> Dataset:
    log = write_log(folder / "log.csv", rows)
    schema = Schema(user_id="u", item_id="i", timestamp="t")
    return prepare(log, schema, folder / "dataset", split=split)


def test_empty_part_is_refused(tmp_path):
    log = [(u, i, t) for u in "ab" for t, i in enumerate("xyz", start=10**9)]
    dataset = prepared(tmp_path, log, Split(test=0, validation=0))
    assert len(rows(dataset)) == 6
    with pytest.raises(InputError, match=r"\('test',\) must hold events") as caught:
        rows(dataset, ("test",))
    assert caught.value.code == "part-empty"


def test_negatives_need_a_second_item(tmp_path):
    log = [(u, i, t) for u in "ab" for t, i in enumerate("xyx", start=10**9)]
    split = Split(kind="last_n", test=1, validation=0)
    dataset = prepared(tmp_path, log, split)
    assert len(rows(dataset, ("test",))) == 2
    with pytest.raises(InputError, match="at least 2 items") as caught:
        rows(dataset, ("test",), negatives=Negatives("uniform", 1))
    assert caught.value.code == "log-too-small"


def test_events_of_unknown_items_are_left_out(tmp_path):
    log = [(u, i, t) for u in "abc" for t, i in enumerate("xyzx", start=10**9)]
    log += [("a", "new", 10**9 + 9), ("b", "x", 10**9 + 8), ("c", "new", 10**9 + 7)]
    dataset = prepared(tmp_path, log, Split(kind="last_n", test=1, validation=0))
    assert dataset.part("test").item_index.tolist().count(0) == 2
    source = rows(dataset, ("test",), history_parts=("train",))
    found = everything(source)
    assert len(source) == 1
    assert dataset.vocabularies["user"].id(int(found["user_index"][0])) == "b"


def widened(columns: Columns) -> Columns:
    """The events with all the columns that a schema can ask for."""
    n = np.arange(len(columns))
    arrays = {name: columns.column(name) for name in columns.names}
    return Columns.from_arrays(
        {
            **arrays,
            "weight": (1 + n % 5).astype(np.float32),
            "session_index": n.astype(np.int32),
            "feature:device": (n % 3).astype(np.int32),
            "feature:shown": np.stack([n, n + 1], axis=1).astype(np.int32),
        }
    )


def test_features_and_weights_of_an_event_come_with_it(dataset, monkeypatch):
    plain = everything(rows(dataset))
    columns = widened(dataset.columns("train"))
    monkeypatch.setattr(dataset, "columns", lambda *parts: columns)
    found = everything(rows(dataset))
    n = np.arange(len(found["label"]))
    added = {"device": n % 3, "shown": np.stack([n, n + 1], axis=1)}
    assert_same(found, {**plain, **added, "sample_weight": 1 + n % 5})
    assert found["sample_weight"].dtype == np.float32
    # What is drawn for an event is seen in its context and weighs 1.
    source = rows(dataset, negatives=Negatives("uniform", 2))
    repeated = everything(source)
    for name in ("device", "shown"):
        expected = np.repeat(found[name], 3, axis=0)
        np.testing.assert_array_equal(repeated[name], expected)
    weights = repeated["sample_weight"].reshape(-1, 3)
    np.testing.assert_array_equal(weights[:, 0], found["sample_weight"])
    np.testing.assert_array_equal(weights[:, 1:], 1)


def test_fingerprints_tell_what_changes_a_batch(dataset, monkeypatch):
    changes: list[dict[str, Any]] = [
        *({}, {"parts": ("train", "validation")}, {"history_length": 5}),
        *({"interactions_only": True}, {"unknown_rate": 0.1}),
        *({"history_parts": ("train", "validation")},),
        *({"negatives": Negatives("uniform", 2)},),
        *({"negatives": Negatives("popularity", 2)},),
        {"negatives": Negatives("popularity", 2, power=1.0)},
    ]
    prints = [rows(dataset, **options).fingerprint for options in changes]
    assert len(set(prints)) == len(changes)
    assert prints == [rows(dataset, **options).fingerprint for options in changes]
    monkeypatch.setattr(Schema, "session_gap_minutes", 9, raising=False)
    assert rows(dataset, session_only=True).fingerprint not in prints


@pytest.mark.parametrize(
    "options",
    [
        {"history_length": -1},
        {"unknown_rate": 1.5},
        {"unknown_rate": float("nan")},
        {"history_from": "other"},
        {"history_dropout": 1.0},
        {"unknown_within": 0.0, "history_from": "others"},
        {"unknown_within": 60.0},
    ],
)
def test_arguments_out_of_range_are_refused(dataset, options):
    with pytest.raises(InputError, match=next(iter(options))) as caught:
        rows(dataset, **options)
    assert caught.value.code == "invalid-loader"


def test_options_default_to_the_events_alone(dataset):
    plain = TrainingExamples(dataset)
    assert plain.fingerprint == rows(dataset, history_length=0).fingerprint
    assert "history" not in everything(plain) and not plain.draws
    with pytest.raises(AttributeError):
        ExampleOptions().history_length = 3  # frozen


def test_fingerprints_stay_those_of_earlier_versions(dataset):
    # The state of an interrupted run contains them. Written out from the definition.
    options = {"history_length": 5, "unknown_rate": 0.1}
    negatives = {"kind": "uniform", "count": 2, "power": 0.75}
    known = ["train", "|", "train"]
    for source, identity in (
        (rows(dataset, **options), [*known, 5, False, 0.1, None, None]),
        (
            rows(dataset, negatives=Negatives("uniform", 2)),
            [*known, 4, False, 0.0, negatives, None],
        ),
        (
            rows(dataset, history_from="others", history_dropout=0.5),
            [*known, 4, False, 0.0, None, None, "others", 0.5, None],
        ),
    ):
        raw = json.dumps([dataset.info.fingerprint, *identity], separators=(",", ":"))
        expected = hashlib.sha256(raw.encode()).hexdigest()[:16]
        assert source.fingerprint == expected

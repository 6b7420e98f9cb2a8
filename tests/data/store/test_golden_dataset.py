"""A dataset of a released format is read as it was on the day it was written.

A directory in tests/golden is never rewritten. A new format gets a new one;
tests/golden_dataset.py says how this one was made.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from golden_dataset import SCHEMA, make
from shortlist.data import Dataset, ExampleOptions, Loader, TrainingExamples
from shortlist.data.store.dataset_info import fingerprint
from shortlist.data.store.file_fingerprints import changed

GOLDEN = Path(__file__).parents[2] / "golden" / "dataset-v2"
FINGERPRINT = "0c8bf1cb3452b7d7"
# user_index, item_index, seconds, weight, session_index, feature:device, feature:tags
EVENTS = {
    "events/00000.arrow": [
        (1, 1, 1_700_000_000, 1.5, 0, 3, [1, 2]),
        (1, 2, 1_700_000_060, 2.5, 0, 3, [1]),
        (1, 3, 1_700_010_000, 2.0, 1, 2, []),
        (2, 1, 1_700_000_100, 1.5, 0, 2, [2]),
        (2, 3, 1_700_000_300, 3.5, 0, 0, [1, 3]),
    ],
    "events/00001.arrow": [
        (1, 0, 1_700_020_300, 1.5, 2, 2, [2]),
        (3, 1, 1_700_020_100, 2.0, 0, 3, [3]),
        (3, 2, 1_700_020_200, 1.5, 0, 3, [1]),
    ],
    "events/00002.arrow": [
        (2, 1, 1_700_030_000, 3.0, 1, 1, [0]),
        (4, 4, 1_700_040_000, 1.5, 0, 3, [1]),
    ],
    "events/00003.arrow": [
        (1, 4, 1_700_100_000, 1.5, 0, 3, [1]),
        (4, 1, 1_700_100_100, 2.0, 0, 0, [2]),
        (5, 5, 1_700_100_200, 2.5, 0, 2, [1, 0]),
    ],
}
VOCABULARIES = {
    "user": ([None, "ann", "bob", "cid", "dan"], [0, 4, 2, 2, 0]),
    "item": ([None, 10, 20, 30, 50], [0, 4, 2, 2, 1]),
    "genres": ([None, "pop", "rock"], [0, 2, 1]),
    "device": ([None, None, "tv", "web"], [0, 0, 2, 2]),
    "tags": ([None, "a", "b", "c"], [0, 3, 2, 1]),
}
PENDING = {"user": ["eve"], "item": [60]}


@pytest.fixture
def dataset() -> Dataset:
    return Dataset.open(GOLDEN)


def read(path: Path) -> pa.Table:
    """A file as anything that knows Arrow reads it."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def test_its_description(dataset):
    info = dataset.info
    assert (info.format, info.format_version, info.generation) == (
        "shortlist-dataset",
        2,
        1,
    )
    assert info.schema == SCHEMA
    assert info.parts == {"train": 8, "validation": 2, "test": 3}
    assert [s.part for s in info.segments] == ["train", "train", "validation", "test"]
    assert info.numbers["age"].boundaries == (20.0, 40.0)
    assert info.numbers["price"].mean == 3.0
    assert info.statistics["below_threshold"] == info.statistics["rows_skipped"] == 1
    assert (GOLDEN / "rejected.csv").read_text() == (
        "file,row,column,code,value\nlog.csv,8,item,log-id-missing,\n"
    )


def test_its_fingerprint_is_that_of_its_content(dataset):
    assert dataset.info.fingerprint == FINGERPRINT
    assert fingerprint(GOLDEN, dataset.info) == FINGERPRINT


def test_no_place_of_the_machine_that_made_it_is_in_it(dataset):
    assert [Path(stamp.path).name for stamp in dataset.info.log] == [
        stamp.path for stamp in dataset.info.log
    ]
    assert changed(dataset.info.log) == []


@pytest.mark.parametrize("file", EVENTS)
def test_events_are_plain_arrow(file):
    table = read(GOLDEN / file)
    types = "uint8 uint8 int64 float float int32 uint8 list<item: uint8 not null>"
    assert [str(field.type) for field in table.schema] == types.split(" ", 7)
    assert not any(field.nullable for field in table.schema)
    found = [tuple(row.values()) for row in table.drop_columns("label").to_pylist()]
    assert found == [(u, i, s * 1000, *rest) for u, i, s, *rest in EVENTS[file]]
    assert set(table["label"].to_pylist()) == {1.0}


def test_vocabularies_and_pending_ids_are_plain_arrow(dataset):
    for name, (ids, counts) in VOCABULARIES.items():
        table = read(GOLDEN / dataset.info.vocabularies[name])
        assert table.to_pydict() == {"id": ids, "count": counts}
        assert dataset.vocabularies[name].ids.to_list() == ids
    for owner, ids in PENDING.items():
        assert read(GOLDEN / dataset.info.pending[owner]).to_pydict() == {"id": ids}


def test_its_features(dataset):
    features = dataset.features
    assert features["age"].tolist() == [0, 1, 3, 0, 2]
    assert features["genres"].tolist() == [[-1, -1], [2, 1], [1, -1], [-1, -1], [2, -1]]
    assert features["artist"].tolist() == [0, 6, 5, 6, 0]
    prices = [0, -0.75592893, -0.37796447, 1.1338934, 0]
    np.testing.assert_allclose(features["price"], prices, rtol=1e-6)
    names = [None, "Ten", "Twenty", "Thirty", "Fifty"]
    assert read(GOLDEN / "items-1.arrow")["name"].to_pylist() == names
    rows = {"user": 5, "item": 5, "genres": 3, "device": 4, "tags": 4}
    assert dataset.table_rows == rows | {"age": 4, "artist": 9}


def test_its_histories(dataset):
    histories = dataset.histories("train", "validation")
    assert histories.last(np.arange(5), 4).tolist() == [
        [-1, -1, -1, -1],
        [1, 2, 3, -1],
        [1, 3, 1, -1],
        [1, 2, -1, -1],
        [4, -1, -1, -1],
    ]


def test_pending_ids_are_read_as_row_0(dataset):
    part = dataset.part("test")
    assert part.user_index.tolist() == [0, 1, 4]
    assert part.item_index.tolist() == [0, 4, 1]


def test_batches_of_it(dataset):
    rows = TrainingExamples(dataset, options=ExampleOptions(history_length=2))
    batch = Loader(rows, batch_size=7, shuffle="none").batch(0, 0)
    assert batch["item_index"].tolist() == [1, 2, 3, 1, 3, 1, 2]
    assert batch["sample_weight"].tolist() == [1.5, 2.5, 2.0, 1.5, 3.5, 2.0, 1.5]
    assert batch["device"].tolist() == [3, 3, 2, 2, 0, 3, 3]
    assert batch["tags"][:3].tolist() == [[1, 2], [1, -1], [-1, -1]]
    assert batch["history"].tolist()[2] == [1, 2]


def test_the_same_log_gives_the_same_events_today(tmp_path):
    make(tmp_path)
    for file in (*EVENTS, "users-1.arrow", "items-1.arrow"):
        today = pl.read_ipc(tmp_path / "dataset" / file)
        assert today.equals(pl.read_ipc(GOLDEN / file))

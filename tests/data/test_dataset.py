"""The dataset on disk: narrow types, memory maps, and what cannot be opened."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortlist.data.dataset import (
    FORMAT_VERSION,
    Dataset,
    DatasetContents,
    padded,
    write_dataset,
)
from shortlist.data.schema import Feature, Schema
from shortlist.data.split import Split
from shortlist.data.vocabulary import Vocabulary
from shortlist.errors import ArtifactError, InputError

SCHEMA = Schema(
    user_id="u",
    item_id="i",
    title="name",
    features=(
        Feature(name="age", owner="user", kind="numeric"),
        Feature(name="a/b", owner="item", kind="categorical"),
        Feature(name="tags", owner="item", kind="multi_valued"),
    ),
)
# user_index, item_index, timestamp_ms, label; sorted by user and time.
TRAIN = [(1, 2, 10, 1.0), (1, 1, 30, 2.0), (2, 3, 20, 3.0), (2, 2, 20, 4.0)]
VALIDATION = [(1, 3, 20, 5.0), (2, 1, 20, 6.0)]
TEST = [(0, 1, 5, 7.0), (1, 0, 40, 8.0)]


def events(rows: list[tuple[int, int, int, float]]) -> pl.DataFrame:
    return pl.DataFrame(
        rows,
        schema={
            "user_index": pl.Int32,
            "item_index": pl.Int32,
            "timestamp_ms": pl.Int64,
            "label": pl.Float32,
        },
        orient="row",
    )


def vocabulary(name: str, num_rows: int) -> Vocabulary:
    ids = pl.Series(range(1, num_rows))
    return Vocabulary(name, ids, np.ones(num_rows - 1, np.int64))


def contents(num_users: int = 3, num_items: int = 4) -> DatasetContents:
    parts = (("train", TRAIN), ("validation", VALIDATION), ("test", TEST))
    ages = np.zeros(num_users, np.float32)
    ages[1] = 0.5
    genres = np.arange(num_items, dtype=np.int32) % 3
    tags = [[], [2, 1], [1], *([[]] * (num_items - 3))]
    return DatasetContents(
        schema=SCHEMA,
        split=Split(test=0.25),
        parts={name: events(rows) for name, rows in parts},
        vocabularies={
            "user": vocabulary("user", num_users),
            "item": vocabulary("item", num_items),
            "a/b": vocabulary("a/b", 3),
            "tags": vocabulary("tags", 3),
        },
        users=pl.DataFrame({"id": range(num_users), "feature:age": ages}),
        items=pl.DataFrame(
            {
                "id": range(num_items),
                "name": [f"item {i}" for i in range(num_items)],
                "feature:a/b": genres,
                "feature:tags": pl.Series(tags, dtype=pl.List(pl.Int32)),
            }
        ),
        statistics={"events": 8},
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return write_dataset(tmp_path / "dataset", contents())


def assert_rows(part, rows):
    found = (part.user_index, part.item_index, part.timestamp_ms, part.label)
    assert [a.dtype for a in found] == [np.int32, np.int32, np.int64, np.float32]
    assert list(zip(*(a.tolist() for a in found), strict=True)) == rows
    assert len(part) == len(rows)


def test_parts_come_back_as_they_were_written(dataset):
    assert_rows(dataset.part("train"), TRAIN)
    assert_rows(dataset.part("validation"), VALIDATION)
    assert_rows(dataset.part("test"), TEST)
    assert dataset.info.parts == {"train": 4, "validation": 2, "test": 2}


def test_parts_together_are_sorted_by_user_and_time(dataset):
    # At the same time of the same user, the part named first comes first.
    assert_rows(
        dataset.part("train", "validation"),
        [TRAIN[0], VALIDATION[0], TRAIN[1], TRAIN[2], TRAIN[3], VALIDATION[1]],
    )


def test_reopened_dataset_is_the_same(dataset):
    again = Dataset.open(dataset.path)
    assert again.info == dataset.info
    assert again.schema == SCHEMA
    assert again.info.split["test"] == 0.25
    assert again.info.statistics == {"events": 8}
    assert (again.num_users, again.num_items) == (3, 4)
    assert again.table_rows == {"user": 3, "item": 4, "a/b": 3, "tags": 3}
    assert again.vocabularies["a/b"].name == "a/b"


@pytest.mark.parametrize(
    ("num_rows", "narrow"),
    [
        (256, pa.uint8()),
        (257, pa.uint16()),
        (65_536, pa.uint16()),
        (65_537, pa.int32()),
    ],
)
def test_rows_are_stored_in_the_narrowest_safe_type(tmp_path, num_rows, narrow):
    made = contents(num_rows, num_rows)
    last = (num_rows - 1, num_rows - 1, 50, 1.0)
    made.parts["train"] = events([*TRAIN, last])
    dataset = write_dataset(tmp_path / "dataset", made)
    with pa.memory_map(str(dataset.path / "train.arrow")) as source:
        schema = pa.ipc.open_file(source).schema
    assert schema.field("user_index").type == narrow
    assert schema.field("item_index").type == narrow
    assert schema.field("timestamp_ms").type == pa.int64()
    assert schema.field("label").type == pa.float32()
    assert_rows(dataset.part("train"), [*TRAIN, last])


def test_files_can_be_memory_mapped_without_a_copy(tmp_path):
    made = contents()
    many = pl.concat([made.parts["train"]] * 50_000)
    dataset = write_dataset(
        tmp_path / "dataset",
        DatasetContents(**{**vars(made), "parts": {**made.parts, "train": many}}),
    )
    before = pa.total_allocated_bytes()
    with pa.memory_map(str(dataset.path / "train.arrow")) as source:
        table = pa.ipc.open_file(source).read_all()
    assert table.num_rows == 200_000
    assert pa.total_allocated_bytes() - before < 10_000


def test_features_are_arrays_by_row(dataset):
    features = dataset.features
    np.testing.assert_array_equal(features["age"], np.float32([0, 0.5, 0]))
    np.testing.assert_array_equal(features["a/b"], np.int32([0, 1, 2, 0]))
    np.testing.assert_array_equal(
        features["tags"], np.int32([[-1, -1], [2, 1], [1, -1], [-1, -1]])
    )
    dtypes = {name: values.dtype for name, values in features.items()}
    assert dtypes == {"age": np.float32, "a/b": np.int32, "tags": np.int32}
    assert dataset.items["name"].to_list() == [f"item {i}" for i in range(4)]


def test_histories_leave_out_unknown_items(dataset):
    histories = dataset.histories("train", "test")
    assert histories.last(np.array([1, 2]), 3).tolist() == [[2, 1, -1], [3, 2, -1]]
    assert dataset.histories("train", "test") is histories


def test_item_counts_are_events_of_the_named_parts(dataset):
    assert dataset.item_counts("train").tolist() == [0, 1, 2, 1]
    assert dataset.item_counts("train", "validation").tolist() == [0, 2, 2, 2]
    assert dataset.item_counts("test").tolist() == [0, 1, 0, 0]


@given(
    st.lists(st.one_of(st.none(), st.lists(st.integers(0, 9), max_size=4)), max_size=10)
)
def test_padding_keeps_every_list(lists):
    found = padded(pl.Series(lists, dtype=pl.List(pl.Int32)))
    width = max([1, *(len(row) for row in lists if row)])
    assert found.dtype == np.int32 and found.shape == (len(lists), width)
    for given_row, row in zip(lists, found.tolist(), strict=True):
        filled = given_row or []
        assert row == filled + [-1] * (width - len(filled))


def test_fingerprint_follows_the_content_alone(tmp_path):
    one = write_dataset(tmp_path / "one", contents())
    same = write_dataset(tmp_path / "same", contents())
    assert one.info.fingerprint == same.info.fingerprint
    changed = contents()
    changed.parts["test"] = events(TEST[:1])
    other = write_dataset(tmp_path / "other", changed)
    assert other.info.fingerprint != one.info.fingerprint


def test_existing_output_is_kept_unless_overwritten(dataset):
    before = dataset.info
    with pytest.raises(InputError, match="must not exist yet") as caught:
        write_dataset(dataset.path, contents(300))
    assert caught.value.code == "output-exists"
    assert Dataset.open(dataset.path).info == before
    (dataset.path / "left-over").write_text("x")
    new = write_dataset(dataset.path, contents(300), overwrite=True)
    assert new.num_users == 300
    assert not (dataset.path / "left-over").exists()
    assert os.listdir(dataset.path.parent) == ["dataset"]


def test_folder_without_a_dataset_says_how_to_make_one(tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ArtifactError, match="Run `shortlist prepare` first") as e:
            Dataset.open(path)
        assert e.value.code == "dataset-missing"
        assert e.value.exit_code == 3


@pytest.mark.parametrize(
    "file",
    [
        "train.arrow",
        "validation.arrow",
        "test.arrow",
        "users.arrow",
        "items.arrow",
        "vocabularies/user.arrow",
        "vocabularies/item.arrow",
        "vocabularies/a%2Fb.arrow",
    ],
)
def test_missing_file_is_named(dataset, file):
    (dataset.path / file).unlink()
    with pytest.raises(ArtifactError, match=f"Missing: .*{file}") as caught:
        Dataset.open(dataset.path)
    assert caught.value.code == "dataset-damaged"


@pytest.mark.parametrize("size", [0, 10, 300])
@pytest.mark.parametrize(
    ("file", "read"),
    [
        ("train.arrow", lambda d: d.part("train")),
        ("users.arrow", lambda d: d.users),
        ("items.arrow", lambda d: d.features),
    ],
)
def test_cut_off_file_is_named_when_it_is_read(dataset, file, read, size):
    path = dataset.path / file
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ArtifactError, match=f"{file} must be what") as caught:
        read(Dataset.open(dataset.path))
    assert caught.value.code == "dataset-damaged"
    assert caught.value.file == str(path)


def test_cut_off_vocabulary_is_named(dataset):
    path = dataset.path / "vocabularies" / "item.arrow"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ArtifactError, match="must be an Arrow file") as caught:
        Dataset.open(dataset.path)
    assert caught.value.code == "vocabulary-unreadable"
    assert caught.value.file == str(path)


@pytest.mark.parametrize("extra", [{}, {"schema": "of another kind"}])
def test_newer_format_asks_for_an_update(dataset, extra):
    file = dataset.path / "dataset.json"
    info = json.loads(file.read_text())
    file.write_text(json.dumps({**info, "format_version": FORMAT_VERSION + 1, **extra}))
    with pytest.raises(ArtifactError, match="at most 1. Received: 2. Update") as caught:
        Dataset.open(dataset.path)
    assert caught.value.code == "dataset-newer"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"format_version": "one"}',
        b'{"format": "shortlist-bundle"}',
        b"\xff\xfe",
        b'{"format": "\xff"}',
    ],
)
def test_damaged_json_asks_to_prepare_again(dataset, raw):
    file = dataset.path / "dataset.json"
    file.write_bytes(raw)
    with pytest.raises(ArtifactError, match="Prepare again") as caught:
        Dataset.open(dataset.path)
    assert caught.value.code == "dataset-damaged"
    assert caught.value.file == str(file)


def test_json_with_another_schema_is_damaged(dataset):
    file = dataset.path / "dataset.json"
    info = json.loads(file.read_text())
    info["schema"]["features"][0]["name"] = "label"
    file.write_text(json.dumps(info))
    with pytest.raises(ArtifactError, match="Feature names must be unique") as caught:
        Dataset.open(dataset.path)
    assert caught.value.code == "dataset-damaged"

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

from shortlist.data import Dataset, Feature, LogFiles, Schema, Split, prepare
from shortlist.data.store.dataset import padded
from shortlist.data.store.dataset_info import FORMAT_VERSION
from shortlist.errors import ArtifactError, InputError

SCHEMA = Schema(
    user_id="u",
    item_id="i",
    timestamp="t",
    label="r",
    label_kind="explicit",
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
# External ids by row; those of row 0 come in the test part alone.
USERS, ITEMS = "cab", "wxyz"


def write_log(folder: Path, **parts: list[tuple[int, int, int, float]]) -> LogFiles:
    """The files of a log whose vocabularies have the rows above; arguments for it."""
    given = {"train": TRAIN, "validation": VALIDATION, "test": TEST} | parts
    paths = {}
    for part, rows in given.items():
        lines = [
            f"{USERS[u]},{ITEMS[i]},{r},1970-01-01T00:00:00.{t:03d}"
            for u, i, t, r in rows
        ]
        paths[part] = folder / f"{part}.csv"
        paths[part].write_text("\n".join(["u,i,r,t", *lines]))
    (folder / "users.csv").write_text("u,age\na,30\nb,40\n")
    items = "i,name,a/b,tags\nx,X,red,new|hot\ny,Y,blue,hot\nz,Z,red,\n"
    (folder / "items.csv").write_text(items)
    return LogFiles(
        paths["train"],
        users=folder / "users.csv",
        items=folder / "items.csv",
        test_events=paths["test"],
        validation_events=paths["validation"],
    )


def make(folder: Path, name: str = "dataset", **options) -> Dataset:
    parts = {k: options.pop(k) for k in ("train", "test") if k in options}
    log = folder / f"log of {name}"
    log.mkdir(exist_ok=True)
    files = Split(kind="files", validation=0.25)
    written = write_log(log, **parts)
    return prepare(written, SCHEMA, folder / name, split=files, **options)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return make(tmp_path)


def segment_of(dataset: Dataset, part: str) -> Path:
    (segment,) = (s for s in dataset.info.segments if s.part == part)
    return dataset.path / segment.file


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
    assert again.info.split["validation"] == 0.25
    assert again.info.statistics["events"] == 8
    assert (again.num_users, again.num_items) == (3, 4)
    assert again.table_rows == {"user": 3, "item": 4, "a/b": 3, "tags": 3}
    assert again.vocabularies["a/b"].name == "a/b"


@pytest.mark.parametrize(
    ("num_items", "narrow"),
    [
        (255, pa.uint8()),
        (256, pa.uint16()),
        (65_535, pa.uint16()),
        (65_536, pa.int32()),
    ],
)
def test_rows_are_stored_in_the_narrowest_safe_type(tmp_path, num_items, narrow):
    log = pl.DataFrame({"i": range(num_items)}).with_columns(u=pl.col("i") % 2)
    log.write_csv(tmp_path / "log.csv")
    schema = Schema(user_id="u", item_id="i")
    split = Split(kind="last_n", test=0, validation=0)
    dataset = prepare(tmp_path / "log.csv", schema, tmp_path / "out", split=split)
    with pa.memory_map(str(segment_of(dataset, "train"))) as source:
        stored = pa.ipc.open_file(source).schema
    assert stored.field("user_index").type == pa.uint8()
    assert stored.field("item_index").type == narrow
    assert stored.field("timestamp_ms").type == pa.int64()
    assert stored.field("label").type == pa.float32()
    assert dataset.part("train").item_index.max() == num_items


def test_events_are_read_in_place(tmp_path):
    rows = [(1 + n % 2, 1 + n % 3, n % 1000, float(n)) for n in range(200_000)]
    dataset = make(tmp_path, train=rows)
    before = pa.total_allocated_bytes()
    columns = dataset.columns("train")
    assert len(columns) == 200_000
    assert pa.total_allocated_bytes() - before < 10_000


def test_compressed_events_are_the_same(tmp_path):
    rows = [(1 + n % 2, 1 + n % 3, n % 1000, float(n)) for n in range(50_000)]
    plain = make(tmp_path, "plain", train=rows)
    small = make(tmp_path, "small", train=rows, compression="zstd")
    assert small.info.compression == "zstd"
    for name in ("user_index", "item_index", "timestamp_ms", "label"):
        found, expected = (getattr(d.part("train"), name) for d in (small, plain))
        np.testing.assert_array_equal(found, expected)
    sizes = [segment_of(d, "train").stat().st_size for d in (small, plain)]
    assert sizes[0] < sizes[1] / 2


def test_features_are_arrays_by_row(dataset):
    features = dataset.features
    np.testing.assert_allclose(features["age"], [0, -0.7071, 0.7071], rtol=1e-3)
    blue, red = (dataset.vocabularies["a/b"].row(name) for name in ("blue", "red"))
    assert features["a/b"].tolist() == [0, red, blue, red]
    hot, new = (dataset.vocabularies["tags"].row(name) for name in ("hot", "new"))
    assert features["tags"].tolist() == [[-1, -1], [new, hot], [hot, -1], [-1, -1]]
    dtypes = {name: values.dtype for name, values in features.items()}
    assert dtypes == {"age": np.float32, "a/b": np.int32, "tags": np.int32}
    assert dataset.items["name"].to_list() == [None, "X", "Y", "Z"]


def test_histories_leave_out_unknown_items(dataset):
    histories = dataset.histories("train", "test")
    assert histories.last(np.array([1, 2]), 3).tolist() == [[2, 1, -1], [3, 2, -1]]
    assert dataset.histories("train", "test") is histories


def test_item_counts_are_events_of_the_named_parts(dataset):
    assert dataset.item_counts("train").tolist() == [0, 1, 2, 1]
    assert dataset.item_counts("train", "validation").tolist() == [0, 2, 2, 2]
    assert dataset.item_counts("test").tolist() == [0, 1, 0, 0]


def test_ids_of_the_test_part_alone_are_kept_for_later(dataset):
    stored = pl.read_ipc(segment_of(dataset, "test"))
    assert stored["user_index"].to_list() == [1, 3]
    assert stored["item_index"].to_list() == [4, 1]
    pending = dataset.info.pending
    assert pl.read_ipc(dataset.path / pending["user"])["id"].to_list() == ["c"]
    assert pl.read_ipc(dataset.path / pending["item"])["id"].to_list() == ["w"]
    assert dataset.columns("test").column("user_index").tolist() == [1, 0]


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
    one, same = make(tmp_path, "one"), make(tmp_path, "same")
    assert one.info.fingerprint == same.info.fingerprint
    other = make(tmp_path, "other", test=TEST[:1])
    assert other.info.fingerprint != one.info.fingerprint


def test_existing_output_is_kept_unless_overwritten(dataset, tmp_path):
    before = dataset.info
    with pytest.raises(InputError, match="exists already") as caught:
        make(tmp_path, test=TEST[:1])
    assert caught.value.code == "output-exists"
    assert Dataset.open(dataset.path).info == before
    (dataset.path / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="thesis.txt") as caught:
        make(tmp_path, test=TEST[:1], overwrite=True)
    assert caught.value.code == "output-foreign"
    assert Dataset.open(dataset.path).info == before
    (dataset.path / "thesis.txt").unlink()
    new = make(tmp_path, test=TEST[:1], overwrite=True)
    assert new.info.parts["test"] == 1
    assert sorted(os.listdir(tmp_path)) == ["dataset", "log of dataset"]


def test_a_link_to_a_dataset_stays_when_it_is_overwritten(dataset, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(dataset.path, target_is_directory=True)
    new = make(tmp_path, "link", test=TEST[:1], overwrite=True)
    assert link.is_symlink() and new.info.parts["test"] == 1
    assert Dataset.open(dataset.path).info == new.info


def test_folder_without_a_dataset_says_how_to_make_one(tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ArtifactError, match="Run `shortlist prepare` first") as e:
            Dataset.open(path)
        assert e.value.code == "dataset-missing"
        assert e.value.exit_code == 3


def without_sums(path):
    """Makes a dataset one of a version that recorded no checksums."""
    file = path / "dataset.json"
    info = json.loads(file.read_text())
    del info["files"], info["checksum"]
    file.write_text(json.dumps(info))


FILES = [
    *(f"events/0000{number}.arrow" for number in range(3)),
    "users-0.arrow",
    "items-0.arrow",
    "pending-users-0.arrow",
    "vocabularies-0/user.arrow",
    "vocabularies-0/item.arrow",
    "vocabularies-0/a%2Fb.arrow",
]


@pytest.mark.parametrize("file", FILES)
def test_missing_file_is_named(dataset, file):
    (dataset.path / file).unlink()
    with pytest.raises(ArtifactError, match=f"Missing: .*{file}") as caught:
        Dataset.open(dataset.path)
    assert caught.value.code == "dataset-damaged"


@pytest.mark.parametrize("size", [0, 10, 300])
@pytest.mark.parametrize(
    ("file", "read"),
    [
        ("events/00000.arrow", lambda d: d.part("train")),
        ("users-0.arrow", lambda d: d.users),
        ("items-0.arrow", lambda d: d.features),
    ],
)
def test_cut_off_file_is_named_when_it_is_read(dataset, file, read, size):
    path = dataset.path / file
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ArtifactError, match=Path(file).name) as caught:
        read(Dataset.open(dataset.path))
    assert caught.value.code == "dataset-damaged"
    assert caught.value.file == str(path)


@pytest.mark.parametrize(
    ("recorded", "says", "code"),
    [
        (True, "It must have .* bytes. Found 100", "dataset-damaged"),
        (False, "an Arrow file with columns id and count", "vocabulary-unreadable"),
    ],
)
def test_cut_off_vocabulary_is_named(dataset, recorded, says, code):
    path = dataset.path / "vocabularies-0" / "item.arrow"
    path.write_bytes(path.read_bytes()[:100])
    if not recorded:  # as in a dataset of an earlier version
        without_sums(dataset.path)
    with pytest.raises(ArtifactError, match=says) as caught:
        Dataset.open(dataset.path)
    assert caught.value.code == code
    assert caught.value.file == str(path)


@pytest.mark.parametrize("extra", [{}, {"schema": "of another kind"}])
def test_newer_format_asks_for_an_update(dataset, extra):
    file = dataset.path / "dataset.json"
    info = json.loads(file.read_text())
    file.write_text(json.dumps({**info, "format_version": FORMAT_VERSION + 1, **extra}))
    with pytest.raises(ArtifactError, match="at most 2. Received: 3. Update") as caught:
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
    with pytest.raises(ArtifactError, match="Run `shortlist prepare` again") as caught:
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

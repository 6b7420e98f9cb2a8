"""Columns over Arrow files against the values that were written."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from shortlist import native
from shortlist.data.kernels import gather
from shortlist.data.store.columns import Columns
from shortlist.errors import ArtifactError, InputError
from table_cases import needs_core


@pytest.fixture(
    params=[pytest.param(native.core(), marks=needs_core), None],
    ids=["core", "twin"],
    autouse=True,
)
def way(request, monkeypatch):
    """Runs a test with the compiled core and again with the twin."""
    monkeypatch.setattr(native, "_core", request.param)


def write(path, columns, *, rows_per_batch=None, compression=None):
    """An Arrow file of pyarrow arrays, in batches."""
    table = pa.table(columns)
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(path, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows_per_batch)
    return path


def numbers():
    """Columns of 7 rows of many types."""
    return {
        "small": pa.array([0, 1, 2, 3, 4, 5, 255], pa.uint8()),
        "wide": pa.array([2**40, 1, 2, 3, 4, 5, -1], pa.int64()),
        "half": pa.array([0.5, 1, 2, 3, 4, 5, 6], pa.float16()),
        "double": pa.array([0.1, 1, 2, 3, 4, 5, 6], pa.float64()),
        "flag": pa.array([True, False, True, True, False, False, True]),
        "kind": pa.array([30, 10, 30, 20, 10, 10, 20]).dictionary_encode(),
        "pair": pa.array([[i, -i] for i in range(7)], pa.list_(pa.int32(), 2)),
        "tags": pa.array([[], [1], [2, 3], [4], [], [5, 6, 7], [8]]),
        "marks": pa.array(
            [[0.5]] + [[]] * 5 + [[1.5, 2.5]], pa.large_list(pa.float32())
        ),
        "word": pa.array(list("abcdefg")),
    }


ROWS = np.array([6, 0, 2, 2, 5])
TAKEN = {
    "small": np.array([255, 0, 2, 2, 5], np.int32),
    "wide": np.array([-1, 2**40, 2, 2, 5]),
    "half": np.array([6, 0.5, 2, 2, 5], np.float32),
    "double": np.array([6, 0.1, 2, 2, 5], np.float32),
    "flag": np.array([1, 1, 1, 1, 0], np.int32),
    "kind": np.array([20, 30, 30, 30, 10]),
    "pair": np.array([[6, -6], [0, 0], [2, -2], [2, -2], [5, -5]], np.int32),
    "tags": np.array([[8, -1, -1], [-1] * 3, [2, 3, -1], [2, 3, -1], [5, 6, 7]]),
    "marks": np.array([[1.5, 2.5], [0.5, 0], [0, 0], [0, 0], [0, 0]], np.float32),
}


def assert_same(found, wanted):
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        assert found[name].dtype == values.dtype, name
        assert found[name].tolist() == values.tolist(), name


@pytest.mark.parametrize("rows_per_batch", [None, 3, 1])
@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_take_widens_and_pads(tmp_path, rows_per_batch, compression):
    file = tmp_path / "a.arrow"
    write(file, numbers(), rows_per_batch=rows_per_batch, compression=compression)
    columns = Columns.open([file])
    assert columns.names == tuple(TAKEN) and len(columns) == 7
    assert_same(columns.take(ROWS), TAKEN)
    two = {name: TAKEN[name] for name in ("tags", "small")}
    assert_same(columns.take(ROWS.astype(np.uint8), ["tags", "small"]), two)
    assert_same(columns.take(ROWS, ["small"], threads=1), {"small": TAKEN["small"]})


@pytest.mark.parametrize("rows_per_batch", [None, 3])
def test_column_is_all_rows_as_taken(tmp_path, rows_per_batch):
    file = write(tmp_path / "a.arrow", numbers(), rows_per_batch=rows_per_batch)
    columns = Columns.open([file])
    everything = columns.take(np.arange(7))
    assert_same({name: columns.column(name) for name in TAKEN}, everything)


def test_files_of_different_widths_follow_each_other(tmp_path):
    first = write(
        tmp_path / "1.arrow",
        {
            "id": pa.array([1, 2], pa.uint8()),
            "list": pa.array([[1, 2], [3, 4]], pa.list_(pa.int32(), 2)),
            "time": pa.array([7, 8], pa.int64()),
        },
    )
    second = write(
        tmp_path / "2.arrow",
        {
            "list": pa.array([[5], [6, 7, 8]], pa.list_(pa.int16())),
            "time": pa.array([9, 10], pa.int64()),
            "id": pa.array([300, 4], pa.uint16()),
        },
    )
    columns = Columns.open([str(first), second])
    taken = columns.take(np.array([3, 2, 1, 0]))
    assert taken["id"].dtype == np.int32 and taken["id"].tolist() == [4, 300, 2, 1]
    assert taken["time"].dtype == np.int64
    assert taken["list"].tolist() == [[6, 7, 8], [5, -1, -1], [3, 4, -1], [1, 2, -1]]
    assert columns.column("id").tolist() == [1, 2, 300, 4]


def test_what_polars_writes(tmp_path):
    frame = pl.DataFrame(
        {
            "user": pl.Series([1, 2, 3], dtype=pl.UInt16),
            "tags": pl.Series([[1], [], [2, 3]], dtype=pl.List(pl.Int32)),
            "pair": pl.Series([[1, 2], [3, 4], [5, 6]], dtype=pl.Array(pl.Float32, 2)),
        }
    )
    frame.write_ipc(tmp_path / "a.arrow")
    taken = Columns.open([tmp_path / "a.arrow"]).take(np.array([2, 1]))
    assert taken["user"].tolist() == [3, 2]
    assert taken["tags"].tolist() == [[2, 3], [-1, -1]]
    assert taken["pair"].tolist() == [[5, 6], [3, 4]]


def test_numbers_are_read_in_place(tmp_path):
    file = write(tmp_path / "a.arrow", {"x": pa.array([1, 2, 3], pa.int32())})
    before = pa.total_allocated_bytes()
    columns = Columns.open([file])
    values = columns.column("x")
    assert pa.total_allocated_bytes() == before
    assert not values.flags.owndata and not values.flags.writeable
    del columns
    assert values.tolist() == [1, 2, 3]


def test_arrays_in_memory():
    arrays = {
        "id": np.array([4, 5, 6], np.uint16),
        "flag": np.array([True, False, True]),
        "pair": np.arange(6.0).reshape(3, 2),
    }
    columns = Columns.from_arrays(arrays)
    assert len(columns) == 3 and columns.names == ("id", "flag", "pair")
    taken = columns.take(np.array([2, 0]))
    assert taken["id"].tolist() == [6, 4] and taken["id"].dtype == np.int32
    assert taken["flag"].tolist() == [1, 1]
    assert taken["pair"].tolist() == [[4, 5], [0, 1]]
    assert taken["pair"].dtype == np.float32
    same = Columns.from_arrays({"x": (x := np.arange(3))}).column("x")
    assert np.shares_memory(same, x)


def test_no_rows(tmp_path):
    empty = {name: array.slice(0, 0) for name, array in numbers().items()}
    columns = Columns.open([write(tmp_path / "a.arrow", empty)])
    assert len(columns) == 0 and columns.names == tuple(TAKEN)
    taken = columns.take(np.empty(0, np.int64))
    assert {name: values.dtype for name, values in taken.items()} == {
        name: values.dtype for name, values in TAKEN.items()
    }
    assert columns.column("wide").shape == (0,)
    assert Columns.from_arrays({"x": np.empty(0, np.int32)}).column("x").shape == (0,)


def test_large_chunks_are_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(gather, "MOST_ROWS_OF_CHUNK", 3)
    columns = Columns.open([write(tmp_path / "a.arrow", numbers())])
    assert_same(columns.take(ROWS), TAKEN)
    cut = Columns.from_arrays({"x": np.arange(8)})
    assert cut.take(np.array([7, 3, 0]))["x"].tolist() == [7, 3, 0]
    assert cut.column("x").tolist() == list(range(8))


def test_too_large_for_float32_is_infinite():
    columns = Columns.from_arrays({"x": np.array([1e300, -1e300, 1e-300])})
    assert columns.take(np.arange(3))["x"].tolist() == [np.inf, -np.inf, 0]
    assert columns.column("x").tolist() == [np.inf, -np.inf, 0]


def test_rows_out_of_range():
    with pytest.raises(InputError) as caught:
        Columns.from_arrays({"x": np.arange(3)}).take(np.array([3]))
    assert caught.value.code == "row-out-of-range"


@pytest.mark.parametrize(
    ("name", "code"), [("word", "column-type"), ("smal", "column-unknown")]
)
def test_columns_that_cannot_be_taken(tmp_path, name, code):
    columns = Columns.open([write(tmp_path / "a.arrow", numbers())])
    with pytest.raises(InputError) as caught:
        columns.take(ROWS, [name])
    assert caught.value.code == code and caught.value.column == name
    with pytest.raises(InputError):
        columns.column(name)


@pytest.mark.parametrize(
    "array",
    [
        pa.array([1, None, 3]),
        pa.array([[1], None, [3]]),
        pa.array([[1], [None], [3]]),
        pa.array([[1], None, [3]], pa.list_(pa.int32(), 1)),
        pa.array([[1], [None], [3]], pa.list_(pa.int32(), 1)),
        pa.array([1, None, 3]).dictionary_encode(),
        pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), pa.array([5, None])),
        pa.array([True, None, False]),
    ],
    ids=str,
)
def test_nulls_are_refused_when_asked_for(tmp_path, array):
    file = write(tmp_path / "a.arrow", {"x": array, "y": pa.array([1, 2, 3])})
    columns = Columns.open([file])
    assert columns.take(np.array([1]), ["y"])["y"].tolist() == [2]
    with pytest.raises(ArtifactError) as caught:
        columns.take(np.array([0]))
    error = caught.value
    assert (error.code, error.column, error.file) == ("column-nulls", "x", str(file))


@pytest.mark.parametrize(
    "second",
    [
        {"x": pa.array([1.0])},
        {"x": pa.array(["a"])},
        {"x": pa.array([[1]])},
        {"y": pa.array([1])},
        {"x": pa.array([1]), "y": pa.array([1])},
    ],
)
def test_files_that_do_not_fit(tmp_path, second):
    one = write(tmp_path / "1.arrow", {"x": pa.array([1])})
    two = write(tmp_path / "2.arrow", second)
    with pytest.raises(ArtifactError) as caught:
        Columns.open([one, two])
    assert caught.value.code == "columns-differ" and caught.value.file == str(two)


@pytest.mark.parametrize(
    "content", [None, b"", b"no Arrow file at all, not even close"]
)
def test_files_that_cannot_be_read(tmp_path, content):
    file = tmp_path / "a.arrow"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        Columns.open([file])
    assert caught.value.code == "columns-unreadable"


def test_truncated_file(tmp_path):
    file = write(tmp_path / "a.arrow", numbers())
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ArtifactError) as caught:
        Columns.open([file])
    assert caught.value.code == "columns-unreadable"


def test_names_that_repeat(tmp_path):
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    with pa.ipc.new_file(tmp_path / "a.arrow", batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(ArtifactError) as caught:
        Columns.open([tmp_path / "a.arrow"])
    assert caught.value.code == "columns-unreadable"


def test_no_files_and_arrays_that_do_not_fit():
    with pytest.raises(InputError) as caught:
        Columns.open([])
    assert caught.value.code == "invalid-argument"
    wrong = ({}, {"x": np.arange(3), "y": np.arange(4)}, {"x": np.zeros((1, 1, 1))})
    for arrays in wrong:
        with pytest.raises(InputError) as caught:
            Columns.from_arrays(arrays)
        assert caught.value.code == "columns-differ"

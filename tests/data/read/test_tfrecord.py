"""TFRecord logs: both forms survive, and what is wrong is told with its record."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from log_events import read_events
from shortlist import native
from shortlist.data import Schema, convert_tables, read_tfrecord, write_tfrecord
from shortlist.data.read.layouts import inspect_file
from shortlist.data.read.scan import read_table
from shortlist.data.read.tfrecord import files
from shortlist.data.read.tfrecord.encoding import encode_example, to_record
from shortlist.data.read.tfrecord.survey import Survey
from shortlist.data.read.tfrecord.tables import convert_tfrecord
from shortlist.data.store import arrow
from shortlist.errors import InputError, LogError

T = 1_700_000_000
TABLE = pl.DataFrame(
    {
        "item": ["a", "é", "", "b"],
        "raw": [b"\xff", b"", b"x", b"y"],
        "stars": pl.Series([3, 4.5, math.nan, -1], dtype=pl.Float32),
        "time": [T, T + 1, T + 2, T + 3],
        "user": [7, -(2**63), 2**63 - 1, 7],
        "vector": pl.Series([[1, 2], [3, 4], [5, 6], [7, 8]], dtype=pl.List(pl.Int64)),
        "words": [["a", "b"], ["c", ""], ["d", "é"], ["e", "f"]],
    }
)
LISTS = TABLE.with_columns(tags=pl.Series([[1], [], [2, 3, 4], [5, 6]]))


@pytest.fixture(params=["core", "twin"])
def core(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "twin":
        monkeypatch.setattr(native, "_core", None)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_BLOCK_BYTES", 64)


def write(path: Path, *records: dict[str, Any]) -> Path:
    """Records from lists of values: integers, floats or bytes."""
    path.write_bytes(b"".join(map(record, records)))
    return path


def record(values: dict[str, Any]) -> bytes:
    def plain(value: list[Any]) -> Any:
        if value and isinstance(value[0], bytes):
            return value
        is_float = bool(value) and isinstance(value[0], float)
        return np.array(value, np.float32 if is_float else np.int64)

    return to_record(encode_example({name: plain(v) for name, v in values.items()}))


def refused(read: Callable[[], object]) -> LogError:
    with pytest.raises(LogError) as caught:
        read()
    assert len(caught.value.message.split(". ")) >= 3, "rule, what came, what to do"
    return caught.value


def place(error: LogError) -> tuple[str, str | None, int | None]:
    return error.code, error.column, error.row


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("rows_per_record", [1, 2, 3, 4, 9])
def test_a_table_survives_in_both_forms(tmp_path: Path, rows_per_record: int) -> None:
    path = tmp_path / "log"
    write_tfrecord(path, TABLE, rows_per_record=rows_per_record)
    assert_frame_equal(read_tfrecord(path), TABLE)
    assert_frame_equal(read_tfrecord(path, rows_per_record=rows_per_record), TABLE)
    chosen = read_tfrecord(path, columns=["user", "item"])
    assert_frame_equal(chosen, TABLE.select("user", "item"))


@pytest.mark.usefixtures("core", "small_blocks")
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zlib.compress])
def test_blocks_and_packed_files_give_the_same_rows(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "log"
    write_tfrecord(path, LISTS)
    path.write_bytes(pack(path.read_bytes()))
    assert inspect_file(path).layout == "tfrecord"
    expected = LISTS.select(sorted(LISTS.columns))
    survey = Survey([path], None, None)
    survey.complete()
    batches = [*survey.frames()]
    assert len(batches) == 4
    assert {tuple(batch.schema.items()) for batch in batches} == {
        tuple(expected.schema.items())
    }
    assert_frame_equal(pl.concat(batches), expected)
    assert_frame_equal(read_tfrecord(path), expected)
    assert_frame_equal(read_table(path, columns=["user"]), expected.select("user"))


cells = {
    "a": st.integers(-(2**63), 2**63 - 1),
    "b": st.floats(width=32),
    "c": st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    "d": st.lists(st.integers(-5, 300), max_size=3),
    "e": st.lists(st.floats(width=32), min_size=2, max_size=2),
}
TYPES = {
    "a": pl.Int64,
    "b": pl.Float32,
    "c": pl.String,
    "d": pl.List(pl.Int64),
    "e": pl.List(pl.Float32),
}


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rows=st.lists(st.fixed_dictionaries(cells), min_size=1, max_size=9),
    rows_per_record=st.integers(1, 5),
)
def test_any_table_survives(
    tmp_path: Path, rows: list[dict[str, Any]], rows_per_record: int
) -> None:
    table = pl.DataFrame(rows, schema=TYPES)
    if rows_per_record > 1:
        table = table.drop("d")
    elif table["d"].list.len().eq(1).all():
        table = table.with_columns(pl.col("d").list.first())
    path, out = tmp_path / "log", tmp_path / "log.arrow"
    write_tfrecord(path, table, rows_per_record=rows_per_record)
    assert_frame_equal(read_tfrecord(path), table)
    assert convert_tfrecord(path, out, overwrite=True) == len(rows)
    assert_frame_equal(pl.read_ipc(out).cast(dict(table.schema)), table)


def test_both_forms_are_logs(tmp_path: Path) -> None:
    schema = Schema(
        user_id="user",
        item_id="item",
        timestamp="time",
        label="stars",
        label_kind="explicit",
    )
    table = TABLE.with_columns(item=pl.lit("i") + pl.col("item"), stars=pl.lit(2.0))
    for rows_per_record in (1, 3):
        path = tmp_path / f"log{rows_per_record}"
        write_tfrecord(path, table, rows_per_record=rows_per_record)
        assert read_events(path, schema, now_ms=T * 2000).rows() == [
            (user, item, time * 1000, 2.0)
            for user, item, time in table.select("user", "item", "time").rows()
        ]
    bad = table.with_columns(stars=pl.Series([1.0, 2.0, math.nan, 1.0]))
    write_tfrecord(path, bad, rows_per_record=3)
    error = refused(lambda: read_events(path, schema, now_ms=T * 2000))
    assert place(error) == ("log-label-not-finite", "stars", 3)


@pytest.mark.parametrize(
    ("records", "rows"),
    [
        ([{"a": [1], "b": [1, 2]}, {"a": [2], "b": []}], [(1, [1, 2]), (2, [])]),
        (
            [{"a": [1, 2], "b": [3, 4], "c": [5, 6, 7, 8]}],
            [(1, 3, [5, 6]), (2, 4, [7, 8])],
        ),
        # The last batch has one row, and so has the first one.
        (
            [
                {"a": [1], "b": [2], "c": [3, 4]},
                {"a": [1, 2], "b": [3, 4], "c": [5, 6, 7, 8]},
                {"a": [9], "b": [8], "c": [7, 6]},
            ],
            [(1, 2, [3, 4]), (1, 3, [5, 6]), (2, 4, [7, 8]), (9, 8, [7, 6])],
        ),
        ([{"a": []}, {"a": []}], [([],), ([],)]),
    ],
)
def test_the_form_is_told_from_the_counts(
    tmp_path: Path, records: list[dict[str, Any]], rows: list[tuple[Any, ...]]
) -> None:
    path = write(tmp_path / "log", *records)
    assert read_tfrecord(path).rows() == rows


@pytest.mark.parametrize(
    ("records", "row"),
    [
        ([{"a": [1, 2, 3]}], 1),  # one list or three rows
        ([{"a": [1, 2], "b": [1, 2, 3, 4]}], 1),
        ([{"a": [1, 2], "b": [3, 4], "c": [1, 2, 3]}], 1),
        ([{"a": [1, 2], "b": [3, 4]}, {"a": [1, 2], "b": []}], 2),
        ([{"a": [1, 2], "b": [3, 4]}, {"a": [1, 2], "b": [1, 2, 3, 4]}], 2),
        ([{"a": [1], "b": [1, 2]}, {"a": [2, 3], "b": [3, 4]}], 2),
    ],
)
def test_a_form_that_cannot_be_told_is_refused(
    tmp_path: Path, records: list[dict[str, Any]], row: int
) -> None:
    path = write(tmp_path / "log", *records)
    error = refused(lambda: read_tfrecord(path))
    assert place(error) == ("log-record-rows", None, row)
    assert "rows_per_record" in error.message
    assert len(read_tfrecord(path, rows_per_record=1)) == len(records)


def test_rows_per_record_settles_the_form(tmp_path: Path) -> None:
    path = write(tmp_path / "log", {"a": [1, 2, 3, 4]}, {"a": [5, 6]})
    assert read_tfrecord(path, rows_per_record=1)["a"].to_list() == [
        [1, 2, 3, 4],
        [5, 6],
    ]
    assert read_tfrecord(path, rows_per_record=4)["a"].to_list() == [*range(1, 7)]
    two = read_tfrecord(path, rows_per_record=2)
    assert two["a"].to_list() == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize(("rows", "row"), [(3, 1), (8, 1), (4, 2)])
def test_batches_must_have_the_rows_announced(
    tmp_path: Path, rows: int, row: int
) -> None:
    records = [{"a": [1, 2, 3, 4]}, {"a": [5, 6]}, {"a": [7, 8, 9, 10]}]
    path = write(tmp_path / "log", *records)
    error = refused(lambda: read_tfrecord(path, rows_per_record=rows))
    assert place(error) == ("log-record-rows", None, row)


@pytest.mark.parametrize("rows", [0, -1, True, 1.5])
def test_rows_per_record_must_be_a_number_of_rows(tmp_path: Path, rows: Any) -> None:
    with pytest.raises(InputError) as caught:
        read_tfrecord(tmp_path / "log", rows_per_record=rows)
    assert caught.value.code == "invalid-argument"


@pytest.mark.usefixtures("core", "small_blocks")
def test_every_cut_and_every_changed_byte_names_the_record(tmp_path: Path) -> None:
    path = tmp_path / "log"
    good = [record({"a": [1], "b": [b"text"]}), record({"a": [2], "b": [b""]})]
    whole = b"".join(good)
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        if size == len(good[0]):
            assert read_tfrecord(path).rows() == [(1, "text")]
            continue
        error = refused(lambda: read_tfrecord(path))
        row = 1 + (size > len(good[0]))
        assert place(error) == ("log-file-damaged", None, row)
    for at in range(len(whole)):
        bad = bytearray(whole)
        bad[at] ^= 0x20
        path.write_bytes(bad)
        error = refused(lambda: read_tfrecord(path))
        row = 1 + (at >= len(good[0]))
        assert place(error) == ("log-record-checksum", None, row)
        assert error.file == str(path)


def test_a_damaged_log_is_told_through_every_reader(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write_tfrecord(path, TABLE)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    schema = Schema(user_id="user", item_id="item")
    assert place(refused(lambda: read_events(path, schema)))[2] == 4
    assert place(refused(Survey([path], None, None).complete))[2] == 4
    out = tmp_path / "out"
    assert place(refused(lambda: convert_tfrecord(path, out)))[2] == 4
    assert not out.exists()
    path.write_bytes(gzip.compress(whole * 50)[:-30])
    assert refused(lambda: read_tfrecord(path)).code == "log-file-damaged"
    path.write_bytes(b"")
    assert refused(lambda: read_tfrecord(path)).code == "log-empty"
    assert refused(lambda: convert_tfrecord([], out)).code == "log-empty"


def test_records_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    good = {"a": [1], "b": [1.0]}
    for bad, code, column in (
        ({"a": [1]}, "log-record-fields", "b"),
        ({**good, "c": [1]}, "log-record-fields", "c"),
        ({**good, "a": [1.0]}, "log-mixed-types", "a"),
    ):
        write(path, good, good, bad)
        error = refused(lambda: read_tfrecord(path))
        assert place(error) == (code, column, 3)
    assert read_tfrecord(path, columns=["b"])["b"].to_list() == [1, 1, 1]
    write(path, good, {"a": [1]}, good)
    assert read_tfrecord(path, columns=["a"])["a"].to_list() == [1, 1, 1]
    error = refused(lambda: read_tfrecord(path, columns=["aa"]))
    assert place(error) == ("log-column-missing", "aa", None)
    assert "Did you mean 'a'?" in error.message
    other = write(tmp_path / "other", {"a": [b"x"], "b": [1.0]})
    write(path, good)
    error = refused(lambda: convert_tfrecord([path, other], tmp_path / "out"))
    assert place(error) == ("log-mixed-types", "a", 1)
    assert error.file == str(other)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x0a\x00", b"\x12\x00"])
def test_records_that_are_no_example_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(to_record(data))
    error = refused(lambda: read_tfrecord(path))
    assert place(error) == ("log-record-example", None, 1)
    path.write_bytes(to_record(encode_example({"a": np.array([1])})) + to_record(b"?"))
    error = refused(lambda: read_tfrecord(path))
    assert place(error) == ("log-record-example", None, 2)


def test_other_files_are_no_tfrecord(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("user,item\n1,2\n")
    assert inspect_file(path).layout == "csv"
    assert refused(lambda: read_tfrecord(path)).code == "log-record-checksum"
    path.write_bytes(zlib.compress(b"user,item\n1,2\n"))
    assert refused(lambda: inspect_file(path)).code == "log-format"


def test_converted_columns_have_the_narrowest_types(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrow, "BATCH_ROWS", 3)
    table = pl.DataFrame(
        {
            "a": [0, 255, 1, 2],
            "b": [0, 256, 65535, 2],
            "c": [0, -1, 65536, 2],
            "d": [0, 2**31, 1, 2],
            "e": pl.Series([0.1, 1, 2, 3], dtype=pl.Float32),
            "f": [[1, 300], [2, 3], [4, 5], [6, 7]],
            "g": [[1], [], [2, 3], [4]],
            "h": ["x", "y", "z", "é"],
        }
    )
    halves = []
    for part in (table.head(1), table.tail(3)):
        halves.append(tmp_path / f"part{len(halves)}")
        write_tfrecord(halves[-1], part)
    out = tmp_path / "out.arrow"
    assert convert_tfrecord(halves, out) == 4
    with pa.ipc.open_file(out) as file:
        found = file.read_all()
        assert [file.get_batch(n).num_rows for n in range(2)] == [3, 1]
    assert found.schema == pa.schema(
        {
            "a": pa.uint8(),
            "b": pa.uint16(),
            "c": pa.int32(),
            "d": pa.int64(),
            "e": pa.float32(),
            "f": pa.list_(pa.uint16(), 2),
            "g": pa.large_list(pa.uint8()),
            "h": pa.large_string(),
        }
    )
    assert found.to_pylist() == table.to_dicts()
    packed = tmp_path / "packed.arrow"
    convert_tfrecord(halves, packed, compression="zstd")
    with pa.ipc.open_file(packed) as file:
        assert file.read_all().equals(found)
    with pytest.raises(InputError) as caught:
        convert_tfrecord(halves, out)
    assert caught.value.code == "output-exists"
    convert_tfrecord(halves, out, overwrite=True)
    with pytest.raises(InputError) as caught:
        convert_tfrecord(halves, out, compression="lz5", overwrite=True)  # type: ignore[arg-type]
    assert caught.value.code == "invalid-argument"


def test_other_layouts_are_converted_with_the_same_types(tmp_path: Path) -> None:
    text = tmp_path / "log.csv"
    text.write_text("user,stars,time,odd\n1,0.5,3.5,x\n300,2,0.1,y\n")
    out = tmp_path / "out.arrow"
    assert convert_tables([text, text], out) == 4
    assert pl.read_ipc(out).schema == {
        "user": pl.UInt16,
        "stars": pl.Float32,
        "time": pl.Float64,
        "odd": pl.String,
    }
    assert_frame_equal(
        pl.read_ipc(out).cast({"user": pl.Int64, "stars": pl.Float64}),
        pl.concat([read_table(text)] * 2),
    )
    table = tmp_path / "log.parquet"
    lists = pl.DataFrame({"a": [[1, 2], [3, 4]], "b": [True, None], "c": [None, 1]})
    lists.write_parquet(table)
    convert_tables([table], out, overwrite=True)
    assert pl.read_ipc(out).schema == {
        "a": pl.Array(pl.UInt8, 2),
        "b": pl.UInt8,
        "c": pl.UInt8,
    }
    assert pl.read_ipc(out).rows() == [([1, 2], 1, None), ([3, 4], None, 1)]
    other = tmp_path / "other.csv"
    for content, code in (
        ("user,stars,time,odd\nx,1,2,3\n", "log-mixed-types"),
        ("user,stars,time\n1,2,3\n", "log-row-fields"),
    ):
        other.write_text(content)
        error = refused(lambda: convert_tables([text, other], out, overwrite=True))
        assert (error.code, error.file) == (code, str(other))
    records = tmp_path / "log.tfrecord"
    write_tfrecord(records, TABLE)
    error = refused(lambda: convert_tables([text, records], out, overwrite=True))
    assert (error.code, error.file) == ("log-format", str(records))
    pl.DataFrame({"a": [{"b": 1}]}).write_parquet(table)
    with pytest.raises(InputError) as caught:
        convert_tables([table], out, overwrite=True)
    assert (caught.value.code, caught.value.column) == ("column-type", "a")


@pytest.mark.parametrize(
    ("column", "rows_per_record"),
    [
        (pl.Series([1, None]), 1),
        (pl.Series([[1], None]), 1),
        (pl.Series([[1], [None]]), 1),
        (pl.Series([[1], [1, 2]]), 2),
        (pl.Series([[], []], dtype=pl.List(pl.Int64)), 2),
        (pl.Series([2**63, 1], dtype=pl.UInt64), 1),
        (pl.Series([{"a": 1}, {"a": 2}]), 1),
    ],
)
def test_columns_that_tfrecord_cannot_hold_are_refused(
    tmp_path: Path, column: pl.Series, rows_per_record: int
) -> None:
    path = tmp_path / "log"
    with pytest.raises(InputError) as caught:
        write_tfrecord(
            path, column.alias("x").to_frame(), rows_per_record=rows_per_record
        )
    assert (caught.value.code, caught.value.column) == ("column-type", "x")
    assert not path.exists()


def test_other_numbers_become_those_of_tfrecord(tmp_path: Path) -> None:
    path = tmp_path / "log"
    table = pl.DataFrame(
        {
            "a": pl.Series([1, 2], dtype=pl.UInt8),
            "b": [True, False],
            "c": [0.5, 0.1],
            "d": pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int16, 2)),
        }
    )
    write_tfrecord(path, table, rows_per_record=2)
    expected = table.cast(
        {"a": pl.Int64, "b": pl.Int64, "c": pl.Float32, "d": pl.List(pl.Int64)}
    )
    assert_frame_equal(read_tfrecord(path), expected)

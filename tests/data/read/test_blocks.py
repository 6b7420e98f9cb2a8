"""A log read as a stream: many files, skipped bad rows, types that change."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from log_events import read_events
from shortlist.data import Feature, ReadOptions, Schema, Split
from shortlist.data.preparation.ingest import Spill, ingest
from shortlist.data.preparation.sorted_log import read_sorted_log
from shortlist.data.read import blocks as module
from shortlist.data.read.blocks import ReadState, read_blocks
from shortlist.data.read.rejected import write_rejected
from shortlist.errors import LogError

SCHEMA = Schema(
    user_id="user",
    item_id="item",
    timestamp="time",
    label="stars",
    label_kind="explicit",
    label_min=1,
    label_max=5,
)
HEADER = "user,item,stars,time\n"
T0 = 1_700_000_000


def good_rows(first: int, count: int) -> str:
    numbers = range(first, first + count)
    return "".join(f"{n},{n % 7},3,{T0 + n}\n" for n in numbers)


def write_files(folder: Path, count: int, rows: int) -> list[Path]:
    paths = [folder / f"part-{number:02d}.csv" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_text(HEADER + good_rows(number * rows, rows))
    return paths


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few rows, as a log of millions has them."""
    monkeypatch.setattr(module, "BLOCK_ROWS", 8)


def break_row(path: Path, line: int, text: str) -> None:
    lines = path.read_text().splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines) + "\n")


def test_a_bad_row_in_the_middle_of_file_7_of_20_is_named(tmp_path, small_blocks):
    paths = write_files(tmp_path, 20, 50)
    break_row(paths[6], 31, "5,5,9,1700000000")
    with pytest.raises(LogError, match="between 1 and 5. Found '9'") as caught:
        read_events(paths, SCHEMA)
    error = caught.value
    assert (error.code, error.column, error.row) == ("log-label-range", "stars", 31)
    assert error.file == str(paths[6])


def test_blocks_come_in_file_order(tmp_path, small_blocks):
    paths = write_files(tmp_path, 3, 50)
    blocks = list(read_blocks(paths, SCHEMA, ReadState()))
    assert len(blocks) > 10
    users = pl.concat([block.events for block in blocks])["user_id"].to_list()
    assert users == list(range(150))


def test_skipped_rows_are_counted_and_written_aside(tmp_path, small_blocks):
    paths = write_files(tmp_path, 3, 40)
    break_row(paths[1], 12, "5,5,9,1700000000")
    break_row(paths[1], 33, ",5,3,1700000000")
    break_row(paths[2], 2, "5,5,3,never")
    paths[2].write_text(paths[2].read_text() + "\n8,8,3,1700000000,,extra\n")
    coded = ingest(paths, SCHEMA, Spill(tmp_path), options=ReadOptions(on_error="skip"))
    assert coded.num_events == 120 - 3
    assert coded.rows_skipped == 4
    write_rejected(tmp_path / "rejected.csv", coded.rejected)
    found = pl.read_csv(tmp_path / "rejected.csv", infer_schema=False).rows()
    assert found == [
        (str(paths[1]), "12", "stars", "log-label-range", "9"),
        (str(paths[1]), "33", "user", "log-id-missing", None),
        (str(paths[2]), "2", "time", "log-time-type", "never"),
        (str(paths[2]), "43", "", "log-row-fields", "extra"),
    ]
    assert {(f.code, f.row, f.count) for f in coded.findings} == {
        ("rows-skipped", 12, 1),
        ("rows-skipped", 33, 1),
        ("rows-skipped", 2, 1),
        ("rows-skipped", 43, 1),
    }


def test_a_row_with_several_faults_is_set_aside_once(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(HEADER + good_rows(0, 5) + ",,9,never\n")
    coded = ingest(path, SCHEMA, Spill(tmp_path), options=ReadOptions(on_error="skip"))
    assert (coded.num_events, coded.rows_skipped) == (5, 1)


def test_a_log_of_bad_rows_alone_is_refused(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(HEADER + "1,2,9,1700000000\n2,3,8,1700000001\n")
    with pytest.raises(LogError, match="no usable event: of 2 rows 2 are bad"):
        ingest(path, SCHEMA, Spill(tmp_path), options=ReadOptions(on_error="skip"))


def test_a_column_that_changes_type_between_files_is_told(tmp_path):
    schema = Schema(user_id="user", item_id="item")
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text("user,item\n1,2\n3,4\n")
    second.write_text("user,item\nx1,2\n3,4\n")
    coded = ingest([first, second], schema, Spill(tmp_path))
    assert coded.users.ids().to_list() == ["1", "3", "x1"]
    assert coded.items.ids().to_list() == [2, 4]
    (finding,) = coded.findings
    assert (finding.code, finding.column) == ("column-type-changed", "user")
    assert "integer" in finding.message and "text" in finding.message


def typed_log(path: Path, **columns: object) -> Path:
    """A Parquet log of three events with these columns instead of its own."""
    own = {"user": [1, 2, 3], "item": [1, 2, 3], "stars": [3, 4, 5]}
    pl.DataFrame({**own, "time": [T0, T0 + 1, T0 + 2], **columns}).write_parquet(path)
    return path


DEVICE = Feature(name="device", owner="context", kind="categorical")


def test_a_context_feature_keeps_its_values_when_its_type_changes(tmp_path):
    schema = Schema(user_id="user", item_id="item", features=(DEVICE,))
    first = typed_log(tmp_path / "a.parquet", device=[2, 3, 1])
    second = typed_log(tmp_path / "b.parquet", device=[2.0, None, 1.0])
    coded = ingest([first, second], schema, Spill(tmp_path))
    assert coded.tables["device"].ids().to_list() == ["2", "3", "1"]
    codes = pl.concat(coded.frames)["feature:device"].to_list()
    assert codes == [0, 1, 2, 0, -1, 2]
    (finding,) = coded.findings
    assert (finding.code, finding.column) == ("column-type-changed", "device")
    assert f"integer in '{first}' and float in '{second}'" in finding.message
    assert "read as text" in finding.message


@pytest.mark.parametrize(
    ("column", "first", "second", "kinds", "read_as"),
    [
        ("stars", [3, 4, 5], [3.0, 4.0, 5.0], "integer float", "numbers"),
        ("stars", ["3", "4", "5"], [3, 4, 5], "text integer", "numbers"),
        ("time", [1, 2, 3], ["1970-01-02"] * 3, "integer text", "times"),
        ("time", [1, 2, 3], [datetime(2020, 1, 1)] * 3, "integer date", "times"),
        ("price", [1, 2, 3], [1.0, 2.0, None], "integer float", "numbers"),
    ],
)
def test_every_column_that_changes_its_type_is_told(
    tmp_path, column, first, second, kinds, read_as
):
    price = Feature(name="price", owner="context", kind="numeric")
    schema = msgspec.structs.replace(SCHEMA, features=(price,))
    given = {"price": [1, 2, 3]}
    paths = [
        typed_log(tmp_path / f"{name}.parquet", **{**given, column: values})
        for name, values in (("a", first), ("b", second), ("c", second))
    ]
    (finding,) = ingest(paths, schema, Spill(tmp_path)).findings
    assert (finding.code, finding.column) == ("column-type-changed", column)
    assert (finding.file, finding.count) == (str(paths[1]), 2)
    one, other = kinds.split()
    assert f"{one} in '{paths[0]}' and {other} in '{paths[1]}'" in finding.message
    assert f"all of it is read as {read_as}." in finding.message


def test_times_that_are_numbers_in_one_file_and_dates_in_another_are_told(tmp_path):
    paths = write_files(tmp_path, 2, 3)
    break_row(paths[1], 2, "5,5,3,2024-01-01")
    break_row(paths[1], 3, "5,6,3,2024-01-02")
    break_row(paths[1], 4, "5,6,3,2024-01-03")
    (finding,) = ingest(paths, SCHEMA, Spill(tmp_path)).findings
    assert (finding.code, finding.column) == ("column-type-changed", "time")
    assert "number in" in finding.message and "text in" in finding.message


def test_files_without_types_of_their_own_have_none_that_change(tmp_path):
    schema = msgspec.structs.replace(SCHEMA, features=(DEVICE,))
    rows = "user,item,stars,time,device\n1,2,{},1700000000,{}\n2,3,{},1700000001,{}\n"
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text(rows.format(3, 1, 3, 2))
    second.write_text(rows.format(3.5, "tv", 3, "web"))
    third = typed_log(tmp_path / "c.parquet", device=["a", "b", "c"])
    json = pl.read_parquet(third).with_columns(pl.col("stars").cast(pl.Float64))
    json.write_ndjson(tmp_path / "d.ndjson")
    files = [first, second, third, tmp_path / "d.ndjson"]
    assert ingest(files, schema, Spill(tmp_path)).findings == []


@pytest.mark.parametrize("buckets", [None, 7])
@pytest.mark.parametrize(
    "values",
    [
        [["a"], ["a", "b"], []],
        [{"a": 1}] * 3,
        [b"\xff", b"a", b"b"],
        [timedelta(1)] * 3,
    ],
)
def test_nested_columns_and_bytes_are_no_context_feature(tmp_path, values, buckets):
    device = msgspec.structs.replace(DEVICE, hash_buckets=buckets)
    schema = Schema(user_id="user", item_id="item", features=(device,))
    path = typed_log(tmp_path / "a.parquet", device=values)
    for on_error in ("raise", "skip"):
        with pytest.raises(LogError, match="A categorical feature must") as caught:
            ingest(
                path, schema, Spill(tmp_path), options=ReadOptions(on_error=on_error)
            )
        assert (caught.value.code, caught.value.column) == ("attribute-type", "device")
        assert caught.value.file == str(path)


def test_a_late_text_id_makes_the_whole_column_text(tmp_path, small_blocks):
    path = tmp_path / "log.csv"
    path.write_text(HEADER + good_rows(0, 40) + "late,1,3,1700000000\n")
    users = read_events(path, SCHEMA)["user_id"].to_list()
    assert users == [*map(str, range(40)), "late"]


def test_ids_that_differ_in_white_space_are_told(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item\na,1\n a,2\nb,3\n")
    coded = ingest(path, Schema(user_id="user", item_id="item"), Spill(tmp_path))
    (finding,) = coded.findings
    assert (finding.code, finding.column) == ("ids-white-space", "user")


def test_implicit_events_below_the_threshold_are_left_out(tmp_path):
    schema = Schema(
        user_id="user",
        item_id="item",
        timestamp="time",
        label="stars",
        positive_from=4,
        weight="linear",
        weight_alpha=0.5,
    )
    path = tmp_path / "log.csv"
    path.write_text(HEADER + "1,1,5,10\n1,2,3,11\n2,1,4,12\n")
    coded = ingest(path, schema, Spill(tmp_path))
    (frame,) = coded.frames
    assert frame["label"].to_list() == [1.0, 1.0]
    assert frame["weight"].to_list() == [3.5, 3.0]
    assert coded.below == 1


def test_context_features_come_as_codes_lists_and_numbers(tmp_path, small_blocks):
    schema = Schema(
        user_id="user",
        item_id="item",
        features=(
            Feature(name="device", owner="context", kind="categorical"),
            Feature(name="tags", owner="context", kind="multi_valued"),
            Feature(name="price", owner="context", kind="numeric"),
        ),
    )
    rows = ["1,1,phone,a|b,1.5", "2,2,,,", "3,1,web,b,3", "4,1,phone,|c|,4"] * 5
    path = tmp_path / "log.csv"
    path.write_text("user,item,device,tags,price\n" + "\n".join(rows))
    coded = ingest(path, schema, Spill(tmp_path))
    frame = pl.concat(coded.frames)
    devices, tags = (coded.tables[n].ids().to_list() for n in ("device", "tags"))
    names = [devices[c] if c >= 0 else None for c in frame["feature:device"]]
    assert names == ["phone", None, "web", "phone"] * 5
    lists = [[tags[c] for c in codes] for codes in frame["feature:tags"].to_list()]
    assert lists == [["a", "b"], [], ["b"], ["c"]] * 5
    assert frame["feature:price"].to_list() == [1.5, None, 3.0, 4.0] * 5


ROWS = st.lists(
    st.tuples(
        st.integers(0, 4), st.integers(0, 3), st.integers(1, 3), st.integers(0, 6)
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, files=st.integers(1, 3), budget=st.sampled_from([None, 1, 600]))
def test_grouping_agrees_with_a_plain_sort(tmp_path_factory, rows, files, budget):
    """Whatever the number of files, and whether or not the events fit into memory."""
    folder = tmp_path_factory.mktemp("log")
    paths = [folder / f"{number}.csv" for number in range(files)]
    share = -(-len(rows) // files)
    shares = [rows[n * share : (n + 1) * share] or rows[:1] for n in range(files)]
    for path, part in zip(paths, shares, strict=True):
        lines = [f"{u},{i},{r},{T0 + t}" for u, i, r, t in part]
        path.write_text(HEADER + "\n".join(lines))
    told = [row for part in shares for row in part]
    # One time everywhere is none, and then nothing is a duplicate.
    assume(len({t for *_, t in told}) > 1)
    first_seen = list(dict.fromkeys(u for u, *_ in told))
    distinct = list(dict.fromkeys(told))
    expected = sorted(distinct, key=lambda r: (first_seen.index(r[0]), r[3]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_ROWS", 8)
        patch.setattr(
            "shortlist.data.preparation.ingest.total_memory",
            lambda: 4 * (budget or 2**30),
        )
        log = read_sorted_log(paths, SCHEMA, Split(test=0.3, validation=0.3))
    users, items = log.user_ids.to_list(), log.item_ids.to_list()
    found = [
        (users[u], items[i], int(label), (t - T0 * 1000) // 1000)
        for u, i, label, t in log.frame.select(
            "user_code", "item_code", "label", "timestamp_ms"
        ).rows()
    ]
    assert found == expected
    assert log.duplicates_dropped == len(told) - len(distinct)
    for user in set(users):
        of_events = zip(found, log.frame["part"], strict=True)
        parts = [part for event, part in of_events if event[0] == user]
        assert parts == sorted(parts)
        assert parts.count(2) == int(len(parts) * 0.3 + 1e-9)

"""Every bad log gets one error with a code and a place, and leaves nothing behind."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from log_events import read_events
from shortlist.data import Schema
from shortlist.data.preparation.attribute_file import read_attributes
from shortlist.data.read.blocks import ReadState, read_blocks
from shortlist.data.read.scan import read_table
from shortlist.errors import LogError

NOW_MS = 1_800_000_000_000
SCHEMA = Schema(
    user_id="user",
    item_id="item",
    timestamp="time",
    label="stars",
    label_kind="explicit",
    label_min=1.0,
    label_max=5.0,
)
HEADER = "user,item,stars,time\n"
GOOD = "1,10,3,1700000000\n2,11,4,1700000001\n"
MANY = HEADER + "".join(f"{n},{n * 7},3,{1_700_000_000 + n}\n" for n in range(20_000))


def refused(
    tmp_path: Path,
    content: str | bytes | None,
    *,
    schema: Schema = SCHEMA,
    layout: str | None = None,
    read: Callable[[Path], object] | None = None,
) -> LogError:
    """The error of reading a file with this content, which must write nothing."""
    path = tmp_path / "log"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(LogError) as caught:
        if read is not None:
            read(path)
        else:
            read_events(path, schema, layout=layout, now_ms=NOW_MS)
    assert sorted(os.listdir(tmp_path)) == before
    error = caught.value
    assert error.exit_code == 2
    assert error.file == str(path)
    # What happened and what to do; of a value also what must hold.
    least = 2 if error.code.startswith("log-file-") else 3
    assert len(error.message.split(". ")) >= least
    return error


def place(error: LogError) -> tuple[str, str | None, int | None]:
    return error.code, error.column, error.row


def test_missing_file(tmp_path: Path) -> None:
    error = refused(tmp_path, None)
    assert place(error) == ("log-file-missing", None, None)
    assert "Check the path" in error.message


def test_directory(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    error = refused(tmp_path, None)
    assert error.code == "log-file-directory"
    assert "Received a directory" in error.message


@pytest.mark.parametrize(
    "content", ["", " \n\n", "\ufeff", gzip.compress(b"", mtime=0)]
)
def test_empty_file(tmp_path: Path, content: str | bytes) -> None:
    assert refused(tmp_path, content).code == "log-empty"


def test_header_only(tmp_path: Path) -> None:
    error = refused(tmp_path, HEADER)
    assert error.code == "log-empty"
    assert "no row below the header" in error.message


def test_no_files() -> None:
    with pytest.raises(LogError, match="at least one file") as caught:
        read_events([], SCHEMA)
    assert caught.value.code == "log-empty"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "binary data"),
        (bytes(range(256)) * 50, "binary data"),
        (b"PK\x03\x04\x14\x00", "binary data"),
        (b'[{"user": 1}]', "one object per line"),
        (HEADER.encode().replace(b"\n", b"\r") + b"1,2,3,4\r", "carriage returns"),
        (gzip.compress(b"PAR1" + bytes(20), mtime=0), "Unpack it first"),
    ],
)
def test_unknown_format(tmp_path: Path, content: bytes, words: str) -> None:
    error = refused(tmp_path, content)
    assert error.code == "log-format"
    assert words in error.message


def test_unknown_layout_name(tmp_path: Path) -> None:
    error = refused(tmp_path, HEADER + GOOD, layout="parket")
    assert error.code == "log-layout-unknown"
    assert "Did you mean 'parquet'?" in error.message


@pytest.mark.parametrize("layout", ["parquet", "arrow", "movielens-dat"])
def test_layout_that_does_not_fit(tmp_path: Path, layout: str) -> None:
    assert refused(tmp_path, HEADER + GOOD, layout=layout).code == "log-format"


def test_parquet_read_as_text(tmp_path: Path) -> None:
    out = io.BytesIO()
    pl.DataFrame({"user": [1]}).write_parquet(out)
    assert refused(tmp_path, out.getvalue(), layout="csv").code == "log-format"


@pytest.mark.parametrize("mark", ["#", "^", "~"])
def test_unknown_delimiter(tmp_path: Path, mark: str) -> None:
    error = refused(tmp_path, (HEADER + GOOD).replace(",", mark))
    assert place(error) == ("log-delimiter", None, 1)
    assert "one of , ; | or a tab" in error.message


def test_comma_log_read_as_tsv(tmp_path: Path) -> None:
    assert refused(tmp_path, HEADER + GOOD, layout="tsv").code == "log-delimiter"


def test_no_header(tmp_path: Path) -> None:
    error = refused(tmp_path, GOOD)
    assert place(error) == ("log-no-header", None, 1)
    assert "Add a header line" in error.message


def test_missing_column(tmp_path: Path) -> None:
    error = refused(tmp_path, "user,item,star,time\n" + GOOD)
    assert place(error) == ("log-column-missing", "stars", None)
    assert "Did you mean 'star'?" in error.message
    assert "['user', 'item', 'star', 'time']" in error.message


def test_duplicated_column(tmp_path: Path) -> None:
    error = refused(tmp_path, "user,item,stars,time,item\n1,2,3,4,5\n")
    assert place(error) == ("log-column-duplicated", "item", 1)


@pytest.mark.parametrize("column", ["user", "item", "stars", "time"])
@pytest.mark.parametrize("blank", ["", '""'])
def test_empty_column(tmp_path: Path, column: str, blank: str) -> None:
    names = ["user", "item", "stars", "time"]
    rows = [
        ",".join(blank if name == column else value for name, value in zip(*pair))
        for pair in ((names, ["1", "2", "3", "4"]), (names, ["2", "3", "4", "5"]))
    ]
    error = refused(tmp_path, HEADER + "\n".join(rows))
    assert place(error) == ("log-column-empty", column, None)


@pytest.mark.parametrize(
    ("row", "code", "column"),
    [
        (",12,3,1700000002", "log-id-missing", "user"),
        ("3,,3,1700000002", "log-id-missing", "item"),
        ('3," ",3,1700000002', "log-id-missing", "item"),
        ("3,12,,1700000002", "log-label-missing", "stars"),
        ("3,12,abc,1700000002", "log-label-type", "stars"),
        ('3,12,"3,5",1700000002', "log-label-type", "stars"),
        ("3,12,nan,1700000002", "log-label-not-finite", "stars"),
        ("3,12,inf,1700000002", "log-label-not-finite", "stars"),
        ("3,12,-inf,1700000002", "log-label-not-finite", "stars"),
        ("3,12,0.5,1700000002", "log-label-range", "stars"),
        ("3,12,5.01,1700000002", "log-label-range", "stars"),
        ("3,12,3,", "log-time-missing", "time"),
        ("3,12,3", "log-time-missing", "time"),
        ("3,12,3,yesterday", "log-time-type", "time"),
        ("3,12,3,nan", "log-time-type", "time"),
        ("3,12,3,2024-01-01", "log-time-type", "time"),
        ("3,12,3,1700000002000", "log-time-mixed", "time"),
        ("3,12,3,-5", "log-time-before-1970", "time"),
        ("3,12,3,1800086401", "log-time-future", "time"),
        ("3,12,3,1700000002,7", "log-row-fields", None),
        ("3,12,3,1700000002,7,8,9", "log-row-fields", None),
        ("3,12,3,1700000002,,9", "log-row-fields", None),
        ('3,12,3,1700000002,"",,9,', "log-row-fields", None),
        ('3,"12,3,1700000002', "log-quotes", None),
        ('"3",12",3,1700000002', "log-quotes", None),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_one_bad_row_is_named_by_its_line(
    tmp_path: Path, row: str, code: str, column: str | None, packed: bool
) -> None:
    content = (HEADER + GOOD * 3 + "\n" + row + "\n").encode()
    error = refused(tmp_path, gzip.compress(content) if packed else content)
    # A header, six good rows and a blank line come before it.
    assert place(error) == (code, column, 9)


@pytest.mark.parametrize("extra", [",,9", ",,,,9", ',"",9,'])
def test_a_field_after_empty_extra_ones_is_found_in_every_table(
    tmp_path: Path, extra: str
) -> None:
    content = f"id,town\n1,a\n2,b{extra}\n"
    assert place(refused(tmp_path, content, read=read_table)) == (
        "log-row-fields",
        None,
        3,
    )


@pytest.mark.parametrize("end", [",", ",,", ",,,,,,", ',"",'])
def test_empty_fields_at_the_end_of_a_row_are_none(tmp_path: Path, end: str) -> None:
    path = tmp_path / "log"
    path.write_text(HEADER + GOOD.replace("\n", f"{end}\n", 1))
    assert len(read_events(path, SCHEMA, now_ms=NOW_MS)) == 2
    assert read_table(path).columns == ["user", "item", "stars", "time"]


def test_lines_are_counted_through_quoted_line_ends(tmp_path: Path) -> None:
    bad = '1,"a\nb\n\nc",3,1700000000\r\n2,"d",9,1700000000\n'
    assert place(refused(tmp_path, HEADER + bad)) == ("log-label-range", "stars", 6)


def test_the_value_found_is_shown(tmp_path: Path) -> None:
    error = refused(tmp_path, HEADER + GOOD + "3,12,abc,1700000002\n" * 2)
    assert "Found 'abc' and 1 more like it." in error.message
    assert str(error).endswith("column stars, row 4)")


def test_the_future_begins_one_day_from_now(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(HEADER + GOOD + f"3,12,3,{NOW_MS // 1000 + 86_400}\n")
    assert len(read_events(path, SCHEMA, now_ms=NOW_MS)) == 3


@pytest.mark.parametrize("unit", [1_000, 1_000_000])
def test_seconds_among_finer_units_are_refused(tmp_path: Path, unit: int) -> None:
    rows = "".join(f"{n},1,3,{(1_700_000_000 + n) * unit}\n" for n in range(5))
    error = refused(tmp_path, HEADER + rows + "9,2,3,1700000000\n")
    assert place(error) == ("log-time-mixed", "time", 7)
    assert "Found '1700000000'." in error.message


def test_binary_labels_other_than_0_and_1(tmp_path: Path) -> None:
    schema = Schema(user_id="user", item_id="item", label="stars", label_kind="binary")
    error = refused(tmp_path, HEADER + "1,2,1,1\n2,3,0.5,2\n", schema=schema)
    assert place(error) == ("log-label-range", "stars", 3)
    assert "must be 0 or 1" in error.message


@pytest.mark.parametrize("users", [[1.5, 2.0], [2.0**53, 1.0], [True, False]])
def test_ids_that_are_neither_text_nor_whole_numbers(
    tmp_path: Path, users: list[float]
) -> None:
    out = io.BytesIO()
    frame = pl.DataFrame({"user": users, "item": [1, 2], "stars": 3, "time": 9})
    frame.write_parquet(out)
    error = refused(tmp_path, out.getvalue())
    assert place(error) == ("log-id-type", "user", None)


def test_rows_of_typed_files_count_from_1(tmp_path: Path) -> None:
    out = io.BytesIO()
    frame = pl.DataFrame(
        {"user": [1, 2, 3], "item": [1, 2, 3], "stars": [3.0, 3.0, None], "time": 9}
    )
    frame.write_parquet(out)
    assert place(refused(tmp_path, out.getvalue())) == ("log-label-missing", "stars", 3)


def ipc(frame: pl.DataFrame, *, stream: bool) -> bytes:
    out = io.BytesIO()
    frame.write_ipc_stream(out) if stream else frame.write_ipc(out)
    return out.getvalue()


def parquet(frame: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.write_parquet(out)
    return out.getvalue()


FRAME = pl.read_csv(MANY.encode())
BINARIES = {
    "parquet": parquet(FRAME),
    "arrow file": ipc(FRAME, stream=False),
    "arrow stream": ipc(FRAME, stream=True),
    "gz": gzip.compress(MANY.encode()),
    "zst": bytes(pa.compress(MANY.encode(), "zstd")),
    "json gz": gzip.compress(FRAME.write_ndjson().encode()),
}


@pytest.mark.parametrize("name", BINARIES)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_truncated_file(tmp_path: Path, name: str, share: float) -> None:
    whole = BINARIES[name]
    cut = max(8, round(len(whole) * share)) if share < 1.0 else len(whole) - 9
    error = refused(tmp_path, whole[:cut])
    assert error.code in ("log-file-damaged", "log-empty")
    assert "export" in error.message


def test_truncated_movielens_file(tmp_path: Path) -> None:
    text = "".join(f"{n}::{n * 7}::3::{978300000 + n}\n" for n in range(20_000))
    packed = gzip.compress(text.encode())
    assert refused(tmp_path, packed[: len(packed) // 2]).code == "log-file-damaged"


def test_damaged_pages_of_a_parquet_file(tmp_path: Path) -> None:
    broken = bytearray(BINARIES["parquet"])
    broken[4:2_000] = b"\xff" * 1_996
    assert refused(tmp_path, bytes(broken)).code == "log-file-damaged"


def test_invalid_utf8_names_the_line(tmp_path: Path) -> None:
    error = refused(tmp_path, (HEADER + GOOD + "3,caf\xe9,3,9\n").encode("latin-1"))
    assert place(error) == ("log-encoding", None, 4)
    assert "UTF-8" in error.message
    json = b'{"user":1,"item":"a"}\n{"user":2,"item":"\xff"}\n'
    assert place(refused(tmp_path, json)) == ("log-encoding", None, 2)


def test_utf16_is_recognized(tmp_path: Path) -> None:
    error = refused(tmp_path, (HEADER + GOOD).encode("utf-16"))
    assert place(error) == ("log-encoding", None, 1)
    assert "UTF-16" in error.message


@pytest.mark.parametrize("line", ['{"user": 2, "item": "b', "hello", "[1]"])
def test_broken_json_line(tmp_path: Path, line: str) -> None:
    error = refused(tmp_path, '{"user": 1, "item": "a"}\n\n' + line + "\n")
    assert place(error) == ("log-json", None, 3)


def test_mixed_types_in_json(tmp_path: Path) -> None:
    good = '{"user": 1, "item": "a", "stars": 3, "time": 9}\n'
    lines = good + '{"user": 2, "item": "b", "stars": true, "time": 9}\n'
    assert place(refused(tmp_path, lines)) == ("log-mixed-types", "stars", 2)
    lines = good + '{"user": 2, "item": "b", "stars": "x", "time": 9}\n'
    assert place(refused(tmp_path, lines)) == ("log-label-type", "stars", 2)


def test_repeated_id_of_an_attribute_file_names_the_second_row(
    tmp_path: Path,
) -> None:
    def read(path: Path) -> object:
        return read_attributes(path, "id", ["town"])

    error = refused(tmp_path, "id,town\n1,a\n2,b\n1,c\n", read=read)
    assert place(error) == ("log-id-duplicated", "id", 4)
    error = refused(tmp_path, "id,town\n1,a\n,b\n", read=read)
    assert place(error) == ("log-id-missing", "id", 3)
    error = refused(tmp_path, "id,city\n1,a\n2,b\n", read=read)
    assert place(error) == ("log-column-missing", "town", None)
    assert refused(tmp_path, "id,town\n", read=read).code == "log-empty"


def test_the_wrong_file_among_several_is_named(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text(HEADER + GOOD)
    bad.write_text(HEADER + "3,12,9,1700000000\n")
    with pytest.raises(LogError) as caught:
        read_events([good, bad], SCHEMA, now_ms=NOW_MS)
    assert (caught.value.file, caught.value.row) == (str(bad), 2)


def test_reading_refused_by_the_system_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(*_: object) -> object:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "log").write_text(HEADER + GOOD)
    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(LogError, match="Permission denied") as caught:
        read_table(tmp_path / "log")
    assert caught.value.code == "log-file-unreadable"


ODD = {
    "list": pl.Series([["a" * 50], ["b"], None]),
    "struct": pl.Series([{"a": 1}, {"a": 2}, {"a": 3}]),
    "duration": pl.Series([1, 2, 3], dtype=pl.Duration("ms")),
    "binary": pl.Series([b"\xff\xfe", b"ok", b"3"]),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("column", ["stars", "time"])
def test_values_of_odd_types_are_bad_rows(
    tmp_path: Path, kind: str, column: str
) -> None:
    columns = {
        "user": [1, 2, 3],
        "item": [1, 2, 3],
        "stars": [3, 3, 3],
        "time": [9] * 3,
    }
    frame = pl.DataFrame(columns).with_columns(ODD[kind].alias(column))
    error = refused(tmp_path, parquet(frame))
    names = {"stars": ("label", "missing"), "time": ("time", "missing")}
    name, missing = names[column]
    expected = (f"log-{name}-{missing}", column, 3)
    assert place(error) == (
        expected if kind == "list" else (f"log-{name}-type", column, 1)
    )
    assert "\n" not in error.message
    path = tmp_path / "log"
    (block,) = read_blocks(path, SCHEMA, ReadState(), on_error="skip")
    assert len(block.events) == 0
    values = [row for reason in block.rejected for row in reason.rows.rows()]
    assert [value[0] for value in sorted(values)] == [0, 1, 2]
    assert all(len(value[3] or "") <= 40 for value in values)
    assert all("\n" not in reason.message for reason in block.rejected)


@pytest.mark.parametrize("unit", [1, 1_000, 1_000_000, 1_000_000_000])
@pytest.mark.parametrize("kind", [pl.Int64, pl.UInt64, pl.Float64])
def test_a_sentinel_among_times_is_a_bad_row(
    tmp_path: Path, unit: int, kind: type[pl.DataType]
) -> None:
    odd: dict[type[pl.DataType], float] = {
        pl.Int64: -(2**63),
        pl.UInt64: 2**64 - 1,
        pl.Float64: 1e300,
    }
    times = [*((1_700_000_000 + n) * unit for n in range(4)), odd[kind]]
    columns = {"user": range(5), "item": range(5), "stars": 3}
    frame = pl.DataFrame(columns).with_columns(pl.Series("time", times, dtype=kind))
    error = refused(tmp_path, parquet(frame))
    assert error.code.startswith("log-time-")
    assert (error.column, error.row) == ("time", 5)
    if kind == pl.Int64:
        assert error.code == "log-time-missing"
    (block,) = read_blocks(tmp_path / "log", SCHEMA, ReadState(), on_error="skip")
    assert block.events["user_id"].to_list() == [0, 1, 2, 3]
    assert block.events["timestamp_ms"].to_list() == [
        (1_700_000_000 + n) * 1000 for n in range(4)
    ]


@pytest.mark.parametrize("label", [1e300, -1e300, 3.5e38])
def test_labels_beyond_32_bits_are_bad_rows(tmp_path: Path, label: float) -> None:
    schema = Schema(user_id="user", item_id="item", label="stars", positive_from=1)
    content = HEADER + GOOD + f"3,12,{label},1700000002\n"
    error = refused(tmp_path, content, schema=schema)
    assert place(error) == ("log-label-not-finite", "stars", 4)
    (block,) = read_blocks(tmp_path / "log", schema, ReadState(), on_error="skip")
    assert block.events["label"].to_list() == [1.0, 1.0]
    assert [len(reason.rows) for reason in block.rejected] == [1]


def test_a_byte_order_mark_before_json_is_no_part_of_it(tmp_path: Path) -> None:
    lines = "".join(
        f'{{"user": {n}, "item": "{n}", "stars": 3, "time": {n}}}\n' for n in range(3)
    )
    for pack in (bytes, gzip.compress):
        path = tmp_path / "log"
        path.write_bytes(pack(("\ufeff" + lines).encode()))
        assert read_events(path, SCHEMA)["user_id"].to_list() == [0, 1, 2]
        bad = pack(("\ufeff" + lines + "{").encode())
        assert place(refused(tmp_path, bad)) == ("log-json", None, 4)

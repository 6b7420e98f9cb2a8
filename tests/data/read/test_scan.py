"""Logs of every layout give the same columns, and ids survive unchanged."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from log_events import read_events
from shortlist.data import Schema
from shortlist.data.preparation.attribute_file import read_attributes
from shortlist.data.read.layouts import inspect_file
from shortlist.data.read.scan import read_table
from shortlist.data.read.text.layouts import GENRES

NOW_MS = 1_800_000_000_000
T = 1_700_000_000
SCHEMA = Schema(
    user_id="user",
    item_id="item",
    timestamp="time",
    label="stars",
    label_kind="explicit",
)
ROWS = [
    {"user": "007", "item": "a b", "stars": 3.0, "time": T},
    {"user": "7", "item": 'say "hi"', "stars": 4.5, "time": T + 1},
    {"user": "07", "item": "x/y,z", "stars": 5.0, "time": T + 2},
    {"user": "7", "item": "🎬;\n|", "stars": 1.0, "time": T + 3},
]
EXPECTED = [
    (r["user"], r["item"], r["time"] * 1000, r["stars"])  # type: ignore[operator]
    for r in ROWS
]


def delimited(mark: str, end: str = "\n") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(ROWS[0]), delimiter=mark, lineterminator=end)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def as_bytes(layout: str) -> bytes:
    out = io.BytesIO()
    if layout == "parquet":
        pl.DataFrame(ROWS).write_parquet(out)
    elif layout == "arrow-file":
        pl.DataFrame(ROWS).write_ipc(out)
    elif layout == "arrow-stream":
        pl.DataFrame(ROWS).write_ipc_stream(out)
    elif layout == "ndjson":
        return "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    else:
        marks = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
        return delimited(marks[layout])
    return out.getvalue()


def write(tmp_path: Path, content: str | bytes, name: str = "log.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def events(path: Path, schema: Schema = SCHEMA) -> list[tuple[object, ...]]:
    return read_events(path, schema, now_ms=NOW_MS).rows()


TEXTS = ["comma", "semicolon", "tab", "bar", "ndjson"]


@pytest.mark.parametrize("layout", [*TEXTS, "parquet", "arrow-file", "arrow-stream"])
def test_every_layout_gives_the_same_events(tmp_path: Path, layout: str) -> None:
    path = write(tmp_path, as_bytes(layout), "log.anything")
    assert events(path) == EXPECTED


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
@pytest.mark.parametrize("layout", TEXTS)
def test_compression_is_told_from_the_bytes_not_the_name(
    tmp_path: Path, layout: str, packing: str
) -> None:
    raw = as_bytes(layout)
    packed = gzip.compress(raw) if packing == "gzip" else pa.compress(raw, "zstd")
    path = write(tmp_path, bytes(packed), "log.csv")
    assert events(path) == EXPECTED


def test_byte_order_mark_and_crlf_and_blank_lines_are_no_content(
    tmp_path: Path,
) -> None:
    raw = "\ufeffuser,item,stars,time\n1,2,3,9\n\n2,3,4,9\n\n\n"
    path = write(tmp_path, raw.replace("\n", "\r\n"))
    assert events(path) == [(1, 2, 9000, 3.0), (2, 3, 9000, 4.0)]


def test_patterns_in_a_file_name_are_ordinary_characters(tmp_path: Path) -> None:
    write(tmp_path, delimited(","), "log1.csv")
    for layout in ("comma", "ndjson", "parquet", "arrow-file", "arrow-stream"):
        path = write(tmp_path, as_bytes(layout), f"{layout} [1]*.csv")
        assert events(path) == EXPECTED


def test_quotes_inside_unquoted_fields_are_ordinary_characters(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, 'user\titem\n1\t5" pipe\n2\t6" pi"pe\n3\tend"\n')
    assert read_table(path).rows() == [(1, '5" pipe'), (2, '6" pi"pe'), (3, 'end"')]


def test_columns_become_numbers_only_if_nothing_is_lost(tmp_path: Path) -> None:
    header = "int,zero,plus,minus,float,big,mixed,gap\n"
    rows = "1,007,+1,-0,1.5,9999999999999999999,1,1\n"
    rows += "-2,1,2,3,2,1,x,\n"
    table = read_table(write(tmp_path, header + rows))
    kinds = [pl.Int64, pl.String, pl.String, pl.String, pl.Float64]
    assert table.dtypes == [*kinds, pl.String, pl.String, pl.Int64]
    assert table["gap"].to_list() == [1, None]
    exact = read_table(tmp_path / "log.csv", exact=("float", "big"))
    assert exact["float"].to_list() == ["1.5", "2"]
    assert exact["big"].to_list() == ["9999999999999999999", "1"]


def test_a_late_value_that_is_no_number_keeps_the_whole_column_text(
    tmp_path: Path,
) -> None:
    values = [str(number) for number in range(2_000)] + ["007", "x"]
    path = write(tmp_path, "id,other\n" + "".join(f"{v},1\n" for v in values))
    assert read_table(path)["id"].to_list() == values
    assert read_table(path, num_rows=3)["id"].to_list() == [0, 1, 2]


ids = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t"),
    min_size=1,
).filter(lambda text: text.strip() != "" and "\r" not in text)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(values=st.lists(st.tuples(ids, ids), min_size=2, max_size=8, unique=True))
def test_any_text_id_survives_a_quoted_csv(
    tmp_path: Path, values: list[tuple[str, str]]
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(["user", "item"])
    writer.writerows([("u" + user, "i" + item) for user, item in values])
    path = write(tmp_path, text.getvalue())
    schema = Schema(user_id="user", item_id="item")
    found = read_events(path, schema)
    assert found["user_id"].to_list() == ["u" + user for user, _ in values]
    assert found["item_id"].to_list() == ["i" + item for _, item in values]


def test_movielens_dat_is_recognized_and_latin_1_is_read(tmp_path: Path) -> None:
    ratings = write(tmp_path, f"1::10::5::{T}\n2::11::3::{T}\n", "ratings.dat")
    users = write(tmp_path, "1::F::1::10::48067\n2::M::56::16::07072\n", "users.dat")
    movies = "10::Léon (1994)::Crime|Drama\n11::8½ (1963)::Drama\n"
    items = write(tmp_path, movies.encode("latin-1"), "movies.dat")
    assert {inspect_file(p).layout for p in (ratings, users, items)} == {
        "movielens-dat"
    }
    assert read_table(ratings).rows() == [(1, 10, 5, T), (2, 11, 3, T)]
    assert read_table(users).to_dicts()[1] == {
        "user_id": 2,
        "gender": "M",
        "age": 56,
        "occupation": 16,
        "zip_code": "07072",
    }
    assert read_table(items)["title"].to_list() == ["Léon (1994)", "8½ (1963)"]
    write(tmp_path, movies, "movies.dat")  # the 10M set is UTF-8
    assert read_table(items)["title"].to_list() == ["Léon (1994)", "8½ (1963)"]


def test_movielens_100k_is_recognized_and_its_flags_become_genres(
    tmp_path: Path,
) -> None:
    data = write(tmp_path, f"196\t242\t3\t{T}\n186\t302\t3\t{T}\n", "u.data")
    user = write(tmp_path, "1|24|M|technician|85711\n2|53|F|other|94043\n", "u.user")
    flags = {"Animation", "Children's", "Comedy"}
    bits = "|".join("1" if genre in flags else "0" for genre in GENRES)
    url = "http://us.imdb.com/M/title-exact?Toy%20Story%20(1995)"
    none = "|".join("0" for _ in GENRES)
    lines = f"1|Toy Story (1995)|01-Jan-1995||{url}|{bits}\n2|Café|||{url}|{none}\n\n"
    item = write(tmp_path, lines.encode("latin-1"), "u.item")
    assert {inspect_file(p).layout for p in (data, user, item)} == {"movielens-100k"}
    assert read_table(data).columns == ["user_id", "item_id", "rating", "timestamp"]
    assert read_table(user).rows()[0] == (1, 24, "M", "technician", 85711)
    table = read_table(item)
    assert table["genres"].to_list() == ["Animation|Children's|Comedy", ""]
    assert table.columns == [
        "item_id",
        "title",
        "release_date",
        "video_release_date",
        "imdb_url",
        "genres",
    ]
    assert table["title"].to_list() == ["Toy Story (1995)", "Café"]


@pytest.mark.parametrize("unit", [1, 1_000, 1_000_000, 1_000_000_000])
@pytest.mark.parametrize("layout", ["csv", "parquet"])
def test_integer_times_of_every_unit_become_milliseconds(
    tmp_path: Path, unit: int, layout: str
) -> None:
    times = [T * unit, (T + 5) * unit]
    frame = pl.DataFrame({"user": [1, 2], "item": [1, 2], "stars": 3, "time": times})
    path = tmp_path / "log"
    frame.write_csv(path) if layout == "csv" else frame.write_parquet(path)
    assert [row[2] for row in events(path)] == [T * 1000, (T + 5) * 1000]


def test_fractions_of_seconds_are_kept_to_the_millisecond(tmp_path: Path) -> None:
    path = write(tmp_path, f"user,item,stars,time\n1,1,1,{T}.25\n2,2,1,{T}\n")
    assert [row[2] for row in events(path)] == [T * 1000 + 250, T * 1000]


@pytest.mark.parametrize(
    "text",
    [
        "2024-03-01T12:30:05Z",
        "2024-03-01T12:30:05",
        "2024-03-01 12:30:05",
        "2024-03-01 12:30:05.250",
        "2024-03-01T12:30:05.123456+02:00",
        "2024-03-01T12:30:05+0200",
        "2024-03-01T12:30:05-07",
        "2024-03-01T12:30+05:30",
        "2024-03-01 12:30",
        "2024-03-01 12:30:05 UTC",
        "2024-03-01",
    ],
)
def test_iso_times_are_utc_unless_they_say_otherwise(tmp_path: Path, text: str) -> None:
    plain = text.replace(" UTC", "+00:00")
    moment = datetime.datetime.fromisoformat(plain)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    expected = moment.timestamp() * 1000 // 1
    path = write(tmp_path, f"user,item,stars,time\n1,1,1,{text}\n2,2,1,1999-01-01\n")
    assert events(path)[0][2] == expected
    assert events(path)[1][2] == 915_148_800_000


def test_typed_times_are_read_as_utc(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": [1, 2], "item": [1, 2], "stars": [1, 2]})
    path = tmp_path / "log.parquet"
    naive = pl.lit("2024-03-01T12:00:00").str.to_datetime(time_unit="us")
    for expression, hour in (
        (naive, 12),
        (naive.dt.replace_time_zone("Europe/Berlin"), 11),
        (naive.dt.cast_time_unit("ns"), 12),
        (naive.dt.date(), 0),
    ):
        frame.with_columns(time=expression).write_parquet(path)
        expected = datetime.datetime(2024, 3, 1, hour, tzinfo=datetime.UTC)
        assert events(path)[0][2] == expected.timestamp() * 1000


def test_several_files_agree_on_the_type_of_their_ids(tmp_path: Path) -> None:
    first = write(tmp_path, "user,item\n1,2\n", "a.csv")
    second = write(tmp_path, "user,item\n01,3\n", "b.csv")
    frame = read_events([first, second], Schema(user_id="user", item_id="item"))
    assert frame["user_id"].to_list() == ["1", "01"]
    assert frame["item_id"].to_list() == [2, 3]


def test_unsigned_ids_beyond_64_bits_signed_keep_their_digits(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    users = pl.Series("user", [2**64 - 1, 1], dtype=pl.UInt64)
    pl.DataFrame([users, pl.Series("item", [1, 2])]).write_parquet(path)
    frame = read_events(path, Schema(user_id="user", item_id="item"))
    assert frame["user_id"].to_list() == ["18446744073709551615", "1"]


@pytest.mark.parametrize("labels", [("True", "False"), ("1", "0")])
def test_binary_labels_are_numbers_or_truth_values(
    tmp_path: Path, labels: tuple[str, str]
) -> None:
    schema = Schema(user_id="user", item_id="item", label="hit", label_kind="binary")
    path = write(tmp_path, "user,item,hit\n1,2,{}\n2,3,{}\n".format(*labels))
    assert read_events(path, schema)["label"].to_list() == [1.0, 0.0]


def test_attributes_keep_ids_and_turn_numeric_columns_into_float32(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, "id,age,town\n007,31,Ulm\n7,,Köln\n08, 5,\n")
    with pytest.raises(ValueError, match="finite numbers"):
        read_attributes(path, "id", ["age"], numeric=["age"])
    path = write(tmp_path, "id,age,town\n007,31,Ulm\n7,,Köln\n08,nan,\n")
    table, _ = read_attributes(path, "id", ["town", "age"], numeric=["age"])
    assert table.columns == ["id", "town", "age"]
    assert table["id"].to_list() == ["007", "7", "08"]
    assert table["age"].to_list() == [31.0, None, None]
    assert table["age"].dtype == pl.Float64
    assert table["town"].to_list() == ["Ulm", "Köln", None]

"""Settings of reading a log, ids as exports write them, and files that are no logs."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from log_events import read_events
from shortlist.data import FileFormat, ReadOptions, Schema, Split, prepare
from shortlist.data.read.blocks import ReadState, read_blocks
from shortlist.data.read.panics import panics_refused
from shortlist.data.read.scan import read_table
from shortlist.data.read.text.json_lines import MAX_DEPTH, MAX_FIELDS
from shortlist.data.read.text.missing import missing_texts
from shortlist.errors import InputError, LogError

PAIRS = Schema(user_id="user", item_id="item")


def ids(path: Path, **given: Any) -> list[tuple[Any, Any]]:
    events = read_events(path, PAIRS, layout=FileFormat(**given))
    return list(zip(events["user_id"].to_list(), events["item_id"].to_list()))


def write(tmp_path: Path, content: str | bytes, name: str = "log") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    ("content", "given"),
    [
        ("user::item\nann::1\n\nbob::2\n", {}),
        ("user item\nann 1\n  bob   2 \n", {}),
        ('user item\n"ann" 1\nbob  2\n', {}),
        ("user, item\nann, 1\nbob, 2\n", {}),
        ('user, item\n"ann", 1\n"bob", "2"\n', {}),
        ("user^item\nann^1\nbob^2\n", {"separator": "^"}),
        ("user<>item\nann<>1\nbob<>2\n", {"separator": "<>"}),
        ("ann,1\nbob,2\n", {"has_header": False, "column_names": ["user", "item"]}),
        ("ann,1\nbob,2\n", {"column_names": ["user", "item"]}),
        ("x,y\nann,1\nbob,2\n", {"has_header": True, "column_names": ["user", "item"]}),
        ("\ufeffuser;item\r\nann;1\r\nbob;2\r\n", {}),
        ("ann 1\nbob 2\n", {"layout": "sequences", "column_names": ["user", "item"]}),
    ],
)
def test_one_log_in_many_spellings(
    tmp_path: Path, content: str, given: dict[str, Any], pack: Any
) -> None:
    path = write(tmp_path, pack(content.encode()))
    assert ids(path, **given) == [("ann", 1), ("bob", 2)]


def test_sequences_count_rows_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "ann 1 2 3\n\nbob 4\ncid\n")
    given = {"layout": "sequences", "column_names": ["user", "item"]}
    expected = [("ann", 1), ("ann", 2), ("ann", 3), ("bob", 4)]
    assert ids(path, **given) == expected
    path = write(tmp_path, f"ann 1 2 3\n\nbob {'4' * 5_000}\n")
    with pytest.raises(LogError) as caught:
        ids(path, **given)
    assert (caught.value.code, caught.value.row) == ("log-id-long", 3)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["14251.0", "7.0"], [14251, 7]),
        (["14251.0", "7"], [14251, 7]),
        (["7.5", "8.0"], ["7.5", "8.0"]),
        (["007.0", "8.0"], ["007.0", "8.0"]),
        ([str(2**64), str(2**64 + 1)], [str(2**64), str(2**64 + 1)]),
        ([str(2**63), "5"], [str(2**63), "5"]),
    ],
)
def test_ids_of_pandas_and_beyond_64_bits(
    tmp_path: Path, texts: list[str], expected: list[Any]
) -> None:
    path = write(tmp_path, "user,item\n" + "".join(f"{t},1\n" for t in texts))
    assert [user for user, _ in ids(path)] == expected
    # Counted as they are, not as floats.
    assert read_table(path)["user"].n_unique() == 2


def test_a_float_far_down_the_file_is_still_the_integer(tmp_path: Path) -> None:
    rows = [*map(str, range(2_000)), "2000.0"]
    path = write(tmp_path, "user,item\n" + "".join(f"{t},1\n" for t in rows))
    assert [user for user, _ in ids(path)] == list(range(2_001))


@pytest.mark.parametrize("layout", ["parquet", "ndjson"])
def test_typed_floats_that_are_whole_are_integers(tmp_path: Path, layout: str) -> None:
    frame = pl.DataFrame({"user": [14251.0, None, 7.0], "item": [1, 2, 3]})
    path = tmp_path / "log"
    frame.write_parquet(path) if layout == "parquet" else frame.write_ndjson(path)
    (block,) = read_blocks(path, PAIRS, ReadState(), on_error="skip")
    assert block.events["user_id"].to_list() == [14251, 7]


@pytest.mark.parametrize("text", ["NULL", "na", "None", "NaN", "\\N", "undefined", "-"])
def test_words_for_missing_ids_are_found_and_can_be_set_aside(
    tmp_path: Path, text: str
) -> None:
    assert missing_texts(pl.Series(["u1", text, None, text])) == [text]
    rows = "".join(f"{text if n == 3 else f'u{n}'},i{n % 5}\n" for n in range(40))
    path = write(tmp_path, "user,item\n" + rows)
    split = Split(test=0, validation=0)
    dataset = prepare(path, PAIRS, tmp_path / "with", split=split)
    (found,) = [f for f in dataset.info.findings if f.code == "ids-missing-as-text"]
    assert (found.column, found.count, found.severity) == ("user", 1, "problem")
    given = FileFormat(null_values=[text])
    dataset = prepare(
        path,
        PAIRS,
        tmp_path / "without",
        split=split,
        options=ReadOptions(format=given, on_error="skip"),
    )
    assert dataset.info.statistics["events"] == 39
    assert text not in dataset.vocabularies["user"].ids.to_list()
    with pytest.raises(LogError) as caught:
        prepare(path, PAIRS, tmp_path / "raised", options=ReadOptions(format=given))
    assert (caught.value.code, caught.value.row) == ("log-id-missing", 5)


def test_ids_like_missing_ones_are_none() -> None:
    assert missing_texts(pl.Series(["nancy", "n1", "--x", "nullable"])) == []
    assert missing_texts(pl.Series([1, 2])) == []


def test_a_log_with_one_time_is_one_without_times(tmp_path: Path) -> None:
    schema = Schema(user_id="user", item_id="item", timestamp="time")
    rows = [(u, i) for u in range(4) for i in (3, 1, 2, 3)]
    for time in (0, 1_600_000_000):
        lines = "".join(f"{u},{i},{time}\n" for u, i in rows)
        path = write(tmp_path, "user,item,time\n" + lines)
        split = Split(kind="last_n", test=1, validation=0)
        dataset = prepare(path, schema, tmp_path / str(time), split=split)
        assert [f.code for f in dataset.info.findings][-1] == "times-all-equal"
        assert dataset.info.statistics["duplicates_dropped"] == 0
        held = dataset.part("test")
        taken = dataset.vocabularies["item"].ids.gather(held.item_index)
        assert taken.to_list() == [3, 3, 3, 3]  # the last of the file


def test_no_log_waits_for_ever(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, found in (
        (tmp_path / "pipe", "a pipe"),
        (Path("/dev/zero"), "a device"),
        (tmp_path, "a directory"),
    ):
        with pytest.raises(LogError, match=found) as caught:
            read_table(path)
        assert caught.value.code == "log-file-directory"
    write(tmp_path, b"", "empty")  # as files of the kernel call themselves
    with pytest.raises(LogError) as caught:
        read_table(tmp_path / "empty")
    assert caught.value.code == "log-empty"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"user": 1, "item": ' + "[" * 100_000 + "]" * 100_000 + "}", "levels"),
        ('{"a":' * 200 + "1" + "}" * 200, "levels"),
        (json.dumps({f"k{n}": 1 for n in range(MAX_FIELDS + 1)}), "different fields"),
    ],
)
def test_json_that_is_too_deep_or_too_wide_is_refused_with_its_line(
    tmp_path: Path, line: str, words: str
) -> None:
    path = write(tmp_path, '{"user": 1, "item": 2}\n' + line + "\n")
    with pytest.raises(LogError, match=words) as caught:
        read_table(path)
    assert (caught.value.code, caught.value.row) == ("log-json", 2)


def test_fields_that_differ_from_line_to_line_are_counted(tmp_path: Path) -> None:
    lines = "".join(f'{{"k{n}": 1}}\n' for n in range(MAX_FIELDS + 5))
    with pytest.raises(LogError, match="different fields"):
        read_table(write(tmp_path, lines))


def test_brackets_in_texts_and_long_lists_are_not_deep(tmp_path: Path) -> None:
    row = {"user": "[" * (MAX_DEPTH + 9), "item": [{"a": n} for n in range(500)]}
    table = read_table(write(tmp_path, json.dumps(row) + "\n"))
    assert table["item"].list.len().to_list() == [500]


def test_a_file_without_line_ends_is_refused(tmp_path: Path) -> None:
    for content in (b"a," * 200_000, b"a" * 400_000):
        with pytest.raises(LogError, match="first line of more than") as caught:
            read_table(write(tmp_path, gzip.compress(content)))
        assert caught.value.code == "log-format"


def test_a_panic_of_polars_is_an_error_with_a_code(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="too long") as caught:
        with panics_refused(tmp_path / "log"):
            raise pl.exceptions.PanicException("too long\nat line 5")
    assert caught.value.code == "log-values-unreadable"
    assert caught.value.file == str(tmp_path / "log")


@pytest.mark.parametrize(
    "given",
    [
        {"separator": ""},
        {"separator": "\n"},
        {"encoding": "latin-one"},
        {"encoding": "base64"},
        {"encoding": "rot13"},
        {"quote_char": "''"},
        {"quote_char": " "},
        {"column_names": ["a", "a"]},
        {"null_values": [""]},
        {"timestamp_format": "%H:%M"},
    ],
)
def test_settings_that_cannot_be_used_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        FileFormat(**given)
    assert caught.value.code == "file-format"

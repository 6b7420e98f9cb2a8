"""Lists in one field, as JSON, Python and NumPy write them, and what is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from log_events import read_events
from shortlist.data import Feature, FileFormat, Schema
from shortlist.data.read.feature_values import tokens
from shortlist.data.read.text.lists import is_list_text, parse_list, split_lists
from shortlist.errors import LogError

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4)


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_a_list_of_text_survives_json_and_python(texts: list[str]) -> None:
    assert parse_list(json.dumps(texts)) == texts
    assert parse_list(json.dumps(texts, ensure_ascii=False)) == texts
    assert parse_list(repr(texts)) == texts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (str(np.array(["a", "b c"])), ["a", "b c"]),
        (str(np.array([1, 22, 3])), ["1", "22", "3"]),
        ("('a', 'b',)", ["a", "b"]),
        ("{1, 2}", ["1", "2"]),
        ("[a, b c]", ["a", "b c"]),
        ("[null, 'a', None, nan]", ["a"]),
        ("[]", []),
        (" [1] ", ["1"]),
        ("(no genres listed)", None),
        ("{'a': 1}", None),
        ("[[1]]", None),
        ("[{'id': 1}]", None),
        ("a|b", None),
        ("[", None),
        ("", None),
    ],
)
def test_what_is_a_list(text: str, expected: list[str] | None) -> None:
    assert parse_list(text) == expected


def test_lists_and_joined_texts_may_stand_in_one_column() -> None:
    column = pl.Series("tags", ['["a", "b"]', "a | c", None, "(no genres listed)", ""])
    expected = [["a", "b"], ["a", "c"], None, ["(no genres listed)"], [""]]
    assert split_lists(column, "|").to_list() == expected
    feature = Feature(name="tags", owner="item", kind="multi_valued")
    kept = [["a", "b"], ["a", "c"], [], ["(no genres listed)"], []]
    assert tokens(column, feature).to_list() == kept
    # Its own output again.
    assert tokens(tokens(column, feature), feature).to_list() == kept


def test_a_column_is_one_of_lists_only_if_all_of_it_is() -> None:
    assert is_list_text(pl.Series(["[1, 2]", "", None, "['a']"]))
    assert not is_list_text(pl.Series(["[1, 2]", "[draft"]))
    assert not is_list_text(pl.Series(["", None], dtype=pl.String))


def test_lists_of_items_become_events_and_rows_are_still_named(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text('user,items\nann,"[3, 1]"\nbob,5 6 7\n\ncid,[]\n,"[9]"\n')
    schema = Schema(user_id="user", item_id="items")
    unrolled = FileFormat(unroll=["items"])
    with pytest.raises(LogError) as caught:
        read_events(path, schema, layout=unrolled)
    assert (caught.value.code, caught.value.row) == ("log-id-missing", 6)
    path.write_text('user,items\nann,"[3, 1]"\nbob,5 6 7\n')
    events = read_events(path, schema, layout=unrolled)
    assert events["user_id"].to_list() == ["ann", "ann", "bob", "bob", "bob"]
    assert events["item_id"].to_list() == [3, 1, 5, 6, 7]


def test_records_of_a_list_bring_their_fields(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "user": [1, 2, 3],
            "seen": [[{"item": 5, "user": 8}, {"item": 6, "user": 9}], [], None],
        }
    )
    for name, write in (("p", frame.write_parquet), ("j", frame.write_ndjson)):
        write(tmp_path / name)
        schema = Schema(
            user_id="user", item_id="item", label="seen.user", label_kind="explicit"
        )
        found = read_events(tmp_path / name, schema, layout=FileFormat(unroll=["seen"]))
        assert found["item_id"].to_list() == [5, 6]
        assert found["label"].to_list() == [8.0, 9.0]


@pytest.mark.parametrize(
    ("column", "code"), [("user", "log-unroll"), ("x", "log-column-missing")]
)
def test_only_lists_can_be_unrolled(tmp_path: Path, column: str, code: str) -> None:
    pl.DataFrame({"user": [1], "item": [2]}).write_parquet(tmp_path / "log")
    with pytest.raises(LogError) as caught:
        schema = Schema(user_id="user", item_id="item")
        read_events(tmp_path / "log", schema, layout=FileFormat(unroll=[column]))
    assert (caught.value.code, caught.value.column) == (code, column)

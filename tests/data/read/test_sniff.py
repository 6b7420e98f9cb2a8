"""Separators, headers, sequences and encodings told from the first lines."""

from __future__ import annotations

import pytest

from shortlist.data.read.text import sniff

ROWS = [["u1", "2020-09-16T19:12:27Z", "37"], ["u2", "2020-09-17T08:00:00Z", "38"]]


@pytest.mark.parametrize(
    "first",
    [
        ["1", "2", "3"],
        ["s1", "2020-09-16T19:12:27Z", "37"],
        ["x", "y", "1600283547"],
    ],
)
def test_a_time_or_only_numbers_are_no_header(first: list[str]) -> None:
    assert sniff.is_headerless([first])


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([["u1", "i5"], ["u2", "i7"], ["u1", "i9"]], True),
        ([["alice", "apple"], ["bob", "pear"], ["alice", "pear"]], True),
        ([["s1", "37", "0.5"], ["s2", "38", "1"]], True),
        ([["user_id", "item_id"], ["u1", "i5"]], False),
        ([["kunde", "artikel"], ["anna", "rot"], ["otto", "blau"]], False),
        ([["name", "points"], ["anna", "5"], ["otto", "7"]], False),
        ([["sku", "2019", "2020"], ["A1", "5", "7"], ["A2", "6", "8"]], False),
        ([["artikel", "1", "2"], ["A12", "0", "1"], ["A13", "1", "1"]], False),
        ([["", "0", "1"], ["0", "u1", "i1"]], False),
        ([["user_id:token", "item_id:token"], ["1", "2"]], False),
        ([["a", "b"]], False),
    ],
)
def test_a_header_is_unlike_what_stands_below_it(
    records: list[list[str]], expected: bool
) -> None:
    assert sniff.is_headerless(records) is expected


@pytest.mark.parametrize("mark", ["\t", ",", ";", "|", "::", " "])
def test_every_separator_is_found(mark: str) -> None:
    text = "\n".join(mark.join(row) for row in [["a", "b", "c"], *ROWS]) + "\n"
    assert sniff.best_separator(text, [], complete=True) == mark
    assert sniff.records(text, mark) == [["a", "b", "c"], *ROWS]


def test_blanks_inside_values_are_no_separator() -> None:
    text = "user;title\nu1;a b c\nu2;d\n"
    assert sniff.best_separator(text, [], complete=True) == ";"
    assert sniff.best_separator("one\ntwo words\nthree\n", [], complete=True) is None


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("1 5 6 7\n2 5\n3 6 9 4 1 \n4 7 8\n", " "),
        ("u1,i5,i6\nu2,i5\nu3,i6,i5,i9\nu4,i9\n", ","),
        ("1\t5\t6\n2\t7\n3\t8\t9\t1\n", "\t"),
        ("1 5\n2 6\n3 7\n", None),
        ("1,5,x y\n2,6,z\n3,7,w\n", None),
        ("a short text\nof words\nin three lines here\n", None),
    ],
)
def test_lines_of_a_user_and_items(text: str, mark: str | None) -> None:
    assert sniff.are_sequences(text, complete=True) == mark


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("3,Jos\xe9 caf\xe9", "latin-1", "latin-1"),
        ("3,the \u201cquoted\u201d title", "cp1252", "cp1252"),
        ("user,item\n1,2\n", "utf-16", "utf-16"),
        ("user,item\n1,2\n", "utf-16-le", "utf-16-le"),
        ("user,item\n1,2\n", "utf-16-be", "utf-16-be"),
        ("user,item\n1,2\n", "utf-32", "utf-32"),
        ("1,\u043f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440", "cp1251", None),
        ("1,\u4f60\u597d\u4e16\u754c\u7535\u5f71", "gb18030", None),
    ],
)
def test_encodings_are_proposed_where_they_can_be_told(
    text: str, encoding: str, expected: str | None
) -> None:
    assert sniff.guess_encoding(text.encode(encoding)) == expected


def test_the_row_names_of_r_are_a_column_without_a_name() -> None:
    header, rows = ["user", "item"], [["1", "u1", "5"], ["2", "u1", "6"]]
    assert sniff.has_row_names([header, *rows])
    assert not sniff.has_row_names([header, ["1", "u1", "5"], ["1", "u2", "6"]])
    assert not sniff.has_row_names([header, ["u1", "5", ""], ["u2", "6", ""]])
    assert not sniff.has_row_names([header, ["u1", "5"], ["u2", "6", "x"]])


def test_padded_fields() -> None:
    assert sniff.is_padded([["user", " item"], ["1", " 2"]])
    assert not sniff.is_padded([["user", "item"], ["1", " 2"], ["2", "3"]])

"""Attribute files with bad rows: refused, or read without them and said so."""

from __future__ import annotations

from pathlib import Path

import pytest

from shortlist.data import FileFormat
from shortlist.data.preparation.attribute_file import AttributeTable, read_attributes
from shortlist.errors import LogError

BAD = (
    "id,town,price\n"
    "1,Ulm,5\n"
    "2,K\xf6ln,cheap\n"  # no number
    ",Bonn,7\n"  # no id
    "3,Kiel,8,extra\n"  # too many fields
    "1,Trier,9\n"  # an id again
)


def read(tmp_path: Path, content: bytes | str, **options: object) -> AttributeTable:
    path = tmp_path / "items.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_attributes(
        path,
        "id",
        ["town", "price"],
        numeric=["price"],
        **options,  # type: ignore[arg-type]
    )


def test_bad_rows_are_set_aside_and_told(tmp_path: Path) -> None:
    table, findings = read(tmp_path, BAD, on_error="skip")
    assert table.rows() == [(2, "K\xf6ln", None), (1, "Trier", 9.0)]
    told = {f.message.split("[")[1].split("]")[0]: (f.code, f.row) for f in findings}
    assert told == {
        "log-number-type": ("values-skipped", 3),
        "log-id-missing": ("rows-skipped", 4),
        "log-row-fields": ("rows-skipped", 5),
        "log-id-duplicated": ("rows-skipped", 2),
    }
    assert {f.severity for f in findings} == {"problem"}


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("2,K\xf6ln,cheap", "log-number-type"),
        (",Bonn,7", "log-id-missing"),
        ("3,Kiel,8,extra", "log-row-fields"),
        ("1,Trier,9", "log-id-duplicated"),
    ],
)
def test_each_of_them_is_an_error_otherwise(
    tmp_path: Path, row: str, code: str
) -> None:
    with pytest.raises(LogError) as caught:
        read(tmp_path, f"id,town,price\n1,Ulm,5\n{row}\n")
    assert (caught.value.code, caught.value.row) == (code, 3)


def test_the_last_row_of_an_id_counts_where_the_recipe_says_so(tmp_path: Path) -> None:
    rows = "id,town,price\n1,Ulm,5\n2,Bonn,6\n1,Kiel,7\n2,Trier,8\n1,Hof,9\n"
    table, findings = read(tmp_path, rows, layout=FileFormat(repeated_ids="last"))
    assert table.rows() == [(2, "Trier", 8.0), (1, "Hof", 9.0)]
    assert [(f.code, f.severity, f.count) for f in findings] == [
        ("rows-skipped", "note", 3)
    ]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-8"])
def test_files_of_other_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    raw = "id;town;price\r\n1;K\xf6ln;5\r\n2;S\xe3o Paulo;6\r\n".encode(encoding)
    table, _ = read(tmp_path, raw, layout=FileFormat(encoding=encoding))
    assert table["town"].to_list() == ["K\xf6ln", "S\xe3o Paulo"]


def test_bytes_that_are_not_of_the_encoding_name_their_row(tmp_path: Path) -> None:
    raw = "id,town,price\n1,Ulm,5\n2,K\xf6ln,6\n".encode("latin-1")
    with pytest.raises(LogError) as caught:
        read(tmp_path, raw, layout=FileFormat(encoding="ascii"))
    assert (caught.value.code, caught.value.row) == ("log-encoding", 3)


def test_quotes_may_be_ordinary_or_single(tmp_path: Path) -> None:
    rows = 'id\ttown\tprice\n1\t"Weird" Al\t5\n2\t"x\t6\n3\ty"\t7\n'
    table, _ = read(tmp_path, rows, layout=FileFormat(quote_char=""))
    assert table["town"].to_list() == ['"Weird" Al', '"x', 'y"']
    rows = "id,town,price\n1,'a, b',5\n2,\"c\",6\n"
    table, _ = read(tmp_path, rows, layout=FileFormat(quote_char="'"))
    assert table["town"].to_list() == ["a, b", '"c"']


def test_whole_floats_are_integers_and_texts_for_missing_are_null(
    tmp_path: Path,
) -> None:
    rows = "id,town,price\n7.0,NULL,5\n8.0,Ulm,NULL\nNULL,Bonn,6\n"
    given = FileFormat(null_values=["NULL"])
    table, findings = read(tmp_path, rows, layout=given, on_error="skip")
    assert table.rows() == [(7, None, 5.0), (8, "Ulm", None)]
    assert [f.count for f in findings] == [1]

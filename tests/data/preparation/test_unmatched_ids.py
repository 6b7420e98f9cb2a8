"""Attribute files whose ids do not find those of the log."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from shortlist.data import Feature, Finding, LogFiles, Schema, Split, append, prepare
from shortlist.data.preparation.attribute_file import unmatched_ids
from shortlist.data.preparation.attributes import Attributes

GENRE = Feature(name="genre", owner="item", kind="categorical")
SCHEMA = Schema(user_id="user", item_id="item", timestamp="time", features=(GENRE,))


def told(findings: list[Finding]) -> list[tuple[str, str, int | None]]:
    return [(f.code, f.severity, f.count) for f in findings]


def found(ids: list[object], keys: list[object]) -> list[Finding]:
    pair = pl.Series(ids), pl.Series(keys)
    return unmatched_ids(*pair, kind="item", file="items.csv", column="id")


@pytest.mark.parametrize(
    ("keys", "severity"),
    [
        (range(10), None),
        (range(-90, 10), None),
        (range(5), None),
        (range(4), "warning"),
        ([9], "warning"),
        ([10], "problem"),
    ],
)
def test_few_ids_in_the_file_are_a_warning_and_none_a_problem(keys, severity):
    findings = found(list(range(10)), list(keys))
    lost = 10 - len({*keys} & {*range(10)})
    expected = [("attribute-ids-unmatched", severity, lost)] if severity else []
    assert told(findings) == expected
    for finding in findings:
        assert (finding.file, finding.column) == ("items.csv", "id")
        assert f"{10 - lost} of the log's 10 items ({1 - lost / 10:.0%})" in (
            finding.message
        )


@pytest.mark.parametrize(
    ("ids", "keys", "expected"),
    [
        (["1", "2", "3"], ["1", " 2", "3 "], [("ids-white-space", "problem", 2)]),
        (["a", "b", "c"], ["a", "b", "C"], [("ids-letter-case", "warning", 1)]),
        (["1", "2", "03"], ["1.0", "2", "3"], [("ids-number-form", "warning", 2)]),
        (["a", "b", "c"], ["A", "b", " C"], [("ids-letter-case", "warning", 2)]),
        (["a", "b", " a"], ["a", "b"], []),
        (["a", "b", "c"], ["a", "b", "d"], []),
    ],
)
def test_ids_that_another_spelling_would_match_are_told(ids, keys, expected):
    findings = [f for f in found(ids, keys) if f.code != "attribute-ids-unmatched"]
    assert told(findings) == expected


def test_an_id_is_told_by_its_first_difference():
    findings = found(["x", "Y", "7", "z"], [" x", "y", "07", "w"])
    assert told(findings) == [
        ("attribute-ids-unmatched", "problem", 4),
        ("ids-white-space", "problem", 1),
        ("ids-letter-case", "warning", 1),
        ("ids-number-form", "warning", 1),
    ]
    assert "'x' and ' x'" in findings[1].message
    assert "'7' and '07'" in findings[3].message


def test_no_id_is_unmatched_where_there_is_none():
    assert found([], []) == []


def write(folder: Path, ids: list[str]) -> tuple[Path, Path]:
    rows = [(u, i, 60 * (i + 8 * u)) for u in range(4) for i in range(1, 9)]
    log = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    log.write_csv(folder / "log.csv")
    items = pl.DataFrame({"item": ids, "genre": ["a", "b"] * (len(ids) // 2)})
    items.write_csv(folder / "items.csv")
    return folder / "log.csv", folder / "items.csv"


def test_items_with_white_space_are_a_problem_of_the_dataset(tmp_path: Path):
    log, items = write(tmp_path, [f" {n}" for n in range(1, 9)])
    files = LogFiles(log, items=items)
    split = Split(kind="random", test=0, validation=0)
    dataset = prepare(files, SCHEMA, tmp_path / "out", split=split)
    expected = [
        ("attribute-ids-unmatched", "problem", 8),
        ("ids-white-space", "problem", 8),
    ]
    assert told(dataset.info.findings) == expected
    first, second = dataset.info.findings
    assert "ids such as '" in first.message
    assert (first.file, first.column) == (str(items), "item")
    assert dataset.features["genre"].tolist() == [0] * 9

    _, items = write(tmp_path, [str(n) for n in range(1, 9)])
    good = prepare(files, SCHEMA, tmp_path / "out", split=split, overwrite=True)
    assert good.info.findings == ()
    assert 0 not in good.features["genre"][1:]


def test_what_an_append_finds_is_kept_with_the_rest(tmp_path: Path):
    log, items = write(tmp_path, [str(n) for n in range(1, 9)])
    split = Split(kind="time_cut", test=0.2, validation=0)
    prepare(LogFiles(log, items=items), SCHEMA, tmp_path / "out", split=split)
    (tmp_path / "day.csv").write_text("user,item,time\n1,2,100000\n2,3,100001\n")
    write(tmp_path, [f"0{n}" for n in range(1, 9)])
    dataset = append(tmp_path / "out", LogFiles(tmp_path / "day.csv", items=items))
    codes = [finding.code for finding in dataset.info.findings]
    assert codes[-2:] == ["attribute-ids-unmatched", "ids-number-form"]


def test_attributes_that_are_not_needed_are_matched_too(tmp_path: Path):
    (tmp_path / "users.csv").write_text("id,age\n7,1\n8,2\n")
    users = pl.Series([None, 1, 2])
    read = Attributes.read(
        Schema(user_id="user", item_id="item"),
        {"user": (tmp_path / "users.csv", "id")},
        users,
        pl.Series([None, 1]),
    )
    assert told(list(read.findings)) == [("attribute-ids-unmatched", "problem", 2)]

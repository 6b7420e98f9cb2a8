"""Days appended to a dataset: the window moves, and rows keep their ids."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from shortlist.data.append import append
from shortlist.data.dataset import Dataset
from shortlist.data.prepare import prepare
from shortlist.data.schema import Feature, Schema
from shortlist.data.split import Split
from shortlist.errors import InputError, LogError

DAY = 86_400
SCHEMA = Schema(
    user_id="user",
    item_id="item",
    timestamp="time",
    label="stars",
    label_kind="explicit",
    title="name",
    features=(
        Feature(name="genre", owner="item", kind="categorical"),
        Feature(name="size", owner="item", kind="numeric"),
        Feature(name="device", owner="context", kind="categorical"),
    ),
)
Row = tuple[str, str, int, int, str]


def day_of(number: int, users: range, items: range) -> list[Row]:
    return [
        (f"u{u}", f"i{i}", 1 + (u + i) % 5, number * DAY + 60 * u + i, "web")
        for u in users
        for i in items
        if (u + i) % 3
    ]


FIRST = [row for day in range(10, 20) for row in day_of(day, range(8), range(day - 8))]
SECOND = day_of(20, range(4, 10), range(5, 14))
THIRD = day_of(21, range(6, 12), range(9, 16))


def write_day(path: Path, rows: list[Row]) -> Path:
    columns = ["user", "item", "stars", "time", "device"]
    pl.DataFrame(rows, schema=columns, orient="row").write_csv(path)
    return path


def write_items(path: Path) -> Path:
    items = range(16)
    pl.DataFrame(
        {
            "item": [f"i{i}" for i in items],
            "name": [f"Item {i}" for i in items],
            "genre": [["red", "blue"][i % 2] for i in items],
            "size": [float(i) for i in items],
        }
    ).write_csv(path)
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return prepare(
        write_day(tmp_path / "first.csv", FIRST),
        SCHEMA,
        tmp_path / "dataset",
        split=Split(kind="time_cut", test=0.2, validation=0.2),
        items=write_items(tmp_path / "items.csv"),
    )


def decoded(dataset: Dataset, part: str) -> set[tuple]:
    events = dataset.part(part)
    users, items = (dataset.vocabularies[n].ids.to_list() for n in ("user", "item"))
    found = [
        (users[u], items[i], int(label), t // 1000)
        for u, i, t, label in zip(
            events.user_index.tolist(),
            events.item_index.tolist(),
            events.timestamp_ms.tolist(),
            events.label.tolist(),
            strict=True,
        )
    ]
    assert len(set(found)) == len(found)
    return set(found)


def told(rows: list[Row]) -> set[tuple]:
    return {row[:4] for row in rows}


def test_the_window_moves_with_every_append(dataset, tmp_path):
    before = {part: decoded(dataset, part) for part in ("train", "validation")}
    known = before["train"] | before["validation"]
    old_test = told(FIRST) - known
    ids = dataset.vocabularies["item"].ids.to_list()
    second = append(
        dataset.path,
        write_day(tmp_path / "second.csv", SECOND),
        items=tmp_path / "items.csv",
    )
    assert decoded(second, "train") == known
    assert decoded(second, "validation") == old_test  # ids of the test part are back
    assert second.vocabularies["item"].ids.to_list()[: len(ids)] == ids
    third = append(
        dataset.path,
        write_day(tmp_path / "third.csv", THIRD),
        items=tmp_path / "items.csv",
    )
    assert decoded(third, "train") == told(FIRST)
    assert decoded(third, "validation") == told(SECOND)
    assert third.info.parts == {
        "train": len(FIRST),
        "validation": len(SECOND),
        "test": len(THIRD),
    }
    assert third.info.statistics["events"] == len(FIRST + SECOND + THIRD)


def test_new_days_have_no_say_in_what_a_model_may_know(dataset, tmp_path):
    second = append(dataset.path, write_day(tmp_path / "second.csv", SECOND))
    ids = set(second.vocabularies["item"].ids.to_list()[1:])
    assert ids == {row[1] for row in FIRST}
    unknown = [row for row in SECOND if row[1] not in ids]
    assert unknown
    assert (second.part("test").item_index == 0).sum() == len(unknown)
    assert second.info.statistics["test_events_of_unknown_items"] == len(unknown)


def test_no_day_that_is_there_is_written_again(dataset, tmp_path):
    files = {s.file: (dataset.path / s.file).stat() for s in dataset.info.segments}
    second = append(dataset.path, write_day(tmp_path / "second.csv", SECOND))
    for file, state in files.items():
        now = (dataset.path / file).stat()
        assert (now.st_ino, now.st_mtime_ns) == (state.st_ino, state.st_mtime_ns)
    assert len(second.info.segments) == len(files) + 1
    assert second.info.fingerprint != dataset.info.fingerprint
    named = {*second.info.named_files, *(s.file for s in second.info.segments)}
    there = {
        p.relative_to(dataset.path).as_posix() for p in dataset.path.rglob("*.arrow")
    }
    assert there == named


def test_counts_follow_the_new_parts(dataset, tmp_path):
    second = append(dataset.path, write_day(tmp_path / "second.csv", SECOND))
    train, known = second.part("train"), second.part("train", "validation")
    for name, rows in (("user", train.user_index), ("item", known.item_index)):
        vocabulary = second.vocabularies[name]
        expected = np.bincount(rows, minlength=len(vocabulary))
        np.testing.assert_array_equal(vocabulary.counts, expected)


def test_attributes_of_new_items_come_from_the_file_or_are_missing(dataset, tmp_path):
    day = write_day(tmp_path / "second.csv", SECOND)
    old = len(dataset.items)
    without = append(dataset.path, day)
    new = without.items[old:]
    assert len(new) and new["name"].null_count() == len(new)
    assert new["feature:genre"].to_list() == [0] * len(new)
    assert new["feature:size"].to_list() == [0.0] * len(new)
    third = append(
        dataset.path,
        write_day(tmp_path / "third.csv", THIRD),
        items=tmp_path / "items.csv",
    )
    frame = third.items[1:]
    assert frame["name"].to_list() == [f"Item {i[1:]}" for i in frame["id"]]
    number = dataset.info.numbers["size"]
    sizes = [(int(i[1:]) - number.mean) / number.scale for i in frame["id"]]
    np.testing.assert_allclose(frame["feature:size"], sizes, rtol=1e-5)


def test_context_values_keep_their_vocabulary(dataset, tmp_path):
    rows = [(*row[:4], "phone") for row in SECOND]
    second = append(dataset.path, write_day(tmp_path / "second.csv", rows))
    assert second.vocabularies["device"].ids.to_list() == [None, "web"]
    stored = second.columns("test").take(np.arange(len(rows)), ["feature:device"])
    assert not stored["feature:device"].any()
    assert second.columns("train").column("feature:device").all()


def test_events_that_are_not_later_are_refused(dataset, tmp_path):
    before = sorted(dataset.path.rglob("*"))
    late = write_day(tmp_path / "late.csv", SECOND + FIRST[-1:])
    with pytest.raises(InputError, match="1 events up to that moment") as caught:
        append(dataset.path, late)
    assert caught.value.code == "append-not-later"
    assert sorted(dataset.path.rglob("*")) == before
    assert Dataset.open(dataset.path).info == dataset.info


def test_a_bad_day_changes_nothing(dataset, tmp_path):
    before = sorted(dataset.path.rglob("*"))
    bad = write_day(tmp_path / "bad.csv", [*SECOND, ("u1", "i1", 3, -5, "web")])
    with pytest.raises(LogError, match="before 1970"):
        append(dataset.path, bad)
    assert sorted(dataset.path.rglob("*")) == before
    skipped = append(dataset.path, bad, on_error="skip")
    assert skipped.info.parts["test"] == len(SECOND)
    assert (dataset.path / "rejected-1.csv").is_file()


def test_what_an_interrupted_append_left_goes_away(dataset, tmp_path):
    stray = dataset.path / "events" / "00009.arrow"
    stray.write_bytes(b"half")
    (dataset.path / "spill-1").mkdir()
    (dataset.path / "spill-1" / "spill-0.arrow").write_bytes(b"half")
    append(dataset.path, write_day(tmp_path / "second.csv", SECOND))
    assert not stray.exists() and not (dataset.path / "spill-1").exists()


def test_a_random_split_cannot_be_continued(tmp_path):
    dataset = prepare(
        write_day(tmp_path / "first.csv", FIRST),
        SCHEMA,
        tmp_path / "dataset",
        split=Split(kind="random"),
        items=write_items(tmp_path / "items.csv"),
    )
    with pytest.raises(InputError, match="divided by time") as caught:
        append(dataset.path, write_day(tmp_path / "second.csv", SECOND))
    assert caught.value.code == "append-split"


def test_without_times_new_events_go_on_counting(tmp_path):
    schema = Schema(user_id="user", item_id="item")
    (tmp_path / "a.csv").write_text("user,item\n" + "1,2\n2,3\n1,3\n2,2\n" * 5)
    (tmp_path / "b.csv").write_text("user,item\n1,2\n3,9\n")
    dataset = prepare(tmp_path / "a.csv", schema, tmp_path / "dataset")
    second = append(dataset.path, tmp_path / "b.csv")
    assert sorted(second.part("test").timestamp_ms) == [20, 21]
    assert os.listdir(second.path / "events") != []

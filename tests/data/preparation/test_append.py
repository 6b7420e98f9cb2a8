"""Days appended to a dataset: the window moves, and rows keep their ids."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from shortlist.data import (
    Dataset,
    Feature,
    LogFiles,
    ReadOptions,
    Schema,
    Split,
    append,
    prepare,
)
from shortlist.errors import ArtifactError, InputError, LogError, ResourceError
from shortlist.lock import Lock

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
        LogFiles(
            write_day(tmp_path / "first.csv", FIRST),
            items=write_items(tmp_path / "items.csv"),
        ),
        SCHEMA,
        tmp_path / "dataset",
        split=Split(kind="time_cut", test=0.2, validation=0.2),
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
        LogFiles(
            write_day(tmp_path / "second.csv", SECOND), items=tmp_path / "items.csv"
        ),
    )
    assert decoded(second, "train") == known
    assert decoded(second, "validation") == old_test  # ids of the test part are back
    assert second.vocabularies["item"].ids.to_list()[: len(ids)] == ids
    third = append(
        dataset.path,
        LogFiles(
            write_day(tmp_path / "third.csv", THIRD), items=tmp_path / "items.csv"
        ),
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
    assert arrow_files(dataset.path) == named(second) | named(dataset)
    third = append(dataset.path, write_day(tmp_path / "third.csv", THIRD))
    assert arrow_files(dataset.path) == named(third) | named(second)


def named(dataset: Dataset) -> set[str]:
    return {*dataset.info.named_files, *(s.file for s in dataset.info.segments)}


def arrow_files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*.arrow")}


def test_who_has_opened_a_dataset_goes_on_reading_after_an_append(dataset, tmp_path):
    known = Dataset.open(dataset.path)
    users, items, features = known.users, known.items, known.features
    parts = {part: decoded(known, part) for part in ("train", "validation", "test")}
    one, other = Dataset.open(dataset.path), Dataset.open(dataset.path)
    append(dataset.path, write_day(tmp_path / "second.csv", SECOND))
    assert one.users.equals(users) and one.items.equals(items)
    for name, values in features.items():
        np.testing.assert_array_equal(one.features[name], values)
    assert {part: decoded(one, part) for part in parts} == parts
    append(dataset.path, write_day(tmp_path / "third.csv", THIRD))
    assert {part: decoded(other, part) for part in parts} == parts
    with pytest.raises(ArtifactError, match="appended 2 times.*Open it again") as e:
        other.features
    assert e.value.code == "dataset-changed"


@pytest.mark.parametrize("days", [0, 1])
def test_who_has_opened_a_dataset_is_told_that_it_was_prepared_again(
    dataset, tmp_path, days
):
    # Without its last day the rows of the ids are others.
    prepare(
        LogFiles(
            write_day(tmp_path / "fewer.csv", [r for r in FIRST if r[3] < 19 * DAY]),
            items=tmp_path / "items.csv",
        ),
        SCHEMA,
        dataset.path,
        split=Split(kind="time_cut", test=0.2, validation=0.2),
        overwrite=True,
    )
    if days:
        append(dataset.path, write_day(tmp_path / "second.csv", SECOND))
    for read in (lambda: dataset.items, lambda: dataset.part("train")):
        with pytest.raises(ArtifactError, match="prepared again") as caught:
            read()
        assert caught.value.code == "dataset-changed"
    assert len(Dataset.open(dataset.path).part("train"))


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
        LogFiles(
            write_day(tmp_path / "third.csv", THIRD), items=tmp_path / "items.csv"
        ),
    )
    frame = third.items[1:]
    assert frame["name"].to_list() == [f"Item {i[1:]}" for i in frame["id"]]
    number = dataset.info.numbers["size"]
    sizes = [(int(i[1:]) - number.mean) / number.scale for i in frame["id"]]
    np.testing.assert_allclose(frame["feature:size"], sizes, rtol=1e-5)


def test_owners_whose_file_is_not_given_keep_their_attributes(dataset, tmp_path):
    genres = {f"u{n}": ["gold", "plain"][n % 2] for n in range(12)}
    users = tmp_path / "users.csv"
    pl.DataFrame({"user": list(genres), "tier": list(genres.values())}).write_csv(users)
    tier = Feature(name="tier", owner="user", kind="categorical")
    both = prepare(
        LogFiles(tmp_path / "first.csv", users=users, items=tmp_path / "items.csv"),
        msgspec.structs.replace(SCHEMA, features=(*SCHEMA.features, tier)),
        tmp_path / "both",
        split=Split(kind="time_cut", test=0.2, validation=0.2),
    )
    before = both.users["feature:tier"].to_list()
    day = write_day(tmp_path / "second.csv", SECOND)
    after = append(both.path, LogFiles(day, items=tmp_path / "items.csv"))
    found = after.users["feature:tier"].to_list()
    assert found[: len(before)] == before and len(set(before[1:])) == 2
    assert found[len(before) :] == [0] * (len(found) - len(before))
    assert after.items["name"].null_count() == 1  # of row 0


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


def test_one_process_appends_at_a_time(dataset, tmp_path):
    day = write_day(tmp_path / "second.csv", SECOND)
    before = sorted(dataset.path.rglob("*"))
    other = Lock(dataset.path / ".append.lock", lambda who: ResourceError("x", who))
    with pytest.raises(ResourceError, match=f"process {os.getpid()} is app") as caught:
        append(dataset.path, day)
    assert caught.value.code == "append-locked"
    other.release(remove=True)
    assert sorted(dataset.path.rglob("*")) == before
    assert append(dataset.path, day).info.generation == dataset.info.generation + 1
    assert not list(dataset.path.glob(".append*"))


def test_a_bad_day_changes_nothing(dataset, tmp_path):
    before = sorted(dataset.path.rglob("*"))
    bad = write_day(tmp_path / "bad.csv", [*SECOND, ("u1", "i1", 3, -5, "web")])
    with pytest.raises(LogError, match="before 1970"):
        append(dataset.path, bad)
    assert sorted(dataset.path.rglob("*")) == before
    skipped = append(dataset.path, bad, options=ReadOptions(on_error="skip"))
    assert skipped.info.parts["test"] == len(SECOND)
    assert (dataset.path / "rejected-1.csv").is_file()


def test_what_an_interrupted_append_left_goes_away(dataset, tmp_path):
    stray = dataset.path / "events" / "00009.arrow"
    stray.write_bytes(b"half")
    (dataset.path / "spill-1").mkdir()
    (dataset.path / "spill-1" / "spill-0.arrow").write_bytes(b"half")
    append(dataset.path, write_day(tmp_path / "second.csv", SECOND))
    assert not stray.exists() and not (dataset.path / "spill-1").exists()


def test_files_of_somebody_else_in_the_folder_stay(dataset, tmp_path):
    day = write_day(tmp_path / "second.csv", SECOND)
    inside = dataset.path / "second.arrow"
    pl.read_csv(day).write_ipc(inside)
    own = ["mine/precious.arrow", "mine/.notes.1.tmp", "events/monday.arrow"]
    own += ["vocabularies-0/notes.txt", "spill-1/list.csv", ".draft.7.tmp"]
    for name in own:
        file = dataset.path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    (dataset.path / "empty").mkdir()
    second = append(dataset.path, inside)
    assert second.info.parts["test"] == len(SECOND)
    assert inside.is_file() and (dataset.path / "empty").is_dir()
    assert all((dataset.path / name).read_text() == "mine" for name in own)
    late = write_day(tmp_path / "late.csv", FIRST[-1:])
    with pytest.raises(InputError):
        append(dataset.path, late)
    assert all((dataset.path / name).read_text() == "mine" for name in own)


LEFT = [
    "events/00009.arrow",
    "users-1.arrow",
    "pending-items-1.arrow",
    "vocabularies-1/item.arrow",
    "vocabularies-1/.a%2Fb.arrow.123.tmp",
    "rejected-1.csv",
    ".rejected-1.csv.123.tmp",
    ".dataset.json.123.tmp",
    "spill-123/spill-0.arrow",
]


@pytest.mark.parametrize("name", LEFT)
def test_each_file_of_an_interrupted_append_goes_away(dataset, tmp_path, name):
    before = sorted(dataset.path.rglob("*"))
    (dataset.path / name).parent.mkdir(exist_ok=True)
    (dataset.path / name).write_bytes(b"half")
    with pytest.raises(InputError):
        append(dataset.path, write_day(tmp_path / "late.csv", FIRST[-1:]))
    assert sorted(dataset.path.rglob("*")) == before


@pytest.mark.parametrize("name", ["test_events", "validation_events"])
def test_appended_files_have_no_parts(dataset: Dataset, tmp_path, name):
    before = sorted(dataset.path.rglob("*"))
    day = write_day(tmp_path / "second.csv", SECOND)
    with pytest.raises(InputError, match="must be given as `events`") as caught:
        append(dataset.path, LogFiles(day, **{name: day}))
    assert caught.value.code == "split-files"
    assert sorted(dataset.path.rglob("*")) == before


def test_a_random_split_cannot_be_continued(tmp_path):
    dataset = prepare(
        LogFiles(
            write_day(tmp_path / "first.csv", FIRST),
            items=write_items(tmp_path / "items.csv"),
        ),
        SCHEMA,
        tmp_path / "dataset",
        split=Split(kind="random"),
    )
    with pytest.raises(InputError, match="split by time") as caught:
        append(dataset.path, write_day(tmp_path / "second.csv", SECOND))
    assert caught.value.code == "append-split"


def write_ids(path: Path, first: int, ids: list[tuple[object, object]]) -> Path:
    rows = [f"{u},{i},{first + n}" for n, (u, i) in enumerate(ids)]
    path.write_text("\n".join(["user,item,time", *rows]) + "\n")
    return path


IDS = Schema(
    user_id="user",
    item_id="item",
    timestamp="time",
    features=(Feature(name="age", owner="user", kind="numeric"),),
)


def of_ids(folder: Path, users: list[object]) -> Dataset:
    """A dataset of a few users; the attributes of each are in `users.csv`."""
    ids = [(u, i) for i in (1, 2, 3) for u in users for _ in range(4)]
    ages = "".join(f"{u},{30 + n}\n" for n, u in enumerate(users))
    (folder / "users.csv").write_text("user,age\n" + ages)
    return prepare(
        LogFiles(write_ids(folder / "log.csv", DAY, ids), users=folder / "users.csv"),
        IDS,
        folder / "dataset",
        split=Split(kind="time_cut", test=0.2, validation=0.2),
    )


@pytest.mark.parametrize("files", [1, 3])
@pytest.mark.parametrize("with_users", [True, False])
@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("column", ["user", "item"])
def test_text_is_refused_where_ids_are_integers(
    tmp_path, files, with_users, late, column
):
    dataset = of_ids(tmp_path, [1, 2, 3])
    before = {p: p.read_bytes() for p in dataset.path.rglob("*") if p.is_file()}
    ids = [("x", 1)] if column == "user" else [(1, "x")]
    ids = [(1, 2)] * (1_000 if late else 0) + ids
    bad = write_ids(tmp_path / "bad.csv", 2 * DAY, ids)
    days = [write_ids(tmp_path / f"{n}.csv", 2 * DAY, [(1, 2)]) for n in "ab"]
    given = bad if files == 1 else [days[0], bad, days[1]]
    users = tmp_path / "users.csv" if with_users else None
    with pytest.raises(LogError, match="must be integers") as caught:
        append(dataset.path, LogFiles(given, users=users))
    assert caught.value.code == "append-id-type"
    assert (caught.value.file, caught.value.column) == (str(bad), column)
    now = {p: p.read_bytes() for p in dataset.path.rglob("*") if p.is_file()}
    assert now == before
    assert dataset.vocabularies["user"].id(1) == 1


@pytest.mark.parametrize("with_users", [True, False])
def test_integers_are_text_where_ids_are(tmp_path, with_users):
    dataset = of_ids(tmp_path, ["a", "2", "3"])
    ids = dataset.vocabularies["user"].ids.to_list()
    day = write_ids(tmp_path / "day.csv", 2 * DAY, [(2, 1), (7, 2), (3, 3)])
    users = tmp_path / "users.csv" if with_users else None
    second = append(dataset.path, LogFiles(day, users=users))
    vocabulary = second.vocabularies["user"]
    assert vocabulary.ids.to_list()[: len(ids)] == ids
    rows = second.part("test").user_index.tolist()
    assert sorted(rows) == sorted([vocabulary.row("2"), 0, vocabulary.row("3")])
    pending = pl.read_ipc(second.path / second.info.pending["user"])["id"]
    assert pending.to_list() == ["7"]


def test_without_times_new_events_go_on_counting(tmp_path):
    schema = Schema(user_id="user", item_id="item")
    (tmp_path / "a.csv").write_text("user,item\n" + "1,2\n2,3\n1,3\n2,2\n" * 5)
    (tmp_path / "b.csv").write_text("user,item\n1,2\n3,9\n")
    dataset = prepare(tmp_path / "a.csv", schema, tmp_path / "dataset")
    second = append(dataset.path, tmp_path / "b.csv")
    assert sorted(second.part("test").timestamp_ms) == [20, 21]
    assert os.listdir(second.path / "events") != []

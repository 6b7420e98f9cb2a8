"""Every file of a dataset, damaged in every way: refused by name, or read as it was.

The golden dataset has no checksums, as one of an earlier version: of it any read will
do. With checksums it must be the same read.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from golden_dataset import NEXT_DAY, make
from shortlist.data import Dataset, ExampleOptions, TrainingExamples, append
from shortlist.data.kernels.ids import hash_file
from shortlist.data.store import checksums
from shortlist.data.store.checksums import FileSum
from shortlist.data.store.dataset_info import read_info, with_sums, write_info
from shortlist.data.store.vocabulary import write_frame
from shortlist.errors import ArtifactError, ShortlistError

GOLDEN = Path(__file__).parents[2] / "golden" / "dataset-v2"
FILES = sorted(
    p.relative_to(GOLDEN).as_posix()
    for p in GOLDEN.rglob("*")
    if p.is_file() and p.name != "rejected.csv"
)
CODES = {"dataset-damaged", "vocabulary-unreadable"}


def copy_golden(folder: Path, *, recorded: bool) -> Path:
    shutil.copytree(GOLDEN, folder)
    if recorded:
        write_info(folder, with_sums(folder, read_info(folder), ["rejected.csv"]))
    return folder


def everything(path: Path) -> list[object]:
    """All that a dataset says."""
    dataset = Dataset.open(path)
    found: list[object] = [msgspec.structs.replace(dataset.info, checksum="")]
    for part in ("train", "validation", "test"):
        columns = dataset.columns(part)
        rows = np.arange(len(columns))
        found += [
            (part, name, values.tolist()) for name, values in columns.take(rows).items()
        ]
    found += [dataset.users.to_dict(as_series=False)]
    found += [dataset.items.to_dict(as_series=False)]
    found += [(n, values.tolist()) for n, values in dataset.features.items()]
    for name, vocabulary in sorted(dataset.vocabularies.items()):
        found.append((name, vocabulary.ids.to_list(), vocabulary.counts.tolist()))
    found += [(n, ids.to_list()) for n, ids in dataset.pending.items()]
    users = np.arange(dataset.num_users)
    found.append(dataset.histories("train", "validation").last(users, 9).tolist())
    rows = TrainingExamples(dataset, options=ExampleOptions(history_length=2))
    batch = rows.take(np.arange(len(rows)), np.random.default_rng(0))
    found += [(n, values.tolist()) for n, values in batch.items()]
    return found


def refusal(path: Path) -> ArtifactError | None:
    """Why a dataset cannot be read; any other exception is an error of this test."""
    try:
        everything(path)
    except ArtifactError as error:
        return error
    return None


def flip(file: Path, place: int, bit: int = 2) -> None:
    whole = bytearray(file.read_bytes())
    whole[place] ^= 1 << bit
    file.unlink()  # what is mapped must not change
    file.write_bytes(whole)


def truncate(file: Path) -> None:
    whole = file.read_bytes()
    file.unlink()
    file.write_bytes(whole[: len(whole) // 2])


def empty(file: Path) -> None:
    file.unlink()
    file.touch()


def grow(file: Path) -> None:
    whole = file.read_bytes()
    file.unlink()
    file.write_bytes(whole + b"\0" * 8)


def in_its_place(make_other):
    def replace(file: Path) -> None:
        file.unlink()
        make_other(file)

    return replace


WAYS = {
    "truncated": truncate,
    "empty": empty,
    "longer": grow,
    "removed": Path.unlink,
    "directory": in_its_place(Path.mkdir),
    "pipe": in_its_place(os.mkfifo),
    "link-to-itself": in_its_place(lambda file: file.symlink_to(file)),
    "link-to-a-device": in_its_place(lambda file: file.symlink_to("/dev/zero")),
}


@pytest.fixture(scope="module", params=[True, False], ids=["recorded", "unrecorded"])
def recorded(request):
    return request.param


@pytest.fixture(scope="module")
def whole(tmp_path_factory, recorded):
    folder = tmp_path_factory.mktemp("whole") / "dataset"
    return copy_golden(folder, recorded=recorded)


@pytest.fixture
def damaged(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "parent" / "dataset")
    return tmp_path / "parent" / "dataset"


def test_checksums_change_nothing_that_is_read(tmp_path):
    plain = everything(GOLDEN)
    same = everything(copy_golden(tmp_path / "dataset", recorded=True))
    assert same[1:] == plain[1:]
    assert same[0].files and msgspec.structs.replace(same[0], files={}) == plain[0]


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_is_not_there_as_it_was(damaged, way, recorded):
    for file in FILES:
        folder = damaged.with_name(f"{way} {file.replace('/', ' ')}")
        shutil.copytree(damaged, folder)
        WAYS[way](folder / file)
        error = refusal(folder)
        assert error is not None or (way == "longer" and not recorded), file
        if error is not None:
            codes = CODES | {"dataset-missing"} if file == "dataset.json" else CODES
            assert error.code in codes
            assert Path(file).name in str(error)


def test_a_flipped_bit(damaged, recorded):
    before = everything(damaged)
    for file in FILES:
        size = (damaged / file).stat().st_size
        places = (0, size // 2, size - 1) if recorded else range(3, size, 97)
        original = (damaged / file).read_bytes()
        for place in places:
            flip(damaged / file, place)
            error = refusal(damaged)
            if error is not None:
                assert error.code in {*CODES, "dataset-newer", "dataset-older"}
                assert Path(file).name in str(error) or not recorded
            elif recorded:
                assert file == "dataset.json" and everything(damaged) == before
            (damaged / file).unlink()
            (damaged / file).write_bytes(original)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("events/00000.arrow", "events/00001.arrow"),
        ("users-1.arrow", "items-1.arrow"),
        ("vocabularies-1/user.arrow", "vocabularies-1/item.arrow"),
        ("vocabularies-1/user.arrow", "pending-users-1.arrow"),
        ("pending-users-1.arrow", "pending-items-1.arrow"),
    ],
)
def test_swapped_files_are_refused(damaged, recorded, one, other):
    (damaged / one).rename(damaged / "aside")
    (damaged / other).rename(damaged / one)
    (damaged / "aside").rename(damaged / other)
    error = refusal(damaged)
    assert error is not None and error.code in CODES
    assert not recorded or Path(error.file).name in (Path(one).name, Path(other).name)


def test_other_files_change_nothing(damaged):
    before = everything(damaged)
    (damaged / "events" / "00009.arrow").write_bytes(b"of somebody else")
    (damaged / "rejected.csv").unlink()
    assert everything(damaged) == before


def with_info(path: Path, change) -> None:
    """Changes the description of a dataset as somebody who knows the format would."""
    file = path / "dataset.json"
    info = json.loads(file.read_text())
    info.pop("files", None), info.pop("checksum", None)
    change(info)
    file.write_text(json.dumps(info))


def set_file(*keys):
    def change(info, name):
        for key in keys[:-1]:
            info = info[key]
        info[keys[-1]] = name

    return change


PLACES = {
    "a segment": set_file("segments", 0, "file"),
    "a table": set_file("tables", "items"),
    "a vocabulary": set_file("vocabularies", "user"),
    "pending ids": set_file("pending", "user"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "name",
    ["../outside.arrow", "/etc/passwd", "events/../../outside.arrow", "", "a\0b", "."],
)
def test_a_path_that_leads_out_of_the_dataset_is_refused(damaged, place, name):
    (damaged.parent / "outside.arrow").write_bytes(b"secret")
    with_info(damaged, lambda info: PLACES[place](info, name))
    with pytest.raises(ArtifactError, match="a path inside|a directory") as caught:
        Dataset.open(damaged)
    assert caught.value.code == "dataset-damaged"


@pytest.mark.parametrize("file", ["events/00000.arrow", "items-1.arrow"])
def test_a_link_that_leads_out_of_the_dataset_is_refused(damaged, file):
    outside = damaged.parent / "outside.arrow"
    shutil.move(damaged / file, outside)
    (damaged / file).symlink_to(outside)
    with pytest.raises(ArtifactError, match="leads out of the folder") as caught:
        Dataset.open(damaged)
    assert caught.value.code == "dataset-damaged"
    assert caught.value.file == str(damaged / file)


def test_a_link_to_the_dataset_itself_is_followed(whole, tmp_path):
    (tmp_path / "link").symlink_to(whole)
    assert everything(tmp_path / "link") == everything(whole)


DESCRIPTIONS = {
    "no users": (lambda i: i["tables"].pop("users"), "`tables` must have 'users'"),
    "no items": (lambda i: i["tables"].pop("items"), "`tables` must have 'items'"),
    "no ids": (lambda i: i["vocabularies"].pop("item"), "must have 'item'"),
    "no genres": (lambda i: i["vocabularies"].pop("genres"), "must have 'genres'"),
    "another owner": (lambda i: i["pending"].update(tag="x"), "`pending` must be of"),
    "twice": (lambda i: set_file("tables", "users")(i, "items-1.arrow"), "file twice"),
    "no kind": (lambda i: i["split"].pop("kind"), "`split` must have a kind"),
    "a list": (lambda i: i["split"].update(kind=["files"]), "`split` must have a kind"),
    "no counts": (lambda i: i["statistics"].pop("events"), "must have 'events'"),
    "words": (lambda i: i["statistics"].update(events="13"), "whole numbers"),
    "fewer than none": (lambda i: i["segments"][0].update(events=-5), "at least 0"),
    "more": (lambda i: i["segments"][0].update(events=6), "6 events. Found 5"),
    "no boundaries": (lambda i: i["numbers"].pop("age"), "must have boundaries"),
    "no part": (lambda i: i["segments"][0].update(part="more"), "Invalid enum value"),
    "another weight": (lambda i: i["schema"].update(weight="none"), "weight_alpha"),
    "no sessions": (lambda i: i["schema"].update(session_gap_minutes=None), None),
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_description_that_contradicts_itself_or_the_files(damaged, name):
    change, says = DESCRIPTIONS[name]
    with_info(damaged, change)
    if says is None:  # columns that nobody asks for are no harm
        assert refusal(damaged) is None
        return
    error = refusal(damaged)
    assert error is not None and error.code == "dataset-damaged"
    assert says in str(error)


@pytest.mark.parametrize("depth", [2_000, 100_000])
def test_a_description_that_is_nested_too_deep_is_refused(damaged, depth):
    deep = "[" * depth + "]" * depth
    with_info(damaged, lambda info: info["statistics"].update(deep=0))
    file = damaged / "dataset.json"
    file.write_text(file.read_text().replace('"deep": 0', f'"deep": {deep}'))
    with pytest.raises(ArtifactError) as caught:
        Dataset.open(damaged)
    assert caught.value.code == "dataset-damaged"


# A segment of events that are as they should be but for one column.
EVENTS = pl.read_ipc(GOLDEN / "events/00000.arrow")


def rewritten(path: Path, **columns: object) -> ArtifactError | None:
    """Puts other columns into the first segment; why it is refused then."""
    frame = EVENTS.with_columns(**columns)
    (path / "events/00000.arrow").unlink()
    frame.write_ipc(path / "events/00000.arrow", compat_level=pl.CompatLevel.oldest())
    with_info(path, lambda info: None)
    return refusal(path)


@pytest.mark.parametrize(
    ("column", "row", "says"),
    [
        ("user_index", 5, "'user_index' must hold rows from 0 to 4. Found 1 to 5"),
        ("user_index", -1, "Found -1 to 2"),
        ("item_index", 5, "'item_index' must hold rows from 0 to 4. Found 1 to 5"),
        ("item_index", 2**31 - 1, "Found 1 to 2147483647"),
        ("feature:device", 4, "'feature:device' must hold rows from 0 to 3"),
    ],
)
def test_rows_out_of_range_are_refused(damaged, column, row, says):
    values = EVENTS[column].cast(pl.Int32).to_list()
    changed = pl.Series([*values[:-1], row], dtype=pl.Int32)
    error = rewritten(damaged, **{column: changed})
    assert error is not None and error.code == "dataset-damaged"
    assert says in str(error) and "00000.arrow" in str(error)


@pytest.mark.parametrize(
    ("column", "values", "says"),
    [
        ("label", ["a", "b", "c", "d", "e"], "no column 'label'"),
        ("label", [1, 2, 3, 4, 5], "'label' of its events holds int64"),
        ("timestamp_ms", [1.0] * 5, "'timestamp_ms' of its events holds float32"),
        ("user_index", [1.0] * 5, "'user_index' of its events holds float32"),
        ("user_index", [[1]] * 5, "'user_index' of its events holds lists of int64"),
        ("feature:tags", [1] * 5, "'feature:tags' of its events holds int64"),
        ("weight", [None, 1.0, 1.0, 1.0, 1.0], "1 nulls"),
    ],
)
def test_columns_of_other_types_are_refused(damaged, column, values, says):
    error = rewritten(damaged, **{column: pl.Series(values)})
    assert error is not None and error.code == "dataset-damaged"
    assert says in str(error) or "columns-differ" in str(error.__cause__.code)


@pytest.mark.parametrize(
    ("table", "column", "values", "says"),
    [
        ("items", "feature:artist", [0, 1, 2, 3, 9], "rows from 0 to 8. Found 0 to 9"),
        ("items", "feature:artist", [0, 1, 2, 3, None], "a value in every record"),
        ("items", "feature:genres", [[0]] * 4 + [[-1, 2]], "Found -1 to 2"),
        (
            "items",
            "feature:genres",
            [[0]] * 4 + [[3]],
            "rows from 0 to 2. Found 0 to 3",
        ),
        ("items", "feature:price", ["a"] * 5, "'feature:price' must be Float32"),
        ("users", "feature:age", [0, 1, 2, 3, 4], "rows from 0 to 3. Found 0 to 4"),
    ],
)
def test_tables_with_rows_out_of_range_are_refused(
    damaged, table, column, values, says
):
    file = damaged / f"{table}-1.arrow"
    frame = pl.read_ipc(file)
    kind = pl.List(pl.Int32) if "genres" in column else pl.Int32
    kind = pl.String if isinstance(values[0], str) else kind
    frame = frame.with_columns(pl.Series(column, values, dtype=kind))
    file.unlink()
    write_frame(frame, file)
    with_info(damaged, lambda info: None)
    error = refusal(damaged)
    assert error is not None and error.code == "dataset-damaged"
    assert says in str(error) and file.name in str(error)


def test_a_table_with_a_record_less_is_refused(damaged):
    file = damaged / "users-1.arrow"
    frame = pl.read_ipc(file).head(4)
    file.unlink()
    write_frame(frame, file)
    with_info(damaged, lambda info: None)
    error = refusal(damaged)
    assert error is not None and "5 records. Found 4" in str(error)


@pytest.mark.parametrize("ids", [["eve", "eve"], [None], [7]])
def test_pending_ids_that_are_none_are_refused(damaged, ids):
    file = damaged / "pending-users-1.arrow"
    file.unlink()
    write_frame(pl.DataFrame({"id": ids}), file)
    with_info(damaged, lambda info: None)
    error = refusal(damaged)
    assert error is not None and "must be unique and of type String" in str(error)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The golden dataset as it is made today."""
    folder = tmp_path_factory.mktemp("prepared")
    make(folder)
    return next(path for path in folder.rglob("dataset.json")).parent


def test_prepare_and_append_list_every_file(prepared):
    info = read_info(prepared)
    listed = {
        path.relative_to(prepared).as_posix()
        for path in prepared.rglob("*")
        if path.is_file() and path.name != "dataset.json"
    }
    assert set(info.files) == listed
    assert {"rejected.csv", "users-0.arrow", "users-1.arrow"} <= listed
    for name, recorded in info.files.items():
        file = prepared / name
        assert recorded == FileSum(size=file.stat().st_size, xxh64=hash_file(file))


def test_an_append_prunes_and_extends_the_list(prepared, tmp_path):
    folder = tmp_path / "dataset"
    shutil.copytree(prepared, folder)
    day = NEXT_DAY.replace("17001", "17002")
    header = "user;item;time;plays;device;tags\n"
    (tmp_path / "day.csv").write_text(header + day)
    append(folder, tmp_path / "day.csv")
    info = read_info(folder)
    there = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "dataset.json"
    }
    assert set(info.files) == there
    assert "users-0.arrow" not in there and "users-2.arrow" in there


def test_an_append_to_a_dataset_without_checksums_records_all(tmp_path):
    folder = copy_golden(tmp_path / "dataset", recorded=False)
    day = NEXT_DAY.replace("17001", "17002")
    (tmp_path / "day.csv").write_text("user;item;time;plays;device;tags\n" + day)
    info = append(folder, tmp_path / "day.csv").info
    assert set(info.needed_files) <= set(info.files) and info.checksum
    flip(folder / "events/00001.arrow", 700)
    error = refusal(folder)
    assert error is not None and "Its content changed" in str(error)


@pytest.mark.parametrize("file", ["events/00000.arrow", "pending-items-1.arrow"])
def test_an_append_verifies_what_it_reads_and_changes_nothing(prepared, tmp_path, file):
    folder = tmp_path / "dataset"
    shutil.copytree(prepared, folder)
    flip(folder / file, 300)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    day = NEXT_DAY.replace("17001", "17002")
    (tmp_path / "day.csv").write_text("user;item;time;plays;device;tags\n" + day)
    with pytest.raises(ShortlistError, match="Its content changed") as caught:
        append(folder, tmp_path / "day.csv")
    assert caught.value.code == "dataset-damaged"
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_a_segment_that_is_not_read_is_not_hashed(prepared, tmp_path, monkeypatch):
    folder = tmp_path / "dataset"
    shutil.copytree(prepared, folder)
    hashed = []
    real = checksums.hash_file

    def hash_it(path):
        hashed.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(checksums, "hash_file", hash_it)
    flip(folder / "events/00003.arrow", 600)  # the test part
    dataset = Dataset.open(folder)
    assert not [name for name in hashed if name.startswith("0")]
    assert len(dataset.part("train")) == 8
    assert "00003.arrow" not in hashed
    with pytest.raises(ArtifactError, match=r"00003\.arrow .* Its content changed"):
        dataset.part("test")


def test_a_file_is_hashed_once_in_a_process(tmp_path, monkeypatch):
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    long_ago = os.stat(file).st_mtime_ns + 10**9
    monkeypatch.setattr(checksums.time, "time_ns", lambda: long_ago)
    hashed = []
    real = checksums.hash_file
    monkeypatch.setattr(
        checksums, "hash_file", lambda path: hashed.append(path) or real(path)
    )
    one = checksums.file_sum(file)
    assert one == checksums.file_sum(file) == FileSum(size=3, xxh64=hash_file(file))
    assert len(hashed) == 1
    file.unlink()
    file.write_bytes(b"abd")
    assert checksums.file_sum(file).xxh64 != one.xxh64 and len(hashed) == 2


def test_a_file_that_was_just_written_is_not_taken_for_known(tmp_path):
    # Time stamps are coarse: the same one may come with another content.
    file = tmp_path / "a"
    for content in (b"abc", b"abd", b"abe"):
        file.write_bytes(content)
        os.utime(file, ns=(0, 0))
        assert checksums.file_sum(file).xxh64 == hash_file(file)

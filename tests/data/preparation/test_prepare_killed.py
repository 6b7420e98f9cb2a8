"""Preparing and appending that are killed or run out of room: all or nothing."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from killed import run_killed, run_python
from shortlist.data import Dataset, Feature, ReadOptions, Schema, Split, append, prepare
from shortlist.data.store.dataset_info import DatasetInfo, fingerprint
from shortlist.errors import InputError

EVENTS = 100_000
SCHEMA = Schema(
    user_id="user",
    item_id="item",
    timestamp="time",
    features=(Feature(name="device", owner="context", kind="categorical"),),
)
SPLIT = Split(kind="time_cut", test=0.1, validation=0.1)
MEMORY = 1 << 20  # so that events go through files

SETTING = """
import sys
from shortlist.data.preparation.append import append
from shortlist.data.preparation.prepare import prepare
from shortlist.data.read.inputs import ReadOptions
from shortlist.data.schema import Feature, Schema
from shortlist.data.split import Split
from shortlist.errors import ResourceError
schema = Schema(user_id="user", item_id="item", timestamp="time", features=(
    Feature(name="device", owner="context", kind="categorical"),))
log, out = sys.argv[6:8]
"""
SETTING += f"options = ReadOptions(on_error='skip', memory_bytes={MEMORY})\n"
PREPARE = (
    SETTING
    + """
prepare(log, schema, out, split=Split(kind="time_cut", test=0.1, validation=0.1),
        options=options, overwrite=True)
"""
)
APPEND = SETTING + "append(out, log, options=options)\n"
# As Linux does not need: the old one moved aside, then the new one in its place.
IN_TWO_STEPS = "import shortlist.atomic as a; a._exchange = lambda *_: False\n"


def write_log(path: Path, events: int, first: int, seed: int) -> Path:
    """A log with one bad row, so that a list of those is written too."""
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, 5_000, events), rng.integers(0, 800, events)
    times = np.sort(rng.integers(first, first + 50 * 86_400, events))
    times[events // 2] = -5
    pl.DataFrame(
        {
            "user": users,
            "item": items,
            "time": times,
            "device": np.array(["web", "phone", "tv"])[rng.integers(0, 3, events)],
        }
    ).write_parquet(path)
    return path


@dataclass(frozen=True)
class World:
    """Logs, and the datasets that undisturbed runs make of them."""

    log: Path
    more: Path
    old: Path
    new: DatasetInfo
    appended: DatasetInfo
    appended_files: set[str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    first = write_log(folder / "first.parquet", 20_000, 1_600_000_000, 1)
    log = write_log(folder / "log.parquet", EVENTS, 1_600_000_000, 2)
    more = write_log(folder / "more.parquet", EVENTS // 2, 1_700_000_000, 3)
    old = prepare(
        first, SCHEMA, folder / "old", split=SPLIT, options=ReadOptions(on_error="skip")
    )
    new = prepare(
        log, SCHEMA, folder / "new", split=SPLIT, options=ReadOptions(on_error="skip")
    )
    shutil.copytree(old.path, folder / "appended")
    appended = append(folder / "appended", more, options=ReadOptions(on_error="skip"))
    files = files_of(appended.path)
    return World(log, more, old.path, new.info, appended.info, files)


def files_of(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*")}


def whole(path: Path) -> DatasetInfo:
    """What a dataset is, after a look at every byte of it."""
    dataset = Dataset.open(path)
    assert fingerprint(path, dataset.info) == dataset.info.fingerprint
    for part, events in dataset.info.parts.items():
        assert len(dataset.part(part)) == events
    return dataset.info


def prepared_again(world: World, out: Path) -> None:
    """The next run works and leaves nothing but the dataset."""
    prepare(
        world.log,
        SCHEMA,
        out,
        split=SPLIT,
        overwrite=True,
        options=ReadOptions(on_error="skip"),
    )
    assert whole(out) == world.new
    assert os.listdir(out.parent) == [out.name]
    assert "spill" not in os.listdir(out)


def quick(points: list[tuple[str, str, int]], *places: int) -> list:
    """The points, of which all but those at the given places are slow."""
    return [
        pytest.param(*point, marks=[] if place in places else [pytest.mark.slow])
        for place, point in enumerate(points)
    ]


OLD_REMAINS = [
    ("shortlist.data.preparation.ingest:Spill.keep", "after", 3),
    ("shortlist.data.preparation.prepare:sort_log", "before", 1),
    ("shortlist.data.preparation.prepare:sort_log", "after", 1),
    ("shortlist.data.preparation.sorted_log:Spill.keep", "after", 9),
    ("shortlist.data.store.segments:_table", "before", 4),  # in the middle of a file
    ("shortlist.data.preparation.event_rows:write_segment", "after", 1),
    ("shortlist.data.preparation.event_rows:write_segment", "after", 3),
    ("shortlist.data.store.vocabulary:Vocabulary.save", "before", 2),
    ("shortlist.data.store.vocabulary:Vocabulary.save", "after", 3),
    ("shortlist.data.preparation.prepare:write_rejected", "after", 1),
    ("shortlist.data.preparation.prepare:with_sums", "after", 1),
    ("shortlist.data.preparation.prepare:write_info", "before", 1),
    ("shortlist.data.preparation.prepare:write_info", "after", 1),
    ("os:replace", "before", 1),
    ("os:replace", "after", 2),
    ("os:fsync", "before", 3),
    ("os:fsync", "after", 12),
    ("shortlist.atomic:_replace_directory", "before", 1),
]
NEW_IS_THERE = [
    ("shortlist.atomic:_replace_directory", "after", 1),
    ("shortlist.atomic:remove_ours", "before", 1),  # of what the new one replaced
]


@pytest.mark.parametrize(("point", "when", "number"), quick(OLD_REMAINS, 4, 12, 17))
def test_a_killed_overwrite_keeps_the_old_dataset(
    world, tmp_path, point, when, number
) -> None:
    out = tmp_path / "out"
    shutil.copytree(world.old, out)
    run_killed(PREPARE, world.log, out, point=point, when=when, number=number)
    assert whole(out) == whole(world.old)
    assert files_of(out) == files_of(world.old)
    assert len(os.listdir(tmp_path)) == 2  # what is hidden beside it
    prepared_again(world, out)


@pytest.mark.parametrize(("point", "when", "number"), quick(OLD_REMAINS[1::4], 2))
def test_a_killed_prepare_leaves_no_dataset(
    world, tmp_path, point, when, number
) -> None:
    out = tmp_path / "out"
    run_killed(PREPARE, world.log, out, point=point, when=when, number=number)
    assert not out.exists()
    assert all(name.startswith(".out.") for name in os.listdir(tmp_path))
    prepared_again(world, out)


@pytest.mark.parametrize(("point", "when", "number"), quick(NEW_IS_THERE, 1))
def test_after_the_swap_the_new_dataset_is_whole(
    world, tmp_path, point, when, number
) -> None:
    out = tmp_path / "out"
    shutil.copytree(world.old, out)
    run_killed(PREPARE, world.log, out, point=point, when=when, number=number)
    assert whole(out) == world.new
    assert len(os.listdir(tmp_path)) == 2
    prepared_again(world, out)


def test_killed_between_two_renames_the_next_run_puts_the_old_one_back(
    world, tmp_path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(world.old, out)
    # The last renames: the old one aside, the new one in its place.
    command = IN_TWO_STEPS + PREPARE
    replaces = counted_replaces(world, tmp_path / "counted")
    run_killed(command, world.log, out, point="os:replace", number=replaces)
    assert not out.exists() and len(os.listdir(tmp_path)) == 3
    with pytest.raises(InputError, match="exists already"):
        prepare(
            world.log, SCHEMA, out, split=SPLIT, options=ReadOptions(on_error="skip")
        )
    assert whole(out) == whole(world.old)
    shutil.rmtree(tmp_path / "counted")
    prepared_again(world, out)


def counted_replaces(world: World, out: Path) -> int:
    """How often an undisturbed overwrite in two renames calls `os.replace`."""
    shutil.copytree(world.old, out)
    told = "\nprint(calls)\n"
    done = run_python(
        IN_TWO_STEPS + PREPARE + told, world.log, out, point="os:replace", number=-1
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


# --- append -----------------------------------------------------------------------

NOT_APPENDED = [
    ("shortlist.data.preparation.append:_read", "before", 1),
    ("shortlist.data.preparation.ingest:Spill.keep", "after", 2),
    ("shortlist.data.preparation.append:sort_log", "after", 1),
    ("shortlist.data.store.segments:_table", "before", 2),
    ("shortlist.data.preparation.append:write_events", "after", 1),
    ("shortlist.data.store.vocabulary:Vocabulary.save", "after", 1),
    ("shortlist.data.preparation.append:write_rejected", "after", 1),
    ("shortlist.data.preparation.append:fsync", "before", 4),
    ("shortlist.data.preparation.append:with_sums", "after", 1),
    ("shortlist.data.preparation.append:write_info", "before", 1),
    ("os:replace", "before", 1),  # a vocabulary
    ("os:replace", "before", 5),  # dataset.json itself
]
APPENDED = [
    ("shortlist.data.preparation.append:write_info", "after", 1),
    ("shortlist.data.preparation.append:remove_stale_files", "before", 2),
]


@pytest.mark.parametrize(("point", "when", "number"), quick(NOT_APPENDED, 3, 11))
def test_a_killed_append_changes_nothing(world, tmp_path, point, when, number) -> None:
    out = tmp_path / "out"
    shutil.copytree(world.old, out)
    run_killed(APPEND, world.more, out, point=point, when=when, number=number)
    assert whole(out) == whole(world.old)
    append(out, world.more, options=ReadOptions(on_error="skip"))
    assert whole(out) == world.appended
    assert files_of(out) == world.appended_files
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize(("point", "when", "number"), quick(APPENDED, 0))
def test_once_the_description_is_written_the_days_are_there(
    world, tmp_path, point, when, number
) -> None:
    out = tmp_path / "out"
    shutil.copytree(world.old, out)
    run_killed(APPEND, world.more, out, point=point, when=when, number=number)
    assert whole(out) == world.appended
    with pytest.raises(InputError) as caught:
        append(out, world.more, options=ReadOptions(on_error="skip"))
    assert caught.value.code == "append-not-later"
    assert whole(out) == world.appended
    assert files_of(out) == world.appended_files


def test_a_list_of_bad_rows_of_a_killed_append_goes_away(world, tmp_path) -> None:
    out = tmp_path / "out"
    shutil.copytree(world.old, out)
    run_killed(
        APPEND, world.more, out, point="shortlist.data.preparation.append:write_info"
    )
    assert (out / "rejected-1.csv").is_file()
    good = pl.read_parquet(world.more).filter(pl.col("time") > 0)
    good.write_parquet(tmp_path / "good.parquet")
    append(out, tmp_path / "good.parquet")
    assert not (out / "rejected-1.csv").exists()


# --- no room ----------------------------------------------------------------------

REPORTED = """
except ResourceError as error:
    print(error.code, error.exit_code, error.file, error.message, sep="|")
"""


def guarded(command: str) -> str:
    body = command.removeprefix(SETTING).strip().replace("\n", "\n    ")
    return f"{SETTING}\ntry:\n    {body}{REPORTED}"


# Each is too little for another file; one is enough where time matters.
LIMITS = [
    *[pytest.param(limit, marks=pytest.mark.slow) for limit in (0, 5_000, 100_000)],
    300_000,
]


@pytest.mark.parametrize("largest_file", LIMITS)
@pytest.mark.parametrize("exists", [True, False])
def test_prepare_without_room_says_so_and_leaves_nothing(
    world, tmp_path, exists, largest_file
) -> None:
    out = tmp_path / "out"
    if exists:
        shutil.copytree(world.old, out)
    done = run_python(guarded(PREPARE), world.log, out, largest_file=largest_file)
    assert done.returncode == 0, done.stderr
    code, exit_code, file, message = done.stdout.strip().split("|")
    assert (code, exit_code, file) == ("no-space", "4", str(out))
    assert (
        "File too large" in message and "ulimit -f" in message and str(out) in message
    )
    assert os.listdir(tmp_path) == (["out"] if exists else [])
    if exists:
        assert whole(out) == whole(world.old)
        assert files_of(out) == files_of(world.old)


@pytest.mark.parametrize("largest_file", LIMITS)
def test_append_without_room_says_so_and_changes_nothing(
    world, tmp_path, largest_file
) -> None:
    out = tmp_path / "out"
    shutil.copytree(world.old, out)
    done = run_python(guarded(APPEND), world.more, out, largest_file=largest_file)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("no-space|4|")
    assert whole(out) == whole(world.old)
    assert files_of(out) == files_of(world.old)
    assert os.listdir(tmp_path) == ["out"]

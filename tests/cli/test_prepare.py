"""`shortlist prepare` on logs with faults, on later days and on a disk that is full."""

from __future__ import annotations

import json
import os
from pathlib import Path

import polars as pl
import pytest

from killed import run_python
from shortlist.data import Dataset

DAY = 86_400
T0 = 1_600_000_000 // DAY * DAY
HEADER = "user,item,stars,time\n"
RECIPE = """
[log]
events = {events}
{log}
[columns]
user_id = "user"
item_id = "item"
timestamp = "time"
label = "stars"
label_kind = "explicit"
label_min = 1
label_max = 5
{columns}
[split]
kind = "time_cut"
test = 0.2
validation = 0.2
"""


def rows(first_day: int, days: int, users: int = 8) -> list[str]:
    return [
        f"u{u},i{(u + day) % 6},{1 + (u + day) % 5},{T0 + day * DAY + 60 * u + 1}"
        for day in range(first_day, first_day + days)
        for u in range(users)
    ]


def write_rows(path: Path, lines: list[str]) -> Path:
    path.write_text(HEADER + "".join(f"{line}\n" for line in lines))
    return path


def write_recipe(folder: Path, *files: str, log: str = "", columns: str = "") -> Path:
    events = json.dumps(list(files) if len(files) > 1 else files[0])
    path = folder / "shortlist.toml"
    path.write_text(RECIPE.format(events=events, log=log, columns=columns))
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A project with a log of ten days and nothing else."""
    write_rows(tmp_path / "log.csv", rows(0, 10))
    return write_recipe(tmp_path, "log.csv")


@pytest.fixture
def prepared(call, recipe: Path) -> Path:
    assert call("prepare", "--recipe", recipe).code == 0
    return recipe


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


# --- bad rows ---------------------------------------------------------------------


def test_bad_rows_are_skipped_counted_and_listed(call, tmp_path, recipe) -> None:
    lines = rows(0, 10)
    lines[4] = f"u1,i1,9,{T0}"
    lines[30] = f",i1,3,{T0}"
    write_rows(tmp_path / "log.csv", lines)
    refused = call("prepare", "--recipe", recipe)
    assert refused.code == 2
    assert "error[log-id-missing]" in refused.err
    assert not (tmp_path / "dataset").exists()
    done = call("prepare", "--recipe", recipe, "--on-error", "skip")
    assert done.code == 0, done.err
    assert "rows skipped: 2;" in done.out
    assert done.err.count("problem: 1 row was left out") == 2
    assert "Found '9'" in done.err
    rejected = pl.read_csv(tmp_path / "dataset" / "rejected.csv", infer_schema=False)
    log = str(tmp_path / "log.csv")
    assert rejected.rows() == [
        (log, "6", "stars", "log-label-range", "9"),
        (log, "32", "user", "log-id-missing", None),
    ]
    again = call(
        "prepare", "-r", recipe, "--set=log.on_error='skip'", "--overwrite", "--json"
    )
    assert again.json["statistics"]["rows_skipped"] == 2


def test_a_log_without_bad_rows_has_no_list_of_them(call, tmp_path, recipe) -> None:
    assert call("prepare", "-r", recipe, "--on-error=skip").code == 0
    assert not (tmp_path / "dataset" / "rejected.csv").exists()


@pytest.mark.parametrize("value", ["ignore", "Skip", "", "a=b"])
def test_an_unknown_on_error_names_the_ones_there_are(
    call, tmp_path, recipe, value
) -> None:
    result = call("prepare", "--recipe", recipe, f"--on-error={value}")
    assert result.code == 2
    assert result.err.startswith("error[recipe-invalid]: ")
    for word in ("log.on_error", "'raise'", "'skip'", repr(value)):
        assert word in result.err, word
    assert not (tmp_path / "dataset").exists()


def test_a_bad_row_in_the_middle_of_file_7_of_20_is_named(call, tmp_path) -> None:
    names = [f"part-{number:02d}.csv" for number in range(20)]
    for number, name in enumerate(names):
        write_rows(tmp_path / name, rows(number, 1, users=20))
    lines = rows(6, 1, users=20)
    lines[9] = f"u9,i1,7,{T0 + 6 * DAY}"
    write_rows(tmp_path / names[6], lines)
    recipe = write_recipe(tmp_path, *names)
    result = call("prepare", "--recipe", recipe, "--json")
    assert result.code == 2
    assert "Traceback" not in result.err
    error = result.json["error"]
    assert error["code"] == "log-label-range"
    assert error["file"] == str(tmp_path / names[6])
    assert (error["row"], error["column"]) == (11, "stars")
    assert f"(file {tmp_path / names[6]}, column stars, row 11)" in result.err
    assert not (tmp_path / "dataset").exists()


# --- warnings ---------------------------------------------------------------------


def warned(call, recipe: Path) -> dict[str, dict]:
    """The findings by code, which are in the JSON and on standard error alike."""
    result = call("prepare", "--recipe", recipe, "--json")
    assert result.code == 0, result.err
    findings = result.json["findings"]
    for finding in findings:
        assert f"{finding['severity']}: {finding['message']}" in result.err
    assert len(result.out.splitlines()) == 1
    return {finding["code"]: finding for finding in findings}


def test_a_clean_log_warns_of_nothing(call, recipe) -> None:
    assert warned(call, recipe) == {}


def test_a_column_whose_type_changes_between_files_warns(call, tmp_path) -> None:
    one = [line.replace("u", "").replace("i", "") for line in rows(0, 5)]
    two = [line.replace("i", "") for line in rows(5, 5)]
    write_rows(tmp_path / "one.csv", one)
    write_rows(tmp_path / "two.csv", two)
    recipe = write_recipe(tmp_path, "one.csv", "two.csv")
    found = warned(call, recipe)
    assert list(found) == ["column-type-changed"]
    finding = found["column-type-changed"]
    assert (finding["severity"], finding["column"]) == ("warning", "user")
    assert "one.csv" in finding["message"] and "two.csv" in finding["message"]


def test_ids_that_differ_in_white_space_warn(call, tmp_path, recipe) -> None:
    lines = rows(0, 10)
    lines[20] = " " + lines[20]
    write_rows(tmp_path / "log.csv", lines)
    found = warned(call, recipe)
    assert list(found) == ["ids-white-space"]
    assert found["ids-white-space"]["column"] == "user"


def test_a_jump_of_the_clock_warns(call, tmp_path, recipe) -> None:
    write_rows(tmp_path / "log.csv", [*rows(0, 10), *rows(400, 10)])
    found = warned(call, recipe)
    assert list(found) == ["clock-jump"]
    assert "391 days" in found["clock-jump"]["message"]


# --- later days -------------------------------------------------------------------


@pytest.mark.backend
def test_appended_days_move_the_window(call, tmp_path, prepared) -> None:
    before = Dataset.open(tmp_path / "dataset").info
    write_rows(tmp_path / "more.csv", rows(10, 2))
    result = call("prepare", "-r", prepared, "--append", tmp_path / "more.csv")
    assert result.code == 0, result.err
    train = before.parts["train"] + before.parts["validation"]
    validation = before.parts["test"]
    assert f"train {train:,}, validation {validation:,}, test 16\n" in result.out
    assert "dataset: 96 events" in result.out.replace(f"{tmp_path}/", "")
    for name, day in (("a.csv", 12), ("b.csv", 13)):
        write_rows(tmp_path / name, rows(day, 1))
    append = [f"--append={tmp_path / name}" for name in ("a.csv", "b.csv")]
    both = call("prepare", "-r", prepared, *append, "--json")
    assert both.json["parts"] == {
        "train": train + validation,
        "validation": 16,
        "test": 16,
    }
    assert both.json["statistics"]["events"] == 112
    # The dataset is that of its recipe still, and of its files.
    kept = tree(tmp_path / "dataset")
    assert train_accepts(call, prepared)
    assert tree(tmp_path / "dataset") == kept


def test_days_that_are_there_already_are_refused(call, tmp_path, prepared) -> None:
    before = tree(tmp_path / "dataset")
    write_rows(tmp_path / "early.csv", rows(9, 2))
    result = call("prepare", "-r", prepared, "--append", tmp_path / "early.csv")
    assert result.code == 2
    assert result.err.startswith("error[append-not-later]: ")
    assert str(tmp_path / "early.csv") in result.err
    assert tree(tmp_path / "dataset") == before


def test_bad_rows_of_later_days_are_skipped_on_demand(call, tmp_path, prepared) -> None:
    lines = rows(10, 2)
    lines[3] = f"u1,i1,9,{T0 + 11 * DAY}"
    write_rows(tmp_path / "more.csv", lines)
    arguments = ["prepare", "-r", prepared, "--append", tmp_path / "more.csv"]
    before = tree(tmp_path / "dataset")
    assert call(*arguments).code == 2
    assert tree(tmp_path / "dataset") == before
    result = call(*arguments, "--on-error=skip")
    assert result.code == 0, result.err
    assert "rows skipped: 1;" in result.out
    assert "log-label-range" in (tmp_path / "dataset/rejected-1.csv").read_text()


@pytest.mark.backend
def test_items_of_later_days_may_join_the_items_file(call, tmp_path) -> None:
    write_rows(tmp_path / "log.csv", rows(0, 10))
    items = tmp_path / "items.csv"
    known = "".join(f"i{n},Item {n}\n" for n in range(6))
    items.write_text(f"item,name\n{known}")
    recipe = write_recipe(
        tmp_path, "log.csv", log='items = "items.csv"', columns='title = "name"'
    )
    assert call("prepare", "-r", recipe).code == 0
    items.write_text(f"item,name\n{known}new,The new one\n")
    stale = call("train", "-r", recipe)
    assert (stale.code, "error[dataset-stale]" in stale.err) == (3, True)
    for day in (10, 11):  # what is new becomes known one window later
        new = f"u0,new,3,{T0 + day * DAY + 9_000}"
        write_rows(tmp_path / f"{day}.csv", [*rows(day, 1), new])
        result = call("prepare", "-r", recipe, "--append", tmp_path / f"{day}.csv")
        assert result.code == 0, result.err
    dataset = Dataset.open(tmp_path / "dataset")
    row = dataset.vocabularies["item"].row("new")
    assert dataset.items["name"][row] == "The new one"
    assert train_accepts(call, recipe)


# --- what a dataset was made of ---------------------------------------------------


def train_accepts(call, recipe: Path) -> bool:
    """Whether training would begin: it looks for its output after the dataset."""
    run = recipe.parent / "taken"
    run.mkdir(exist_ok=True)
    (run / "mine.txt").write_text("x")
    # Some of these logs hold out nothing but repeats.
    settings = ["--set=output.run='taken'", "--set=evaluation.repeats=true"]
    result = call("train", "-r", recipe, *settings)
    assert result.code in (2, 3), result.err
    assert "error[output-exists]" in result.err or "error[dataset-" in result.err
    return "error[output-exists]" in result.err


@pytest.mark.backend
@pytest.mark.parametrize("size", ["same", "other"])
def test_a_log_that_changed_makes_its_dataset_stale(
    call, tmp_path, prepared, size
) -> None:
    assert train_accepts(call, prepared)
    log = tmp_path / "log.csv"
    state = log.stat()
    text = log.read_text()
    log.write_text(text.replace("u1,", "u2,", 1) + ("" if size == "same" else "\n"))
    # Some systems count time in steps: the change is surely later.
    os.utime(log, ns=(state.st_atime_ns, state.st_mtime_ns + 10**9))
    result = call("train", "--recipe", prepared)
    assert result.code == 3
    assert result.err.startswith("error[dataset-stale]: ")
    assert str(log) in result.err and "prepare --overwrite" in result.err
    assert not (tmp_path / "run").exists()
    write_rows(tmp_path / "more.csv", rows(10, 2))
    result = call("prepare", "-r", prepared, "--append", tmp_path / "more.csv")
    assert (result.code, "error[dataset-stale]" in result.err) == (3, True)
    assert call("prepare", "-r", prepared, "--overwrite").code == 0
    assert train_accepts(call, prepared)


@pytest.mark.backend
def test_a_log_touched_restored_or_gone_is_fine(call, tmp_path, prepared) -> None:
    log = tmp_path / "log.csv"
    state, text = log.stat(), log.read_text()
    os.utime(log, ns=(state.st_atime_ns, state.st_mtime_ns + 10**9))
    assert train_accepts(call, prepared)
    log.write_text(text + "\n")
    assert not train_accepts(call, prepared)
    log.write_text(text)
    assert train_accepts(call, prepared)
    log.unlink()
    assert train_accepts(call, prepared)


# --- formats and the disk ---------------------------------------------------------


@pytest.mark.backend
@pytest.mark.parametrize(
    ("version", "code", "words"),
    [
        (1, "dataset-older", "Run `shortlist prepare --overwrite`"),
        (3, "dataset-newer", "Update shortlist or prepare again"),
    ],
)
def test_a_dataset_of_another_format_is_refused(
    call, tmp_path, prepared, version, code, words
) -> None:
    file = tmp_path / "dataset" / "dataset.json"
    info = json.loads(file.read_text()) | {"format_version": version}
    file.write_text(json.dumps(info))
    write_rows(tmp_path / "more.csv", rows(10, 2))
    before = tree(tmp_path / "dataset")
    for arguments in (["train"], ["prepare", "--append", tmp_path / "more.csv"]):
        result = call(*arguments, "--recipe", prepared)
        assert result.code == 3
        assert result.err.startswith(f"error[{code}]: ")
        assert words in result.err and "Traceback" not in result.err
    assert tree(tmp_path / "dataset") == before
    assert call("prepare", "-r", prepared, "--overwrite").code == 0
    assert Dataset.open(tmp_path / "dataset").info.parts["test"] == 16


@pytest.mark.backend
def test_a_dataset_of_format_1_as_it_was_written_is_known(call, prepared) -> None:
    file = prepared.parent / "dataset" / "dataset.json"
    old = {"format": "shortlist-dataset", "format_version": 1, "parts": {"train": 9}}
    file.write_text(json.dumps(old))
    result = call("train", "--recipe", prepared)
    assert (result.code, "error[dataset-older]" in result.err) == (3, True)


COMMAND = """
from shortlist.cli.app import run
sys.exit(run(sys.argv[6:]))
"""


def test_a_full_disk_exits_4_and_keeps_what_was_there(tmp_path, prepared) -> None:
    write_rows(tmp_path / "more.csv", rows(10, 2))
    before = tree(tmp_path)
    for given in (["--overwrite"], ["--append", tmp_path / "more.csv"]):
        arguments = ["prepare", "--recipe", prepared, *given]
        done = run_python(COMMAND, *arguments, largest_file=100)
        assert done.returncode == 4
        assert done.stderr.startswith("error[no-space]: ")
        assert "Traceback" not in done.stderr
        assert tree(tmp_path) == before

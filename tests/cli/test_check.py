"""`shortlist check`: what it prints, what it writes, and what it makes of bad logs."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from shortlist import packages
from small_logs import events, write_movielens_25m, write_renamed_csv

BAD_ROWS = "5,,4,1600000000\n7,3,none,1600000000\n7,3,4,\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """ratings.csv of 2,400 events."""
    write_movielens_25m(tmp_path)
    return tmp_path / "ratings.csv"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def codes(result) -> list[str]:
    return [finding["code"] for finding in result.json["findings"]]


def test_a_log_is_reported_on_without_writing_anything(call, log: Path) -> None:
    before = sorted(log.parent.iterdir())
    result = call("check", log)
    assert (result.code, result.err) == (0, "")
    for text in (
        "user_id: The name 'userId' says so.",
        "split: last_fraction, test 0.2, validation 0.1",
        "2,400",
        "2020-01-02T12:35:58Z",
        "Gini",
        "test: item popularity",
        "Findings: ",
    ):
        assert text in result.out
    assert sorted(log.parent.iterdir()) == before


def test_a_pipe_gets_plain_whole_lines(
    call, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    result = call("check", log)
    assert "\x1b" not in result.out
    assert "…" not in result.out
    assert all(line == line.rstrip() for line in result.out.splitlines())
    tables = result.out[result.out.index("\nLog\n") : result.out.index("Findings")]
    assert max(map(len, tables.splitlines())) < 100
    (parts,) = (line for line in result.out.splitlines() if line.startswith("train "))
    assert parts.split()[:5] == ["train", "1,788", "74.5%", "79", "40"]


def test_json_holds_the_same_and_nothing_else_is_printed(call, log: Path) -> None:
    result = call("check", log, "--json")
    assert (result.code, result.err) == (0, "")
    report = json.loads(result.out)
    frame = events()
    assert report["files"] == [str(log)]
    assert report["columns"]["user_id"] == "userId"
    assert report["split"] == "last_fraction"
    assert "guesses" in report
    assert report["counts"]["rows_read"] == len(frame)
    assert report["counts"]["users"] == frame["user"].n_unique()
    assert report["labels"]["mean"] == pytest.approx(frame["rating"].mean())
    assert [part["part"] for part in report["parts"]] == ["train", "validation", "test"]
    assert sum(part["events"] for part in report["parts"]) == len(frame)


def test_bad_rows_are_left_out_and_counted(call, log: Path) -> None:
    with log.open("a") as stream:
        stream.write(BAD_ROWS)
    result = call("check", log, "--json")
    assert (result.code, result.err) == (0, "")
    assert result.json["counts"]["rows_read"] == 2_403
    assert result.json["counts"]["rows_skipped"] == 3
    assert result.json["counts"]["events"] == 2_400
    skipped = [f for f in result.json["findings"] if f["code"] == "rows-skipped"]
    assert sum(finding["count"] for finding in skipped) == 3
    assert all(finding["severity"] == "problem" for finding in skipped)
    assert "rows-skipped: 1 row was left out" in call("check", log).out


def test_strict_fails_on_problems_and_on_nothing_less(call, log: Path) -> None:
    assert call("check", log, "--strict").code == 0
    with log.open("a") as stream:
        stream.write(BAD_ROWS)
    assert call("check", log).code == 0
    strict = call("check", log, "--strict")
    assert (strict.code, strict.err) == (1, "")
    assert "Findings: " in strict.out


def test_the_page_is_written_and_not_replaced_unasked(call, log: Path) -> None:
    page = log.parent / "report.html"
    result = call("check", log, "--html", page)
    assert result.code == 0, result.err
    assert result.out.endswith(f"report: {page}\n")
    text = page.read_text(encoding="utf-8")
    assert "<h1>Data report of ratings.csv</h1>" in text
    assert "<svg" in text
    again = call("check", log, "--html", page)
    assert (again.code, "error[output-exists]" in again.err) == (2, True)
    assert call("check", log, "--html", page, "--overwrite").code == 0
    itself = call("check", log, "--html", log)
    assert itself.code == 2
    assert log.read_text().startswith("userId,")


def test_without_matplotlib_only_the_page_is_refused(
    call, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    page = log.parent / "report.html"
    result = call("check", log, "--html", page)
    assert result.code == 4
    assert "error[package-missing]" in result.err
    assert "pip install 'shortlist[plots]'" in result.err
    assert not page.exists()
    assert call("check", log).code == 0


def test_a_recipe_says_columns_split_and_files(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_renamed_csv(tmp_path)
    assert call("init", "log.csv").code == 0
    result = call("check", "--recipe", "shortlist.toml", "--json")
    assert result.code == 0, result.err
    assert result.json["files"] == ["log.csv"]
    assert result.json["guesses"] == {}
    changed = ("--set=split.kind=time_cut", "--set=split.validation=0")
    cut = call("check", "--recipe", "shortlist.toml", *changed, "--json")
    assert cut.json["split"] == "time_cut"
    assert [leak["train_after_first"] for leak in cut.json["leakage"]] == [0]
    shown = call("check", "--recipe", "shortlist.toml").out
    assert "user_id: 'who'" in shown and "guesses" not in shown
    other = tmp_path / "other.csv"
    other.write_text("\n".join(Path("log.csv").read_text().splitlines()[:101]))
    named = call("check", other, "--recipe", "shortlist.toml", "--json")
    assert named.json["counts"]["events"] == 100


def test_attribute_files_of_a_recipe_are_checked_as_prepare_does(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = write_movielens_25m(tmp_path)
    assert call("init", *files).code == 0
    assert "ids-white-space" not in codes(
        call("check", "-r", "shortlist.toml", "--json")
    )
    items = pl.read_csv("movies.csv", infer_schema=False)
    items.with_columns(pl.format(" {}", "movieId").alias("movieId")).write_csv(
        "movies.csv"
    )
    result = call("check", "--recipe", "shortlist.toml", "--json", "--strict")
    assert result.code == 1, result.err
    assert {"attribute-ids-unmatched", "ids-white-space"} <= set(codes(result))
    prepared = call("prepare", "--json")
    assert prepared.code == 0, prepared.err
    of_files = [f for f in result.json["findings"] if f.get("file") == "movies.csv"]
    assert len(of_files) == 2
    assert [f for f in prepared.json["findings"] if f in of_files] == of_files
    Path("movies.csv").unlink()
    gone = call("check", "--recipe", "shortlist.toml")
    assert (gone.code, "error[log-file-missing]" in gone.err) == (2, True)


def test_own_test_files_are_read_as_the_test_part(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_movielens_25m(tmp_path)
    lines = Path("ratings.csv").read_text().splitlines()
    Path("train.csv").write_text("\n".join(lines[:2_001]))
    Path("test.csv").write_text("\n".join([lines[0], *lines[1_991:]]))
    assert call("init", "train.csv").code == 0
    settings = ("--set=log.test_events=test.csv", "--set=split.kind=files")
    result = call("check", "-r", "shortlist.toml", *settings, "--json")
    assert result.code == 0, result.err
    assert result.json["parts"][2]["events"] == 410
    assert result.json["leakage"][-1]["copies"] == 10
    assert "copied-events" in codes(result)


def test_several_files_are_one_log(call, tmp_path: Path) -> None:
    head = "user,item,time\n"
    first = "".join(f"{n % 5},{n % 7},{1_600_000_000 + n * 60}\n" for n in range(50))
    second = "".join(f"x{n % 5},{n % 7},{1_600_100_000 + n}\n" for n in range(30))
    files = (
        write(tmp_path / "a.csv", head + first),
        write(tmp_path / "b.csv", head + second),
    )
    result = call("check", *files, "--json")
    assert result.code == 0, result.err
    assert result.json["counts"]["events"] == 80
    assert result.json["counts"]["users"] == 10
    (changed,) = (f for f in result.json["findings"] if "type" in f["code"])
    assert (changed["file"], changed["column"]) == (str(files[1]), "user")


def test_ids_in_several_spellings_are_found(call, tmp_path: Path) -> None:
    rows = "".join(f"{u},{i},5\n" for u in ("ann", " ann", "Ann") for i in "abc")
    result = call(
        "check", write(tmp_path / "log.csv", "user,item,x\n" + rows), "--json"
    )
    assert result.code == 0, result.err
    assert {"ids-white-space", "ids-letter-case"} <= set(codes(result))


def test_a_log_without_times_or_labels(call, tmp_path: Path) -> None:
    rows = "".join(f"{n % 6},{n % 5}\n" for n in range(60))
    path = write(tmp_path / "log.csv", "user,item\n" + rows)
    result = call("check", path, "--json", "--html", tmp_path / "page.html")
    assert result.code == 0, result.err
    assert (result.json["time"], result.json["labels"]) == (None, None)
    assert call("check", path).code == 0


def test_a_log_of_one_event_again_and_again(call, tmp_path: Path) -> None:
    rows = "ann,x,1600000000\n" * 30 + "bob,y,1600000060\n" * 30
    path = write(tmp_path / "log.csv", "user,item,time\n" + rows)
    result = call("check", path, "--json", "--html", tmp_path / "page.html")
    assert result.code == 0, result.err
    assert result.json["counts"]["duplicates_dropped"] == 58
    assert result.json["counts"]["events"] == 2
    assert "duplicate-events" in codes(result)


def test_one_user_is_a_problem_of_the_log_not_an_error(call, tmp_path: Path) -> None:
    rows = "".join(f"ann,{n % 5},{1_600_000_000 + n}\n" for n in range(20))
    path = write(tmp_path / "log.csv", "user,item,time\n" + rows)
    result = call("check", path, "--json")
    assert result.code == 0, result.err
    assert "one-user" in codes(result)
    assert call("check", path, "--strict").code == 1


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "log-file-missing"),
        ("", "log-empty"),
        ("user,item,time\n", "log-empty"),
        ("user,item,time\n,,\n,,\n", "log-"),
        ("what is this", "log-"),
    ],
)
def test_what_cannot_be_read_is_one_error(
    call, tmp_path: Path, content: str | None, code: str
) -> None:
    path = tmp_path / "log.csv"
    if content is not None:
        path.write_text(content)
    page = tmp_path / "page.html"
    result = call("check", path, "--html", page, "--json")
    assert result.code == 2
    assert result.err.startswith(f"error[{code}")
    assert "Traceback" not in result.err
    assert not page.exists()


def test_the_log_or_a_recipe_must_be_named(call, log: Path) -> None:
    for arguments in ([], [log, "--set=split.test=0.1"]):
        result = call("check", *arguments)
        assert (result.code, "error[usage]" in result.err) == (2, True)
    missing = call("check", log, "--recipe", log.parent / "none.toml")
    assert (missing.code, "error[recipe-missing]" in missing.err) == (2, True)


def test_names_of_a_log_are_neither_markup_nor_commands(call, tmp_path: Path) -> None:
    name = "user [red]\x1b[2J<b>"
    frame = pl.DataFrame(
        {name: ["a", "a ", "[/bold]", "[/bold] "] * 5, "item": [1, 2, 3, 4, 5] * 4}
    )
    frame.write_parquet(tmp_path / "log.parquet")
    page = tmp_path / "page.html"
    result = call("check", tmp_path / "log.parquet", "--html", page)
    assert result.code == 0, result.err
    assert "\x1b" not in result.out
    assert "(column user [red]\\x1b[2J<b>)" in " ".join(result.out.split())
    assert "'[/bold]' and '[/bold] '" in " ".join(result.out.split())
    assert "<b>" not in page.read_text(encoding="utf-8")

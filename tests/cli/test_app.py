"""Exit codes, errors and flags of the command line, without any training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shortlist.cli import prepare as prepare_module
from shortlist.cli.app import app

COMMANDS = [
    "init",
    "check",
    "prepare",
    "train",
    "tune",
    "evaluate",
    "compare",
    "cross-validate",
    "runs",
    "export",
    "recommend",
    "similar",
    "predict",
    "serve",
    "convert",
    "demo",
    "doctor",
]


def test_every_command_is_there_in_the_order_of_the_flow(call) -> None:
    result = call("--help")
    assert result.code == 0
    listed = [line.split()[0] for line in result.out.splitlines() if line.strip()]
    assert [name for name in listed if name in COMMANDS] == COMMANDS
    assert len(app.registered_commands) == len(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_takes_json(call, command: str) -> None:
    result = call(command, "--help")
    assert result.code == 0
    assert "--json" in result.out


def test_version(call) -> None:
    result = call("--version")
    assert (result.code, result.out) == (0, "shortlist 0.1.0\n")


def test_unknown_command_and_option_are_the_users_mistake(call) -> None:
    for arguments in (["prepair"], ["prepare", "--recpie", "x"], ["recommend"]):
        result = call(*arguments)
        assert result.code == 2
        assert "Traceback" not in result.err


def test_missing_recipe_names_the_file_and_what_to_do(call, tmp_path: Path) -> None:
    result = call("prepare", "--recipe", tmp_path / "none.toml")
    assert result.code == 2
    assert result.err.startswith("error[recipe-missing]: ")
    assert "none.toml" in result.err
    assert "shortlist init" in result.err
    assert "Traceback" not in result.err


def test_json_reports_the_error_as_json_too(call, tmp_path: Path) -> None:
    result = call("prepare", "--recipe", tmp_path / "none.toml", "--json")
    assert result.code == 2
    assert result.json["error"]["code"] == "recipe-missing"
    assert result.json["error"]["file"].endswith("none.toml")


def test_missing_log_leaves_nothing_behind(call, tmp_path: Path) -> None:
    result = call("init", tmp_path / "log.csv", "--out", tmp_path / "shortlist.toml")
    assert result.code == 2
    assert "error[log-file-missing]" in result.err
    assert list(tmp_path.iterdir()) == []


def test_unknown_column_is_corrected(call, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user,item\n1,2\n2,3\n")
    result = call("init", log, "--user=usr", "--out", tmp_path / "shortlist.toml")
    assert result.code == 2
    assert "error[log-column-missing]" in result.err
    assert "Did you mean 'user'?" in result.err


def test_unknown_recipe_field_is_corrected(call, tmp_path: Path) -> None:
    recipe = tmp_path / "shortlist.toml"
    recipe.write_text('[log]\nevents = "x"\n[columns]\nuser_id="u"\nitem_id="i"\n')
    result = call("prepare", "--recipe", recipe, "--set", "split.tset=0.1")
    assert result.code == 2
    assert "`split.tset` is not a field. Did you mean 'test'?" in result.err


def test_missing_dataset_and_bundle_have_their_own_exit_code(
    call, tmp_path: Path
) -> None:
    recipe = tmp_path / "shortlist.toml"
    recipe.write_text('[log]\nevents = "x"\n[columns]\nuser_id="u"\nitem_id="i"\n')
    result = call("train", "--recipe", recipe)
    assert (result.code, "error[dataset-missing]" in result.err) == (3, True)
    result = call("recommend", "1", "--bundle", tmp_path / "bundle")
    assert result.code == 3
    assert "error[bundle-" in result.err


def test_a_fault_of_ours_is_said_in_one_line(
    call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(prepare_module, "open_recipe", broken)
    result = call("prepare")
    assert result.code == 1
    assert result.err.startswith("error[internal]: RuntimeError: boom.")
    assert "--debug" in result.err
    with pytest.raises(RuntimeError, match="boom"):
        call("prepare", "--debug")


def test_interrupt_exits_130(call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare_module, "open_recipe", interrupted)
    result = call("prepare")
    assert (result.code, result.err) == (130, "interrupted\n")


def test_the_installed_command_exits_with_the_code() -> None:
    command = Path(sys.executable).with_name("shortlist")
    done = subprocess.run(
        [command, "train", "--recipe", "/nonexistent.toml"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "error[recipe-missing]" in done.stderr


def test_doctor_reports_the_machine(call) -> None:
    result = call("doctor", "--json")
    assert result.code == 0
    report = json.loads(result.out)
    assert report["shortlist"] == "0.1.0"
    assert {"packages", "backends", "gpus", "gpu_memory", "compiler"} <= set(report)
    assert {"port", "disk_free_gb", "native_core", "missing"} <= set(report)
    assert report["packages"]["numpy"]
    assert report["processors"]["affinity"] == len(os.sched_getaffinity(0))
    assert 1 <= report["processors"]["used"] <= report["processors"]["affinity"]
    assert "error" not in call("doctor").err


@pytest.mark.parametrize(
    ("arguments", "fixed"),
    [
        (["recommend", "-8997123"], "shortlist recommend -- -8997123."),
        (["similar", "-abc"], "shortlist similar -- -abc."),
        (["recommend", "-k", "3", "--x9"], "shortlist recommend -- --x9."),
        (["train", "-8"], None),
        (["recommend", "5", "6"], None),
    ],
)
def test_an_id_that_looks_like_an_option_is_told_how_to_be_given(
    call, arguments: list[str], fixed: str | None
) -> None:
    result = call(*arguments)
    assert result.code == 2
    assert ("write -- before it" in result.err) is (fixed is not None)
    assert fixed is None or fixed in result.err


def test_an_id_behind_two_dashes_is_read_as_one(call, project: Path) -> None:
    result = call("recommend", "-b", project / "bundle", "--json", "--", "-8997123")
    assert result.code == 0, result.err
    assert result.json["cold_start"] is True

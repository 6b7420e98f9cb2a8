"""The run directory, as read without Keras."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

import pytest

from shortlist.errors import ArtifactError
from shortlist.training.runs.run import Run, RunInfo, environment, now, write_json

INFO = RunInfo(
    created_at="2026-01-02T03:04:05+00:00",
    dataset="/data/set",
    dataset_fingerprint="0123456789abcdef",
    backend="jax",
    retrieval_history=10,
    ranker_weight=0.5,
    epochs={"retrieval": 7},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_json(tmp_path / "run" / "run.json", INFO)
    write_json(tmp_path / "run" / "recipe.json", {"seed": 3})
    return tmp_path / "run"


def test_a_run_gives_back_what_was_written(path: Path) -> None:
    run = Run.open(path)
    assert run.info == INFO
    assert run.recipe == {"seed": 3}
    assert run.path == path


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no run.json") as caught:
        Run.open(tmp_path)
    assert caught.value.code == "run-missing"
    assert "`shortlist train` first" in str(caught.value)


@pytest.mark.parametrize("file", ["run.json", "recipe.json"])
@pytest.mark.parametrize("text", [b"", b'{"created_at": ', b"[]", b"\xff\xfe{}"])
def test_a_damaged_run_is_refused(path: Path, file: str, text: bytes) -> None:
    (path / file).write_bytes(text)
    with pytest.raises(ArtifactError, match=f"{file} is damaged") as caught:
        Run.open(path)
    assert caught.value.code == "run-damaged"


def test_a_run_without_its_recipe_is_refused(path: Path) -> None:
    (path / "recipe.json").unlink()
    with pytest.raises(ArtifactError, match="Train or evaluate again") as caught:
        Run.open(path)
    assert caught.value.code == "run-damaged"


@pytest.mark.parametrize("fields", [{}, {"ranker_weight": "to be decided"}])
def test_a_run_of_a_later_format_is_refused_whatever_it_holds(
    path: Path, fields: dict[str, object]
) -> None:
    newer = {"format": "shortlist-run", "format_version": 2, **fields}
    write_json(path / "run.json", newer)
    with pytest.raises(ArtifactError, match="must be at most 1. Received: 2") as caught:
        Run.open(path)
    assert caught.value.code == "run-newer"


def test_json_of_something_else_is_no_run(path: Path) -> None:
    raw = json.loads((path / "run.json").read_text())
    write_json(path / "run.json", raw | {"format": "shortlist-dataset"})
    with pytest.raises(
        ArtifactError, match="Invalid enum value .shortlist-dataset"
    ) as caught:
        Run.open(path)
    assert caught.value.code == "run-damaged"


def test_another_dataset_is_refused(path: Path) -> None:
    run = Run.open(path)
    run.check_dataset("0123456789abcdef")
    with pytest.raises(ArtifactError, match="fingerprint 0123456789abcdef") as caught:
        run.check_dataset("ffff000011112222")
    assert caught.value.code == "dataset-mismatch"
    assert "this one has ffff000011112222" in str(caught.value)


def test_the_evaluation_is_there_once_it_was_made(path: Path) -> None:
    run = Run.open(path)
    assert run.evaluation() is None
    write_json(path / "evaluation.json", {"metrics": {"model": {"ndcg@10": 0.5}}})
    assert run.evaluation() == {"metrics": {"model": {"ndcg@10": 0.5}}}


def test_a_damaged_evaluation_is_refused(path: Path) -> None:
    (path / "evaluation.json").write_text('{"metrics": ')
    with pytest.raises(ArtifactError, match="evaluation.json") as caught:
        Run.open(path).evaluation()
    assert caught.value.code == "run-damaged"


def test_write_json_is_readable_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "a.json", {"b": [1, 2]})
    text = (tmp_path / "deep" / "a.json").read_text()
    assert text == '{\n  "b": [\n    1,\n    2\n  ]\n}\n'
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.json"]


def test_environment_names_versions_and_machine() -> None:
    found = environment("torch")
    assert found["backend"] == "torch"
    assert found["python"] == platform.python_version()
    assert found["processors"] == len(os.sched_getaffinity(0))
    assert found["packages"]["numpy"] == version("numpy")
    assert found["packages"]["shortlist"] == version("shortlist")


def test_now_is_utc_with_seconds() -> None:
    assert now()[10] == "T" and now().endswith("+00:00") and len(now()) == 25

"""`init` writes a recipe with which the whole chain runs unchanged, per layout."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from small_logs import (
    TINY,
    write_movielens_1m,
    write_movielens_25m,
    write_movielens_100k,
    write_renamed_csv,
)

pytestmark = pytest.mark.backend

LAYOUTS: dict[str, tuple[Callable[[Path], list[str]], str | int]] = {
    "renamed-csv": (write_renamed_csv, "user 5/ü"),
    "movielens-100k": (write_movielens_100k, 5),
    "movielens-1m": (write_movielens_1m, 5),
    "movielens-25m": (write_movielens_25m, 5),
}
# The layouts differ in what is read, not in what is trained: one is enough elsewhere.
FIRST, *OTHERS = LAYOUTS
RUN_HERE = [FIRST]
if os.environ["KERAS_BACKEND"] == "jax":
    RUN_HERE += [pytest.param(layout, marks=pytest.mark.slow) for layout in OTHERS]


@pytest.mark.parametrize("layout", RUN_HERE)
def test_the_recipe_of_init_runs_the_whole_chain(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    write, user_id = LAYOUTS[layout]
    monkeypatch.chdir(tmp_path)
    arguments = write(tmp_path)
    started = call("init", *arguments, "--json")
    assert started.code == 0, started.err
    assert started.json["layout"] in ("csv", "movielens-100k", "movielens-dat")
    recipe = Path("shortlist.toml").read_text(encoding="utf-8")
    prepared = call("prepare", "--json")
    assert prepared.code == 0, prepared.err
    assert prepared.json["statistics"]["events"] == 2_400
    assert sum(prepared.json["parts"].values()) == 2_400
    trained = call("train", *TINY, "--json")
    assert trained.code == 0, trained.err
    assert trained.json["backend"] == os.environ["KERAS_BACKEND"]
    evaluated = call("evaluate", "--json")
    assert evaluated.code == 0, evaluated.err
    metrics = evaluated.json["metrics"]
    assert set(metrics["model"]) == set(metrics["popularity"]) >= {"ndcg@10"}
    assert evaluated.json["pairs"]["rmse"] > 0
    exported = call("export", "--json")
    assert exported.code == 0, exported.err
    assert Path("shortlist.toml").read_text(encoding="utf-8") == recipe
    (answer,) = ask_a_real_server(tmp_path, user_id)
    assert answer["source"] == "model"
    assert len(answer["items"]) == 3
    listed = call("recommend", str(user_id), "-k", "3", "--json").json
    assert listed["items"] == answer["items"]


def test_a_scorer_runs_the_same_chain(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("init", *write_movielens_100k(tmp_path)).code == 0
    assert call("prepare").code == 0
    settings = ["--set=retrieval.kind=ease", "--set=ranker.enabled=false"]
    trained = call("train", *settings, "--json")
    assert trained.code == 0, trained.err
    evaluated = call("evaluate", "--json")
    assert evaluated.code == 0, evaluated.err
    assert evaluated.json["metrics"]["model"]["ndcg@10"] > 0
    assert call("export").code == 0
    # The next answer knows the event that was posted to the real server.
    answer, changed = ask_a_real_server(tmp_path, 5, takes_the_first=True)
    listed = call("recommend", "5", "-k", "3", "--json").json
    assert answer["source"] == "model" and answer["items"] == listed["items"]
    first, *others = (item["item_id"] for item in answer["items"])
    assert first not in [item["item_id"] for item in changed["items"]]
    scores = {item["item_id"]: item["score"] for item in answer["items"]}
    again = {item["item_id"]: item["score"] for item in changed["items"]}
    assert any(scores[item] != again.get(item) for item in others)
    similar = call("similar", str(first), "-k", "3", "--json").json
    assert similar["source"] == "model" and len(similar["items"]) == 3


def ask_a_real_server(
    folder: Path, user_id: str | int, *, takes_the_first: bool = False
) -> list[dict[str, Any]]:
    """`shortlist serve` as a process: a request, Ctrl-C, exit code 0.

    With `takes_the_first` the user takes the first item of the answer and asks again.
    """
    command = [Path(sys.executable).with_name("shortlist"), "serve", "--json"]
    with subprocess.Popen(
        [*command, "--port=0"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None and server.stderr is not None
        try:
            ready = json.loads(server.stdout.readline())

            def ask(path: str, body: dict[str, Any]) -> dict[str, Any]:
                request = urllib.request.Request(
                    f"{ready['url']}/api/v1/{path}",
                    json.dumps(body).encode(),
                    {"Content-Type": "application/json"},
                )
                with urllib.request.urlopen(request, timeout=30) as response:
                    return dict(json.load(response))

            question = {"user_id": user_id, "k": 3}
            answers = [ask("recommend", question)]
            if takes_the_first:
                taken = answers[0]["items"][0]["item_id"]
                ask("events", {"events": [{"user_id": user_id, "item_id": taken}]})
                answers.append(ask("recommend", question))
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(timeout=30) == 0
        # The tiny model may be below popularity: that alone is warned of.
        told = server.stderr.read().splitlines()
        assert len(told) <= 1
        assert all(re.match("warning: .*worse than popularity", t, re.I) for t in told)
    return answers


def test_outputs_that_exist_are_refused_and_replaced_on_demand(
    call, project: Path
) -> None:
    recipe = project / "shortlist.toml"
    for command in ("prepare", "train", "export"):
        result = call(command, "--recipe", recipe)
        assert (result.code, "error[output-exists]" in result.err) == (2, True)
    result = call("init", project / "u.data", "--out", recipe)
    assert (result.code, "error[output-exists]" in result.err) == (2, True)
    before = item_vectors_of(project)
    assert call("export", "--recipe", recipe, "--overwrite").code == 0
    assert item_vectors_of(project) == before


def item_vectors_of(project: Path) -> dict[str, object]:
    """Size and hash of the item vectors, by the manifest."""
    manifest = json.loads((project / "bundle" / "manifest.json").read_bytes())
    entry: dict[str, object] = manifest["files"]["item_vectors.safetensors"]
    return entry


def test_recommend_marks_a_cold_start_and_corrects_the_id(call, project: Path) -> None:
    known = call("recommend", "5", "-b", project / "bundle", "-k", "4")
    assert known.code == 0
    assert [line.split(".")[0].strip() for line in known.out.splitlines()] == [*"1234"]
    assert "Film" in known.out
    unknown = call("recommend", "nobody", "-b", project / "bundle", "--json")
    assert unknown.code == 0
    assert (unknown.json["cold_start"], unknown.json["source"]) == (True, "popular")
    text = call("recommend", "nobody", "-b", project / "bundle").out
    assert "cold-start answer" in text
    close = call("recommend", "100000", "-b", project / "bundle").out
    assert "Did you mean" in close or "cold-start" in close
    assert call("recommend", "5", "-b", project / "bundle", "-k", "0").code == 2


def test_similar_leaves_the_item_itself_out(call, project: Path) -> None:
    result = call("similar", "7", "-b", project / "bundle", "-k", "5", "--json")
    assert result.code == 0
    ids = [item["item_id"] for item in result.json["items"]]
    assert len(ids) == 5
    assert 7 not in ids
    missing = call("similar", "777", "-b", project / "bundle")
    assert (missing.code, "error[unknown-item]" in missing.err) == (2, True)


def test_predict_scores_a_file_of_pairs(call, project: Path, tmp_path: Path) -> None:
    pairs = pl.DataFrame(
        {"item_id": [3, 9, 777], "user_id": [5, 5, 9], "note": list("abc")}
    )
    pairs.write_csv(tmp_path / "pairs.csv")
    out = tmp_path / "scores.csv"
    arguments = ["predict", tmp_path / "pairs.csv", "-b", project / "bundle", "-o", out]
    result = call(*arguments, "--json")
    assert result.code == 0, result.err
    assert result.json["rows"] == 3
    assert result.json["unknown_items"] == 1
    scored = pl.read_csv(out)
    assert scored.drop("score").equals(pairs)
    assert scored["score"].is_null().to_list() == [False, False, True]
    assert scored["score"].drop_nulls().is_between(0, 6).all()  # ratings
    again = call(*arguments)
    assert (again.code, "error[output-exists]" in again.err) == (2, True)


def test_predict_needs_both_columns_and_a_known_format(
    call, project: Path, tmp_path: Path
) -> None:
    (tmp_path / "pairs.csv").write_text("user_id,itm\n5,3\n")
    bundle = project / "bundle"
    result = call(
        "predict", tmp_path / "pairs.csv", "-b", bundle, "-o", tmp_path / "s.csv"
    )
    assert result.code == 2
    assert "item_id" in result.err
    (tmp_path / "pairs.csv").write_text("user_id,item_id\n5,3\n")
    result = call(
        "predict", tmp_path / "pairs.csv", "-b", bundle, "-o", tmp_path / "s.xls"
    )
    assert (result.code, "error[output-format]" in result.err) == (2, True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["pairs.csv"]


def test_a_dataset_of_another_recipe_is_refused(call, project: Path) -> None:
    recipe = project / "shortlist.toml"
    for setting, name in (
        ("split.test=0.5", "split"),
        ("columns.title='x'", "columns"),
    ):
        for command in ("train", "evaluate", "export"):
            result = call(command, "--recipe", recipe, "--set", setting)
            assert result.code == 3, result.err
            assert "error[dataset-mismatch]" in result.err
            assert f"['{name}']" in result.err


def test_a_terminated_training_saves_and_goes_on(
    call, project: Path, tmp_path: Path
) -> None:
    command = [Path(sys.executable).with_name("shortlist"), "train"]
    settings = ["--set=retrieval.epochs=100000", "--set=retrieval.patience=100000"]
    settings.append(f"--set=output.run={tmp_path / 'run'}")
    with subprocess.Popen(
        [*command, "--recipe", project / "shortlist.toml", *settings],
        stderr=subprocess.PIPE,
        text=True,
    ) as training:
        assert training.stderr is not None
        while "retrieval epoch 2" not in training.stderr.readline():
            assert training.poll() is None
        assert [path.name for path in tmp_path.iterdir()] == [".run.training"]
        training.send_signal(signal.SIGTERM)
        training.stderr.read()
        assert training.wait(timeout=60) == 143
    assert [path.name for path in tmp_path.iterdir()] == [".run.training"]
    again = ["train", "--recipe", project / "shortlist.toml", *settings]
    refused = call(*again)
    assert refused.code == 2 and "error[training-unfinished]" in refused.err
    other = call(*again, "--resume", "--set", "seed=9")
    assert other.code == 2 and "differ: seed." in other.err


def test_empty_parts_are_warned_of(call, project: Path, tmp_path: Path) -> None:
    recipe = project / "shortlist.toml"
    out = f"output.dataset={tmp_path / 'dataset'}"
    result = call(
        "prepare", "--recipe", recipe, "--set", "split.validation=0", "--set", out
    )
    assert result.code == 0
    assert "warning: the validation part is empty" in result.err

"""`shortlist tune`: the best settings come out as a recipe that `train` takes."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from typing import Any

import pytest

from shortlist.cli.recipe_toml import recipe_toml
from shortlist.recipe import build_recipe, load_recipe
from small_logs import write_movielens_100k
from toy import SYNTHETIC_SCHEMA

SPACE = """
[tracking]
store = "runs"

[tune]
trials = 3

[tune.space]
"retrieval.ease.l2" = { low = 1.0, high = 1e4, log = true }
"retrieval.ease.dropout" = { low = 0.0, high = 0.4, step = 0.2 }
"""
EASE = ("--set=retrieval.kind=ease", "--set=ranker.enabled=false")


@pytest.fixture
def folder(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prepared project whose recipe declares a space."""
    monkeypatch.chdir(tmp_path)
    assert call("init", *write_movielens_100k(tmp_path)).code == 0
    assert call("prepare").code == 0
    recipe = tmp_path / "shortlist.toml"
    recipe.write_text(recipe.read_text(encoding="utf-8") + SPACE, encoding="utf-8")
    return tmp_path


@pytest.mark.backend
def test_the_best_settings_are_a_recipe_that_trains_as_well(call, folder: Path) -> None:
    tuned = call("tune", *EASE, "--json")
    assert tuned.code == 0, tuned.err
    assert len(tuned.err.splitlines()) == 3
    found = tuned.json
    assert found["counts"] == {"finished": 3, "pruned": 0, "failed": 0}
    results = [trial["result"] for trial in found["trials"]]
    assert found["best"]["result"] == max(results)
    written = folder / "shortlist.best.toml"
    assert found["recipe"] == written.name
    recipe = load_recipe(written)
    assert recipe.retrieval.kind == "ease"
    assert recipe.retrieval.ease.l2 == found["best"]["values"]["retrieval.ease.l2"]
    trained = call("train", "--recipe", written.name, "--json")
    assert trained.code == 0, trained.err
    assert trained.json["validation"]["retrieval"]["ndcg@10"] == max(results)
    listed = call("runs", "--sort=ndcg@10", "--json").json["runs"]
    assert len(listed) == 4  # and that one
    assert found["best"]["run"] in [run["id"] for run in listed[:2]]

    refused = call("tune", *EASE)
    assert (refused.code, "error[output-exists]" in refused.err) == (2, True)
    longer = call("tune", *EASE, "--resume", "--trials=4", "--time-budget=1h")
    assert longer.code == 0, longer.err
    assert "4 trials: 4 finished" in longer.out
    assert "shortlist train --recipe shortlist.best.toml" in longer.out
    other = call("tune", "--resume", "--set=retrieval.kind=popularity")
    assert (other.code, "error[resume-mismatch]" in other.err) == (2, True)


@pytest.mark.parametrize(
    ("setting", "code", "told"),
    [
        ("tune.space={}", "tune-space", "[tune.space]"),
        ("tune.space={retrieval={eas={l2={low=1, high=2}}}}", "tune-space", "ease.l2"),
        ("tune.space.seed={low=2, high=1}", "recipe-invalid", "low must be below"),
        ("tune.metric=ndgc@10", "tune-metric", "Did you mean 'ndcg@10'?"),
        ("tune.trails=3", "recipe-invalid", "Did you mean 'trials'?"),
    ],
)
@pytest.mark.backend
def test_what_cannot_be_searched_is_said_first(
    call, folder: Path, setting: str, code: str, told: str
) -> None:
    refused = call("tune", *EASE, "--set", setting)
    assert refused.code == 2
    assert f"error[{code}]" in refused.err and told in refused.err
    assert not (folder / "tune").exists()


@pytest.mark.backend
def test_without_optuna_it_says_how_to_install_it(
    call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec

    def without(name: str, *rest: Any) -> Any:
        return None if name == "optuna" else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    refused = call("tune", *EASE)
    assert refused.code == 4
    assert "error[package-missing]" in refused.err
    assert "pip install 'shortlist[tune]'" in refused.err


def test_a_written_recipe_reads_as_the_same_recipe(tmp_path: Path) -> None:
    raw = {
        "name": 'a "quoted" \\ name\n\x7f in two lines',
        "log": {"events": ["a.csv", "b.csv"], "users": "ü.csv"},
        "columns": SYNTHETIC_SCHEMA,
        "retrieval": {"hidden_units": [], "learning_rate": 1e-5, "dropout": 0},
        "ranker": {
            "kind": "multi_task",
            "heads": {"a b": {"objective": "binary"}, "c": {"objective": "explicit"}},
            "score": {"a b": 1.0, "c": 0.5},
        },
        "tune": {
            "halving": False,
            "space": {
                "retrieval.hidden_units": {"choices": [[], [16, 8]]},
                "ranker.dropout": {"low": 0.0, "high": 0.5, "step": 0.1},
            },
        },
    }
    recipe = build_recipe(raw)
    file = tmp_path / "again.toml"
    text = recipe_toml(recipe, ["from\na test"])
    file.write_text(text, encoding="utf-8")
    assert text.startswith("# from a test\n")
    assert load_recipe(file) == recipe
    assert tomllib.loads(text)["tune"]["halving"] is False

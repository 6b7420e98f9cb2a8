"""A model below popularity, and repeat purchases, from `train` to `serve`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from repeat_logs import write_groceries
from shortlist.serving.http import server

SETTINGS = """
[retrieval]
kind = "{kind}"
[retrieval.popularity]
window_days = 0.5
[ranker]
enabled = false
[split]
kind = "last_n"
test = 1
validation = 1
[columns]
user_id = "user"
item_id = "item"
timestamp = "time"
[log]
events = "log.csv"
"""
DAY = 86_400


def write_misleading_log(folder: Path) -> None:
    """Everybody takes what is popular, but for two items a week before the end.

    So the counts of the last half day of training say nothing.
    """
    rows = []
    for user in range(60):
        popular = [f"p{(user + place) % 9}" for place in range(7)]
        odd = [f"odd{(7 * user + place) % 40}" for place in range(2)]
        days = [*range(5), 20, 20, 27, 28]
        taken = [*popular[:5], *odd, *popular[5:]]
        rows += [
            (f"u{user}", item, 1_700_000_000 + day * DAY + place)
            for place, (item, day) in enumerate(zip(taken, days, strict=True))
        ]
    log = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    log.write_csv(folder / "log.csv")


def test_a_model_below_popularity_is_told_at_every_step(
    call: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_misleading_log(tmp_path)
    Path("shortlist.toml").write_text(SETTINGS.format(kind="popularity"))
    assert call("prepare").code == 0
    trained = call("train")
    assert trained.code == 0, trained.err
    lines = [line.strip() for line in trained.out.splitlines()]
    assert lines[0] == "run run: fitted"
    assert lines[1].startswith("on validation: ndcg@10 ")
    assert lines[2].startswith("popularity there: ndcg@10 ")
    assert lines[3].startswith("Worse than popularity on validation: ndcg@10 ")
    assert "retrieval.kind=ease" in lines[4]
    assert "{" not in trained.out and "ranker" not in lines[0]
    exported = call("export", "--json")  # not evaluated: the validation part counts
    assert exported.code == 0
    assert exported.err.count("warning:") == 1
    assert "Worse than popularity on validation" in exported.err
    evaluated = call("evaluate", "--json")
    assert evaluated.code == 0, evaluated.err
    verdict = evaluated.json["verdict"]
    assert verdict["result"] == "worse" and verdict["users"] == 60
    assert verdict["high"] < 0
    stored = json.loads(Path("run/evaluation.json").read_text())
    assert stored["verdict"] == verdict
    shown = call("evaluate").out.splitlines()
    assert shown[0] == verdict["text"] and shown[1] == verdict["next"]
    assert re.match(r"Worse than popularity: ndcg@10 0\.\d{4} against", shown[0])
    exported = call("export", "--overwrite")
    assert exported.err.count("\n") == 1
    assert exported.err.startswith("warning: Worse than popularity: ndcg@10")
    manifest = json.loads(Path("bundle/manifest.json").read_text())
    assert manifest["metrics"]["verdict"] == verdict
    assert manifest["metrics"]["validation"]["result"] == "worse"

    def served(path: Path, *_: Any, on_ready: Any, **__: Any) -> None:
        on_ready(server.RunningServer("http://here", "1", lambda: None))

    monkeypatch.setattr(server, "serve", served)
    started = call("serve")
    assert started.code == 0 and started.out.startswith("serving bundle")
    assert started.err == exported.err


def test_a_better_model_is_told_too_and_not_warned_of(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_groceries(tmp_path / "log.csv")
    Path("shortlist.toml").write_text(SETTINGS.format(kind="burst_als"))
    assert call("prepare").code == 0
    refused = call("train")
    assert (refused.code, refused.out) == (2, "")
    assert "error[no-relevant-items]" in refused.err
    assert "`repeats = true` in [evaluation]" in refused.err
    assert not Path("run").exists() and not Path(".run.training").exists()
    settings = ["--set=evaluation.repeats=true", "--set=serving.repeats=true"]
    trained = call("train", *settings, "--json")
    assert trained.code == 0, trained.err
    assert trained.json["verdict"]["result"] == "better"
    assert trained.json["popularity"]["ndcg@10"] < 1
    evaluated = call("evaluate", *settings, "--json")
    assert evaluated.code == 0, evaluated.err
    assert evaluated.json["repeats"] is True
    assert evaluated.json["verdict"]["result"] == "better"
    forgotten = call("export", settings[0])
    assert "warning: the evaluation kept items" in forgotten.err
    exported = call("export", "--overwrite", *settings)
    assert (exported.code, exported.err) == (0, "")
    listed = call("recommend", "u0", "-k", "4", "--json")
    items = [item["item_id"] for item in listed.json["items"]]
    assert set(items) == {"i0", "i1", "i2", "i3"}  # what u0 takes again and again
    left_out = call("evaluate")
    assert left_out.code == 2 and "error[no-relevant-items]" in left_out.err

"""Options of `shortlist train`, and what it refuses before or after it has begun."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shortlist.cli.train import minutes_of
from shortlist.errors import RecipeError
from small_logs import TINY

pytestmark = pytest.mark.backend


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90s", 1.5), ("10m", 10.0), ("2h", 120.0), ("0.5m", 0.5), (" 6s ", 0.1)],
)
def test_a_time_is_a_number_with_a_unit(text: str, minutes: float) -> None:
    assert minutes_of(text) == pytest.approx(minutes)


@pytest.mark.parametrize("text", ["", "10", "m", "0m", "-1h", "1d", "1h30m", "infm"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="Write 10m for ten minutes") as caught:
        minutes_of(text)
    assert caught.value.code == "setting-invalid"


def test_a_budget_ends_both_stages_after_their_first_epoch(
    call: Any, project: Path, tmp_path: Path
) -> None:
    recipe = project / "shortlist.toml"
    options = [*TINY, "--set=retrieval.epochs=9", "--set=ranker.epochs=9"]
    out = f"--set=output.run={tmp_path / 'run'}"
    done = call("train", "-r", recipe, *options, out, "--time-budget=0.001s", "--json")
    assert done.code == 0, done.err
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 1]
    stored = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert stored["training"]["time_budget"] == pytest.approx(0.001 / 60)


@pytest.mark.parametrize(
    "option", ["--resume", "--overwrite", "--probe-batch-size", "--profile"]
)
def test_a_fast_dev_run_goes_without_what_it_would_ignore(
    call: Any, option: str
) -> None:
    refused = call("train", "--fast-dev-run", option)
    assert (refused.code, f"cannot be combined with {option}" in refused.err) == (
        2,
        True,
    )


def test_a_fast_dev_run_says_what_works_and_leaves_the_run(
    call: Any, project: Path, tmp_path: Path
) -> None:
    recipe = project / "shortlist.toml"
    before = (project / "run" / "run.json").stat().st_mtime_ns
    tried = call("train", "-r", recipe, *TINY, "--fast-dev-run")
    assert tried.code == 0, tried.err
    assert "one batch of retrieval and ranker works; nothing was written" in tried.out
    warm = call(
        *("train", "-r", recipe, *TINY, "--fast-dev-run", "--json"),
        *("--warm-start", project / "run"),
    )
    assert warm.json["fast_dev_run"] == "passed", warm.err
    missing = call(
        *("train", "-r", recipe, *TINY, "--fast-dev-run"),
        *("--warm-start", tmp_path / "nowhere"),
    )
    assert (missing.code, "error[run-missing]" in missing.err) == (3, True)
    assert (project / "run" / "run.json").stat().st_mtime_ns == before


def test_a_warm_start_says_how_much_it_took_over(
    call: Any, project: Path, tmp_path: Path
) -> None:
    recipe, out = project / "shortlist.toml", tmp_path / "run"
    begun = call(
        *("train", "-r", recipe, *TINY, f"--set=output.run={out}"),
        *("--warm-start", project / "run"),
    )
    assert begun.code == 0, begun.err
    assert "retrieval: " in begun.err and "dense weights are copied from" in begun.err
    info = json.loads((out / "run.json").read_text())
    assert info["warm_start"] == str((project / "run").resolve())


def test_new_days_are_those_since_an_older_run(
    call: Any, project: Path, tmp_path: Path
) -> None:
    asked = ("train", "-r", project / "shortlist.toml", *TINY, "--new-days")
    asked = (*asked, f"--set=output.run={tmp_path / 'run'}")
    alone = call(*asked)
    assert (alone.code, "error[new-days-alone]" in alone.err) == (2, True)
    none = call(*asked, "--warm-start", project / "run")
    assert (none.code, "error[new-days-none]" in none.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_profile_is_printed_and_its_trace_is_in_the_run(
    call: Any, project: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = call(
        *("train", "-r", project / "shortlist.toml", *TINY, "--json"),
        *("--profile", f"--set=output.run={out}"),
    )
    assert done.code == 0, done.err
    assert "retrieval: " in done.err and " ms each: data " in done.err
    assert set(done.json["profile"]) == {"retrieval", "ranker"}
    trace = json.loads(Path(done.json["trace"]).read_text())
    assert Path(done.json["trace"]) == out / "trace.json" and trace["traceEvents"]


def test_probed_batch_sizes_are_printed_and_noted(
    call: Any, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each size is compiled: begin with one of the last.
    monkeypatch.setattr("shortlist.training.resources.probe.FIRST", 1024)
    done = call(
        *("train", "-r", project / "shortlist.toml", *TINY, "--json"),
        *("--probe-batch-size", f"--set=output.run={tmp_path / 'run'}"),
    )
    assert done.code == 0, done.err
    sizes = done.json["batch_size"]
    stored = json.loads((tmp_path / "run" / "recipe.json").read_text())
    for stage in ("retrieval", "ranker"):
        assert f"{stage}: batch_size {sizes[stage]:,}; there are " in done.err
        assert stored[stage]["batch_size"] == sizes[stage] >= 1024

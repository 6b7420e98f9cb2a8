"""`shortlist compare`, and the slices, plots and page of `shortlist evaluate`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from shortlist import packages
from shortlist.evaluation.user_values import Evaluation

pytestmark = pytest.mark.backend

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="session")
def popular(project: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Settings of a second run of the project's dataset: popularity, evaluated."""
    from shortlist.cli.app import run

    out = tmp_path_factory.mktemp("popular") / "run"
    settings = ["--recipe", str(project / "shortlist.toml")]
    settings += ["--set=retrieval.kind=popularity", "--set=ranker.enabled=false"]
    settings += [f"--set=output.run={out}"]
    assert run(["train", *settings]) == 0
    assert run(["evaluate", *settings]) == 0
    return settings


@pytest.fixture
def folders(project: Path, popular: list[str]) -> tuple[Path, Path]:
    """The project's own run, and that of popularity."""
    return project / "run", Path(popular[-1].rpartition("=")[2])


def test_runs_are_ranked_and_tested(call, folders) -> None:
    result = call("compare", *folders, "--json")
    assert (result.code, result.err) == (0, "")
    board = result.json
    assert board["metric"] == "ndcg@10"
    assert {run["run"] for run in board["runs"]} == set(map(str, folders))
    values = [run["metrics"]["ndcg@10"] for run in board["runs"]]
    assert values == sorted(values, reverse=True)
    one, other = (Evaluation.load(run["run"]) for run in board["runs"])
    column = one.names.index("ndcg@10")
    (pair,) = board["pairs"]
    differences = one.values[:, column] - other.values[:, column]
    assert pair["difference"] == pytest.approx(differences.mean())
    assert pair["users"] == len(differences)
    assert 0 < pair["p"] == pair["p_holm"] <= 1


def test_the_text_has_one_row_per_run_and_pair(call, folders) -> None:
    out = call("compare", *folders, "--metric", "recall@5").out
    assert out.startswith("Best by recall@5: ")
    assert "Runs by recall@5, test part" in out
    assert "recall@5" in out and "recall@10" not in out
    assert re.search(r"^popularity +0\.\d{4}", out, re.MULTILINE)
    rows = [line for line in out.splitlines() if line.startswith(str(folders[1]))]
    assert len(re.findall(r"\d\.\d{4}", rows[0])) >= 7
    assert "p (Holm)" in out
    assert "…" not in out


def test_the_page_holds_its_plots(call, folders, tmp_path: Path) -> None:
    page = tmp_path / "board.html"
    result = call("compare", *folders, "--html", page)
    assert result.code == 0, result.err
    assert result.out.endswith(f"report: {page}\n")
    text = page.read_text()
    assert text.count('src="data:image/png;base64,') == text.count("<img") == 3
    assert "<script" not in text and "http" not in text.replace("http-equiv", "")
    again = call("compare", *folders, "--html", page)
    assert (again.code, "error[output-exists]" in again.err) == (2, True)
    assert call("compare", *folders, "--html", page, "--overwrite").code == 0


def test_the_plots_are_written_and_only_where_they_can_be(
    call, folders, tmp_path: Path
) -> None:
    result = call("compare", *folders, "--plots", tmp_path / "plots")
    assert result.code == 0, result.err
    names = sorted(file.name for file in (tmp_path / "plots").iterdir())
    assert names == ["differences.png", "runs.png", "slices.png"]
    file = tmp_path / "file"
    file.write_text("mine")
    for options, found in (
        (["--html", tmp_path / "plots"], "a folder"),
        (["--plots", file], "a file"),
    ):
        # Before any work: these runs are not even looked for.
        refused = call("compare", "none", "nowhere", *options, "--overwrite")
        assert (refused.code, "error[output-foreign]" in refused.err) == (2, True)
        assert found in refused.err
    assert file.read_text() == "mine"


def test_what_cannot_be_compared_is_refused(call, folders, tmp_path: Path) -> None:
    run = folders[0]
    for name, changed in (
        ("dataset", {"dataset_fingerprint": "0" * 16}),
        ("part", {"part": "validation"}),
        ("ks", {"ks": [10]}),
    ):
        other = tmp_path / name
        shutil.copytree(run, other)
        evaluation = Evaluation.load(other)
        evaluation.report.update(changed)
        evaluation.save(other)
        result = call("compare", run, other, "--json")
        assert result.code == 3
        assert result.json["error"]["code"] == f"compare-{name}"
    (other / "evaluation.arrow").unlink()
    for arguments, exit_code, code in (
        ([run], 2, "compare-too-few"),
        ([run, run], 2, "compare-repeated"),
        ([run, other], 3, "evaluation-missing"),
        ([run, tmp_path / "none"], 3, "run-missing"),
        ([*folders, "--metric", "ndgc"], 2, "compare-metric"),
    ):
        result = call("compare", *arguments)
        assert (result.code, f"error[{code}]" in result.err) == (exit_code, True)


def test_a_report_is_divided_by_features(call, popular: list[str]) -> None:
    result = call("evaluate", *popular, "--slice", "gender", "--slice=age", "--json")
    assert result.code == 0, result.err
    report = result.json
    found = {(each["slice"], each["group"]): each for each in report["slices"]}
    by_gender = {g: e for (s, g), e in found.items() if s == "gender"}
    assert set(by_gender) == {"M", "F"}
    assert sum(e["users"] for e in by_gender.values()) == report["users"]
    whole = sum(
        e["users"] * e["metrics"]["model"]["ndcg@10"] for e in by_gender.values()
    )
    mean = report["metrics"]["model"]["ndcg@10"]
    assert whole / report["users"] == pytest.approx(mean)
    quarters = [g for s, g in found if s == "age"]
    assert quarters == [f"quarter {n} of 4" for n in (1, 2, 3, 4)]
    assert {"user_events", "item_events", "item_popularity"} <= {s for s, _ in found}
    assert "gender: M" in call("evaluate", *popular, "--slice=gender").out
    unknown = call("evaluate", *popular, "--slice", "gendr")
    assert (unknown.code, "error[slice-unknown]" in unknown.err) == (2, True)
    assert "Did you mean 'gender'?" in unknown.err
    # A slice of the recipe is divided by once, also when the option names it.
    twice = ["--set=evaluation.slices=['gender']", "--slice=gender", "--json"]
    slices = call("evaluate", *popular, *twice).json["slices"]
    assert [each["slice"] for each in slices].count("gender") == 2


def test_plots_and_page_of_an_evaluation(
    call, popular: list[str], tmp_path: Path
) -> None:
    page, plots = tmp_path / "report.html", tmp_path / "plots"
    arguments = ["evaluate", *popular, "--html", page, "--plots", plots]
    result = call(*arguments)
    assert result.code == 0, result.err
    names = sorted(file.name for file in plots.iterdir())
    assert names == ["beyond.png", "metrics.png", "popularity.png", "slices.png"]
    assert all(file.read_bytes().startswith(PNG) for file in plots.iterdir())
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 4
    for title in ("Lists", "Pairs", "ndcg@10 by slice", "Who gets the recomm"):
        assert f"{title}" in text
    refused = call(*arguments)
    assert (refused.code, "error[output-exists]" in refused.err) == (2, True)
    assert call(*arguments, "--overwrite").code == 0


def test_metrics_of_all_lists_alone_are_told_and_drawn(
    call, popular: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(popular[-1].rpartition("=")[2], run)
    arguments = ["evaluate", *popular[:-1], f"--set=output.run={run}"]
    arguments += ["--set=evaluation.metrics=['coverage','gini']"]
    result = call(*arguments, "--html", tmp_path / "page.html")
    assert result.code == 0, result.err
    assert "coverage@10" in result.out and "gini@20" in result.out
    assert "gini@20" in (tmp_path / "page.html").read_text()
    assert Evaluation.load(run).names == ()
    refused = call("compare", popular[-1].rpartition("=")[2], run)
    assert (refused.code, "there is none" in refused.err) == (2, True)


def test_without_matplotlib_only_plots_are_refused(
    call, folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    result = call("compare", *folders, "--html", tmp_path / "board.html")
    assert (result.code, "shortlist[plots]" in result.err) == (4, True)
    assert list(tmp_path.iterdir()) == []
    assert call("compare", *folders).code == 0

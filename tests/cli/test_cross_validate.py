"""`shortlist cross-validate`: folds, their runs, and going on."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

pytestmark = pytest.mark.backend

FAST = ["--set=retrieval.kind=popularity", "--set=ranker.enabled=false"]


@pytest.fixture(scope="session")
def done(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folds of the project's log, cross-validated."""
    from shortlist.cli.app import run

    out = tmp_path_factory.mktemp("validated") / "folds"
    recipe = str(project / "shortlist.toml")
    arguments = ["--recipe", recipe, *FAST, "--folds=3", f"--out={out}"]
    assert run(["cross-validate", *arguments]) == 0
    return out


def test_each_fold_leaves_its_run_and_all_a_summary(done: Path) -> None:
    names = sorted(path.name for path in done.iterdir())
    folds = ["fold-1", "fold-2", "fold-3"]
    assert names == ["cross_validation.json", *folds, "plan.json"]
    assert {path.name for fold in folds for path in (done / fold).iterdir()} == {"run"}
    summary = json.loads((done / "cross_validation.json").read_text())
    reports = [
        json.loads((done / fold / "run" / "evaluation.json").read_text())
        for fold in folds
    ]
    values = [report["metrics"]["model"]["ndcg@10"] for report in reports]
    assert summary["metrics"]["ndcg@10"]["values"] == values
    spread = statistics.stdev(values)
    assert summary["metrics"]["ndcg@10"]["spread"] == pytest.approx(spread)
    sizes = [report["part_sizes"]["train"] for report in reports]
    assert sizes == sorted(set(sizes))  # each newer fold is trained on more


def test_no_fold_has_an_event_of_the_test_part_or_tests_one_twice(
    call, project: Path, done: Path
) -> None:
    whole = json.loads((project / "dataset" / "dataset.json").read_text())
    events = {s["part"]: s["events"] for s in whole["segments"]}
    left = events["train"] + events["validation"]
    report = json.loads((done / "fold-3" / "run" / "evaluation.json").read_text())
    assert sum(report["part_sizes"].values()) == left
    before = json.loads((done / "fold-2" / "run" / "evaluation.json").read_text())
    assert sum(before["part_sizes"].values()) == left - report["part_sizes"]["test"]


def test_a_fold_can_be_prepared_alone(
    call, project: Path, done: Path, tmp_path
) -> None:
    settings = ["--set=split.folds=3", "--set=split.fold=2"]
    settings.append(f"--set=output.dataset={tmp_path / 'dataset'}")
    result = call(
        "prepare", "--recipe", project / "shortlist.toml", *settings, "--json"
    )
    assert result.code == 0, result.err
    run = json.loads((done / "fold-2" / "run" / "run.json").read_text())
    dataset = json.loads((tmp_path / "dataset" / "dataset.json").read_text())
    assert dataset["fingerprint"] == run["dataset_fingerprint"]


def test_it_goes_on_where_it_was_interrupted(call, project: Path, done: Path) -> None:
    arguments = ["--recipe", project / "shortlist.toml", *FAST, "--out", done]
    summary = (done / "cross_validation.json").read_text()
    (done / "cross_validation.json").unlink()
    (done / "fold-3" / "run" / "evaluation.json").unlink()
    kept = (done / "fold-1" / "run" / "evaluation.json").stat().st_mtime_ns
    refused = call("cross-validate", *arguments, "--folds=3")
    assert (refused.code, "error[output-exists]" in refused.err) == (2, True)
    of_coverage = "--set=evaluation.metrics=['coverage']"
    for changed in (
        ["--folds=2"],
        ["--folds=3", "--set=seed=5"],
        ["--folds=3", of_coverage],
    ):
        other = call("cross-validate", *arguments, *changed, "--resume")
        assert (other.code, "error[resume-mismatch]" in other.err) == (2, True)
    # A plan of an earlier version, whose recipes did not have every field.
    older = json.loads((done / "plan.json").read_text())
    del older["recipe"]["evaluation"]["repeats"], older["recipe"]["retrieval"]["margin"]
    (done / "plan.json").write_text(json.dumps(older))
    result = call("cross-validate", *arguments, "--folds=3", "--resume")
    assert result.code == 0, result.err
    assert (done / "cross_validation.json").read_text() == summary
    assert (done / "fold-1" / "run" / "evaluation.json").stat().st_mtime_ns == kept
    assert result.out.startswith("Cross-validation, 3 folds")
    assert "of 3" in result.out
    plan = (done / "plan.json").read_bytes()
    (done / "plan.json").write_text("{")
    damaged = call("cross-validate", *arguments, "--folds=3", "--resume")
    assert "error[cross-validation-damaged]" in damaged.err
    (done / "plan.json").write_bytes(plan)


def test_random_folds_and_what_is_refused(call, project: Path, tmp_path: Path) -> None:
    out = tmp_path / "random"
    arguments = ["cross-validate", "--recipe", project / "shortlist.toml", *FAST]
    arguments += ["--out", out, "--folds=2", "--set=split.test=0"]
    refused = call(*arguments)
    assert (refused.code, "error[split-folds]" in refused.err) == (2, True)
    assert list(tmp_path.iterdir()) == []
    page, plots = tmp_path / "page.html", tmp_path / "plots"
    arguments += ["--html", page, "--plots", plots]
    result = call(*arguments, "--set=split.kind=random", "--json")
    assert result.code == 0, result.err
    assert result.json["folds"] == 2
    reports = [
        json.loads((out / f"fold-{n}" / "run" / "evaluation.json").read_text())
        for n in (1, 2)
    ]
    assert sum(report["part_sizes"]["test"] for report in reports) == 2_400
    assert [file.name for file in plots.iterdir()] == ["folds.png"]
    assert page.read_text().count("<img") == 1
    assert "Cross-validation, 2 folds" in page.read_text()
    exists = call(*arguments, "--set=split.kind=random", "--resume")
    assert (exists.code, "error[output-exists]" in exists.err) == (2, True)
    (out / "plan.json").unlink()
    foreign = call(*arguments, "--set=split.kind=random", "--overwrite")
    assert (foreign.code, "error[output-foreign]" in foreign.err) == (2, True)


def test_too_many_folds_are_told_to_be_fewer(call, project: Path, tmp_path) -> None:
    arguments = ["cross-validate", "--recipe", project / "shortlist.toml", *FAST]
    result = call(*arguments, "--out", tmp_path / "folds", "--folds=40")
    assert (result.code, "error[split-folds]" in result.err) == (2, True)
    assert "fold 1 of 40" in result.err and "Use fewer --folds" in result.err


def test_folds_are_told_apart_in_a_store_and_never_the_best(
    call, project: Path, tmp_path: Path
) -> None:
    store = tmp_path / "runs"
    recipe = ["--recipe", project / "shortlist.toml", *FAST]
    recipe.append(f"--set=tracking.store={store}")
    folds = ["--out", tmp_path / "folds", "--folds=2"]
    done = call("cross-validate", *recipe, *folds)
    assert done.code == 0, done.err
    listed = call("runs", "--store", store, "--sort=name", "--json").json["runs"]
    names = [f"recommender fold {number} of 2" for number in (1, 2)]
    assert [run["name"] for run in listed] == names
    none = call("runs", "--store", store, "--best=ndcg@10")
    assert (none.code, "Folds of a cross-validation" in none.err) == (2, True)
    assert call("train", *recipe, f"--set=output.run={tmp_path / 'run'}").code == 0
    best = call("runs", "--store", store, "--best=ndcg@10", "--json")
    assert best.code == 0, best.err
    assert best.json["name"] == "recommender"
    fold = listed[0]["dataset_fingerprint"]
    chosen = call("runs", "--store", store, "--best=ndcg@10", f"--dataset={fold}")
    assert chosen.out.strip() == listed[0]["path"]

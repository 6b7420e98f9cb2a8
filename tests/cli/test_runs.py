"""`shortlist runs`: the store's runs listed, shown and chosen from."""

from __future__ import annotations

from pathlib import Path

import pytest

from shortlist.training.runs.records import Pruned, failure_now
from shortlist.training.runs.run import write_json
from shortlist.training.runs.run_store import RunStore
from stored_runs import RECIPE, write_run

SCORES = (0.2, 0.9, 0.5)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    """Three finished runs, the best one in the middle, and one that was pruned."""
    store = RunStore(tmp_path / "runs")
    for number, score in enumerate(SCORES):
        validation = {"retrieval": {"ndcg@10": score, "rmse": score}}
        run = write_run(tmp_path / f"run{number}", number, validation=validation)
        if number == 0:
            measured = {"metrics": {"model": {"ndcg@10": 0.125}}}
            write_json(run.path / "evaluation.json", measured)
        store.add(run)
    ended = failure_now(Pruned("worse"), fingerprint="ff", backend="jax", seconds=1.0)
    store.add_failure(ended, RECIPE)
    return store


def scores(result) -> list[float]:
    return [run["validation"]["ndcg@10"] for run in result.json["runs"]]


def test_lists_the_newest_first_and_by_a_metric_the_best(call, store: RunStore) -> None:
    listed = call("runs", "--store", store.path, "--state=finished", "--json")
    assert (listed.code, scores(listed)) == (0, [0.5, 0.9, 0.2])
    assert listed.json["runs"][0] == {
        name: getattr(store.records(state="finished")[0], name)
        for name in listed.json["runs"][0]
    }
    options = ("--store", store.path, "--state", "finished", "--json")
    for sort, best in (("ndcg@10", [0.9, 0.5, 0.2]), ("rmse", [0.2, 0.5, 0.9])):
        assert scores(call("runs", "--sort", sort, *options)) == best
        backwards = call("runs", "--sort", sort, "--reverse", *options)
        assert scores(backwards) == best[::-1]
    assert scores(call("runs", "--sort=ndcg@10", "--limit=1", *options)) == [0.9]


def test_filters_by_conditions_and_dataset(call, store: RunStore) -> None:
    few = ("--where=ndcg@10>=0.5", "--where=validation.ndcg@10<0.9")
    found = call("runs", "--store", store.path, *few, "--json")
    assert scores(found) == [0.5]
    found = call("runs", "--store", store.path, "--where=test.ndcg@10>0", "--json")
    assert scores(found) == [0.2]
    pruned = call("runs", "--store", store.path, "--dataset=ff", "--json").json
    assert [run["state"] for run in pruned["runs"]] == ["pruned"]
    table = call("runs", "--store", store.path, "--sort=test.ndcg@10").out.splitlines()
    assert [len(table), "0.1250" in table[1], "pruned" in table[2]] == [5, True, True]


def test_shows_one_by_the_beginning_of_its_id(call, store: RunStore) -> None:
    first = store.records(where=["test.ndcg@10>0"])[0]
    shown = call("runs", first.id[:17], "--store", store.path)
    assert shown.code == 0, shown.err
    assert first.path in shown.out and "on test: ndcg@10 0.1250" in shown.out
    as_json = call("runs", first.id, "--store", store.path, "--json").json
    assert as_json["test"] == {"ndcg@10": 0.125}
    unknown = call("runs", "2026", "--store", store.path)
    assert (unknown.code, "error[run-unknown]" in unknown.err) == (3, True)


def test_the_best_is_printed_as_a_folder(call, store: RunStore, tmp_path: Path) -> None:
    best = call("runs", "--best=ndcg@10", "--store", store.path)
    assert (Path(best.out.strip()) / "run.json").is_file()
    lowest = call("runs", "--best=rmse", "--store", store.path, "--json").json
    assert lowest["validation"]["rmse"] == 0.2
    store.add(write_run(tmp_path / "other", 9, dataset_fingerprint="e" * 16))
    by_name = call("runs", "--best=seconds", "--store", store.path)
    assert by_name.code == 2 and "--best takes a metric" in by_name.err
    refused = call("runs", "--best=ndcg@10", "--store", store.path)
    assert (refused.code, "--dataset" in refused.err) == (2, True)
    chosen = call("runs", "--best=ndcg@10", "--dataset=01", "--store", store.path)
    assert chosen.out == best.out
    for folder in (folder for folder in store.path.iterdir() if folder.is_dir()):
        if (folder / "evaluation.json").is_file():
            measured = {"metrics": {"model": {"arp@10": 3.5, "ndcg@10": 0.125}}}
            write_json(folder / "evaluation.json", measured)
    by_arp = call("runs", "--best=test.arp@10", "--store", store.path)
    assert (by_arp.code, "error[runs-query]" in by_arp.err) == (2, True)
    assert "ndcg@10, rmse, test.ndcg@10" in by_arp.err
    assert call("runs", "--sort=test.arp@10", "--store", store.path).code == 0
    none = call("runs", "--best=ndcg@10", "--state=pruned", "--store", store.path)
    assert (none.code, "No matching finished run" in none.err) == (2, True)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--sort=ndgc@10", "Did you mean 'ndcg@10'?"),
        ("--best=ndgc@10", "Did you mean 'ndcg@10'?"),
        ("--where=ndgc@10>1", "Did you mean 'ndcg@10'?"),
        ("--where=ndcg@10>much", "a number"),
        ("--state=finnished", "Did you mean 'finished'?"),
    ],
)
def test_what_no_run_has_is_refused(
    call, store: RunStore, option: str, told: str
) -> None:
    refused = call("runs", option, "--store", store.path)
    assert (refused.code, told in refused.err) == (2, True)
    assert refused.err.startswith("error[runs-query]")


def test_the_store_is_that_of_the_recipe(
    call, store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "shortlist.toml"
    text = '[log]\nevents = "x"\n[columns]\nuser_id="u"\nitem_id="i"\n'
    recipe.write_text(text)
    unnamed = call("runs", "--recipe", recipe)
    assert (unnamed.code, "error[store-unnamed]" in unnamed.err) == (2, True)
    recipe.write_text(f'{text}[tracking]\nstore = "runs"\n')
    assert len(call("runs", "--recipe", recipe, "--json").json["runs"]) == 4
    monkeypatch.chdir(tmp_path)
    assert len(call("runs", "--json").json["runs"]) == 4
    missing = call("runs", "--store", tmp_path / "none")
    assert (missing.code, "error[store-missing]" in missing.err) == (3, True)
    (tmp_path / "empty").mkdir()
    empty = call("runs", "--store", tmp_path / "empty")
    assert (empty.code, empty.out) == (0, "no matching runs\n")

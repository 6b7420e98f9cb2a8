"""The store of runs: the folders are the truth, the index may go at any time."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from shortlist.errors import ArtifactError, InputError
from shortlist.training.runs.records import Failure, Pruned, failure_now, recipe_hash
from shortlist.training.runs.run import Run, write_json
from shortlist.training.runs.run_index import INDEX_FILE
from shortlist.training.runs.run_store import RunStore
from stored_runs import RECIPE, write_run


def write_many(folder: Path, first: int) -> None:
    for number in range(first, first + 5):
        RunStore(folder / "runs").add(write_run(folder / f"run{number}", number))


def test_a_kept_run_outlives_its_folder_and_is_a_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    store = RunStore(tmp_path / "runs")
    record = store.add(run)
    for file in sorted(run.path.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    assert Run.open(record.path).info == run.info
    assert Path(record.path, "retrieval", "weights").read_bytes() == b"weights"
    assert record.id.startswith("20260102-030400-")
    assert record.validation == {"ndcg@10": 0.5}
    assert (record.name, record.seconds, record.state) == ("shop", 2.5, "finished")
    assert record.recipe_hash == recipe_hash({"seed": 3, "name": "shop"})


def test_adding_again_takes_over_the_evaluation(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    store = RunStore(tmp_path / "runs")
    first = store.add(run)
    write_json(run.path / "evaluation.json", {"metrics": {"model": {"ndcg@10": 0.25}}})
    assert store.add(run).test == {"ndcg@10": 0.25}
    assert [record.id for record in store.records()] == [first.id]


@pytest.mark.parametrize("damage", ["delete", "garbage"])
def test_the_index_comes_back_from_the_files(tmp_path: Path, damage: str) -> None:
    write_many(tmp_path, 0)
    store = RunStore(tmp_path / "runs")
    before = store.records()
    index = store.path / INDEX_FILE
    for end in ("-wal", "-shm"):
        index.with_name(index.name + end).unlink(missing_ok=True)
    index.unlink() if damage == "delete" else index.write_bytes(b"garbage" * 1000)
    assert len(before) == 5 and store.records() == before


def test_sorts_and_filters_by_metrics(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    for number, score in enumerate((0.2, 0.9, 0.5)):
        store.add(write_run(tmp_path / f"run{number}", number, score))
    scores = [r.validation["ndcg@10"] for r in store.records(sort="ndcg@10")]
    assert scores == [0.9, 0.5, 0.2]
    found = store.records(where=["validation.ndcg@10<0.9"], sort="created_at")
    assert [r.validation["ndcg@10"] for r in found] == [0.5, 0.2]
    assert store.records(where=["test.ndcg@10>0"]) == []
    for wrong in ("ndcg@10", "ndcg@10>much", "a'b>1"):
        with pytest.raises(InputError, match="Received") as caught:
            store.records(where=[wrong])
        assert caught.value.code == "runs-query"


def test_failures_and_damaged_folders_are_listed(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    failure = Failure(
        created_at="2026-01-02T03:04:05+00:00",
        state="failed",
        dataset_fingerprint="ff",
        backend="jax",
        seconds=1.0,
        error="ValueError: no",
    )
    kept = store.add_failure(failure, RECIPE)
    assert (kept.state, kept.error, kept.name) == ("failed", "ValueError: no", "shop")
    ended = failure_now(Pruned("no"), fingerprint="ff", backend="jax", seconds=1.0)
    pruned = store.add_failure(ended, RECIPE)
    assert pruned.state == "pruned"
    store.remove(pruned.id)
    assert not Path(pruned.path).exists()
    record = store.add(write_run(tmp_path / "run"))
    (Path(record.path) / "run.json").write_text("{")
    assert store.get(record.id).state == "damaged"
    assert [r.id for r in store.records(state="failed")] == [kept.id]
    for damage in (b"[]", b"\xff"):
        (Path(kept.path) / "recipe.json").write_bytes(damage)
        assert store.get(kept.id).state == "damaged"


def test_a_run_from_elsewhere_stays_within_the_store(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    text = (run.path / "run.json").read_text()
    moved = text.replace(run.info.created_at, "../../../away/x")
    (run.path / "run.json").write_text(moved)
    record = RunStore(tmp_path / "runs").add(Run.open(run.path))
    assert Path(record.path).parent == tmp_path / "runs"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "runs"]


def test_a_removed_run_is_gone_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    record = store.add(write_run(tmp_path / "run"))
    store.remove(record.id[:16])
    assert store.records() == []
    assert not Path(record.path).exists()
    with pytest.raises(ArtifactError, match="No run .* unique prefix") as caught:
        store.get(record.id)
    assert caught.value.code == "run-unknown"


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(tmp_path, n)) for n in (0, 5)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len(RunStore(tmp_path / "runs").records()) == 10


def test_a_folder_without_runs_gets_no_index(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert RunStore(tmp_path).records() == []
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

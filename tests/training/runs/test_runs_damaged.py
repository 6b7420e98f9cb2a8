"""Every file of a run, damaged in every way: refused by name, or read as it was."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path

import msgspec
import numpy as np
import pytest

from golden_dataset import make
from shortlist.data import Dataset
from shortlist.data.kernels.ids import hash_file
from shortlist.data.store.checksums import FileSum, sealed
from shortlist.errors import ArtifactError, InputError
from shortlist.evaluation.user_values import Evaluation
from shortlist.training.runs.records import Failure
from shortlist.training.runs.run import (
    Run,
    RunInfo,
    environment,
    now,
    write_json,
    write_run,
)
from shortlist.training.runs.run_store import RunStore
from shortlist.training.runs.unfinished import Checkpoint, State, Unfinished

INFO = RunInfo(
    created_at="2026-01-02T03:04:05+00:00",
    dataset="/data/set",
    dataset_fingerprint="",
    backend="jax",
    retrieval_history=10,
    validation={"retrieval": {"ndcg@10": 0.5}},
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("dataset")
    make(folder)
    return Dataset.open(next(folder.rglob("dataset.json")).parent)


def write_files(folder: Path, dataset: Dataset) -> RunInfo:
    """The files of a run but `run.json`, with weights that nothing understands."""
    write_json(folder / "recipe.json", {"seed": 3})
    (folder / "schema.json").write_bytes(dataset.schema.to_json())
    write_json(folder / "environment.json", environment("jax"))
    (folder / "metrics.jsonl").write_text('{"epoch": 1}\n')
    (folder / "vocabularies").mkdir()
    for name, file in dataset.info.vocabularies.items():
        shutil.copy(dataset.path / file, folder / "vocabularies" / f"{name}.arrow")
    tables = folder / "retrieval" / "model.weights.h5.tables"
    tables.mkdir(parents=True)
    (tables / "user-1.safetensors").write_bytes(bytes(range(100)))
    (folder / "retrieval" / "model.weights.h5").write_bytes(b"weights" * 20)
    (folder / "retrieval" / "model.json").write_text("{}")
    return msgspec.structs.replace(INFO, dataset_fingerprint=dataset.info.fingerprint)


@pytest.fixture
def run(tmp_path: Path, dataset: Dataset) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    write_run(folder, write_files(folder, dataset))
    return folder


@pytest.fixture
def old_run(tmp_path: Path, dataset: Dataset) -> Path:
    """A run of a version that recorded no checksums."""
    folder = tmp_path / "old"
    folder.mkdir()
    write_json(folder / "run.json", write_files(folder, dataset))
    document = json.loads((folder / "run.json").read_text())
    del document["files"], document["checksum"]
    write_json(folder / "run.json", document)
    return folder


def verify(folder: Path, dataset: Dataset) -> Run:
    """What is done before a run's models are read."""
    run = Run.open(folder)
    run.check_contents(dataset)
    run.verify("retrieval")
    run.verify("ranker")
    return run


def refusal(folder: Path, dataset: Dataset) -> ArtifactError | None:
    try:
        verify(folder, dataset)
    except ArtifactError as error:
        return error
    return None


def files_of(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def flip(file: Path, place: int) -> None:
    whole = bytearray(file.read_bytes())
    whole[place] ^= 4
    file.unlink()
    file.write_bytes(whole)


def replace(file: Path, content: bytes) -> None:
    file.unlink()
    file.write_bytes(content)


def in_its_place(make_other):
    def change(file: Path) -> None:
        file.unlink()
        make_other(file)

    return change


WAYS = {
    "truncated": lambda file: replace(file, file.read_bytes()[:-9]),
    "empty": lambda file: replace(file, b""),
    "longer": lambda file: replace(file, file.read_bytes() + b" "),
    "removed": Path.unlink,
    "directory": in_its_place(Path.mkdir),
    "pipe": in_its_place(os.mkfifo),
    "link-to-itself": in_its_place(lambda file: file.symlink_to(file)),
    "link-to-a-device": in_its_place(lambda file: file.symlink_to("/dev/zero")),
}


def test_a_run_lists_all_its_files(run, dataset):
    info = verify(run, dataset).info
    assert sorted(info.files) == [f for f in files_of(run) if f != "run.json"]
    assert len(info.files) == 7 + len(dataset.vocabularies)
    for name, recorded in info.files.items():
        file = run / name
        assert recorded == FileSum(size=file.stat().st_size, xxh64=hash_file(file))


def test_a_run_without_checksums_is_opened(old_run, dataset):
    run = verify(old_run, dataset)
    assert run.info.files == {} and run.recipe == {"seed": 3}
    assert run.read_schema() == dataset.schema
    assert run.read_environment().backend == "jax"


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_is_not_there_as_it_was(run, dataset, way):
    for file in files_of(run):
        folder = run.with_name(f"{way} {file.replace('/', ' ')}")
        shutil.copytree(run, folder)
        WAYS[way](folder / file)
        error = refusal(folder, dataset)
        if (way, file) == ("longer", "run.json"):  # with a blank more
            assert error is None
            continue
        assert error is not None, file
        assert error.code == "run-damaged" or (way, file) == ("removed", "run.json")
        assert Path(file).name in str(error)


@pytest.mark.parametrize("way", WAYS)
def test_an_old_run_is_refused_or_read(old_run, dataset, way):
    for file in files_of(old_run):
        folder = old_run.with_name(f"{way} {file.replace('/', ' ')}")
        shutil.copytree(old_run, folder)
        WAYS[way](folder / file)
        error = refusal(folder, dataset)
        if error is not None:
            assert error.code in ("run-damaged", "run-missing")
        # Models are checked by what reads them, and nothing reads the epochs.
        elif "retrieval" not in file and file != "metrics.jsonl":
            assert way in ("longer", "removed")


def test_a_flipped_bit_is_refused_before_any_result(run, dataset):
    for file in files_of(run):
        original = (run / file).read_bytes()
        for place in (0, len(original) // 3, len(original) - 1):
            flip(run / file, place)
            error = refusal(run, dataset)
            if error is None:
                assert file == "run.json" and not original[place : place + 1].strip()
            else:
                assert error.code == "run-damaged"
                assert Path(file).name in str(error)
            replace(run / file, original)


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("environment.json", b'{"python": 3}', "Expected `str`, got `int`"),
        ("schema.json", b'{"user_id": "user"}', "missing required field"),
        ("recipe.json", b"[]", "Expected `object`"),
        ("recipe.json", b'{"a":' + b"[" * 100_000, "recursion|truncated|depth"),
    ],
)
def test_what_an_old_run_says_is_read_back(old_run, file, content, says):
    replace(old_run / file, content)
    with pytest.raises(ArtifactError, match=says) as caught:
        Run.open(old_run)
    assert caught.value.code == "run-damaged"
    assert caught.value.file == str(old_run / file)


def test_schema_and_ids_are_those_of_the_dataset(old_run, dataset):
    schema = msgspec.structs.replace(dataset.schema, item_max_size=4)
    replace(old_run / "schema.json", schema.to_json())
    with pytest.raises(ArtifactError, match="not the schema of the dataset") as caught:
        verify(old_run, dataset)
    assert caught.value.code == "run-damaged"
    replace(old_run / "schema.json", dataset.schema.to_json())
    ids = old_run / "vocabularies"
    (ids / "item.arrow").replace(ids / "user.arrow")
    with pytest.raises(ArtifactError, match=r"user\.arrow is damaged") as caught:
        verify(old_run, dataset)
    assert caught.value.code == "run-damaged"


def test_a_file_more_in_a_model_is_no_file_of_the_run(run, dataset):
    os.mkfifo(run / "retrieval" / "more")
    with pytest.raises(ArtifactError, match="It must be a file. Found a pipe"):
        verify(run, dataset)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "retrieval/../../x"])
def test_a_name_that_leads_out_of_the_run_is_refused(run, name):
    document = json.loads((run / "run.json").read_text())
    document["files"][name] = {"size": 1, "xxh64": "0" * 16}

    replace(run / "run.json", sealed(document))
    with pytest.raises(ArtifactError, match="a path inside the folder") as caught:
        Run.open(run)
    assert caught.value.code == "run-damaged"


def test_the_checksum_may_not_be_left_out(run):
    document = json.loads((run / "run.json").read_text())
    del document["checksum"]
    write_json(run / "run.json", document)
    with pytest.raises(ArtifactError, match="its checksum is") as caught:
        Run.open(run)
    assert caught.value.code == "run-damaged"


def evaluation() -> Evaluation:
    return Evaluation(
        report={"users": 2, "metrics": {"model": {"ndcg@10": 0.5}}},
        users=np.array([1, 2]),
        names=("ndcg@10",),
        values=np.array([[0.25], [0.75]]),
    )


def test_an_evaluation_comes_back_without_its_checksums(run):
    evaluation().save(run)
    assert Run.open(run).evaluation() == evaluation().report
    again = Evaluation.load(run)
    assert again.report == evaluation().report
    np.testing.assert_array_equal(again.values, evaluation().values)


@pytest.mark.parametrize("file", ["evaluation.json", "evaluation.arrow"])
def test_a_changed_evaluation_is_refused(run, file):
    evaluation().save(run)
    if file == "evaluation.json":
        text = (run / file).read_text()
        replace(run / file, text.replace("0.5", "0.7").encode())
        with pytest.raises(ArtifactError, match="its checksum is") as caught:
            Run.open(run).evaluation()
        assert caught.value.code == "run-damaged"
    else:
        flip(run / file, 400)
    with pytest.raises(ArtifactError, match="changed since it was written") as caught:
        Evaluation.load(run)
    assert caught.value.code == "evaluation-damaged"
    assert caught.value.file == str(run / file)


def test_an_evaluation_without_checksums_is_read(run):
    evaluation().save(run)
    write_json(run / "evaluation.json", evaluation().report)
    assert Evaluation.load(run).report == evaluation().report
    assert Run.open(run).evaluation() == evaluation().report


def test_a_store_tells_of_damaged_runs(run, tmp_path):
    store = RunStore(tmp_path / "runs")
    kept = Path(store.add(Run.open(run)).path)
    assert [record.state for record in store.records()] == ["finished"]
    better = (kept / "run.json").read_text().replace('@10": 0.5', '@10": 0.9')
    replace(kept / "run.json", better.encode())
    (record,) = store.records()
    assert record.state == "damaged" and "run.json" in record.error


def test_a_changed_row_of_the_index_is_read_anew(run, tmp_path):
    store = RunStore(tmp_path / "runs")
    store.add(Run.open(run))
    with sqlite3.connect(store.path / "index.sqlite") as index:
        index.execute("UPDATE runs SET validation = '{\"ndcg@10\":0.9}'")
    index.close()
    (record,) = store.records()
    assert record.validation == {"ndcg@10": 0.5}


def test_an_index_whose_pages_are_damaged_is_made_anew(run, tmp_path):
    store = RunStore(tmp_path / "runs")
    store.add(Run.open(run))
    file = store.path / "index.sqlite"
    whole = bytearray(file.read_bytes())
    for place in range(100, len(whole), 7):
        whole[place] ^= 0xFF
    replace(file, bytes(whole))
    assert [record.validation for record in store.records()] == [{"ndcg@10": 0.5}]


@pytest.mark.parametrize("make_other", [os.mkfifo, Path.mkdir])
def test_an_index_that_is_no_file_is_left_alone(run, tmp_path, make_other):
    store = RunStore(tmp_path / "runs")
    store.add(Run.open(run))
    for file in store.path.glob("index.sqlite*"):
        file.unlink()
    make_other(store.path / "index.sqlite")
    assert [record.state for record in store.records()] == ["finished"]
    assert not (store.path / "index.sqlite").is_file()


@pytest.mark.parametrize("file", ["failure.json", "recipe.json"])
def test_a_changed_record_of_a_failure_is_damaged(tmp_path, file):
    store = RunStore(tmp_path / "runs")
    failure = Failure(
        created_at=now(),
        state="failed",
        dataset_fingerprint="0" * 16,
        backend="jax",
        seconds=1.5,
        error="LogError: no",
    )
    kept = Path(store.add_failure(failure, {"name": "shop"}).path)
    assert [(r.state, r.name) for r in store.records()] == [("failed", "shop")]
    text = (kept / file).read_text()
    replace(kept / file, text.replace("shop", "shot").replace("1.5", "2.5").encode())
    (record,) = store.records()
    assert record.state == "damaged" and file in record.error


def begun() -> State:
    return State(recipe={}, dataset_fingerprint="0" * 16, backend="jax")


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    """Where a run will be whose training was interrupted in its second stage."""
    out = tmp_path / "out"
    unfinished = Unfinished(out, begun())
    (unfinished.run_folder / "retrieval").mkdir()
    (unfinished.run_folder / "retrieval" / "weights").write_bytes(b"w" * 50)
    unfinished.finish_stage("retrieval", 3, {})
    for folder in ("e00001-b000000", "e00002-b000000"):
        (unfinished.folder / folder).mkdir()
        (unfinished.folder / folder / "weights").write_bytes(folder.encode() * 9)
        unfinished.save_checkpoint(
            Checkpoint(
                stage="ranker",
                epoch=int(folder[5]),
                batch=0,
                folder=folder,
                random={},
                best_epoch=1,
                best_folder="e00001-b000000",
            )
        )
    unfinished.close()
    return out


def test_a_training_goes_on_from_what_it_wrote(interrupted):
    unfinished = Unfinished(interrupted, begun(), resume=True)
    checkpoint = unfinished.checkpoint_of("ranker")
    assert sorted(checkpoint.files) == [
        "e00001-b000000/weights",
        "e00002-b000000/weights",
    ]
    assert list(unfinished.stages["retrieval"].files) == ["retrieval/weights"]
    unfinished.close()


@pytest.mark.parametrize(
    "file",
    [
        "state.json",
        "run/retrieval/weights",
        "e00001-b000000/weights",
        "e00002-b000000/weights",
    ],
)
def test_a_training_does_not_go_on_from_what_changed(interrupted, file):
    folder = interrupted.with_name(".out.training")
    if file == "state.json":
        text = (folder / file).read_text()
        replace(folder / file, text.replace('"epoch": 2', '"epoch": 3').encode())
    else:
        flip(folder / file, 20)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ArtifactError, match="changed since it was written") as caught:
        Unfinished(interrupted, begun(), resume=True)
    assert caught.value.code == "training-damaged"
    assert caught.value.file == str(folder / file)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    Unfinished(interrupted, begun(), overwrite=True).close()


def test_a_state_without_checksums_is_gone_on_from(interrupted):
    file = interrupted.with_name(".out.training") / "state.json"
    state = json.loads(file.read_text())
    del state["checksum"], state["checkpoint"]["files"]
    del state["stages"]["retrieval"]["files"]
    write_json(file, state)
    unfinished = Unfinished(interrupted, begun(), resume=True)
    assert unfinished.checkpoint_of("ranker").epoch == 2
    unfinished.close()
    with pytest.raises(InputError, match="interrupted training"):
        Unfinished(interrupted, begun())

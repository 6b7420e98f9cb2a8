"""Trackers over a real training: what each writes, and that none ends it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import wandb

from shortlist import packages
from shortlist.data import Dataset
from shortlist.errors import ResourceError
from shortlist.recipe import TrackingSection
from shortlist.training import Run
from shortlist.training.runs.records import Pruned
from shortlist.training.runs.run_store import RunStore
from shortlist.training.trackers import (
    MLflow,
    Store,
    TensorBoard,
    Tracker,
    WeightsAndBiases,
    open_trackers,
)
from toy import CHECKERBOARD_SCHEMA, checkerboard, recipe, train_with

pytestmark = pytest.mark.backend

HAS_TENSORBOARD = all(
    importlib.util.find_spec(name) for name in ("tensorflow", "tensorboard")
)
RECIPE = recipe(
    CHECKERBOARD_SCHEMA,
    retrieval={"epochs": 2, "patience": 2, "batch_size": 96, "embedding_dim": 4},
)
WITHOUT_KERAS = recipe(CHECKERBOARD_SCHEMA, retrieval={"kind": "popularity"})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard(tmp_path_factory.getbasetemp())


def tracked(
    dataset: Dataset, out: Path, trackers: Sequence[Tracker], **others: Any
) -> Run:
    given = others.pop("recipe", RECIPE)
    return train_with(dataset, out, given, trackers=trackers, **others)


@pytest.fixture(scope="module")
def told(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A training that everybody was told of; what they wrote lies beside the run."""
    folder = tmp_path_factory.mktemp("told")
    trackers = [
        MLflow(folder / "mlflow.db", "toys"),
        WeightsAndBiases("toys", folder),
        Store(RunStore(folder / "runs")),
    ]
    if HAS_TENSORBOARD:
        trackers.append(TensorBoard())
    run = tracked(dataset, folder / "run", trackers)
    wandb.teardown()  # until then its service may hold back what it writes
    return run


def epochs_of(run: Run) -> list[dict[str, Any]]:
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_mlflow_holds_parameters_epochs_and_files(told: Run) -> None:
    folder = told.path.parent
    with sqlite3.connect(folder / "mlflow.db") as database:
        states = database.execute("SELECT status FROM runs").fetchall()
        parameters = dict(database.execute("SELECT key, value FROM params"))
        steps = database.execute(
            "SELECT step, value FROM metrics WHERE key = 'retrieval/val_ndcg_at_10'"
            " ORDER BY step"
        ).fetchall()
        final = database.execute(
            "SELECT value FROM metrics WHERE key = 'validation/ndcg_at_10'"
        ).fetchall()
    database.close()
    assert states == [("FINISHED",)]
    assert parameters["retrieval.embedding_dim"] == "4"
    assert steps == [(e["epoch"], e["val_ndcg@10"]) for e in epochs_of(told)]
    assert final == [(told.info.validation["retrieval"]["ndcg@10"],)]
    assert list(folder.glob("mlartifacts/*/artifacts/run.json"))


def test_wandb_writes_files_offline_and_measures_nobody(told: Run) -> None:
    folders = list(told.path.parent.glob("wandb/offline-run-*"))
    assert len(folders) == 1
    written = next(folders[0].glob("run-*.wandb")).read_bytes()
    assert b"retrieval/val_ndcg@10" in written
    assert not [t.name for t in threading.enumerate() if t.name.startswith("Otel")]


@pytest.mark.skipif(
    not HAS_TENSORBOARD, reason="tensorboard missing: pip install -e '.[tensorboard]'"
)
def test_the_events_of_tensorboard_are_the_epochs(told: Run) -> None:
    import tensorflow as tf

    epochs = epochs_of(told)
    read: dict[str, list[tuple[int, float]]] = {}
    for part, prefix in (("train", ""), ("validation", "val_")):
        folder = told.path / "tensorboard" / "retrieval" / part
        (file,) = folder.glob("events.out.tfevents.*")
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                name = prefix + value.tag.removeprefix("epoch_")
                scalar = float(tf.make_ndarray(value.tensor))
                read.setdefault(name, []).append((event.step, scalar))
    assert {"loss", "val_ndcg@10", "val_recall@10"} <= set(read)
    for name in ("loss", "val_ndcg@10", "val_recall@10"):
        expected = [(e["epoch"] - 1, pytest.approx(e[name], rel=1e-6)) for e in epochs]
        assert read[name] == expected


def test_the_store_keeps_the_run_and_what_failed(
    dataset: Dataset, told: Run, tmp_path: Path
) -> None:
    (kept,) = RunStore(told.path.parent / "runs").records()
    assert Run.open(kept.path).info == told.info
    store = RunStore(tmp_path / "runs")

    def broken(*_: object) -> dict[str, float]:
        raise ValueError("no metrics today")

    with pytest.raises(ValueError, match="no metrics today"):
        tracked(
            *(dataset, tmp_path / "other", [Store(store)]),
            **{"recipe": WITHOUT_KERAS, "validate": broken},
        )
    (failed,) = store.records(state="failed")
    assert failed.error == "ValueError: no metrics today"


@pytest.mark.parametrize(
    ("error", "state"),
    [(ValueError("no"), "FAILED"), (Pruned("no"), "KILLED"), (SystemExit(), "KILLED")],
)
def test_mlflow_tells_what_failed_from_what_was_ended(
    dataset: Dataset, told: Run, tmp_path: Path, error: BaseException, state: str
) -> None:
    def ended(*_: object) -> dict[str, float]:
        raise error

    # A copy: to make the database takes longest.
    shutil.copy(told.path.parent / "mlflow.db", tmp_path)
    with pytest.raises(type(error)):
        tracked(
            *(dataset, tmp_path / "run", [MLflow(tmp_path / "mlflow.db", "others")]),
            **{"recipe": WITHOUT_KERAS, "validate": ended},
        )
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        states = database.execute("SELECT status FROM runs").fetchall()
    database.close()
    assert sorted(states) == sorted([("FINISHED",), (state,)])


class Broken(Tracker):
    def __init__(self, at: str) -> None:
        self.at = at
        self.name = f"broken at {at}"

    def __getattribute__(self, name: str) -> Any:
        if name not in ("at", "name") and name == self.at:
            raise OSError("away")
        return super().__getattribute__(name)


def test_broken_trackers_never_end_a_training(
    dataset: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    places = ("start", "epoch", "callbacks", "finish")
    run = tracked(dataset, tmp_path / "run", [Broken(at) for at in places])
    assert Run.open(tmp_path / "run").info == run.info
    shown = capfd.readouterr().err
    for at in places:
        assert shown.count(f"warning[tracker-failed]: broken at {at} failed") == 1


class Unauthorized(BaseHTTPRequestHandler):
    """An MLflow server that lets nobody in, and says what it got."""

    def do_GET(self) -> None:
        got = self.headers.get("Authorization", "")
        body = f'{{"message": "not with {got} at {self.path}"}}'.encode()
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def unauthorized() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Unauthorized) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_password_in_an_address_is_used_and_written_nowhere(
    dataset: Dataset,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    unauthorized: str,
) -> None:
    secrets = ["hunter2-pw", "aHVudGVyMi1wdw", "YW5uOmh1bnRlcjItcHc"]
    uri = f"http://ann:hunter2-pw@{unauthorized}"
    given = WITHOUT_KERAS.model_copy(update={"tracking": TrackingSection(mlflow=uri)})
    mlflow, store = MLflow(uri), Store(RunStore(tmp_path / "runs"))
    assert mlflow.uri == uri
    run = tracked(dataset, tmp_path / "run", [mlflow, store], recipe=given)
    shown = capfd.readouterr()
    assert "warning[tracker-failed]: MLflow failed" in shown.err
    assert "not with Basic *** at" in shown.err  # the server got the real one
    assert run.recipe["tracking"]["mlflow"] == f"http://***@{unauthorized}"
    written = [f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()]
    for secret in secrets:
        assert secret not in shown.err + shown.out
        assert not any(secret.encode() in content for content in written)
    # The record does not decide whether a training may go on.
    again = tracked(dataset, tmp_path / "run", [], recipe=given, resume=True)
    assert again.info == run.info


def test_a_missing_package_is_told_before_any_work(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ResourceError, match=r"shortlist\[tensorboard\]") as caught:
        tracked(dataset, tmp_path / "run", [TensorBoard()])
    assert caught.value.code == "package-missing"
    assert not (tmp_path / "run").exists()


def test_paths_are_taken_from_the_recipe(tmp_path: Path) -> None:
    section = TrackingSection(
        store="runs", mlflow="sqlite:///m.db", wandb="toys", tensorboard=True
    )
    store, mlflow, wandb, _ = open_trackers(section, tmp_path)
    assert isinstance(store, Store) and store.store.path == tmp_path / "runs"
    assert isinstance(mlflow, MLflow) and mlflow.uri == f"sqlite:///{tmp_path}/m.db"
    assert isinstance(wandb, WeightsAndBiases) and wandb.mode == "offline"

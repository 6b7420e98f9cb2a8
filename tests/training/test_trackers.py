"""Trackers over a real training: what each writes, and that none ends it."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
import wandb

from shortlist.data.dataset import Dataset
from shortlist.errors import ResourceError
from shortlist.evaluation import ranking_metrics
from shortlist.recipe import TrackingSection
from shortlist.training import Run, train
from shortlist.training.run_store import RunStore
from shortlist.training.trackers import (
    MLflow,
    Store,
    TensorBoard,
    Tracker,
    WeightsAndBiases,
    open_trackers,
    packages,
)
from toy import CHECKERBOARD_SCHEMA, checkerboard, recipe

pytestmark = pytest.mark.backend

RECIPE = recipe(
    CHECKERBOARD_SCHEMA,
    retrieval={"epochs": 2, "patience": 2, "batch_size": 96, "embedding_dim": 4},
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard(tmp_path_factory.getbasetemp())


def tracked(dataset: Dataset, out: Path, *trackers: Tracker, **others: Any) -> Run:
    validate = others.pop("validate", ranking_metrics)
    return train(dataset, out, RECIPE, validate=validate, quiet=True, trackers=trackers)


def test_mlflow_holds_parameters_epochs_and_files(
    dataset: Dataset, tmp_path: Path
) -> None:
    run = tracked(dataset, tmp_path / "run", MLflow(tmp_path / "mlflow.db", "toys"))
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        states = database.execute("SELECT status FROM runs").fetchall()
        parameters = dict(database.execute("SELECT key, value FROM params"))
        steps = database.execute(
            "SELECT step FROM metrics WHERE key = 'retrieval/val_ndcg_at_10'"
            " ORDER BY step"
        ).fetchall()
        final = database.execute(
            "SELECT value FROM metrics WHERE key = 'validation/ndcg_at_10'"
        ).fetchall()
    database.close()
    assert states == [("FINISHED",)]
    assert parameters["retrieval.embedding_dim"] == "4"
    assert steps == [(1,), (2,)]
    assert final == [(run.info.validation["retrieval"]["ndcg@10"],)]
    assert list(tmp_path.glob("mlartifacts/*/artifacts/run.json"))


def test_wandb_writes_files_offline_and_measures_nobody(
    dataset: Dataset, tmp_path: Path
) -> None:
    tracked(dataset, tmp_path / "run", WeightsAndBiases("toys", tmp_path))
    wandb.teardown()  # until then its service may hold back what it writes
    folders = list(tmp_path.glob("wandb/offline-run-*"))
    assert len(folders) == 1
    written = next(folders[0].glob("run-*.wandb")).read_bytes()
    assert b"retrieval/val_ndcg@10" in written
    assert not [t.name for t in threading.enumerate() if t.name.startswith("Otel")]


def test_the_store_keeps_the_run_and_what_failed(
    dataset: Dataset, tmp_path: Path
) -> None:
    store = RunStore(tmp_path / "runs")
    run = tracked(dataset, tmp_path / "run", Store(store))
    (kept,) = store.records()
    assert Run.open(kept.path).info == run.info

    def broken(*_: object) -> dict[str, float]:
        raise ValueError("no metrics today")

    with pytest.raises(ValueError, match="no metrics today"):
        tracked(dataset, tmp_path / "other", Store(store), validate=broken)
    (failed,) = store.records(state="failed")
    assert failed.error == "ValueError: no metrics today"


class Broken(Tracker):
    name = "broken"

    def __init__(self, at: str) -> None:
        self.at = at

    def __getattribute__(self, name: str) -> Any:
        if name != "at" and name == self.at:
            raise OSError("away")
        return super().__getattribute__(name)


@pytest.mark.parametrize("at", ["start", "epoch", "callbacks", "finish"])
def test_a_broken_tracker_never_ends_a_training(
    dataset: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str], at: str
) -> None:
    run = tracked(dataset, tmp_path / "run", Broken(at))
    assert Run.open(tmp_path / "run").info == run.info
    assert capfd.readouterr().err.count("warning[tracker-failed]: broken") == 1


def test_a_missing_package_is_told_before_any_work(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ResourceError, match=r"shortlist\[tensorflow\]") as caught:
        tracked(dataset, tmp_path / "run", TensorBoard())
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

"""Callbacks of models with tables: the best epoch comes back whole, errors in time."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from shortlist.embeddings.config import FeatureConfig, TableConfig
from shortlist.embeddings.layer import DistributedEmbedding
from shortlist.embeddings.storage.callbacks import (
    RaiseFaults,
    TableCheckpoint,
    table_layers,
)
from shortlist.embeddings.storage.saving import load_weights
from shortlist.errors import InputError

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
X = RNG.integers(0, 10, (16,)).astype(np.int32)
Y = RNG.normal(size=(16, 1)).astype(np.float32)


class Scores(keras.callbacks.Callback):
    """Gives out the losses of the epochs, and keeps what was at their ends."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = values
        self.seen: list[list[np.ndarray]] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None and self.values:
            logs["val_loss"] = self.values[epoch]
        self.seen.append(state(self.model))


def make() -> keras.Model:
    keras.utils.set_random_seed(1)
    table = TableConfig(
        "items", 10, 4, optimizer="adam", learning_rate=0.1, placement="host"
    )
    ids = keras.Input((), dtype="int32")
    layer = DistributedEmbedding(FeatureConfig("item", table))
    model = keras.Model(ids, keras.layers.Dense(1)(layer(ids)))
    model.compile(keras.optimizers.Adam(0.05), "mse", jit_compile=False)
    return model


def state(model: keras.Model) -> list[np.ndarray]:
    """Dense weights, rows, and the state of the table's optimizer."""
    (layer,) = table_layers(model)
    layer.sync()
    (table,) = layer.host_tables.tables
    return [
        *(np.array(v) for v in model.layers[-1].get_weights()),
        table.rows.copy(),
        *(slot.copy() for slot in table.slots.values()),
        np.array(table.step),
    ]


def assert_state(model: keras.Model, expected: list[np.ndarray]) -> None:
    for found, wanted in zip(state(model), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def fit(model: keras.Model, *callbacks: Any, epochs: int = 4) -> None:
    model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0, callbacks=list(callbacks))


@pytest.fixture(autouse=True)
def temporary(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Temporary files go to a folder of the test alone: others run beside it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))


def folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob(".shortlist-best-*"))


def test_the_best_epoch_comes_back_and_training_goes_on() -> None:
    before = folders()
    model, scores = make(), Scores(3.0, 1.0, 2.0, 1.5)
    best = TableCheckpoint(None, restore_best=True)
    fit(model, scores, best)
    assert (best.best, best.best_epoch) == (1.0, 1)
    assert_state(model, scores.seen[1])
    assert int(model.optimizer.iterations) == 8  # stays at the end of the training
    assert folders() == before
    fit(model, epochs=1)
    assert int(state(model)[-1]) == 6


def test_nothing_is_loaded_if_the_last_epoch_is_the_best() -> None:
    model, scores = make(), Scores(3.0, 2.0, 1.5, 1.0)
    best = TableCheckpoint(None, restore_best=True)
    fit(model, scores, best)
    assert best.best_epoch == 3
    assert_state(model, scores.seen[3])


@pytest.mark.parametrize("save_best_only", [False, True])
def test_the_file_holds_the_last_or_the_best_epoch(
    tmp_path: Path, save_best_only: bool
) -> None:
    path = tmp_path / "new" / "m.weights.h5"
    model, scores = make(), Scores(3.0, 1.0, 2.0, 1.5)
    fit(model, scores, TableCheckpoint(path, save_best_only=save_best_only))
    assert_state(model, scores.seen[3])
    load_weights(model, path)
    assert_state(model, scores.seen[1 if save_best_only else 3])
    assert {p.name for p in path.parent.iterdir()} == {path.name, f"{path.name}.tables"}
    assert len(list(Path(f"{path}.tables").iterdir())) == 1


@pytest.mark.parametrize("save_best_only", [False, True])
def test_the_best_comes_back_whatever_the_file_holds(
    tmp_path: Path, save_best_only: bool
) -> None:
    path = tmp_path / "m.weights.h5"
    model, scores = make(), Scores(3.0, 1.0, 2.0, 1.5)
    checkpoint = TableCheckpoint(path, save_best_only=save_best_only, restore_best=True)
    fit(model, scores, checkpoint)
    assert_state(model, scores.seen[1])
    assert {p.name for p in tmp_path.iterdir()} == {path.name, f"{path.name}.tables"}


def test_greater_can_be_better() -> None:
    model, scores = make(), Scores(3.0, 4.0, 2.0, 1.5)
    best = TableCheckpoint(None, mode="max", restore_best=True)
    fit(model, scores, best)
    assert (best.best, best.best_epoch) == (4.0, 1)
    assert_state(model, scores.seen[1])


def test_it_stops_for_want_of_patience() -> None:
    model, scores = make(), Scores(3.0, 1.0, 2.0, 1.5, 0.5)
    fit(model, scores, TableCheckpoint(None, restore_best=True, patience=2), epochs=5)
    assert len(scores.seen) == 4
    assert_state(model, scores.seen[1])


def test_it_stands_beside_early_stopping() -> None:
    model, scores = make(), Scores(3.0, 1.0, 2.0, 0.5)
    stop = keras.callbacks.EarlyStopping(patience=1)
    fit(model, scores, TableCheckpoint(None, restore_best=True), stop)
    assert len(scores.seen) == 3
    assert_state(model, scores.seen[1])


@pytest.mark.filterwarnings("ignore:Early stopping conditioned on metric")
def test_not_finite_is_never_the_best() -> None:
    model, scores = make(), Scores(float("nan"), 2.0, float("-inf"), 3.0)
    best = TableCheckpoint(None, restore_best=True)
    fit(model, scores, best)
    assert (best.best, best.best_epoch) == (2.0, 1)
    assert_state(model, scores.seen[1])


def test_saving_each_epoch_needs_no_metric(tmp_path: Path) -> None:
    model = make()
    checkpoint = TableCheckpoint(tmp_path / "m.weights.h5")
    fit(model, checkpoint, epochs=1)
    assert checkpoint.best is None and checkpoint.best_epoch is None
    assert (tmp_path / "m.weights.h5").is_file()


def test_a_training_that_fails_leaves_no_temporary_folder() -> None:
    before = folders()
    model = make()

    class Fails(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            raise RuntimeError("stopped")

    best = TableCheckpoint(None, monitor="loss", restore_best=True)
    with pytest.raises(RuntimeError, match="stopped"):
        fit(model, best, Fails())
    # Keras does not say that such a training is over: the next one, or the end of the
    # callback or the process, removes the folder.
    assert len(folders() - before) == 1
    fit(model, best)
    assert folders() == before


@pytest.mark.parametrize(
    "arguments", [{"path": None}, {"path": "m.keras", "restore_best": True}]
)
def test_arguments_are_checked(arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        TableCheckpoint(**arguments)
    assert caught.value.code == "invalid-argument"


def test_table_layers_are_found_at_any_depth() -> None:
    inner = make()
    ids = keras.Input((), dtype="int32")
    outer = keras.Sequential([ids, keras.Sequential([ids, inner])])
    assert table_layers(outer) == table_layers(inner)
    assert len(table_layers(inner)) == 1


class Count(keras.callbacks.Callback):
    """Counts the batches that ended."""

    count = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.count += 1

    on_test_batch_end = on_predict_batch_end = on_train_batch_end


@pytest.mark.parametrize("how", ["fit", "evaluate", "predict"])
def test_errors_of_a_step_are_raised_at_its_end(how: str) -> None:
    model, count = make(), Count()
    fit(model, epochs=1)
    before = state(model)[2:]
    bad = X.copy()
    bad[5] = 10
    data = (bad,) if how == "predict" else (bad, Y)
    order = {"shuffle": False} if how == "fit" else {}
    # TensorFlow puts the message of ours into an error of its own.
    with pytest.raises(Exception, match="between 0 and 9"):
        getattr(model, how)(
            *data, batch_size=4, verbose=0, callbacks=[count, RaiseFaults()], **order
        )
    assert count.count <= 2
    if how != "fit":
        for found, wanted in zip(state(model)[2:], before, strict=True):
            np.testing.assert_array_equal(found, wanted)
    fit(model, RaiseFaults(), epochs=1)

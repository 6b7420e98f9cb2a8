"""Every way to write, copy or restore weights holds the tables or is refused."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from embeddings.golden_tables import arrays, fit, make
from embeddings.matrix import BACKEND, refused
from shortlist.embeddings import (
    DistributedEmbedding,
    FeatureConfig,
    TableConfig,
    load_weights,
    save_weights,
)
from shortlist.embeddings.storage.saving import table_layers

pytestmark = pytest.mark.backend

GOLDEN = Path(__file__).parents[1] / "golden" / "tables-v1"
Model = Any


@pytest.fixture(scope="module")
def model() -> Model:
    """A trained model that no test may change."""
    trained = make(accumulates=False)
    fit(trained, 4)
    table_layers(trained)[0].sync()
    return trained


@pytest.fixture(scope="module")
def other() -> Model:
    """A model at the same step, whose tables are others."""
    trained = make(accumulates=False)
    for _ in range(4):
        fit(trained, 1)
    table_layers(trained)[0].sync()
    return trained


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def whole(model: Model, tmp_path: Path) -> Model:
    model.save(tmp_path / "m.keras")
    return keras.saving.load_model(tmp_path / "m.keras")


def unzipped(model: Model, tmp_path: Path) -> Model:
    model.save(tmp_path / "m", zipped=False)
    return keras.saving.load_model(tmp_path / "m")


def read_into_new(path: Path) -> Model:
    again = make(accumulates=False)
    again.optimizer.build(again.trainable_variables)
    again.load_weights(path)
    return again


def weights(model: Model, tmp_path: Path) -> Model:
    model.save_weights(tmp_path / "m.weights.h5")
    return read_into_new(tmp_path / "m.weights.h5")


def shards(model: Model, tmp_path: Path) -> Model:
    model.save_weights(tmp_path / "m.weights.json", max_shard_size=7e-7)
    assert len(list(tmp_path.glob("m_*.weights.h5"))) > 1
    return read_into_new(tmp_path / "m.weights.json")


def beside(model: Model, tmp_path: Path) -> Model:
    save_weights(model, tmp_path / "m.weights.h5")
    again = make(accumulates=False)
    load_weights(again, tmp_path / "m.weights.h5")
    return again


def pickled(model: Model, tmp_path: Path) -> Model:
    return pickle.loads(pickle.dumps(model))


def torch_saved(model: Model, tmp_path: Path) -> Model:
    import torch

    torch.save(model, tmp_path / "m.pt")
    return torch.load(tmp_path / "m.pt", weights_only=False)


HOLD = {
    "model.save": whole,
    "zipped=False": unzipped,
    "save_weights": weights,
    "shards": shards,
    "ours": beside,
    "deepcopy": lambda model, _: copy.deepcopy(model),
    "pickle": pickled,
    **({"torch.save": torch_saved} if BACKEND == "torch" else {}),
}


@pytest.mark.parametrize("way", HOLD.values(), ids=HOLD)
def test_ways_that_hold_the_tables(
    model: Model, tmp_path: Path, way: Callable[[Model, Path], Model]
) -> None:
    again = way(model, tmp_path)
    assert_same(arrays(again), arrays(model))
    names = [table_layers(one)[0].host_tables.name for one in (again, model)]
    assert names[0] != names[1]


def test_a_copy_goes_on_as_the_original_would(model: Model, tmp_path: Path) -> None:
    again = weights(model, tmp_path)
    copied = copy.deepcopy(model)
    fit(again, 2)
    fit(copied, 2)
    assert_same(arrays(again), arrays(copied))
    assert int(arrays(again)["moving.step"]) == 6


class Stop(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 2:
            raise RuntimeError("stopped")


def train(model: Model, *callbacks: Any, epochs: int = 3) -> None:
    ids = np.arange(8, dtype=np.int32)
    batch = {"plain": ids % 6, "moving": ids * 5 % 6}
    labels = (ids % 3).astype(np.float32)[:, None]
    options: dict[str, Any] = {"batch_size": 4, "shuffle": False, "verbose": 0}
    model.fit(batch, labels, epochs=epochs, callbacks=list(callbacks), **options)


def test_backup_and_restore_goes_on_where_a_training_stopped(tmp_path: Path) -> None:
    straight = make(accumulates=False)
    train(straight)
    for callbacks in ([Stop()], []):
        resumed = make(accumulates=False)
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        try:
            train(resumed, backup, *callbacks)
        except RuntimeError:
            assert callbacks
    assert_same(arrays(resumed), arrays(straight))


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5"])
def test_model_checkpoint_holds_the_tables(tmp_path: Path, name: str) -> None:
    trained = make(accumulates=False)
    only = name.endswith(".weights.h5")
    train(
        trained,
        keras.callbacks.ModelCheckpoint(tmp_path / name, save_weights_only=only),
        epochs=2,
    )
    assert_same(arrays(read_into_new(tmp_path / name)), arrays(trained))


def checkpoint_callback(model: Model, tmp_path: Path) -> None:
    callback = keras.callbacks.ModelCheckpoint(str(tmp_path / "m.h5"))
    callback.set_model(model)
    callback.set_params({"epochs": 1})
    callback.on_epoch_end(0, {})


def orbax_callback(model: Model, tmp_path: Path) -> None:
    callback = keras.callbacks.OrbaxCheckpoint(str(tmp_path))
    callback.set_model(model)
    callback.on_epoch_end(0, {})


def open_file(model: Model, tmp_path: Path) -> None:
    with h5py.File("m.h5", "w", driver="core", backing_store=False) as file:
        keras.src.legacy.saving.legacy_h5_format.save_model_to_hdf5(model, file)


def tracked(model: Model, tmp_path: Path) -> None:
    import tensorflow as tf

    tf.train.Checkpoint(model=model).write(str(tmp_path / "m"))


def saved_model(model: Model, tmp_path: Path) -> None:
    import tensorflow as tf

    tf.saved_model.save(model, str(tmp_path / "m"))


def state_dict(model: Model, tmp_path: Path) -> None:
    import torch

    torch.save(model.state_dict(), io.BytesIO())


def state_dict_around(model: Model, tmp_path: Path) -> None:
    import torch

    class Outer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

    Outer().state_dict()


def torch_exported(model: Model, tmp_path: Path) -> None:
    import torch

    ids = torch.zeros(2, dtype=torch.int32)
    torch.export.export(model, ({"plain": ids, "moving": ids},))


def torch_traced(model: Model, tmp_path: Path) -> None:
    import torch

    ids = torch.zeros(2, dtype=torch.int32)
    torch.jit.trace(model, ({"plain": ids, "moving": ids},))


WITHOUT, EXPORT = "weights-without-tables", "export-unsupported"
SAVES, EXPORTS = "Use model.save('model.keras')", "export the layers after the lookup"
LOSE: dict[str, tuple[Callable[[Model, Path], Any], str]] = {
    "model.save .h5": (lambda model, path: model.save(path / "m.h5"), WITHOUT),
    "model.save .hdf5": (lambda model, path: model.save(path / "m.hdf5"), WITHOUT),
    "ModelCheckpoint .h5": (checkpoint_callback, WITHOUT),
    "an open h5 file": (open_file, WITHOUT),
    "load_weights .h5": (
        lambda model, _: model.load_weights(GOLDEN / "legacy.h5"),
        WITHOUT,
    ),
    "load_model .h5": (
        lambda model, _: keras.saving.load_model(GOLDEN / "legacy.h5", compile=False),
        WITHOUT,
    ),
    "get_state_tree": (lambda model, _: model.get_state_tree(), WITHOUT),
    "get_state_tree of arrays": (
        lambda model, _: model.get_state_tree(value_format="numpy_array"),
        WITHOUT,
    ),
    "OrbaxCheckpoint": (orbax_callback, WITHOUT),
}
if BACKEND != "torch":  # there Keras needs packages that are not installed
    LOSE["export"] = (lambda model, path: model.export(path / "m"), EXPORT)
    LOSE["ExportArchive"] = (
        lambda model, _: keras.export.ExportArchive().track(model),
        EXPORT,
    )
LOSE["export onnx"] = (
    lambda model, path: model.export(path / "m.onnx", format="onnx"),
    EXPORT,
)
if BACKEND == "tensorflow":
    LOSE["tf.train.Checkpoint"] = (tracked, WITHOUT)
    LOSE["tf.saved_model.save"] = (saved_model, EXPORT)
    LOSE["export litert"] = (
        lambda model, path: model.export(str(path / "m.tflite"), format="litert"),
        EXPORT,
    )
if BACKEND == "torch":
    LOSE["state_dict"] = (state_dict, WITHOUT)
    LOSE["state_dict of a module around"] = (state_dict_around, WITHOUT)
    LOSE["load_state_dict"] = (
        lambda model, _: model.load_state_dict({}, strict=False),
        WITHOUT,
    )
    LOSE["torch.export"] = (torch_exported, EXPORT)
    LOSE["torch.jit.trace"] = (torch_traced, EXPORT)


@pytest.mark.filterwarnings("ignore:.*legacy:UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("way", "code"), LOSE.values(), ids=LOSE)
def test_ways_that_would_lose_the_tables_are_refused(
    model: Model,
    tmp_path: Path,
    way: Callable[[Model, Path], Any],
    code: str,
) -> None:
    before = arrays(model)
    with refused(code, SAVES if code == WITHOUT else EXPORTS):
        way(model, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert_same(arrays(model), before)
    assert "optimizer" in model.get_compile_config()


def test_a_checkpoint_of_tensorflow_from_before_is_refused(
    other: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if BACKEND != "tensorflow":
        return
    import tensorflow as tf

    with monkeypatch.context() as patched:
        patched.delattr(DistributedEmbedding, "_trackable_children")
        path = tf.train.Checkpoint(model=other).write(str(tmp_path / "m"))
    again = make(accumulates=False)
    with refused("weights-without-tables", "tf.train.Checkpoint"):
        tf.train.Checkpoint(model=again).read(path)


def one_by_one(target: Model, source: Model) -> None:
    for mine, theirs in zip(target.variables, source.variables, strict=True):
        mine.assign(theirs.value)


def layer_alone(target: Model, source: Model) -> None:
    (mine,), (theirs,) = table_layers(target), table_layers(source)
    mine.set_weights(theirs.get_weights())


def into_a_clone(target: Model, source: Model) -> None:
    keras.models.clone_model(source).set_weights(source.get_weights())


def by_state_tree(target: Model, source: Model) -> None:
    handle = table_layers(source)[0].handle.numpy()
    target.set_state_tree({"trainable_variables": {"tables": {"handle": handle}}})


COPIES = {
    "set_weights": (
        lambda target, source: target.set_weights(source.get_weights()),
        "set_weights()",
    ),
    "layer.set_weights": (layer_alone, "set_weights()"),
    "clone_model": (into_a_clone, "set_weights()"),
    "assign": (one_by_one, "assign()"),
    "set_state_tree": (by_state_tree, "set_state_tree()"),
}


@pytest.mark.parametrize(("way", "writer"), COPIES.values(), ids=COPIES)
def test_weights_of_another_model_of_the_same_step(
    model: Model, other: Model, way: Callable[[Model, Model], None], writer: str
) -> None:
    hosts = [table_layers(one)[0].host_tables for one in (model, other)]
    assert hosts[0].applied == hosts[1].applied == 4
    before = arrays(other)
    with refused("handle-foreign", f"weights from {writer} belong to other tables"):
        way(other, model)
    found = arrays(other)
    for name in ("plain", "moving", "moving.step"):
        np.testing.assert_array_equal(found[name], before[name])


def test_two_models_from_one_file_are_not_each_other(
    model: Model, tmp_path: Path
) -> None:
    model.save(tmp_path / "m.keras")
    one, two = (keras.saving.load_model(tmp_path / "m.keras") for _ in range(2))
    with refused("handle-foreign", "Copy a model with copy.deepcopy(model)"):
        one.set_weights(two.get_weights())


def test_weights_from_before_tables_were_set_or_loaded(tmp_path: Path) -> None:
    one = make(accumulates=False)
    fit(one, 1)
    own = one.get_weights()
    one.set_weights(own)  # those of now
    (layer,) = table_layers(one)
    layer.set_embedding_tables({"plain": np.zeros((6, 3))})
    with refused("handle-foreign", "these tables before they were loaded or set"):
        one.set_weights(own)
    own = one.get_weights()
    save_weights(one, tmp_path / "m.weights.h5")
    load_weights(one, tmp_path / "m.weights.h5")
    with refused("handle-foreign", "these tables before they were loaded or set"):
        one.set_weights(own)
    fit(one, 1)
    assert int(arrays(one)["moving.step"]) == 2


def test_the_tables_of_an_older_version_load() -> None:
    """Two gradients wait there for the optimizer, which holds handles from 1.0 on."""
    with np.load(GOLDEN / "expected.npz") as file:
        expected = dict(file)
    for name, load in (
        ("plain.weights.h5", lambda model, path: model.load_weights(path)),
        ("beside.weights.h5", load_weights),
    ):
        again = make()
        again.optimizer.build(again.trainable_variables)
        load(again, GOLDEN / name)
        assert_same(arrays(again), _part(expected, "saved"))
        fit(again, 2)
        found, wanted = arrays(again), _part(expected, "trained")
        for key in wanted.keys() - {"kernel", "bias"}:
            np.testing.assert_allclose(found[key], wanted[key], 1e-5, 1e-6, key)


def test_tables_may_go_back_while_an_optimizer_accumulates(tmp_path: Path) -> None:
    """What Keras has accumulated then holds handles of the time before."""
    waits = make()
    fit(waits, 4)
    save_weights(waits, tmp_path / "m.weights.h5")
    saved = arrays(waits)
    fit(waits, 6)  # two gradients wait
    load_weights(waits, tmp_path / "m.weights.h5", keep_optimizer=True)
    assert_same(arrays(waits), saved)
    fit(waits, 2)
    assert int(arrays(waits)["moving.step"]) == int(saved["moving.step"]) + 1


def _part(arrays: dict[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(f"{part}/"): array
        for name, array in arrays.items()
        if name.startswith(f"{part}/")
    }


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_averages_that_are_swapped_are_refused_by_name() -> None:
    averaging = make(accumulates=False)
    averaging.compile(keras.optimizers.SGD(0.1, use_ema=True), "mse")
    words = "SwapEMAWeights" if BACKEND != "tensorflow" else "use_ema=True"
    with refused("average-unsupported", words):
        train(averaging, keras.callbacks.SwapEMAWeights(swap_on_epoch=True), epochs=1)


def test_early_stopping_is_named() -> None:
    class Worse(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["score"] = epoch

    stop = keras.callbacks.EarlyStopping(
        "score", patience=1, mode="min", restore_best_weights=True
    )
    with refused("handle-stale", "set by the callback EarlyStopping(restore_best"):
        train(make(accumulates=False), Worse(), stop)


def by_hand(change: Callable[[Any, list[Any]], list[Any]]) -> None:
    """Three steps of a loop of one's own with Keras's optimizer."""
    looped = make(accumulates=False)
    ids = np.arange(4, dtype=np.int32)
    batch = {"plain": ids, "moving": ids}
    optimizer = keras.optimizers.Adam(0.1)
    for _ in range(3):
        gradients = gradients_of(looped, batch)
        optimizer.apply(change(looped, gradients), looped.trainable_variables)


def gradients_of(model: Model, batch: Any) -> list[Any]:
    def loss() -> Any:
        return keras.ops.mean(model(batch) ** 2) + sum(model.losses)

    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = loss()
        return tape.gradient(value, model.trainable_variables)
    if BACKEND == "torch":
        model.zero_grad()
        loss().backward()
        return [v.value.grad for v in model.trainable_variables]
    import jax

    def stateless(values: list[Any]) -> Any:
        outputs, _, losses = model.stateless_call(values, [], batch, return_losses=True)
        return keras.ops.mean(outputs**2) + sum(losses)

    return jax.grad(stateless)([v.value for v in model.trainable_variables])


def clipped(_: Model, gradients: list[Any]) -> list[Any]:
    squares = sum(keras.ops.sum(one**2) for one in gradients)
    factor = 0.5 / keras.ops.maximum(0.5, keras.ops.sqrt(squares))
    return [one * factor for one in gradients]


def clipped_but_the_handle(model: Model, gradients: list[Any]) -> list[Any]:
    return [
        gradient if variable.overwrite_with_gradient else gradient * 0.5
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
    ]


def test_gradients_that_are_clipped_all_together() -> None:
    with refused("handle-changed", "gradients of all weights were clipped"):
        by_hand(clipped)
    by_hand(clipped_but_the_handle)  # as the message says


def test_an_optimizer_of_the_backend_over_all_weights() -> None:
    looped = make(accumulates=False)
    ids = np.arange(4, dtype=np.int32)
    batch = {"plain": ids, "moving": ids}
    if BACKEND == "torch":
        import torch

        optimizer = torch.optim.Adam(looped.parameters(), lr=1e-3)
        with refused("handle-changed", "torch.optim over model.parameters()"):
            for _ in range(2):
                gradients_of(looped, batch)
                optimizer.step()
    else:
        for variable, gradient in zip(
            looped.trainable_variables, gradients_of(looped, batch), strict=True
        ):
            variable._value if BACKEND == "jax" else None
            moved = variable.value - 0.1 * gradient
            if variable.overwrite_with_gradient:
                with refused("handle-foreign", "from assign()"):
                    variable.assign(moved)


def test_parameters_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    table = TableConfig("big", 1000, 8, placement="host")
    frozen = TableConfig("frozen", 50, 4, trainable=False, row_type="float16")
    shared = FeatureConfig("again", table)
    layer = DistributedEmbedding(
        [FeatureConfig("a", table), shared, FeatureConfig("b", frozen)]
    )
    inputs = [keras.Input((), dtype="int32") for _ in range(3)]
    inner = keras.Model(inputs, keras.layers.Concatenate()(layer(inputs)))
    outer = keras.Sequential([inner, keras.layers.Dense(2, use_bias=False)])
    outer([np.zeros(2, np.int32)] * 3)
    assert layer.count_params() == inner.count_params() == 8000 + 200
    assert outer.count_params() == 8200 + 2 * 20
    assert layer.variables == [layer.handle]
    outer.summary(line_length=88)
    text = capsys.readouterr().out
    assert "Total params: 8,240" in text
    assert "Trainable params: 8,040" in text
    assert "Non-trainable params: 200 (400.00 B)" in text
    layer.trainable = False
    outer.summary(line_length=88)
    assert "Non-trainable params: 8,200" in capsys.readouterr().out
    with pytest.raises(ValueError, match="isn't built"):
        DistributedEmbedding(FeatureConfig("a", table)).count_params()


def make_on_device() -> Model:
    table = TableConfig("t", 6, 3, optimizer="adam", placement="device")
    ids = keras.Input((), dtype="int32")
    vectors = DistributedEmbedding(FeatureConfig("f", table), name="tables")(ids)
    made = keras.Model(ids, keras.layers.Dense(1, name="head")(vectors))
    made.compile(keras.optimizers.SGD(0.1), keras.losses.MeanSquaredError())
    return made


def legacy_file(model: Model, tmp_path: Path) -> Model:
    model.save(tmp_path / "m.h5")
    return keras.saving.load_model(tmp_path / "m.h5", compile=False)


def copied_weights(model: Model, _: Path) -> Model:
    again = make_on_device()
    again.set_weights(model.get_weights())
    return again


def copied_tree(model: Model, _: Path) -> Model:
    again = make_on_device()
    tree = model.get_state_tree(value_format="numpy_array")
    again.set_state_tree({"trainable_variables": tree["trainable_variables"]})
    return again


DEVICE = {
    "set_weights": copied_weights,
    "tree": copied_tree,
    "keras": whole,
    "deepcopy": lambda model, _: copy.deepcopy(model),
    "legacy": legacy_file,  # last: Keras forgets the model's optimizer there
}


def test_tables_on_a_device_are_held_by_every_way(tmp_path: Path) -> None:
    if BACKEND != "jax":
        return
    trained = make_on_device()
    ids = np.arange(6, dtype=np.int32)
    labels = np.linspace(-1, 1, 6)[:, None].astype(np.float32)
    trained.fit(ids, labels, batch_size=3, epochs=2, verbose=0)
    assert trained.count_params() == 6 * 3 + 4
    state = table_layers(trained)[0].device_tables.state()["t"]
    assert int(state["step"]) == 4
    for name, way in DEVICE.items():
        again = way(trained, tmp_path)
        found = table_layers(again)[0].device_tables.state()["t"]
        for key, array in state.items():
            np.testing.assert_array_equal(found[key], array, err_msg=f"{name} {key}")
    trained.compile(keras.optimizers.SGD(0.1, use_ema=True), "mse")
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    with refused("average-unsupported", "SwapEMAWeights"):
        trained.fit(ids, labels, verbose=0, callbacks=[swap])


@pytest.mark.filterwarnings("ignore:.*Explicitly requested dtype float64")
def test_a_graph_holds_tables_on_a_device(tmp_path: Path) -> None:
    if BACKEND != "jax":
        return
    import onnxruntime

    trained = make_on_device()
    ids = np.array([5, 0, 3], np.int32)
    wanted = keras.ops.convert_to_numpy(trained(ids))
    trained.export(tmp_path / "m.onnx", format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: ids})
    np.testing.assert_allclose(found, wanted, 1e-6, 1e-6)

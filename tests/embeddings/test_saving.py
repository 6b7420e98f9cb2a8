"""Models with tables on disk: training goes on bit for bit, bad files do no harm."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from shortlist.embeddings.config import FeatureConfig, TableConfig
from shortlist.embeddings.host.handles import to_ticket
from shortlist.embeddings.layer import DistributedEmbedding
from shortlist.embeddings.optimizers import RowwiseAdagrad
from shortlist.embeddings.storage import layer_state, saving, session
from shortlist.embeddings.storage.saving import (
    load_model,
    load_weights,
    save_model,
    save_weights,
    table_layers,
)
from shortlist.embeddings.storage.table_files import arrays_of
from shortlist.errors import ArtifactError, InputError, ResourceError

pytestmark = pytest.mark.backend

ROWS = 12
RNG = np.random.default_rng(0)
# A row is seldom in two batches that follow each other: Adam has to catch up.
IDS = RNG.integers(0, ROWS, (24, 2)).astype(np.int32)
X = {name: IDS for name in "abcdefg"}
Y = RNG.normal(size=(24, 1)).astype(np.float32)


def schedule() -> Any:
    return keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.7)


def configs(rows: int = ROWS, first: str = "sgd") -> dict[str, FeatureConfig]:
    """A table for each rule and row type; the last one has the schedule."""
    options: list[dict[str, Any]] = [
        {"optimizer": first, "learning_rate": 0.1},
        {"optimizer": "adagrad"},
        {"optimizer": RowwiseAdagrad(0.1)},
        {"optimizer": "adam", "learning_rate": 0.05},
        {"optimizer": "ftrl", "learning_rate": 0.1},
        {"optimizer": "adagrad", "row_type": "float16", "trainable": True},
        {"optimizer": "adam", "row_type": "bfloat16", "learning_rate": schedule()},
    ]
    return {
        name: FeatureConfig(
            name,
            TableConfig(
                name=f"table/{name}",
                vocabulary_size=rows,
                embedding_dim=4,
                combiner="mean",
                placement="host",
                initializer=keras.initializers.RandomUniform(seed=1),
                **one,
            ),
            input_shape=(None, 2),
        )
        for name, one in zip("abcdefg", options, strict=True)
    }


def make(
    optimizer: Any = None, features: dict[str, FeatureConfig] | None = None
) -> keras.Model:
    keras.utils.set_random_seed(3)
    inputs = {name: keras.Input((2,), dtype="int32", name=name) for name in X}
    layer = DistributedEmbedding(features or configs(), threads=1)
    vectors = list(layer(inputs).values())
    outputs = keras.layers.Dense(1)(keras.layers.Concatenate()(vectors))
    model = keras.Model(inputs, outputs)
    model.compile(optimizer or keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    return model


def train(model: keras.Model, epochs: int = 1, last: int = 24) -> keras.Model:
    x = {name: ids[:last] for name, ids in X.items()}
    model.fit(x, Y[:last], batch_size=4, epochs=epochs, shuffle=False, verbose=0)
    return model


def content(model: keras.Model) -> dict[str, bytes]:
    """Everything that training depends on; of a handle, the step that it names."""
    found = {}
    names = {}
    for layer in table_layers(model):
        layer.sync()
        names[id(layer.handle)] = layer.host_tables.name
        for table in layer.host_tables.tables:
            numbers = (table.step, table.last_rate, table.seed)
            found[f"{table.name} numbers"] = repr(numbers).encode()
            for name, array in arrays_of(table).items():
                found[f"{table.name} {name}"] = array.tobytes()
    weights = [*model.weights, *model.optimizer.variables]
    for number, weight in enumerate(weights):
        value = keras.ops.convert_to_numpy(weight.value)
        if id(weight) in names:
            value = np.asarray(to_ticket(value, names[id(weight)]))
        found[f"weight {number}"] = value.tobytes()
    return found


def assert_same(model: keras.Model, expected: dict[str, bytes]) -> None:
    found = content(model)
    assert [name for name in expected if found[name] != expected[name]] == []


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what each way to save wrote of one model, after one epoch."""
    folder = tmp_path_factory.mktemp("saved")
    model = train(make())
    save_model(model, folder / "ours.keras")
    save_weights(model, folder / "ours.weights.h5")
    model.save(folder / "plain.keras")
    model.save_weights(folder / "plain.weights.h5")
    pickled = pickle.dumps(model)
    (folder / "model.pickle").write_bytes(pickled)
    return folder


@pytest.fixture(scope="module")
def after_one() -> dict[str, bytes]:
    return content(train(make()))


@pytest.fixture(scope="module")
def after_two() -> dict[str, bytes]:
    return content(train(make(), epochs=2))


def into_new(load: Callable[[keras.Model, Path], Any]) -> Callable[[Path], Any]:
    def loaded(path: Path) -> keras.Model:
        model = make()
        if load is not load_weights:  # ours sees to it
            model.optimizer.build(model.trainable_variables)
        load(model, path)
        return model

    return loaded


LOADS = {
    "model": (load_model, "ours.keras"),
    "weights": (into_new(load_weights), "ours.weights.h5"),
    "weights-of-model": (into_new(load_weights), "ours.keras"),
    "keras": (keras.saving.load_model, "plain.keras"),
    "keras-weights": (into_new(keras.Model.load_weights), "plain.weights.h5"),
    "model-of-keras": (load_model, "plain.keras"),
    "weights-of-keras": (into_new(load_weights), "plain.weights.h5"),
    "pickle": (lambda path: pickle.loads(path.read_bytes()), "model.pickle"),
}


@pytest.mark.parametrize(("load", "name"), LOADS.values(), ids=LOADS)
def test_training_goes_on_as_if_never_interrupted(
    saved: Path,
    after_one: dict[str, bytes],
    after_two: dict[str, bytes],
    load: Callable[[Path], keras.Model],
    name: str,
) -> None:
    model = load(saved / name)
    assert_same(model, after_one)
    assert_same(train(model), after_two)


def test_weights_go_back_into_the_model_they_came_from(
    saved: Path, after_one: dict[str, bytes], after_two: dict[str, bytes]
) -> None:
    model = train(make(), epochs=2)
    load_weights(model, saved / "ours.weights.h5")
    assert_same(model, after_one)
    assert_same(train(model), after_two)


def test_the_optimizer_of_the_model_can_be_left_as_it_is(
    saved: Path, after_one: dict[str, bytes]
) -> None:
    model = train(make(), epochs=2)
    before = [np.array(v) for v in model.optimizer.variables]
    load_weights(model, saved / "ours.weights.h5", keep_optimizer=True)
    number = len(model.weights)
    expected = {
        name: value
        for name, value in after_one.items()
        if name not in {f"weight {number + i}" for i in range(len(before))}
    }
    assert_same(model, expected)
    for variable, value in zip(model.optimizer.variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), value)


def test_gradients_that_wait_are_saved_too(tmp_path: Path) -> None:
    def accumulating() -> keras.Model:
        optimizer = keras.optimizers.Adam(0.01, gradient_accumulation_steps=4)
        return make(optimizer)

    expected = content(train(train(accumulating()), last=8))
    model = train(accumulating())  # six steps: two wait
    assert len(table_layers(model)[0].host_tables.snapshot().waiting) == 2
    save_model(model, tmp_path / "m.keras")
    model.save(tmp_path / "plain.keras")
    assert_same(train(load_model(tmp_path / "m.keras"), last=8), expected)
    again = keras.saving.load_model(tmp_path / "plain.keras")
    assert_same(train(again, last=8), expected)


def test_the_folder_holds_one_file_per_table_named_by_its_hash(saved: Path) -> None:
    names = sorted(path.name for path in (saved / "ours.keras.tables").iterdir())
    assert len(names) == 7
    for letter, name in zip("abcdefg", names, strict=True):
        assert name.startswith(f"table_{letter}-") and name.endswith(".safetensors")
        assert len(name) == len("table_a-") + 16 + len(".safetensors")
    assert not any(path.name.startswith(".") for path in saved.iterdir())
    # Weights and model hold the same tables; the Keras file only their names.
    weights = sorted(p.name for p in (saved / "ours.weights.h5.tables").iterdir())
    assert weights == names


def test_saving_again_replaces_the_old_tables(tmp_path: Path) -> None:
    path, folder = tmp_path / "m.keras", tmp_path / "m.keras.tables"
    model = train(make())
    save_model(model, path)
    first = set(folder.iterdir())
    (folder / "mine.txt").write_text("a file of the user's")
    train(model)
    save_model(model, path)
    assert len(list(folder.iterdir())) == 8
    assert not first & set(folder.iterdir())
    assert_same(load_model(path), content(model))


def test_a_save_that_fails_leaves_the_old_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.keras"
    model = train(make())
    save_model(model, path)
    files = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    train(model)
    write_table = session.write_table

    def full(part: Path, table: Any) -> str:
        if table.name == "table/d":
            raise ResourceError("no-space", "No space.")
        return write_table(part, table)

    with monkeypatch.context() as patched:
        patched.setattr(session, "write_table", full)
        with pytest.raises(ResourceError, match="No space"):
            save_model(model, path)
        with pytest.raises(ResourceError, match="No space"):
            save_weights(model, tmp_path / "new.weights.h5")
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == files
    assert not (tmp_path / "new.weights.h5.tables").exists()
    # And one that fails when all tables are written.
    monkeypatch.setattr(saving.os, "replace", _fail_for("m.keras", saving.os.replace))
    with pytest.raises(RuntimeError, match="stopped"):
        save_model(model, path)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == files


def _fail_for(name: str, replace: Callable[..., None]) -> Callable[..., None]:
    def failing(source: Path, target: Path) -> None:
        if Path(source).name == name:
            raise RuntimeError("stopped")
        replace(source, target)

    return failing


def lose_file(path: Path) -> None:
    next(Path(f"{path}.tables").glob("table_d*")).unlink()


def lose_folder(path: Path) -> None:
    Path(f"{path}.tables").rename(path.with_name("elsewhere"))


def truncate(path: Path) -> None:
    file = next(Path(f"{path}.tables").glob("table_g*"))
    file.write_bytes(file.read_bytes()[:-1])


def flip(path: Path) -> None:
    file = next(Path(f"{path}.tables").glob("table_a*"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 128
    file.write_bytes(data)


def swap(path: Path) -> None:
    a = next(Path(f"{path}.tables").glob("table_b*"))
    shutil.copy(next(Path(f"{path}.tables").glob("table_f*")), a)


def cut_keras_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def remove_keras_file(path: Path) -> None:
    path.unlink()


def edit(change: Callable[[Any, dict[str, Any]], None]) -> Callable[[Path], None]:
    """Changes what the layer stored."""

    def damage(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            found: list[Any] = []
            file.visititems(
                lambda name, node: (
                    found.append(node.parent) if name.endswith("vars/tables") else None
                )
            )
            (store,) = found
            state = json.loads(store["tables"][()].tobytes())
            change(store, state)
            if "tables" in store:
                del store["tables"]
                text = json.dumps(state).encode()
                store["tables"] = np.frombuffer(text, np.uint8)

    return damage


def remove_list(store: Any, state: dict[str, Any]) -> None:
    del store["tables"]


def spoil_list(store: Any, state: dict[str, Any]) -> None:
    state["tables"] = 5


def lose_table(store: Any, state: dict[str, Any]) -> None:
    del state["tables"][3]


def bad_handle(store: Any, state: dict[str, Any]) -> None:
    store["handle"][()] = np.float32(np.nan)


def rename_to(name: str) -> Callable[[Any, dict[str, Any]], None]:
    def change(store: Any, state: dict[str, Any]) -> None:
        state["tables"][0]["file"] = name

    return change


UNREADABLE = "checkpoint-unreadable"
MISMATCH = "checkpoint-mismatch"
BAD = {
    "missing-file": (lose_file, UNREADABLE),
    "missing-folder": (lose_folder, UNREADABLE),
    "truncated": (truncate, UNREADABLE),
    "hash": (flip, UNREADABLE),
    "swapped": (swap, MISMATCH),
    "truncated-h5": (cut_keras_file, UNREADABLE),
    "missing-h5": (remove_keras_file, UNREADABLE),
    "no-list": (edit(remove_list), MISMATCH),
    "list": (edit(spoil_list), UNREADABLE),
    "table": (edit(lose_table), MISMATCH),
    "handle": (edit(bad_handle), UNREADABLE),
    **{
        f"escape-{i}": (edit(rename_to(name)), UNREADABLE)
        for i, name in enumerate(
            ("../t.safetensors", "/t.safetensors", "..", "a\\b.safetensors", "a\0b")
        )
    },
}


@pytest.fixture(scope="module")
def victim() -> keras.Model:
    """A model that is shared: what goes wrong must not change it."""
    return train(make(), epochs=2)


@pytest.mark.parametrize(("damage", "code"), BAD.values(), ids=BAD)
def test_bad_files_are_refused_and_the_model_stays(
    saved: Path,
    tmp_path: Path,
    victim: keras.Model,
    after_two: dict[str, bytes],
    damage: Callable[[Path], None],
    code: str,
) -> None:
    path = tmp_path / "ours.weights.h5"
    shutil.copy(saved / path.name, path)
    shutil.copytree(saved / f"{path.name}.tables", f"{path}.tables")
    damage(path)
    with pytest.raises(ArtifactError) as caught:
        load_weights(victim, path)
    assert caught.value.code == code
    assert_same(victim, after_two)


def test_a_model_can_be_trained_on_after_a_refusal(
    saved: Path, tmp_path: Path, after_two: dict[str, bytes]
) -> None:
    path = tmp_path / "ours.weights.h5"
    shutil.copy(saved / path.name, path)
    model = train(make())
    with pytest.raises(ArtifactError, match="cannot be opened"):
        load_weights(model, path)
    assert_same(train(model), after_two)


@pytest.mark.parametrize("name", ["ours.weights.h5", "plain.weights.h5"])
@pytest.mark.parametrize("change", [{"rows": 11}, {"first": "adagrad"}])
def test_other_tables_are_refused(
    saved: Path, name: str, change: dict[str, Any]
) -> None:
    model = make(features=configs(**change))
    before = content(model)
    with pytest.raises(
        ArtifactError, match=r"'table/a' with sgd and .* load has "
    ) as caught:
        load_weights(model, saved / name)
    assert caught.value.code == MISMATCH
    assert_same(model, before)


def test_another_model_is_refused(saved: Path, tmp_path: Path) -> None:
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    save_weights(other, tmp_path / "other.weights.h5")
    assert not (tmp_path / "other.weights.h5.tables").exists()
    model = make()
    before = content(model)
    with pytest.raises(ArtifactError):
        load_weights(model, tmp_path / "other.weights.h5")
    assert_same(model, before)


def test_bad_models_are_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        load_model(tmp_path / "none.keras")
    assert caught.value.code == UNREADABLE
    shutil.copy(saved / "ours.keras", tmp_path / "moved.keras")
    with pytest.raises(ArtifactError, match="cannot be opened") as caught:
        load_model(tmp_path / "moved.keras")
    assert caught.value.code == UNREADABLE
    (tmp_path / "cut.keras").write_bytes((saved / "ours.keras").read_bytes()[:500])
    with pytest.raises(ArtifactError) as caught:
        load_model(tmp_path / "cut.keras")
    assert caught.value.code == UNREADABLE


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_keras_alone_says_which_function_finds_the_files(saved: Path) -> None:
    with pytest.raises(ValueError, match="use shortlist.embeddings.load_model"):
        keras.saving.load_model(saved / "ours.keras")


def test_paths_and_models_are_checked(tmp_path: Path) -> None:
    model = make()
    for call in (save_model, save_weights):
        with pytest.raises(InputError) as caught:
            call(model, tmp_path / "m.h5")
        assert caught.value.code == "invalid-argument"
    with pytest.raises(InputError, match="must be built"):
        load_weights(keras.Sequential([keras.layers.Dense(1)]), tmp_path / "m.keras")
    with pytest.raises(InputError, match="must be built"):
        save_model(keras.Sequential([keras.layers.Dense(1)]), tmp_path / "m.keras")
    (tmp_path / "d.keras").mkdir()
    with pytest.raises(InputError) as caught:
        save_model(model, tmp_path / "d.keras")
    assert caught.value.code == "output-path"
    assert [path.name for path in tmp_path.iterdir()] == ["d.keras"]


def test_handles_of_a_long_training_begin_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = train(make())
    save_model(model, tmp_path / "m.keras")
    monkeypatch.setattr(layer_state, "_MANY_TICKETS", 5)
    again = load_model(tmp_path / "m.keras")
    assert table_layers(again)[0].host_tables.issued == 0
    assert_same(train(again), content(train(model)) | _handle(again))


def _handle(model: keras.Model) -> dict[str, bytes]:
    found = content(model)
    (number,) = [i for i, w in enumerate(model.weights) if w.name == "handle"]
    return {f"weight {number}": found[f"weight {number}"]}


def test_a_clone_has_fresh_tables_and_a_copy_its_own(
    after_one: dict[str, bytes], after_two: dict[str, bytes]
) -> None:
    model = train(make())
    copied = copy.deepcopy(model)
    clone = keras.models.clone_model(model)
    (layer,) = table_layers(clone)
    assert layer.host_tables.step == 0 and layer.host_tables.issued == 0
    assert_same(train(copied), after_two)
    assert_same(model, after_one)


MEMORY = """
import sys
import keras, numpy as np
from shortlist.embeddings.config import FeatureConfig, TableConfig
from shortlist.embeddings.layer import DistributedEmbedding
from shortlist.embeddings.storage.saving import load_weights, save_weights

table = TableConfig("t", 2**18, 128, initializer="zeros", optimizer="sgd",
                    placement="host")
inputs = keras.Input((), dtype="int32")
layer = DistributedEmbedding(FeatureConfig("f", table))
model = keras.Model(inputs, layer(inputs))
layer.host_tables.tables[0].rows[:] = 1
small = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
save_weights(small, sys.argv[1] + "/warm.weights.h5")

def peak(action):
    open("/proc/self/clear_refs", "w").write("5")
    lines = open("/proc/self/status").read().splitlines()
    before = [line for line in lines if line.startswith("VmRSS")]
    action()
    lines = open("/proc/self/status").read().splitlines()
    after = [line for line in lines if line.startswith("VmHWM")]
    return (int(after[0].split()[1]) - int(before[0].split()[1])) / 1024

path = sys.argv[1] + "/m.weights.h5"
saving = peak(lambda: save_weights(model, path))
layer.host_tables.tables[0].rows[:] = 2
loading = peak(lambda: load_weights(model, path))
assert (layer.host_tables.tables[0].rows == 1).all()
print(saving, loading)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    """The table has 128 MB."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert max(map(float, done.stdout.split())) < 48, done.stdout


def make_placed(placement: str, trainable: bool = True) -> keras.Model:
    keras.utils.set_random_seed(3)
    options: list[dict[str, Any]] = [
        {"optimizer": "adam", "learning_rate": schedule()},
        {"optimizer": "adagrad", "trainable": trainable},
    ]
    features = {
        name: FeatureConfig(
            name,
            TableConfig(name, ROWS, 4, placement=placement, **one),
            input_shape=(None, 2),
        )
        for name, one in zip("ab", options, strict=True)
    }
    inputs = {name: keras.Input((2,), dtype="int32", name=name) for name in features}
    vectors = list(DistributedEmbedding(features)(inputs).values())
    outputs = keras.layers.Dense(1)(keras.layers.Concatenate()(vectors))
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    return model


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("ours", [True, False])
def test_tables_move_to_a_device_and_back(
    tmp_path: Path, ours: bool, trainable: bool
) -> None:
    if keras.backend.backend() != "jax":
        return  # only JAX has tables on a device

    def moved(model: keras.Model, placement: str) -> keras.Model:
        path = tmp_path / "m.weights.h5"
        save_weights(model, path) if ours else model.save_weights(path)
        other = make_placed(placement, trainable)
        load_weights(other, path, keep_optimizer=True)
        return other

    model = make_placed("host", trainable)
    model.fit({"a": IDS, "b": IDS}, Y, batch_size=4, shuffle=False, verbose=0)
    (layer,) = table_layers(model)
    layer.sync()
    on_device = moved(moved(model, "device"), "device")
    found = table_layers(on_device)[0].get_embedding_tables()
    for name, rows in layer.get_embedding_tables().items():
        np.testing.assert_array_equal(found[name], rows)
    (again,) = table_layers(moved(on_device, "host"))
    tables = zip(layer.host_tables.tables, again.host_tables.tables, strict=True)
    for table, other in tables:
        assert other.step == table.step
        assert other.last_rate == pytest.approx(table.last_rate)
        for name, array in arrays_of(table).items():
            # A device keeps the sums of moves in float32.
            same = np.testing.assert_array_equal
            compare = np.testing.assert_allclose if name == "moves" else same
            compare(arrays_of(other)[name], array)


def test_a_device_refuses_what_does_not_fit(tmp_path: Path) -> None:
    if keras.backend.backend() != "jax":
        return
    model = make_placed("host")
    (layer,) = table_layers(model)
    layer.host_tables.tables[0].begin_step(0.1)  # tables of one layer move together
    save_weights(model, tmp_path / "uneven.weights.h5")
    device = make_placed("device")
    before = [np.array(v) for v in device.variables]
    with pytest.raises(ArtifactError, match="same number of steps") as caught:
        load_weights(device, tmp_path / "uneven.weights.h5", keep_optimizer=True)
    assert caught.value.code == MISMATCH
    for variable, value in zip(device.variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), value)

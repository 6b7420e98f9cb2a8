"""The loader as stock `fit` sees it."""

from __future__ import annotations

import contextlib
import gc
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest

from shortlist.data import Dataset, ExampleOptions, Loader, Negatives, TrainingExamples
from shortlist.data.load.examples import Batch
from shortlist.data.load.prefetch import THREAD_NAME
from shortlist.training import Batches, generate
from shortlist.training.batches.keras_batches import as_keras
from toy import checkerboard

pytestmark = pytest.mark.backend

BATCH_SIZE = 32
FOUR_STEPS = {"steps_per_epoch": 4, "epochs": 2, "shuffle": False, "verbose": 0}


class Weighted(TrainingExamples):
    """Rows with weights, of a dataset without."""

    def take(self, indices: np.ndarray, generator: np.random.Generator) -> Batch:
        weight = (1 + indices % 4).astype(np.float32)
        return super().take(indices, generator) | {"sample_weight": weight}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard(tmp_path_factory.getbasetemp())


@pytest.fixture
def loader(dataset: Dataset) -> Loader:
    return make_loader(dataset)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    gc.collect()
    names = [thread.name for thread in set(threading.enumerate()) - before]
    assert not [name for name in names if name.startswith(THREAD_NAME)]


def make_loader(
    dataset: Dataset, kind: Any = TrainingExamples, **options: Any
) -> Loader:
    negatives = options.pop("negatives", None)
    drawn = ExampleOptions(history_length=3, negatives=negatives)
    rows = kind(dataset, options=drawn)
    return Loader(rows, **{"batch_size": BATCH_SIZE, "seed": 5, **options})


class Recorder(keras.Model):
    """Remembers the batches of its steps; run eagerly."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = keras.layers.Dense(1)
        self.steps: list[Any] = []
        self.compile(loss="mse", run_eagerly=True, jit_compile=False)

    def call(self, batch: Any) -> Any:
        share = keras.ops.expand_dims(batch["sampling_probability"], 1)
        return self.scale(share)

    def train_step(self, *arguments: Any) -> Any:
        # PyTorch makes lists of tuples.
        step = tuple(keras.tree.map_structure(to_numpy, arguments[-1]))
        self.steps.append(step)
        return super().train_step(*arguments)


def to_numpy(value: Any) -> Any:
    return None if value is None else keras.ops.convert_to_numpy(value)


def assert_equal(found: Any, expected: Any) -> None:
    """Equal structures of arrays; Keras keeps lists in a type of its own."""
    found, expected = (list(f) if isinstance(f, list) else f for f in (found, expected))
    keras.tree.assert_same_structure(found, expected)
    for one, other in zip(
        keras.tree.flatten(found), keras.tree.flatten(expected), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def steps_of(loader: Loader, *epochs: int, **options: Any) -> list[Any]:
    return [as_keras(b, **options) for n in epochs for b in loader.epoch(n)]


def test_a_batch_is_that_of_the_loader(loader: Loader) -> None:
    batches = Batches(loader, with_label=True)
    assert len(batches) == len(loader) == 192 // BATCH_SIZE
    expected = loader.batch(0, 2)
    features, label = batches[2]
    np.testing.assert_array_equal(label, expected.pop("label"))
    assert features.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(features[name], values)
        assert features[name].dtype == values.dtype


def test_without_label_a_batch_is_the_features_alone(loader: Loader) -> None:
    (features,) = Batches(loader, with_label=False)[0]
    assert "label" not in features and "user_index" in features


def test_weights_stand_beside_the_label(dataset: Dataset) -> None:
    loader = make_loader(dataset, Weighted)
    expected = 1 + loader.indices(0, 1) % 4
    for with_label in (True, False):
        features, label, weight = Batches(loader, with_label=with_label)[1]
        np.testing.assert_array_equal(weight, expected)
        np.testing.assert_array_equal(label, loader.batch(0, 1)["label"])
        assert not {"label", "sample_weight"} & set(features)
    features, _ = Batches(loader, with_weight=False)[1]
    assert "sample_weight" not in features
    assert len(Batches(loader, with_label=False, with_weight=False)[1]) == 1


def test_batches_come_in_any_order_and_from_several_askers(loader: Loader) -> None:
    # TensorFlow asks for an epoch in one thread while another one still reads ahead.
    batches = Batches(loader)
    expected = steps_of(loader, 0)
    for index in (0, 1, 0, 1, 1, 2, 2, 3, 5, 4, 5, 0, 3, 1, -7, 6):
        if 0 <= index < len(batches):
            assert_equal(batches[index], expected[index])
        else:
            with pytest.raises(IndexError, match=f"no batch {index} in an epoch of 6"):
                batches[index]
    assert_equal(list(batches), expected)


def test_an_epoch_that_is_asked_for_in_order_is_made_ahead(
    loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    take = loader.source.take

    def spy(rows: np.ndarray, generator: np.random.Generator) -> Batch:
        if len(rows) > 1:  # a loader looks at one row to know its size
            threads.append(threading.current_thread().name)
        return take(rows, generator)

    monkeypatch.setattr(loader.source, "take", spy)
    batches = Batches(loader)
    for index in range(len(batches)):
        batches[index]
    assert threads
    assert all(name.startswith(THREAD_NAME) for name in threads)
    batches[3]
    assert threads[-1] == threading.current_thread().name


def test_an_epoch_that_is_given_up_leaves_no_thread(loader: Loader) -> None:
    def makers() -> set[threading.Thread]:
        return {t for t in threading.enumerate() if t.name.startswith(THREAD_NAME)}

    before, batches = makers(), Batches(loader)
    batches[0]
    assert makers() - before
    batches.close()
    assert not makers() - before
    assert_equal(list(batches), steps_of(loader, 0))


def walk(batches: Batches) -> list[Any]:
    """One epoch, as Keras goes through it."""
    batches.on_epoch_begin()
    found = [batches[index] for index in range(len(batches))]
    batches.on_epoch_end()
    return found


def test_every_epoch_has_its_own_order_and_moves_the_loader(loader: Loader) -> None:
    batches = Batches(loader)
    for epoch in range(3):
        assert_equal(walk(batches), steps_of(loader, epoch))
        assert (loader.state()["epoch"], loader.state()["batch"]) == (epoch + 1, 0)


def test_a_loader_that_was_restored_goes_on_with_its_epoch(
    loader: Loader, dataset: Dataset
) -> None:
    batches = Batches(loader)
    walk(batches)
    walk(batches)
    again = make_loader(dataset)
    again.restore(loader.state())
    assert_equal(walk(Batches(again)), steps_of(make_loader(dataset), 2))


def test_without_reshuffling_all_epochs_are_alike(loader: Loader) -> None:
    batches = Batches(loader, reshuffle=False)
    loader.seek(100)
    assert_equal(walk(batches), walk(batches))
    assert_equal(walk(batches), steps_of(loader, 0))


def test_a_first_look_is_no_epoch(loader: Loader) -> None:
    batches = Batches(loader)
    batches[0], batches[5]
    batches.on_epoch_end()  # as Keras does before it begins
    batches.on_epoch_begin()
    batches[0]
    batches.on_epoch_end()
    assert_equal(walk(batches), steps_of(loader, 0))


@pytest.mark.parametrize("drop_remainder", [True, False])
def test_stock_fit_sees_the_batches_of_the_loader(
    dataset: Dataset, drop_remainder: bool
) -> None:
    loader = make_loader(dataset, batch_size=50, drop_remainder=drop_remainder)
    model = Recorder()
    model.fit(Batches(loader), epochs=3, shuffle=False, verbose=0)
    assert_equal(model.steps, steps_of(loader, 0, 1, 2))
    sizes = [len(label) for _, label in model.steps[: len(loader)]]
    assert sizes == [50, 50, 50, *([] if drop_remainder else [42])]


def test_stock_fit_sees_weights_and_negatives_of_the_batch(dataset: Dataset) -> None:
    loader = make_loader(dataset, Weighted, negatives=Negatives("mixed", 5))
    model = Recorder()
    model.fit(Batches(loader), epochs=2, shuffle=False, verbose=0)
    assert_equal(model.steps, steps_of(loader, 0, 1))
    assert len(model.steps[0]) == 3
    assert model.steps[0][0]["negative_item_index"].shape == (5,)


def test_stock_evaluation_counts_every_row(dataset: Dataset) -> None:
    loader = make_loader(dataset, batch_size=50, drop_remainder=False)
    batches = Batches(loader, reshuffle=False)
    model = Recorder()
    found = [model.evaluate(batches, verbose=0) for _ in range(2)]
    part = dataset.part("train")
    everything = loader.source.take(np.arange(len(part)), np.random.default_rng(0))
    predicted = to_numpy(model(everything))[:, 0]
    expected = np.mean((predicted - part.label) ** 2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_generator_goes_on_where_the_loader_stands(
    loader: Loader, dataset: Dataset
) -> None:
    loader.seek(9)
    some = generate(loader, with_label=False)
    found = list(itertools.islice(some, 10))
    some.close()
    expected = steps_of(make_loader(dataset), 1, 2, 3, with_label=False)
    assert_equal(found, expected[3:13])
    assert (loader.state()["epoch"], loader.state()["batch"]) == (3, 1)
    assert_equal(list(generate(loader, epochs=1)), steps_of(loader, 3)[1:])


def test_stock_fit_goes_on_from_any_step_with_a_generator(
    loader: Loader, dataset: Dataset
) -> None:
    model = Recorder()
    with contextlib.closing(generate(loader)) as batches:
        model.fit(batches, **FOUR_STEPS)
    # Keras has asked for more than it has trained on.
    resumed = make_loader(dataset)
    resumed.seek(len(model.steps))
    with contextlib.closing(generate(resumed)) as batches:
        model.fit(batches, **FOUR_STEPS)
    assert_equal(model.steps, steps_of(make_loader(dataset), 0, 1, 2)[:16])

"""The loader as a `tf.data.Dataset`, and in stock `fit`."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from shortlist.data import Dataset, ExampleOptions, Loader, Negatives, TrainingExamples
from shortlist.training.batches.keras_batches import as_keras
from toy import checkerboard

pytestmark = pytest.mark.backend
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    from shortlist.training import to_tf_dataset
else:
    __test__ = False  # other backends need not have TensorFlow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard(tmp_path_factory.getbasetemp())


def make_loader(dataset: Dataset, **options: Any) -> Loader:
    drawn = ExampleOptions(history_length=3, negatives=Negatives("mixed", 5))
    rows = TrainingExamples(dataset, options=drawn)
    return Loader(rows, **{"batch_size": 50, "seed": 5, **options})


def assert_equal(found: list[Any], expected: list[Any]) -> None:
    keras.tree.assert_same_structure(found, expected)
    pairs = zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(one, other)


def steps_of(loader: Loader, *epochs: int, **options: Any) -> list[Any]:
    return [as_keras(b, **options) for n in epochs for b in loader.epoch(n)]


@pytest.mark.parametrize("drop_remainder", [True, False])
def test_batches_are_those_of_the_loader(
    dataset: Dataset, drop_remainder: bool
) -> None:
    loader = make_loader(dataset, drop_remainder=drop_remainder)
    found = list(to_tf_dataset(loader, epochs=2).as_numpy_iterator())
    assert_equal(
        found, steps_of(make_loader(dataset, drop_remainder=drop_remainder), 0, 1)
    )
    assert loader.state()["epoch"] == 2
    (only,) = to_tf_dataset(loader, with_label=False).take(1).as_numpy_iterator()
    assert_equal([only], steps_of(loader, 2, with_label=False)[:1])


@pytest.mark.parametrize(("drop_remainder", "size"), [(True, 50), (False, None)])
def test_types_and_shapes_are_known(
    dataset: Dataset, drop_remainder: bool, size: int | None
) -> None:
    made = to_tf_dataset(make_loader(dataset, drop_remainder=drop_remainder))
    features, label = made.element_spec
    assert label == tf.TensorSpec((size,), tf.float32, "label")
    of_event = {
        "user_index": tf.TensorSpec((size,), tf.int32),
        "item_index": tf.TensorSpec((size,), tf.int32),
        "history": tf.TensorSpec((size, 3), tf.int32),
        "sampling_probability": tf.TensorSpec((size,), tf.float32),
    }
    of_batch = {
        "negative_item_index": tf.TensorSpec((5,), tf.int32),
        "negative_sampling_probability": tf.TensorSpec((5,), tf.float32),
        "negative_share": tf.TensorSpec((5,), tf.float32),
    }
    assert features.keys() == {**of_event, **of_batch}.keys()
    for name, spec in {**of_event, **of_batch}.items():
        assert (features[name].dtype, features[name].shape) == (spec.dtype, spec.shape)
    assert made.cardinality() == tf.data.INFINITE_CARDINALITY


def test_stock_fit_takes_it(dataset: Dataset) -> None:
    loader = make_loader(dataset)
    share = keras.Input((), name="sampling_probability")
    output = keras.layers.Dense(1)(keras.ops.expand_dims(share, 1))
    model = keras.Model({"sampling_probability": share}, output)
    model.compile(loss="mse")
    named = to_tf_dataset(loader).map(
        lambda x, y: ({"sampling_probability": x["sampling_probability"]}, y)
    )
    history = model.fit(
        named, steps_per_epoch=len(loader), epochs=2, shuffle=False, verbose=0
    )
    assert len(history.history["loss"]) == 2
    assert np.isfinite(history.history["loss"]).all()

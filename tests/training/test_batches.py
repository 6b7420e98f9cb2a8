"""The loader as stock `fit` sees it."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from shortlist.data.dataset import Dataset
from shortlist.data.loader import Loader
from shortlist.training.batches import Batches
from toy import checkerboard

pytestmark = pytest.mark.backend

BATCH_SIZE = 32


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard(tmp_path_factory.getbasetemp())


@pytest.fixture
def loader(dataset: Dataset) -> Loader:
    return Loader(dataset, batch_size=BATCH_SIZE, history_length=3, seed=5)


def test_a_batch_is_that_of_the_loader(loader: Loader) -> None:
    batches = Batches(loader, with_label=True)
    assert len(batches) == len(loader) == 192 // BATCH_SIZE
    expected = loader.batch(loader.order(0), 2, 0)
    features, label = batches[2]
    np.testing.assert_array_equal(label, expected.pop("label"))
    assert features.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(features[name], values)
        assert features[name].dtype == values.dtype


def test_without_label_a_batch_is_the_features_alone(loader: Loader) -> None:
    (features,) = Batches(loader, with_label=False)[0]
    assert "label" not in features and "user_index" in features


def test_every_epoch_has_its_own_order_which_depends_on_the_seed_alone(
    loader: Loader, dataset: Dataset
) -> None:
    def order_of(batches: Batches) -> list[int]:
        return [i for n in range(len(batches)) for i in batches[n][0]["item_index"]]

    first = Batches(loader, with_label=False)
    again = Batches(
        Loader(dataset, batch_size=BATCH_SIZE, history_length=3, seed=5),
        with_label=False,
    )
    orders = []
    for _ in range(3):
        orders.append(order_of(first))
        assert order_of(again) == orders[-1]
        first.on_epoch_end()
        again.on_epoch_end()
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert sorted(orders[0]) == sorted(orders[1])


def test_without_reshuffling_all_epochs_are_alike(loader: Loader) -> None:
    batches = Batches(loader, with_label=True, reshuffle=False)
    before = batches[1]
    batches.on_epoch_end()
    np.testing.assert_array_equal(batches[1][1], before[1])
    np.testing.assert_array_equal(batches[1][0]["item_index"], before[0]["item_index"])


def test_stock_fit_asks_for_all_batches_of_each_epoch(
    loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[int, set[int]] = {}
    batch_of = loader.batch

    def spy(order: np.ndarray, index: int, epoch: int) -> dict[str, np.ndarray]:
        np.testing.assert_array_equal(order, loader.order(epoch))
        asked.setdefault(epoch, set()).add(index)
        return batch_of(order, index, epoch)

    monkeypatch.setattr(loader, "batch", spy)
    batches = Batches(loader, with_label=True)
    source = {
        name: keras.Input(v.shape[1:], name=name) for name, v in batches[0][0].items()
    }
    asked.clear()
    probability = keras.ops.expand_dims(source["sampling_probability"], 1)
    model = keras.Model(source, keras.layers.Dense(1)(probability))
    model.compile(loss="mse")
    history = model.fit(batches, epochs=3, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    # Keras looks at the first batches of an epoch once more before it begins.
    whole = [epoch for epoch, seen in asked.items() if seen == set(range(len(loader)))]
    assert len(whole) == 3

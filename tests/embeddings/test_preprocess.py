"""`preprocess` before a compiled step, as KerasRS documents it for JAX."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import keras_rs
import numpy as np
import pytest

from embeddings.matrix import BACKEND, refused, to_numpy
from shortlist.embeddings.ids.lookup_ids import Jagged
from shortlist.embeddings.layer import DistributedEmbedding

pytestmark = pytest.mark.backend

ROWS, DIM, BATCH, LENGTH = 12, 4, 6, 3
PLACEMENTS = ["default_device", "device"] if BACKEND == "jax" else ["default_device"]
LISTS = [[1, 2, 3], [4], [], [5, 5], [11], [0, 7]]
FACTORS = [[0.5, 1.0, 2.0], [3.0], [], [1.0, 0.25], [2.0], [1.5, 1.0]]


def make_layer(placement: str, shape: Any = (BATCH, LENGTH)) -> DistributedEmbedding:
    table = keras_rs.layers.TableConfig(
        "items", ROWS, DIM, combiner="sum", placement=placement, optimizer="adam"
    )
    kind = keras_rs.layers.FeatureConfig
    return DistributedEmbedding({"a": kind("a", table, shape, (BATCH, DIM))})


def forms() -> dict[str, tuple[Any, Any]]:
    """The same ragged ids and weights in what this backend's users have."""
    lengths = [len(row) for row in LISTS]
    ids = np.concatenate([np.array(row, np.int64) for row in LISTS])
    factors = np.concatenate([np.array(row) for row in FACTORS]).astype(np.float32)
    places = np.array([(r, c) for r, n in enumerate(lengths) for c in range(n)])
    offsets = np.cumsum([0, *lengths])
    found: dict[str, tuple[Any, Any]] = {
        "lists": (LISTS, FACTORS),
        "jagged": (Jagged(ids, offsets), factors),
    }
    import tensorflow as tf

    def ragged(values: Any) -> Any:
        return tf.RaggedTensor.from_row_lengths(values, lengths)

    def sparse(values: Any) -> Any:
        return tf.SparseTensor(places, values, (BATCH, LENGTH))

    found["ragged"] = ragged(ids), ragged(factors)
    found["sparse"] = sparse(ids), sparse(factors)
    return found


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("form", ["lists", "jagged", "ragged", "sparse"])
@pytest.mark.parametrize("weighted", [False, True])
def test_an_unbuilt_layer_prepares_what_a_compiled_call_takes(
    placement: str, form: str, weighted: bool
) -> None:
    layer = make_layer(placement)
    assert not layer.built
    ids, weights = forms()[form]
    prepared = layer.preprocess({"a": ids}, {"a": weights} if weighted else None)
    assert layer.built
    if BACKEND == "jax":
        import jax

        state = [v.value for v in layer.trainable_variables]
        fixed = [v.value for v in layer.non_trainable_variables]
        found, _ = jax.jit(layer.stateless_call)(state, fixed, prepared)
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        found = tf.function(layer)(prepared)
    else:
        found = layer(prepared)
    rows = layer.get_embedding_tables()["items"]
    expected = np.zeros((BATCH, DIM), np.float32)
    for at, row in enumerate(LISTS):
        for place, i in enumerate(row):
            expected[at] += rows[i] * (FACTORS[at][place] if weighted else 1)
    np.testing.assert_allclose(to_numpy(found["a"]), expected, 1e-5, 1e-6)


class Ranker(keras.Model):
    """The model of the tutorial: an embedding layer, then a tower."""

    def __init__(self, layer: DistributedEmbedding) -> None:
        super().__init__()
        self.embedding_layer = layer
        self.ratings = keras.layers.Dense(1)

    def call(self, features: Any) -> Any:
        return self.ratings(self.embedding_layer(features)["a"])


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("form", ["single", "ragged"])
def test_a_model_learns_from_preprocessed_batches(placement: str, form: str) -> None:
    """Every batch goes through `preprocess`, the first before anything is built."""
    shape = (BATCH,) if form == "single" else (BATCH, LENGTH)
    model = Ranker(make_layer(placement, shape))
    model.compile(keras.optimizers.Adagrad(0.5), "mse")
    ids = np.array([1, 4, 4, 5, 11, 0]) if form == "single" else LISTS
    labels = np.array([0, 1, 1, 0, 1, 0], np.float32).reshape(-1, 1)

    def batches() -> Iterator[Any]:
        while True:
            yield model.embedding_layer.preprocess({"a": ids}, training=True), labels

    first = model.evaluate(batches(), steps=1, verbose=0)
    before = model.embedding_layer.get_embedding_tables()["items"].copy()
    model.fit(batches(), steps_per_epoch=3, shuffle=False, verbose=0)
    after = model.embedding_layer.get_embedding_tables()["items"]
    assert model.evaluate(batches(), steps=1, verbose=0) < first
    touched = sorted({1, 4, 5, 11, 0} if form == "single" else set(sum(LISTS, [])))
    assert (np.abs(after - before).max(axis=1) > 0).nonzero()[0].tolist() == touched


def test_preprocess_refuses_before_anything_is_compiled() -> None:
    layer = make_layer("default_device")
    with refused("id-out-of-range", "Received: 4294967297 in feature 'a'"):
        layer.preprocess({"a": [[1], [2**32 + 1]]})
    with refused("invalid-ids", "Received: float64"):
        layer.preprocess({"a": [[1], [2.0]]})
    with refused("unknown-feature", "Did you mean 'a'?"):
        layer.preprocess({"aa": [[1]]})


def test_preprocessed_inputs_may_be_preprocessed_again() -> None:
    layer = make_layer("default_device")
    once = layer.preprocess({"a": LISTS}, {"a": FACTORS})
    again = layer.preprocess(once)
    np.testing.assert_array_equal(
        to_numpy(layer(once)["a"]), to_numpy(layer(again)["a"])
    )


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_functional_model_over_preprocessed_symbols(placement: str) -> None:
    layer = make_layer(placement, (None, LENGTH))
    ids = keras.Input((LENGTH,), dtype="int32", name="a")
    weights = keras.Input((LENGTH,), dtype="float32", name="w")
    inputs = layer.preprocess({"a": ids}, {"a": weights})
    model = keras.Model(inputs, layer(inputs)["a"])
    batch = layer.preprocess({"a": LISTS}, {"a": FACTORS})
    rows = layer.get_embedding_tables()["items"]
    found = model.predict(batch, verbose=0)
    np.testing.assert_allclose(found[0], [0.5, 1, 2] @ rows[[1, 2, 3]], 1e-5)

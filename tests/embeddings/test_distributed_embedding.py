"""The drop-in against the layer it stands in for, on the same tables."""

from __future__ import annotations

import json
from typing import Any

import keras
import keras_rs
import numpy as np
import pytest

from shortlist.embeddings.config import FeatureConfig, TableConfig
from shortlist.embeddings.ids.lookup_ids import Jagged
from shortlist.embeddings.layer import DistributedEmbedding
from suites import LayerSuite

pytestmark = pytest.mark.backend

BACKEND = keras.backend.backend()
ROWS, DIM, SIZE, LENGTH = 11, 4, 6, 3
RNG = np.random.default_rng(0)
IDS = RNG.integers(0, ROWS, (SIZE, LENGTH)).astype(np.int32)
SINGLE = RNG.integers(0, ROWS, SIZE).astype(np.int32)
WEIGHTS = RNG.uniform(0.5, 2, (SIZE, LENGTH)).astype(np.float32)
RAGGED = [[1, 4, 4], [2], [7, 0], [10], [3, 3, 9], [5, 6]]
COMBINERS = ["sum", "mean", "sqrtn"]


def config(
    kind: Any, name: str, table: Any, shape: tuple[int | None, ...] = (SIZE, LENGTH)
) -> Any:
    return kind(name, table, shape, (SIZE, DIM))


def configs(source: Any, combiner: str = "mean") -> Any:
    """A dict of a list of a tuple, two features of one table, of KerasRS or ours."""
    shared = source.TableConfig("shared", ROWS, DIM, combiner=combiner)
    alone = source.TableConfig("alone", ROWS, DIM, combiner=combiner)
    feature = source.FeatureConfig
    return {
        "user": config(feature, "user", shared, (SIZE,)),
        "lists": [
            (config(feature, "seen", shared), config(feature, "liked", alone)),
        ],
    }


class Ours:
    TableConfig = TableConfig
    FeatureConfig = FeatureConfig


INPUTS = {"user": SINGLE, "lists": [(IDS, IDS[::-1].copy())]}
ALL_WEIGHTS = {"user": WEIGHTS[:, 0].copy(), "lists": [(WEIGHTS, WEIGHTS * 2)]}


def pair(source: Any = keras_rs.layers, combiner: str = "mean") -> tuple[Any, Any]:
    """The original and ours with equal rows."""
    original = keras_rs.layers.DistributedEmbedding(configs(keras_rs.layers, combiner))
    original.build(keras.tree.map_structure(np.shape, INPUTS))
    ours = DistributedEmbedding(configs(source, combiner))
    tables = original.get_embedding_tables()
    ours.set_embedding_tables({name: to_numpy(rows) for name, rows in tables.items()})
    return original, ours


def to_numpy(value: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(value))


def to_tensors(structure: Any) -> Any:
    return keras.tree.map_structure(keras.ops.convert_to_tensor, structure)


def assert_equal(found: Any, expected: Any) -> None:
    keras.tree.assert_same_structure(found, expected)
    for a, b in zip(
        keras.tree.flatten(found), keras.tree.flatten(expected), strict=True
    ):
        assert keras.backend.standardize_dtype(a.dtype) == "float32"
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), 1e-5, 1e-6)


@pytest.mark.parametrize("combiner", COMBINERS)
@pytest.mark.parametrize("source", [keras_rs.layers, Ours])
def test_vectors_equal_the_original(source: Any, combiner: str) -> None:
    original, ours = pair(source, combiner)
    inputs, weights = to_tensors(INPUTS), to_tensors(ALL_WEIGHTS)
    assert_equal(ours(inputs), original(inputs))
    assert_equal(ours(inputs, weights), original(inputs, weights))
    assert_equal(ours(INPUTS), original(inputs))
    assert_equal(ours(INPUTS, ALL_WEIGHTS), original(inputs, weights))
    assert_equal(ours(ours.preprocess(INPUTS)), original(inputs))
    prepared = ours.preprocess(INPUTS, ALL_WEIGHTS)
    assert_equal(ours(prepared), original(inputs, weights))


def single_pair(combiner: str) -> tuple[Any, Any]:
    table = keras_rs.layers.TableConfig("t", ROWS, DIM, combiner=combiner)
    features = {"a": config(keras_rs.layers.FeatureConfig, "a", table)}
    original = keras_rs.layers.DistributedEmbedding(features)
    original.build({"a": (SIZE, LENGTH)})
    ours = DistributedEmbedding(features)
    ours.set_embedding_tables({"t": to_numpy(original.get_embedding_tables()["t"])})
    return original, ours


@pytest.mark.parametrize("combiner", COMBINERS)
def test_ragged_and_sparse_tensors(combiner: str) -> None:
    if BACKEND != "tensorflow":
        return
    import tensorflow as tf

    original, ours = single_pair(combiner)
    ids = tf.ragged.constant(RAGGED, dtype=tf.int32)
    weights = ids.with_values(tf.linspace(0.5, 2.0, ids.values.shape[0]))
    assert_equal(ours({"a": ids}), original({"a": ids}))
    assert_equal(ours({"a": ids}, {"a": weights}), original({"a": ids}, {"a": weights}))
    assert_equal(ours({"a": ids.to_sparse()}), ours({"a": ids}))
    assert_equal(
        ours({"a": ids.to_sparse()}, {"a": weights.to_sparse()}),
        ours({"a": ids}, {"a": weights}),
    )


@pytest.mark.parametrize("combiner", COMBINERS)
def test_bcoo(combiner: str) -> None:
    if BACKEND != "jax":
        return
    import jax.numpy as jnp
    from jax.experimental import sparse

    _, ours = single_pair(combiner)
    places = [(row, i) for row, ids in enumerate(RAGGED) for i in range(len(ids))]
    places.append((SIZE, LENGTH))  # how JAX pads
    values = jnp.array([*np.concatenate(RAGGED), 0], jnp.int32)
    ids = sparse.BCOO((values, jnp.array(places)), shape=(SIZE, LENGTH))
    dense = np.array([row + [-1] * (LENGTH - len(row)) for row in RAGGED], np.int32)
    assert_equal(ours({"a": ids}), ours({"a": dense}))


@pytest.mark.parametrize("combiner", COMBINERS)
def test_ragged_arrays_padding_and_jagged_are_one(combiner: str) -> None:
    _, ours = single_pair(combiner)
    rows = to_numpy(ours.get_embedding_tables()["t"])
    ragged = np.array([np.array(ids) for ids in [*RAGGED, []]], dtype=object)
    divide = {"sum": lambda n: 1, "mean": lambda n: n, "sqrtn": np.sqrt}[combiner]
    expected = [
        sum((rows[i] for i in ids), np.zeros(DIM)) / divide(max(1, len(ids)))
        for ids in [*RAGGED, []]
    ]
    dense = np.full((len(ragged), LENGTH), -1, np.int32)
    for row, ids in zip(dense, ragged):
        row[: len(ids)] = ids
    offsets = np.cumsum([0, *map(len, ragged)])
    jagged = Jagged(np.concatenate(RAGGED).astype(np.int32), offsets)
    assert_equal(ours(ours.preprocess({"a": ragged})), {"a": np.float32(expected)})
    for ids in (dense, dense.astype(np.int64), jagged):
        assert_equal(ours({"a": ids}), {"a": np.float32(expected)})
    empty = ours({"a": np.zeros((0, LENGTH), np.int32)})["a"]
    assert tuple(empty.shape) == (0, DIM)


def test_shapes_are_the_originals() -> None:
    original, ours = pair()
    shapes = keras.tree.map_structure(np.shape, INPUTS)
    assert ours.compute_output_shape(shapes) == original.compute_output_shape(shapes)


def test_a_functional_model() -> None:
    """Of any batch size, by symbols, and trained by stock fit."""
    table = TableConfig("t", ROWS, DIM, placement="host")
    layer = DistributedEmbedding({"a": FeatureConfig("a", table, (None, LENGTH))})
    ids = keras.Input((LENGTH,), dtype="int32", name="a")
    vectors = layer({"a": ids})["a"]
    assert vectors.shape == (None, DIM)
    model = keras.Model({"a": ids}, keras.layers.Dense(1)(vectors))
    model.compile(keras.optimizers.SGD(0.01), "mse")
    before = {k: v.copy() for k, v in layer.get_embedding_tables().items()}
    model.fit({"a": IDS}, np.ones((SIZE, 1)), batch_size=4, epochs=2, verbose=0)
    assert not np.array_equal(layer.get_embedding_tables()["t"], before["t"])
    assert model.predict({"a": IDS[:2]}, verbose=0).shape == (2, 1)


@pytest.mark.parametrize("source", [keras_rs.layers, Ours])
def test_configs_come_back(source: Any) -> None:
    layer = DistributedEmbedding(configs(source), loss_scale=1.0, threads=2)
    once = json.loads(json.dumps(layer.get_config()))
    again = DistributedEmbedding.from_config(once)
    assert json.loads(json.dumps(again.get_config())) == json.loads(
        json.dumps(DistributedEmbedding.from_config(once).get_config())
    )
    again.set_embedding_tables(layer.get_embedding_tables())
    tuples = {"user": SINGLE, "lists": [[*INPUTS["lists"][0]]]}  # JSON has no tuples
    found, expected = again(tuples), layer(INPUTS)
    assert_equal(keras.tree.flatten(found), keras.tree.flatten(expected))
    names = [name for name, _ in sorted(again.get_embedding_tables().items())]
    assert names == ["alone", "shared"]


def test_the_originals_config_makes_ours() -> None:
    original, _ = pair()
    ours = DistributedEmbedding.from_config(original.get_config())
    tables = original.get_embedding_tables()
    ours.set_embedding_tables({name: to_numpy(rows) for name, rows in tables.items()})
    assert_equal(ours(INPUTS), original(to_tensors(INPUTS)))


def test_tables_are_set_and_read() -> None:
    _, layer = pair()
    rows = np.arange(ROWS * DIM, dtype=np.float32).reshape(ROWS, DIM)
    layer.set_embedding_tables({"alone": rows})
    np.testing.assert_array_equal(layer.get_embedding_tables()["alone"], rows)
    assert sorted(layer.get_embedding_tables()) == ["alone", "shared"]


class TestDistributedEmbedding(LayerSuite):
    batch = {"user": SINGLE, "seen": IDS}

    @staticmethod
    def make() -> DistributedEmbedding:
        # Without a seed initializers draw anew, and a config holds no seed then.
        start = keras.initializers.RandomUniform(
            seed=int(keras.random.randint((), 0, 2**31 - 1))
        )
        table = TableConfig("shared", ROWS, DIM, initializer=start)
        return DistributedEmbedding(
            {
                "user": FeatureConfig("user", table, (None,)),
                "seen": FeatureConfig("seen", table, (None, None)),
            }
        )

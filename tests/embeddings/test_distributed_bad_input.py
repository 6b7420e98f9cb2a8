"""Every input that cannot be used is refused, and training goes on after it."""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np
import pytest

from embeddings.matrix import BACKEND, refused
from shortlist.embeddings.config import FeatureConfig, TableConfig
from shortlist.embeddings.layer import DistributedEmbedding
from shortlist.embeddings.optimizers import Adam
from shortlist.errors import InputError, ResourceError

pytestmark = pytest.mark.backend

ROWS, DIM, LENGTH = 9, 3, 2


def table(**options: Any) -> TableConfig:
    given = {"name": "items", "vocabulary_size": ROWS, "embedding_dim": DIM}
    return TableConfig(**{**given, "placement": "host", **options})


def make_layer(**options: Any) -> DistributedEmbedding:
    items = table(**options)
    return DistributedEmbedding(
        {
            "user": FeatureConfig("user", items, (None,)),
            "seen": FeatureConfig("seen", items, (None, LENGTH)),
        }
    )


def good() -> dict[str, np.ndarray]:
    return {
        "user": np.array([1, 8, 0, 3], np.int32),
        "seen": np.array([[1, 2], [4, -1], [-1, -1], [0, 0]], np.int32),
    }


class Model(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.layer = make_layer()
        self.head = keras.layers.Dense(1)

    def build(self, shapes: Any = None) -> None:
        if not self.built:
            self.layer.build()
            self.head.build((None, 2 * DIM))
        self.built = True

    def call(self, batch: Any) -> Any:
        return self.head(keras.ops.concatenate([*self.layer(batch).values()], -1))


def make_model() -> Any:
    model = Model()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


@pytest.fixture(scope="module")
def model() -> Any:
    """One model for all: what it refuses must not hurt what comes after."""
    made = make_model()
    fit(made, good())
    return made


def fit(model: Any, batch: Any) -> None:
    model.fit(
        batch, np.ones((4, 1), np.float32), batch_size=2, shuffle=False, verbose=0
    )
    model.layer.sync()


def check_trains(model: Any) -> None:
    before = model.layer.get_embedding_tables()["items"].copy()
    updates = model.layer.host_tables.num_updates
    fit(model, good())
    after = model.layer.get_embedding_tables()["items"]
    assert np.isfinite(after).all() and not np.array_equal(before, after)
    assert model.layer.host_tables.num_updates == updates + 2


@pytest.mark.parametrize("dtype", ["float32", "float64", "bool"])
def test_ids_that_are_no_integers(model: Any, dtype: str) -> None:
    batch = {**good(), "user": good()["user"].astype(dtype)}
    with refused("invalid-ids", "Ids must be integers"):
        model.layer(batch)
    check_trains(model)
    lost = make_model()  # Keras under JAX loses the weights when a trace raises
    with refused("invalid-ids", "for feature 'user'. Map values to rows"):
        fit(lost, batch)


@pytest.mark.parametrize("bad", [-2, -(2**31), ROWS, 2**31 - 1])
def test_ids_that_are_no_rows(model: Any, bad: int) -> None:
    batch = good()
    batch["seen"][3, 1] = bad
    words = f"Ids must lie between 0 and {ROWS - 1}, or be -1 for padding."
    with refused("id-out-of-range", words):
        model.layer.preprocess(batch)
    rows = model.layer.get_embedding_tables()["items"].copy()
    with refused("id-out-of-range", f"Received: {bad}"):
        model.layer(batch)
        model.layer.sync()
    np.testing.assert_array_equal(model.layer.get_embedding_tables()["items"], rows)
    with refused("id-out-of-range", f"Received: {bad} in feature 'seen'"):
        fit(model, batch)
    check_trains(model)
    with refused("id-out-of-range", f"Received: {bad} in feature 'seen'"):
        model.predict(batch, verbose=0)
        model.layer.sync()
    check_trains(model)


@pytest.mark.parametrize("bad", [2**31, 2**40, -(2**40)])
def test_ids_of_64_bits(model: Any, bad: int) -> None:
    batch = {**good(), "user": good()["user"].astype(np.int64)}
    fine = keras.ops.convert_to_numpy(model.layer(batch)["user"])
    batch["user"][1] = bad
    with refused("id-out-of-range", "Map ids through the vocabulary"):
        model.layer(batch)
    assert fine.shape == (4, DIM)
    check_trains(model)


def test_weights_of_another_shape(model: Any) -> None:
    weights = {"user": np.ones(4, np.float32), "seen": np.ones((4, 3), np.float32)}
    with refused("invalid-weights", "ids (4, 2), weights (4, 3) for feature 'seen'"):
        model.layer(good(), weights)
    with refused("unknown-feature", "missing ['user']"):
        model.layer(good(), {"seen": weights["seen"]})
    check_trains(model)


def test_weights_that_require_a_gradient(model: Any) -> None:
    weights = {
        "user": np.ones(4, np.float32),
        "seen": np.ones((4, LENGTH), np.float32),
    }
    if BACKEND == "torch":
        import torch

        given = {name: torch.from_numpy(v) for name, v in weights.items()}
        given["seen"].requires_grad_()
        with refused("weights-not-data", "Detach them"):
            model.layer(good(), given)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        layer = DistributedEmbedding(
            FeatureConfig("a", table(), (None, LENGTH)), loss_scale=1.0
        )
        given = tf.constant(weights["seen"])
        with tf.GradientTape() as tape:
            tape.watch(given)
            loss = tf.reduce_sum(layer(good()["seen"], given))
        with pytest.raises(LookupError, match="are data: no gradient flows"):
            tape.gradient(loss, given)
    if BACKEND == "jax":
        import jax

        def loss_of(seen: Any) -> Any:
            given = {"user": jax.numpy.ones(4), "seen": seen}
            return model.layer(good(), given)["seen"].sum()

        with refused("weights-not-data", "jax.lax.stop_gradient"):
            jax.grad(loss_of)(weights["seen"])
    check_trains(model)


def test_unknown_and_missing_features(model: Any) -> None:
    batch = good()
    renamed = {"user": batch["user"], "sen": batch["seen"]}
    with refused("unknown-feature", "Did you mean 'seen'?"):
        model.layer(renamed)
    with refused("unknown-feature", "(unknown [], missing ['seen'])"):
        model.layer({"user": batch["user"]})
    with refused("unknown-feature", "must have the features of the configuration"):
        model.layer([batch["user"], batch["seen"]])
    check_trains(model)


def test_a_sequence_of_another_length() -> None:
    feature = FeatureConfig("a", table(), (None,))
    layer = DistributedEmbedding([feature])
    with refused("unknown-feature", "must be a sequence of 1 features"):
        layer([np.zeros(2, np.int32)] * 2)


def make_error(**options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        make_layer(**options)
    return caught.value


@pytest.mark.parametrize(
    "options, words",
    [
        ({"vocabulary_size": 0}, "from 1 to 2147483647. Received: 0"),
        ({"vocabulary_size": 2**31}, "Received: 2147483648 for table 'items'"),
        ({"vocabulary_size": 2.5}, "must be a whole number"),
        ({"embedding_dim": 0}, "`embedding_dim` must be a whole number from 1 to 1024"),
        ({"embedding_dim": 5000}, "Received: 5000"),
        ({"combiner": "maen"}, "Did you mean 'mean'?"),
        ({"placement": "hots"}, "Did you mean 'host'?"),
        ({"row_type": "float64"}, "Received: 'float64' for table 'items'"),
        ({"name": ""}, "must have a name"),
        ({"learning_rate": -1.0}, "must be a finite number at least 0"),
        ({"learning_rate": float("nan")}, "`learning_rate`"),
        ({"clip": 0.0}, "must be a finite number above 0"),
        ({"l2": "much"}, "Received: 'much'"),
        ({"weight_decay": -0.1}, "`weight_decay`"),
    ],
)
def test_tables_that_cannot_be(options: dict[str, Any], words: str) -> None:
    error = make_error(**options)
    assert error.code == "invalid-table"
    assert words in str(error)


def test_placements_that_are_elsewhere() -> None:
    error = make_error(placement="sparsecore")
    assert error.code == "placement-unsupported"
    assert "Use keras_rs.layers.DistributedEmbedding" in str(error)
    if BACKEND != "jax":
        error = make_error(placement="device")
        assert error.code == "placement-unsupported"
        assert "needs the JAX backend" in str(error)
    else:
        error = make_error(placement="device", row_type="bfloat16")
        assert "Use placement='host'" in str(error)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda k: k.SGD(0.1, momentum=0.9), "SGD with momentum=0.9"),
        (lambda k: k.Adam(amsgrad=True), "Adam with amsgrad=True"),
        (lambda k: k.AdamW(), "weight_decay=0.004. Use TableConfig(weight_decay"),
        (lambda k: k.RMSprop(), "RMSprop"),
        (lambda k: k.Adam(beta_1=0.9999), "Pass shortlist.embeddings.Adam(catch_up="),
        (lambda k: k.Adam(clipnorm=1.0), "Use TableConfig(clip=...)"),
        (lambda k: k.Adam(global_clipnorm=1.0), "Use TableConfig(clip=...)"),
        (lambda k: k.Adam(clipvalue=1.0), "Use TableConfig(clip=...)"),
        (lambda k: k.Adam(weight_decay=0.1), "Use TableConfig(weight_decay=...)"),
        (lambda k: k.Adam(use_ema=True), "use_ema=True. Use a checkpoint"),
        (lambda k: k.Adam(loss_scale_factor=2.0), "Use the loss scaling of the model"),
        (lambda k: k.Adam(gradient_accumulation_steps=2), "which tables follow"),
        (lambda k: "adma", "Did you mean 'adam'?"),
    ],
)
def test_optimizers_that_tables_do_not_have(make: Any, words: str) -> None:
    error = make_error(optimizer=make(keras.optimizers))
    assert error.code == "optimizer-unsupported"
    assert words in str(error) and "'items'" in str(error)


def test_an_optimizer_of_tables_given_to_a_model() -> None:
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(Adam(), "mse")
    with refused("optimizer-unsupported", "Pass it to TableConfig"):
        model.fit(np.ones((2, 2)), np.ones((2, 1)), verbose=0)


def test_two_tables_of_one_name() -> None:
    one, other = table(), table(vocabulary_size=5)
    with refused("invalid-table", "give both features the same TableConfig object"):
        DistributedEmbedding(
            [FeatureConfig("a", one, (None,)), FeatureConfig("b", other, (None,))]
        )


def test_configurations_that_are_none() -> None:
    with refused("invalid-feature", "must be a nesting of FeatureConfig"):
        DistributedEmbedding({"a": table()})
    with refused("invalid-feature", "at least one feature"):
        DistributedEmbedding({})


def test_rows_of_another_shape(model: Any) -> None:
    rows = model.layer.get_embedding_tables()["items"].copy()
    with refused("invalid-table", "expected (9, 3)"):
        model.layer.set_embedding_tables({"items": np.zeros((ROWS, DIM + 1))})
    with refused("invalid-table", "tables of the layer, ['items']"):
        model.layer.set_embedding_tables({"itmes": np.zeros((ROWS, DIM))})
    np.testing.assert_array_equal(model.layer.get_embedding_tables()["items"], rows)
    check_trains(model)


def test_a_table_that_does_not_fit_is_refused_at_once() -> None:
    layer = make_layer(vocabulary_size=2**31 - 1, embedding_dim=1024)
    before = time.monotonic()
    with pytest.raises(ResourceError, match="does not fit in the free") as caught:
        layer.build()
    assert time.monotonic() - before < 1
    rows_bytes = (2**31 - 1) * 1024 * 4
    assert caught.value.code == "out-of-memory"
    assert f"rows 2147483647 x 1024 x 4 = {rows_bytes:,}" in str(caught.value)
    assert f"It needs {3 * rows_bytes + (2**31 - 1) * 4:,}" in str(caught.value)
    assert "Lower vocabulary_size" in str(caught.value)
    assert not layer.built

"""64-bit ids that Keras would truncate under JAX raise; no other row is read."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from shortlist.embeddings import DistributedEmbedding, FeatureConfig, TableConfig
from shortlist.embeddings.storage.saving import table_layers
from shortlist.errors import InputError

pytestmark = pytest.mark.backend
__test__ = keras.backend.backend() == "jax"  # the others have 64-bit integers

GOOD = np.arange(8) % 3  # int64
LABELS = np.zeros((8, 1), np.float32)
WIDE = {
    "above": GOOD + 2**32,
    "below": GOOD - 2**33,
    "first": GOOD + 2**31,
}


def make(placement: str = "host") -> keras.Model:
    """A model of two inputs, of which the layer looks up one."""
    table = TableConfig("users", 10, 2, placement=placement, optimizer="sgd")
    layer = DistributedEmbedding({"user": FeatureConfig("user", table)})
    inputs = {
        name: keras.Input((), dtype="int32", name=name) for name in ("user", "moment")
    }
    vectors = layer({"user": inputs["user"]})["user"]
    seconds = keras.ops.cast(inputs["moment"], "float32")[:, None]
    joined = keras.layers.Concatenate()([vectors, 0 * seconds])
    model = keras.Model(inputs, keras.layers.Dense(1)(joined))
    model.compile("sgd", "mse")
    return model


def call(model: keras.Model, name: str, user: Any, moment: Any = GOOD) -> Any:
    x = {"user": user, "moment": moment}
    quiet = {} if name.endswith("_on_batch") else {"verbose": 0}
    labels = () if name.startswith("predict") else (LABELS,)
    return getattr(model, name)(x, *labels, **quiet)


CALLS = ["fit", "evaluate", "predict", "train_on_batch", "predict_on_batch"]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("placement", ["host", "device"])
def test_a_trained_model_refuses_them_before_the_first_step(
    placement: str, name: str
) -> None:
    model = make(placement)
    call(model, "fit", GOOD)
    call(model, name, GOOD)
    weights = [np.array(one) for one in model.get_weights()]
    with pytest.raises(InputError, match=r"Received: 4294967296 in feature 'us") as e:
        call(model, name, WIDE["above"])
    assert e.value.code == "id-out-of-range"
    for found, before in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(found, before)
    call(model, name, GOOD)


@pytest.mark.parametrize("user", WIDE.values(), ids=WIDE)
def test_the_first_fit_raises_and_leaves_the_tables(user: np.ndarray) -> None:
    model = make()
    (layer,) = table_layers(model)
    before = layer.get_embedding_tables()["users"].copy()
    with pytest.raises(InputError, match=f"Received: {user[0]} in") as caught:
        call(model, "fit", user)
    assert caught.value.code == "id-out-of-range"
    np.testing.assert_array_equal(layer.get_embedding_tables()["users"], before)


@pytest.mark.parametrize("placement", ["host", "device"])
def test_the_first_prediction_raises_by_the_next_call(
    placement: str,
) -> None:
    model = make(placement)
    weights = [np.array(one) for one in model.get_weights()]
    with pytest.raises(InputError, match="Received: 4294967296 in"):
        call(model, "predict", WIDE["above"])
        call(model, "predict", GOOD)
    for found, before in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(found, before)
    call(model, "predict", GOOD[:5], moment=GOOD[:5])


def test_inputs_that_are_no_ids_of_the_layer_may_have_64_bits() -> None:
    model = make()
    for _ in range(2):
        call(model, "fit", GOOD, moment=GOOD + 2**40)
        call(model, "predict", GOOD, moment=GOOD + 2**40)


def test_ids_of_64_bits_in_the_table_are_looked_up() -> None:
    model = make()
    np.testing.assert_array_equal(
        call(model, "predict", GOOD), call(model, "predict", GOOD.astype(np.int32))
    )

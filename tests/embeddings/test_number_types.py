"""Models in number types other than float32, and the text of errors in graphs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest

from embeddings.matrix import BACKEND
from shortlist.embeddings.config import FeatureConfig, TableConfig
from shortlist.embeddings.layer import DistributedEmbedding

pytestmark = pytest.mark.backend

IDS = np.array([[1, 2], [3, 4]])


def make_model(placement: str = "host", **options: Any) -> Any:
    table = TableConfig(
        "items",
        9,
        3,
        placement=placement,
        initializer="ones",
        optimizer="sgd",
        learning_rate=0.5,
    )
    layer = DistributedEmbedding({"a": FeatureConfig("a", table, (None, 2))}, **options)
    ids = keras.Input((2,), dtype="int32", name="a")
    head = keras.layers.Dense(1, kernel_initializer="ones")
    model = keras.Model({"a": ids}, head(layer({"a": ids})["a"]))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model, layer


@pytest.fixture(params=["float64", "float16"])
def floatx(request: Any) -> Iterator[str]:
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(request.param)
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(policy)


# JAX has no 64 bits unless it is told so, and Keras asks for them.
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")
@pytest.mark.parametrize(
    "placement", ["host", "device"] if BACKEND == "jax" else ["host"]
)
def test_a_model_of_another_float_trains_its_tables(
    floatx: str, placement: str
) -> None:
    model, layer = make_model(placement)
    model.fit({"a": IDS}, np.ones((2, 1)), verbose=0)
    # The mean of two rows of ones, summed: 3. Each example moves its two rows by
    # 0.5 (rate) * 2 * (3 - 1) / 2 (mean of squares) / 2 (mean of rows).
    expected = np.ones((9, 3), np.float32)
    expected[1:5] -= 0.5
    np.testing.assert_allclose(
        layer.get_embedding_tables()["items"], expected, rtol=1e-3
    )
    found = layer({"a": IDS})["a"]
    wanted = "float32" if (BACKEND, floatx) == ("jax", "float64") else floatx
    assert keras.backend.standardize_dtype(found.dtype) == wanted


@pytest.mark.parametrize("step", ["fit", "evaluate", "predict"])
def test_an_error_in_a_graph_is_short_and_has_its_code(step: str) -> None:
    if BACKEND != "tensorflow":
        return
    model, _ = make_model()
    bad = {"a": np.array([[1, 44], [2, 3]])}
    call = getattr(model, step)
    arguments = (bad,) if step == "predict" else (bad, np.ones((2, 1)))
    with pytest.raises(Exception) as caught:
        call(*arguments, verbose=0)
    text = str(caught.value)
    assert "Received: 44 in feature 'a' for table 'items'" in text
    assert "(code 'id-out-of-range')" in text
    assert len(text) < 1200 and "defined at" not in text


def test_an_error_of_a_backward_pass_is_short_too() -> None:
    if BACKEND != "tensorflow":
        return
    import tensorflow as tf

    model, layer = make_model()

    @tf.function
    def step() -> Any:
        with tf.GradientTape() as tape:  # without the terms of the layers
            loss = tf.reduce_sum(model({"a": tf.constant(IDS, tf.int32)}))
        return tape.gradient(loss, layer.handle.value)

    with pytest.raises(Exception) as caught:
        step()
    assert "(code 'loss-term-missing')" in str(caught.value)
    assert len(str(caught.value)) < 1400 and "defined at" not in str(caught.value)

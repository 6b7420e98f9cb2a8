"""Training, evaluation and prediction finish on one processor."""

from __future__ import annotations

import os
import subprocess
import sys

import keras
import pytest

pytestmark = [pytest.mark.backend, pytest.mark.slow]

# The processor is chosen before a backend starts its threads. Batches of this size are
# copied by the runtime's own thread, of which there is one.
TRAINING = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import keras
import numpy as np
from shortlist.embeddings import DistributedEmbedding, FeatureConfig, TableConfig

placement, batch, rows = sys.argv[1], 8192, 20_000
features = {
    name: FeatureConfig(
        name, TableConfig(name, rows, 64, optimizer="adagrad", placement=placement)
    )
    for name in ("user", "item")
}
inputs = {name: keras.Input((), dtype="int32", name=name) for name in features}
vectors = DistributedEmbedding(features)(inputs)
hidden = keras.layers.Concatenate()(list(vectors.values()))
hidden = keras.layers.Dense(128, activation="relu")(hidden)
model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
model.compile("adam", "mse")
generator = np.random.default_rng(0)
ids = {name: generator.integers(rows, size=batch * 12) for name in features}
ids = {name: values.astype("int32") for name, values in ids.items()}
labels = (ids["user"] % 2).astype("float32")[:, None]
history = model.fit(ids, labels, batch_size=batch, epochs=2, verbose=0)
losses = history.history["loss"]
assert losses[1] < losses[0], losses
model.evaluate(ids, labels, batch_size=batch, verbose=0)
scores = model.predict(ids, batch_size=batch, verbose=0)
for _ in range(10):
    again = model.predict_on_batch(ids)  # larger than what the runtime copies at once
    np.testing.assert_allclose(again, scores, rtol=1e-5, atol=1e-5)
"""


PLACEMENTS = ["host", "device"] if keras.backend.backend() == "jax" else ["host"]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_fit_evaluate_and_predict_end(placement: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TRAINING, placement],
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr

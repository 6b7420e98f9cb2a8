"""One wide-and-deep model in stock fit on JAX, fed in one of four ways. Loads Keras."""

from __future__ import annotations

import time
from typing import Any

import keras

from data_claims.load import BUFFERS
from embedding_claims.flow import compiled, table_shapes
from shortlist.data import ArrowRows, Loader
from shortlist.training.batches.keras_batches import Batches, generate


class Feed:
    """A model and one way of feeding it.

    Args:
        way: `pydataset` and `generator` read Arrow files, `example` and `batched`
            TFRecord files of that layout.
        cardinality: rows of each of the 40 tables.
    """

    def __init__(self, way: str, cardinality: int) -> None:
        keras.utils.set_random_seed(0)
        self.way = way
        self.model = compiled("ours", table_shapes(cardinality))

    def open(self, files: list[str], batch: int, steps: int, shuffled: bool) -> None:
        """Takes `files` of `steps` whole batches, mixed or in the files' order."""
        self.timed: TimedBatches | None = None
        self.options: dict[str, Any] = {"verbose": 0, "shuffle": False}
        self.examples = batch * steps
        if self.way in BUFFERS:
            buffer = BUFFERS[self.way] if shuffled else 0
            self.data = _tf_data(self.way, files, steps, batch=batch, buffer=buffer)
            return
        shuffle = "windowed" if shuffled else "none"
        loader = Loader(ArrowRows(files), batch_size=batch, shuffle=shuffle)
        if self.way == "generator":
            self.data = generate(loader, with_label=True)
            self.options["steps_per_epoch"] = steps
        else:
            self.data = self.timed = TimedBatches(loader, with_label=True)

    def fit(self, epochs: int) -> dict[str, Any]:
        """Trains on; the first call also compiles.

        Returns: the mean loss of each epoch, samples per second, and with `pydataset`
            the share of the time that `fit` waited for its batches.
        """
        waited = self.timed.waited if self.timed else 0.0
        began = time.perf_counter()
        history = self.model.fit(self.data, epochs=epochs, **self.options).history
        seconds = time.perf_counter() - began
        found = {"losses": history["loss"], "rate": epochs * self.examples / seconds}
        if self.timed:
            found["waited"] = (self.timed.waited - waited) / seconds
        return found


class TimedBatches(Batches):
    """Counts the seconds that `fit` stands still for its next batch.

    Stock `fit` asks in its own thread as long as `workers` is 1.
    """

    waited = 0.0

    def __getitem__(self, index: int) -> Any:
        began = time.perf_counter()
        batch = super().__getitem__(index)
        self.waited += time.perf_counter() - began
        return batch


def _tf_data(way: str, files: list[str], steps: int, **options: int) -> Any:
    import tensorflow as tf

    from data_claims import tf_data

    def labelled(columns: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        return columns, columns.pop("label")

    # Else Keras warns of an early end of data, and would not see a real one.
    counted = tf.data.experimental.assert_cardinality(steps)
    batches = tf_data.LAYOUTS[way](files, **options)
    return batches.map(labelled).apply(counted).prefetch(tf_data.AUTOTUNE)

"""The rivals: tf.data over TFRecord files, tuned by itself. Loads TensorFlow."""

from __future__ import annotations

import time
from typing import Any

import tensorflow as tf

from data_claims.rows import FLOATS, WIDTHS, digest

AUTOTUNE = tf.data.AUTOTUNE


def per_example(files: list[str], *, batch: int, buffer: int) -> tf.data.Dataset:
    """A record per row: shuffled in a buffer, batched, then parsed batch by batch."""
    spec = {
        name: tf.io.FixedLenFeature([] if width == 1 else [width], _type(name))
        for name, width in WIDTHS.items()
    }
    return (
        _records(files, buffer)
        .batch(batch, drop_remainder=True)
        .map(lambda records: tf.io.parse_example(records, spec), AUTOTUNE)
        .prefetch(AUTOTUNE)
    )


def batched(files: list[str], *, batch: int, buffer: int) -> tf.data.Dataset:
    """A record per batch: whole batches shuffled, parsed and reshaped."""
    spec = {
        name: tf.io.FixedLenFeature([batch * width], _type(name))
        for name, width in WIDTHS.items()
    }

    def parse(record: tf.Tensor) -> dict[str, tf.Tensor]:
        columns = tf.io.parse_single_example(record, spec)
        return {
            name: values
            if WIDTHS[name] == 1
            else tf.reshape(values, (batch, WIDTHS[name]))
            for name, values in columns.items()
        }

    return _records(files, buffer).map(parse, AUTOTUNE).prefetch(AUTOTUNE)


LAYOUTS = {"example": per_example, "batched": batched}


class Rival:
    """Epochs of a layout of TFRecord files.

    Args:
        layout: key of `LAYOUTS`.
        files: the files.
        batch: rows of a batch.
        buffer: records that are shuffled together; 0 keeps the order of the files.
    """

    def __init__(self, layout: str, files: list[str], batch: int, buffer: int) -> None:
        self.batches = LAYOUTS[layout](files, batch=batch, buffer=buffer)

    def rate(self) -> float:
        """Rows per second of an epoch; every batch exists as tensors."""
        began, rows = time.perf_counter(), 0
        for batch in self.batches:
            rows += len(batch["label"])
        return rows / (time.perf_counter() - began)

    def digests(self) -> list[int]:
        """`digest` of each batch of an epoch."""
        return [digest(batch) for batch in self.batches.as_numpy_iterator()]


def _records(files: list[str], buffer: int) -> tf.data.Dataset:
    if not buffer:
        return tf.data.TFRecordDataset(files)
    records = tf.data.TFRecordDataset(files, num_parallel_reads=AUTOTUNE)
    return records.shuffle(buffer)


def _type(name: str) -> Any:
    return tf.float32 if name in FLOATS else tf.int64

"""TFRecord against TensorFlow itself: both read what the other wrote."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from shortlist.data import read_tfrecord, write_tfrecord
from shortlist.data.read.tfrecord.encoding import encode_example

IS_TENSORFLOW = os.environ["KERAS_BACKEND"] == "tensorflow"
pytestmark = pytest.mark.backend
if IS_TENSORFLOW:
    import tensorflow as tf
else:
    __test__ = False  # nothing here is asked of other backends

ROWS = 50


def table() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((ROWS, 3)).astype(np.float32)
    return pl.DataFrame(
        {
            "label": rng.random(ROWS, np.float32),
            "name": [f"é{row}" for row in range(ROWS)],
            "user": rng.integers(-(2**63), 2**63 - 1, ROWS),
            "vector": pl.Series(vectors).cast(pl.List(pl.Float32)),
        }
    )


def example(row: dict[str, Any]) -> Any:
    features = {
        "label": tf.train.Feature(float_list=tf.train.FloatList(value=row["label"])),
        "name": tf.train.Feature(bytes_list=tf.train.BytesList(value=row["name"])),
        "user": tf.train.Feature(int64_list=tf.train.Int64List(value=row["user"])),
        "vector": tf.train.Feature(float_list=tf.train.FloatList(value=row["vector"])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features))


def columns_of(part: pl.DataFrame) -> dict[str, list[Any]]:
    return {
        "label": part["label"].to_list(),
        "name": [name.encode() for name in part["name"]],
        "user": part["user"].to_list(),
        "vector": part["vector"].explode().to_list(),
    }


def test_an_example_has_the_bytes_of_tensorflow() -> None:
    columns = columns_of(table())
    ours = encode_example(
        {
            "label": np.array(columns["label"], np.float32),
            "name": columns["name"],
            "user": np.array(columns["user"]),
            "vector": np.array(columns["vector"], np.float32),
        }
    )
    assert ours == example(columns).SerializeToString(deterministic=True)


@pytest.mark.parametrize("packing", ["", "GZIP", "ZLIB"])
@pytest.mark.parametrize("rows_per_record", [1, 16])
def test_what_tensorflow_writes_is_read(
    tmp_path: Path, rows_per_record: int, packing: str
) -> None:
    path, expected = tmp_path / "log.tfrecord", table()
    with tf.io.TFRecordWriter(str(path), packing) as writer:
        for part in expected.iter_slices(rows_per_record):
            writer.write(example(columns_of(part)).SerializeToString())
    assert read_tfrecord(path).equals(expected)


@pytest.mark.parametrize("rows_per_record", [1, 16])
def test_tensorflow_reads_what_is_written(tmp_path: Path, rows_per_record: int) -> None:
    path, expected = tmp_path / "log.tfrecord", table()
    write_tfrecord(path, expected, rows_per_record=rows_per_record)
    spec = {
        name: tf.io.FixedLenSequenceFeature([], kind, allow_missing=True)
        for name, kind in (
            ("label", tf.float32),
            ("name", tf.string),
            ("user", tf.int64),
            ("vector", tf.float32),
        )
    }
    found: dict[str, list[Any]] = {name: [] for name in spec}
    for record in tf.data.TFRecordDataset(str(path)):
        for name, values in tf.io.parse_single_example(record, spec).items():
            found[name] += values.numpy().tolist()
    assert found == columns_of(expected)

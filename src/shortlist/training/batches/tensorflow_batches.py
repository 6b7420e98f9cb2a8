"""The loader as a `tf.data.Dataset`."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from shortlist.data.load.loader import Loader
from shortlist.training.batches.keras_batches import as_keras, generate


def to_tf_dataset(
    loader: Loader,
    *,
    with_label: bool = True,
    with_weight: bool = True,
    epochs: int | None = None,
) -> tf.data.Dataset:
    """A dataset of the tuples of `generate`, as tensors of known types and shapes.

    Each iteration starts at the position of the loader. The batch size is part of the
    shapes if all batches have the same size.

    Args:
        loader: where the batches come from.
        with_label: see `as_keras`.
        with_weight: see `as_keras`.
        epochs: how many an iteration goes through; without end by default, for
            `fit(..., steps_per_epoch=len(loader))`.
    """
    first, last = (loader.batch(0, index) for index in (0, len(loader) - 1))
    specs = {name: _spec(name, first[name], last[name]) for name in first}
    signature = as_keras(specs, with_label=with_label, with_weight=with_weight)

    def batches() -> Any:
        return generate(
            loader, with_label=with_label, with_weight=with_weight, epochs=epochs
        )

    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    if epochs is not None:
        return dataset
    endless = tf.data.experimental.INFINITE_CARDINALITY
    return dataset.apply(tf.data.experimental.assert_cardinality(endless))


def _spec(name: str, first: np.ndarray, last: np.ndarray) -> tf.TensorSpec:
    """What two batches have in common; lengths in which they differ are left open."""
    sizes = zip(first.shape, last.shape, strict=True)
    shape = [one if one == other else None for one, other in sizes]
    return tf.TensorSpec(shape, first.dtype, name=name)

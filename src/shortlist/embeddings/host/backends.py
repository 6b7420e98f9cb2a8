"""Lookups in host tables under whichever backend Keras uses.

Knows the backends' adapters; knows nothing of configurations or weights of a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from shortlist.embeddings.host.host_tables import HostTables
from shortlist.embeddings.ids.lookup_ids import Ids
from shortlist.embeddings.plan import Feature
from shortlist.embeddings.table import Bags
from shortlist.errors import InputError, ShortlistError


@dataclass
class Seen:
    """Handles of the calls that JAX differentiated last; hidden from Keras."""

    handles: list[Any] = field(default_factory=list)


def lookup(
    host: HostTables,
    handle: Any,
    features: Sequence[Feature],
    ids: Sequence[Ids],
    rates: Callable[[Any], Sequence[Any]] | Sequence[float],
    seen: Seen,
    *,
    adds_loss: bool,
    loss_scale: float = 1.0,
) -> tuple[list[Any], Any]:
    """The vectors of all features, and the scalar zero whose gradient is the scale.

    Args:
        host: the tables.
        handle: value of the handle weight.
        features: the features looked up.
        ids: their ids.
        rates: learning rates of the tables, or a function that gives them at the
            0-based number of an update.
        seen: of this layer.
        adds_loss: whether the scalar goes into the losses of the model.
        loss_scale: factor of the loss, where the scalar does not go there.

    Returns: float32 `(num_bags, dim)` for each feature, and float32 `()`.

    Raises:
        InputError: `strategy-unsupported`.
        ShortlistError: `rematerialization-unsupported` and what the tables raise.
    """
    check_one_replica()
    arrays: list[Any] = []
    layout: list[dict[str, Any]] = []
    for feature, one in zip(features, ids, strict=True):
        places = {}
        for key in ("values", "offsets", "weights"):
            array = getattr(one, key)
            if array is not None:
                places[key] = len(arrays)
                arrays.append(array)
        combiner = feature.config.table.combiner
        layout.append({"table": feature.table, "combiner": combiner, **places})
    num_bags = [
        one.values.shape[0] if one.offsets is None else one.leading[0] for one in ids
    ]
    dims = [feature.dim for feature in features]
    common = (host, handle, arrays, _Pack(layout))
    fixed = None if adds_loss else float(loss_scale)
    backend = keras.backend.backend()
    if backend == "jax":
        from shortlist.embeddings.host import jax_backend

        if adds_loss and jax_backend.in_inner_trace(handle):
            raise ShortlistError(
                "rematerialization-unsupported",
                "A DistributedEmbedding must be called outside functions that JAX"
                " traces on their own: keras.remat, jax.checkpoint, a nested jax.jit."
                " Received a call inside one. Move the layer out of it: its vectors are"
                " kept, never recomputed.",
            )
        return jax_backend.lookup(*common, rates, fixed, num_bags, dims, seen.handles)
    at_step = rates if callable(rates) else lambda _: rates
    if backend == "tensorflow":
        from shortlist.embeddings.host import tensorflow_backend

        return tensorflow_backend.lookup(*common, at_step, fixed, num_bags, dims)
    from shortlist.embeddings.host import torch_backend

    looked_up: tuple[list[Any], Any] = torch_backend.lookup(
        *common, at_step, fixed, dims
    )
    return looked_up


class _Pack:
    """Turns the concrete arrays of a call back into bags."""

    def __init__(self, layout: Sequence[Mapping[str, Any]]) -> None:
        self.layout = layout

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[Bags]:
        bags = []
        for one in self.layout:
            offsets = arrays[one["offsets"]] if "offsets" in one else None
            if offsets is not None:
                offsets = np.ascontiguousarray(offsets, np.int64)
            bags.append(
                Bags(
                    table=one["table"],
                    ids=np.ascontiguousarray(arrays[one["values"]]),
                    offsets=offsets,
                    weights=arrays[one["weights"]] if "weights" in one else None,
                    combiner=one["combiner"],
                )
            )
        return bags


def is_concrete(value: Any) -> bool:
    """Whether `value` is a number and not a symbol of a traced function."""
    backend = keras.backend.backend()
    if isinstance(value, (int, float, np.ndarray, np.generic)) or backend == "torch":
        return True
    if backend == "jax":
        from shortlist.embeddings.host import jax_backend

        return jax_backend.is_concrete(value)
    from shortlist.embeddings.host import tensorflow_backend

    return tensorflow_backend.is_concrete(value)


def is_readable(value: Any) -> bool:
    """Whether the value of a weight is a number that can be read here and now."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return bool(tf.executing_eagerly())
    return is_concrete(value)


def is_exporting() -> bool:
    """Whether a backend is making a graph of the model, without Keras."""
    if keras.backend.backend() != "torch":
        return False
    from shortlist.embeddings.host import torch_backend

    return torch_backend.is_exporting()


def to_number(value: Any) -> np.ndarray:
    """A scalar tensor as float32."""
    return np.asarray(ops.convert_to_numpy(value), np.float32)


def check_one_replica() -> None:
    """Raises `InputError` under a strategy of more than one replica."""
    replicas = 1
    backend = keras.backend.backend()
    distribution = keras.distribution.distribution()
    if distribution is not None:
        replicas = int(np.prod(distribution.device_mesh.shape))
    if backend == "tensorflow":
        import tensorflow as tf

        replicas = max(replicas, tf.distribute.get_strategy().num_replicas_in_sync)
    if backend == "torch":
        import torch

        if torch.distributed.is_available() and torch.distributed.is_initialized():
            replicas = max(replicas, torch.distributed.get_world_size())
    if replicas > 1:
        raise InputError(
            "strategy-unsupported",
            "The tables of a DistributedEmbedding are trained by one process on one"
            f" device. Received a distribution over {replicas} replicas: each would"
            " move its own tables. Train without it.",
        )

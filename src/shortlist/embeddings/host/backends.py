"""Lookups in host tables under whichever backend Keras uses.

Knows the backends' adapters; knows nothing of configurations or weights of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from shortlist.embeddings.host.host_tables import HostTables
from shortlist.embeddings.host.lookup_call import BagPlaces, LookupCall, Rates
from shortlist.embeddings.ids.lookup_ids import Ids
from shortlist.embeddings.plan import PlannedFeature
from shortlist.errors import InputError, ShortlistError


@dataclass
class Seen:
    """Handles of the calls that JAX differentiated last; hidden from Keras."""

    handles: list[Any] = field(default_factory=list)


def prepared(
    host: HostTables,
    features: Sequence[PlannedFeature],
    ids: Sequence[Ids],
    rates: Rates,
    loss_scale: float | None,
) -> tuple[LookupCall, list[Any]]:
    """A call that looks up `ids`, and the tensors that it passes through the graph.

    Args:
        host: the tables.
        features: the features looked up.
        ids: their ids.
        rates: learning rates of the tables, or a function that gives them at the
            0-based number of an update.
        loss_scale: factor of the loss; `None` if the scalar zero goes into the loss.
    """
    arrays: list[Any] = []

    def place(array: Any) -> int | None:
        if array is None:
            return None
        arrays.append(array)
        return len(arrays) - 1

    places = []
    for feature, one in zip(features, ids, strict=True):
        is_dense = one.offsets is None
        places.append(
            BagPlaces(
                table=feature.table,
                combiner=feature.config.table.combiner,
                dim=feature.dim,
                num_bags=one.values.shape[0] if is_dense else one.leading[0],
                values=place(one.values) or 0,
                offsets=place(one.offsets),
                weights=place(one.weights),
            )
        )
    return LookupCall(host, tuple(places), rates, loss_scale), arrays


def lookup(
    call: LookupCall, handle: Any, arrays: Sequence[Any], seen: Seen
) -> tuple[list[Any], Any]:
    """The vectors of all features, and the scalar zero whose gradient is the scale.

    Args:
        call: what is looked up.
        handle: value of the handle weight.
        arrays: the tensors of the call.
        seen: of this layer.

    Returns: float32 `(num_bags, dim)` for each feature, and float32 `()`.

    Raises:
        InputError: `strategy-unsupported`.
        ShortlistError: `rematerialization-unsupported` and what the tables raise.
    """
    check_one_replica()
    backend = keras.backend.backend()
    if backend == "jax":
        from shortlist.embeddings.host import jax_backend

        if call.loss_scale is None and jax_backend.in_inner_trace(handle):
            raise ShortlistError(
                "rematerialization-unsupported",
                "A DistributedEmbedding must be called outside functions that JAX"
                " traces on their own: keras.remat, jax.checkpoint, a nested jax.jit."
                " Received a call inside one. Move the layer out of it: its vectors are"
                " kept, never recomputed.",
            )
        return jax_backend.lookup(call, handle, arrays, seen.handles)
    if backend == "tensorflow":
        from shortlist.embeddings.host import tensorflow_backend

        return tensorflow_backend.lookup(call, handle, arrays)
    from shortlist.embeddings.host import torch_backend

    looked_up: tuple[list[Any], Any] = torch_backend.lookup(call, handle, arrays)
    return looked_up


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

"""Host tables under TensorFlow: `numpy_function` in a `custom_gradient`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from shortlist.embeddings.host import HostTables
from shortlist.embeddings.table import Bags
from shortlist.errors import ShortlistError


def lookup(
    host: HostTables,
    handle: Any,
    arrays: Sequence[Any],
    pack: Callable[[Sequence[Any]], list[Bags]],
    rates: Callable[[Any], Sequence[Any]],
    loss_scale: float | None,
    num_bags: Sequence[int | None],
    dims: Sequence[int],
) -> tuple[list[Any], Any]:
    """The vectors of all features and the scalar zero; see `host_jax.lookup`."""
    arrays = [
        tf.raw_ops.PreventGradient(input=array, message=_WEIGHTS_ARE_DATA)
        if array.dtype.is_floating
        else array
        for array in arrays
    ]

    # They take part so that a gradient that reaches them meets PreventGradient.
    weights = [array for array in arrays if array.dtype.is_floating]

    @_named
    def read(handle: np.ndarray, *arrays: np.ndarray) -> list[Any]:
        vectors = host.lookup(handle, pack(arrays))
        return [*vectors, np.int32(host.step)]

    @_named
    def write(handle: np.ndarray, scale: Any, rates: Any, *rest: Any) -> np.ndarray:
        gradients, arrays = rest[: len(dims)], rest[len(dims) :]
        scale = float(scale) if loss_scale is None else loss_scale
        next_handle = host.append(handle, pack(arrays), gradients, scale, rates)
        return np.asarray(next_handle, np.float32)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def differentiable(handle: Any, *weights: Any) -> Any:
        types = [tf.float32] * len(dims) + [tf.int32]
        *vectors, step = tf.numpy_function(read, [handle, *arrays], types)
        for vector, n, dim in zip(vectors, num_bags, dims, strict=True):
            vector.set_shape((n, dim))
        step.set_shape(())
        next_rates = tf.stack(list(rates(step)))

        def gradient(*cotangents: Any) -> Any:
            *gradients, scale = cotangents
            gradients = [tf.convert_to_tensor(one) for one in gradients]
            arguments = [handle, scale, next_rates, *gradients, *arrays]
            # Not stateful: TensorFlow also builds gradients that nobody asked for, as
            # those of a frozen layer, and a graph drops a stateless op without a user.
            next_handle = tf.numpy_function(
                write, arguments, tf.float32, stateful=False
            )
            next_handle.set_shape(())
            return next_handle, *(tf.zeros_like(one) for one in weights)

        return (*vectors, tf.zeros(())), gradient

    *vectors, zero = differentiable(tf.convert_to_tensor(handle), *weights)
    return vectors, zero


def _named(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call` with the code of an error in its text: TensorFlow keeps no more."""

    def wrapped(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except ShortlistError as error:
            raise RuntimeError(f"{error} (code {error.code!r})") from None

    return wrapped


_WEIGHTS_ARE_DATA = (
    "The weights of a DistributedEmbedding are data: no gradient flows to them."
)


def is_concrete(value: Any) -> bool:
    """Whether `value` is a number and not a symbol of a traced function."""
    return not (tf.is_tensor(value) and tf.is_symbolic_tensor(value))

"""Host tables under TensorFlow: `numpy_function` in a `custom_gradient`.

An error in a graph reaches the caller as an error of TensorFlow that holds its text and
code. TensorFlow would add the stack of where the operation was made, thousands of
characters, but for operations with names that it does not take apart (`_NAMES`).
Outside graphs errors stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from shortlist.embeddings.host.host_tables import HostTables
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
    """The vectors of all features and the scalar zero; see `jax_backend.lookup`."""
    arrays = [
        tf.raw_ops.PreventGradient(input=array, message=_WEIGHTS_ARE_DATA)
        if array.dtype.is_floating
        else array
        for array in arrays
    ]

    # They take part so that a gradient that reaches them meets PreventGradient.
    weights = [array for array in arrays if array.dtype.is_floating]

    def read(handle: np.ndarray, *arrays: np.ndarray) -> list[Any]:
        vectors = host.lookup(handle, pack(arrays))
        return [*vectors, np.int32(host.step)]

    def write(handle: np.ndarray, scale: Any, rates: Any, *rest: Any) -> np.ndarray:
        gradients, arrays = rest[: len(dims)], rest[len(dims) :]
        scale = float(scale) if loss_scale is None else loss_scale
        next_handle = host.append(handle, pack(arrays), gradients, scale, rates)
        return np.asarray(next_handle, np.float32)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def differentiable(handle: Any, *weights: Any) -> Any:
        types = [tf.float32] * len(dims) + [tf.int32]
        if tf.executing_eagerly():
            *vectors, step = _at_once(read, [handle, *arrays], types)
        else:
            *vectors, step = tf.numpy_function(
                _named(read), [handle, *arrays], types, name=_NAMES["lookup"]
            )
        for vector, n, dim in zip(vectors, num_bags, dims, strict=True):
            vector.set_shape((n, dim))
        step.set_shape(())
        next_rates = tf.stack(list(rates(step)))

        def gradient(*cotangents: Any) -> Any:
            *gradients, scale = cotangents
            gradients = [tf.convert_to_tensor(one) for one in gradients]
            arguments = [handle, scale, next_rates, *gradients, *arrays]
            if tf.executing_eagerly():
                (next_handle,) = _at_once(write, arguments, [tf.float32])
                return next_handle, *(tf.zeros_like(one) for one in weights)
            # Not stateful: TensorFlow also builds gradients that nobody asked for, as
            # those of a frozen layer, and a graph drops a stateless op without a user.
            next_handle = tf.numpy_function(
                _named(write),
                arguments,
                tf.float32,
                stateful=False,
                name=_NAMES["update"],
            )
            next_handle.set_shape(())
            return next_handle, *(tf.zeros_like(one) for one in weights)

        return (*vectors, tf.zeros(())), gradient

    *vectors, zero = differentiable(tf.convert_to_tensor(handle), *weights)
    return vectors, zero


# TensorFlow looks for the origin of operations whose names are letters, digits and -_./
_NAMES = {key: f"shortlist>{key}" for key in ("lookup", "update")}


def _at_once(call: Callable[..., Any], arguments: Any, types: Sequence[Any]) -> Any:
    """What `numpy_function` gives outside a graph, but for errors: they pass."""
    found = call(*(np.asarray(one) for one in arguments))
    found = found if isinstance(found, list) else [found]
    return [tf.constant(one, kind) for one, kind in zip(found, types, strict=True)]


def _named(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call` with the code of an error in its text: TensorFlow keeps no more."""

    def wrapped(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except ShortlistError as error:
            raise EmbeddingError(f"{error} (code {error.code!r})") from None

    return wrapped


class EmbeddingError(RuntimeError):
    """Prints its text once: TensorFlow would repeat it below a traceback of its own."""

    def __str__(self) -> str:
        text, self.args = super().__str__(), ("see above",)
        return text


_WEIGHTS_ARE_DATA = (
    "The weights of a DistributedEmbedding are data: no gradient flows to them."
)


def is_concrete(value: Any) -> bool:
    """Whether `value` is a number and not a symbol of a traced function."""
    return not (tf.is_tensor(value) and tf.is_symbolic_tensor(value))

"""Host tables under TensorFlow: `numpy_function` in a `custom_gradient`.

An error in a graph reaches the caller as an error of TensorFlow with its text and code.
TensorFlow would add the stack of where the operation was created, thousands of
characters, unless the operation has a name that it does not parse (`_NAMES`). Outside
graphs errors are unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from shortlist.embeddings.host.lookup_call import LookupCall
from shortlist.errors import ShortlistError


def lookup(
    call: LookupCall, handle: Any, arrays: Sequence[Any]
) -> tuple[list[Any], Any]:
    """The vectors of all features and the scalar zero; see `jax_backend.lookup`."""
    arrays = [
        tf.raw_ops.PreventGradient(input=array, message=_WEIGHTS_ARE_DATA)
        if array.dtype.is_floating
        else array
        for array in arrays
    ]
    # They are arguments so that a gradient that reaches them meets PreventGradient.
    weights = [array for array in arrays if array.dtype.is_floating]

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def differentiable(handle: Any, *weights: Any) -> Any:
        vectors, step = _read(call, handle, arrays)
        rates = tf.stack(list(call.rates_at(step)))

        def gradient(*cotangents: Any) -> Any:
            *gradients, scale = cotangents
            gradients = [tf.convert_to_tensor(one) for one in gradients]
            arguments = [handle, scale, rates, *gradients, *arrays]
            next_handle = _write(call, arguments)
            return next_handle, *(tf.zeros_like(one) for one in weights)

        return (*vectors, tf.zeros(())), gradient

    *vectors, zero = differentiable(tf.convert_to_tensor(handle), *weights)
    return vectors, zero


def _read(
    call: LookupCall, handle: Any, arrays: Sequence[Any]
) -> tuple[list[Any], Any]:
    """The vectors of all features, and the number of updates so far."""

    def read(handle: np.ndarray, *arrays: np.ndarray) -> list[Any]:
        vectors = call.host.lookup(handle, call.bags(arrays))
        return [*vectors, np.int32(call.host.step)]

    types = [tf.float32] * len(call.places) + [tf.int32]
    if tf.executing_eagerly():
        *vectors, step = _at_once(read, [handle, *arrays], types)
    else:
        *vectors, step = tf.numpy_function(
            _named(read), [handle, *arrays], types, name=_NAMES["lookup"]
        )
    for vector, one in zip(vectors, call.places, strict=True):
        vector.set_shape((one.num_bags, one.dim))
    step.set_shape(())
    return vectors, step


def _write(call: LookupCall, arguments: Sequence[Any]) -> Any:
    """The next handle, from handle, scale, rates, gradients and arrays."""

    def write(handle: np.ndarray, scale: Any, rates: Any, *rest: Any) -> np.ndarray:
        gradients, arrays = rest[: len(call.places)], rest[len(call.places) :]
        next_handle = call.append(handle, call.bags(arrays), gradients, scale, rates)
        return np.asarray(next_handle, np.float32)

    if tf.executing_eagerly():
        (next_handle,) = _at_once(write, arguments, [tf.float32])
        return next_handle
    # Not stateful: TensorFlow also builds gradients that nobody asked for, as those of
    # a frozen layer, and a graph drops a stateless op without a user.
    next_handle = tf.numpy_function(
        _named(write), arguments, tf.float32, stateful=False, name=_NAMES["update"]
    )
    next_handle.set_shape(())
    return next_handle


# TensorFlow looks for the origin of operations whose names are letters, digits and -_./
_NAMES = {key: f"shortlist>{key}" for key in ("lookup", "update")}


def _at_once(call: Callable[..., Any], arguments: Any, types: Sequence[Any]) -> Any:
    """The result of `numpy_function` outside a graph, with errors unchanged."""
    found = call(*(np.asarray(one) for one in arguments))
    found = found if isinstance(found, list) else [found]
    return [tf.constant(one, kind) for one, kind in zip(found, types, strict=True)]


def _named(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call` with the code of an error in its text: TensorFlow keeps only the text."""

    def wrapped(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except ShortlistError as error:
            raise EmbeddingError(f"{error} (code {error.code!r})") from None

    return wrapped


class EmbeddingError(RuntimeError):
    """Prints its text once: TensorFlow would repeat it below its own traceback."""

    def __str__(self) -> str:
        text, self.args = super().__str__(), ("see above",)
        return text


_WEIGHTS_ARE_DATA = (
    "The weights of a DistributedEmbedding are data: no gradient flows to them."
)


def is_concrete(value: Any) -> bool:
    """Whether `value` is a number and not a symbol of a traced function."""
    return not (tf.is_tensor(value) and tf.is_symbolic_tensor(value))

"""Host tables under JAX: calls of the core in a `custom_vjp`.

The lookup only reads: for one handle it returns the same however often it runs. The
backward pass appends, which is a side effect. An exception inside a call would lose the
donated state of the step, so errors are kept as the fault of the tables and raised when
Python runs again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from shortlist.embeddings.host import jax_calls
from shortlist.embeddings.host.lookup_call import LookupCall
from shortlist.errors import InputError, ShortlistError


def lookup(
    call: LookupCall, handle: Any, arrays: Sequence[Any], seen: list[Any]
) -> tuple[list[Any], Any]:
    """The vectors `(num_bags, dim)` of all features, and the scalar zero for the loss.

    Args:
        call: what is looked up.
        handle: value of the handle weight.
        arrays: ids, offsets and weights of the call.
        seen: handles of the calls differentiated so far; a repeat is refused.
    """
    shapes = [((one.num_bags, one.dim), np.float32) for one in call.places]
    # Every array that passes costs about 20 us, so constant rates and their step do
    # not.
    scheduled = callable(call.rates)
    answer = [*shapes, ((), np.int32)] if scheduled else shapes
    read, write = _reader(call), _writer(call, len(arrays))

    def forward(handle: Any, arrays: Sequence[Any]) -> tuple[list[Any], Any, Any]:
        found = jax_calls.call(read, answer, handle, *arrays)
        return found[: len(shapes)], jnp.zeros((), jnp.float32), found[len(shapes) :]

    @jax.custom_vjp
    def differentiable(handle: Any, arrays: Sequence[Any]) -> tuple[list[Any], Any]:
        vectors, zero, _ = forward(handle, arrays)
        return vectors, zero

    def fwd(handle: Any, arrays: Sequence[Any]) -> Any:
        _refuse_weights_with_gradient(arrays)
        handle, arrays = handle.value, [array.value for array in arrays]
        _refuse_repeat(handle, seen)
        seen[:] = [handle]
        vectors, zero, step = forward(handle, arrays)
        at_step = jnp.stack(call.rates_at(*step)) if scheduled else None
        return (vectors, zero), (handle, arrays, at_step)

    def bwd(residuals: Any, cotangents: Any) -> Any:
        handle, arrays, at_step = residuals
        gradients, scale = jax.tree.map(_materialized, cotangents, is_leaf=_is_zero)
        (next_handle,) = jax_calls.call(
            write,
            [((), np.float32)],
            handle,
            scale,
            *arrays,
            *gradients,
            *([] if at_step is None else [at_step]),
            has_side_effect=True,
        )
        return next_handle, [_no_gradient(array) for array in arrays]

    differentiable.defvjp(fwd, bwd, symbolic_zeros=True)
    return differentiable(handle, list(arrays))


def _reader(call: LookupCall) -> jax_calls.NumpyFunction:
    """What a step calls to look up: vectors, and with scheduled rates the step."""
    host, scheduled = call.host, callable(call.rates)

    def read(handle: np.ndarray, *arrays: np.ndarray) -> list[Any]:
        bags = call.bags(arrays)
        try:
            vectors = host.lookup(handle, bags)
        except Exception as error:
            host.set_fault(error)
            vectors = host.zeros(bags)
        return [*vectors, np.int32(host.step)] if scheduled else vectors

    return read


def _writer(call: LookupCall, num_arrays: int) -> jax_calls.NumpyFunction:
    """What a step calls to hand in gradients: the next handle."""
    num_passed = num_arrays + len(call.places)
    constant = [] if callable(call.rates) else list(call.rates)

    def write(handle: np.ndarray, scale: np.ndarray, *rest: np.ndarray) -> list[Any]:
        ids, gradients = rest[:num_arrays], rest[num_arrays:num_passed]
        at_step = rest[num_passed:]
        rates = at_step[0].tolist() if at_step else constant
        try:
            return [call.append(handle, call.bags(ids), gradients, scale, rates)]
        except Exception as error:
            call.host.set_fault(error)
            return [np.asarray(handle)]

    return write


def _refuse_weights_with_gradient(arrays: Sequence[Any]) -> None:
    if any(array.perturbed for array in arrays):
        raise InputError(
            "weights-not-data",
            "The weights of a DistributedEmbedding are data: no gradient flows to"
            " them. Received weights that require one. Pass them through"
            " jax.lax.stop_gradient.",
        )


def _refuse_repeat(handle: Any, seen: list[Any]) -> None:
    if any(handle is other for other in seen):
        raise ShortlistError(
            "called-twice",
            "A model must call its DistributedEmbedding once in a training step,"
            " for all features. Received a second call in one step. Call the layer"
            " once and share what it returns.",
        )


def _is_zero(cotangent: Any) -> bool:
    return isinstance(cotangent, SymbolicZero)


def _materialized(cotangent: Any) -> Any:
    if _is_zero(cotangent):
        return jnp.zeros(cotangent.shape, cotangent.dtype)
    return cotangent


def _no_gradient(array: Any) -> Any:
    if jnp.issubdtype(array.dtype, jnp.floating):
        return jnp.zeros_like(array)
    return np.zeros(array.shape, jax.dtypes.float0)


def is_concrete(value: Any) -> bool:
    """Whether `value` is a number and not a symbol of a traced function."""
    return not isinstance(value, jax.core.Tracer)


def in_inner_trace(handle: Any) -> bool:
    """Whether a function inside the differentiated one is being traced on its own.

    There a layer cannot add its term to the loss. Reads names that JAX keeps private;
    without them the answer is no and JAX raises its own error later.
    """
    trace = getattr(handle, "_trace", None)
    try:
        from jax._src.core import trace_ctx
    except ImportError:
        return False
    current = trace_ctx.trace
    # A frozen handle belongs to the function around the differentiated one.
    is_function = type(current).__name__ == "DynamicJaxprTrace"
    return trace is not None and is_function and trace is not current

"""Calls of Python functions from compiled JAX steps, with NumPy arrays.

`jax.pure_callback` and `jax.experimental.io_callback` hand the function JAX arrays. To
read one, the callback thread waits for the runtime to copy it, and on one processor the
only thread of the runtime is waiting for the callback: the step never ends. The
primitive here hands over views of the step's own buffers, so nothing waits and nothing
is copied. Knows nothing of tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import mlir

# Takes NumPy arrays that are valid until it returns.
NumpyFunction = Callable[..., Sequence[np.ndarray]]


def call(
    function: NumpyFunction,
    results: Sequence[tuple[tuple[int | None, ...], Any]],
    *arguments: Any,
    has_side_effect: bool = False,
) -> list[Any]:
    """Calls a function of NumPy arrays when the step reaches this place.

    Args:
        function: gets the values of `arguments` as read-only NumPy arrays that are
            valid until it returns. It must not raise: an exception would lose the
            donated state of the step.
        results: shape and dtype of each array that it returns.
        *arguments: arrays of the step.
        has_side_effect: if true, the call runs exactly once. Else the compiler may
            repeat it, merge equal ones, or leave it out when no result is used.

    Returns: the arrays.
    """
    found: list[Any] = _call_p.bind(  # type: ignore[no-untyped-call]
        *arguments,
        function=function,
        results=tuple((tuple(shape), np.dtype(dtype)) for shape, dtype in results),
        has_side_effect=has_side_effect,
    )
    return found


_call_p = Primitive("shortlist_numpy_call")
_call_p.multiple_results = True


@_call_p.def_impl  # type: ignore[untyped-decorator]
def _call_now(
    *arguments: Any, function: NumpyFunction, results: Any, has_side_effect: bool
) -> list[Any]:
    """Outside of compiled steps."""
    return [jnp.asarray(one) for one in function(*map(np.asarray, arguments))]


@_call_p.def_abstract_eval  # type: ignore[untyped-decorator]
def _shapes(
    *arguments: Any, function: NumpyFunction, results: Any, has_side_effect: bool
) -> list[ShapedArray]:
    return [ShapedArray(shape, dtype) for shape, dtype in results]


def _lower(
    ctx: Any,
    *operands: Any,
    function: NumpyFunction,
    results: Any,
    has_side_effect: bool,
) -> Any:
    outputs, _, _ = mlir.emit_python_callback(
        ctx,
        lambda *arguments: tuple(function(*arguments)),
        None,
        list(operands),
        ctx.avals_in,
        ctx.avals_out,
        has_side_effect=has_side_effect,
        returns_token=False,
    )
    return outputs


mlir.register_lowering(_call_p, _lower, cacheable=False)

"""The weight of a layer with the handle of its host tables, and its writers.

Knows Keras variables and host tables; knows nothing of lookups.
"""

from __future__ import annotations

import inspect
from typing import Any

import keras

from shortlist.embeddings import callers
from shortlist.embeddings.host import backends
from shortlist.embeddings.host.host_tables import HostTables
from shortlist.errors import InputError, ShortlistError


class HandleGuard:
    """Checks every handle that Keras writes into the weight.

    Keras writes it from a compiled step (a symbol, passed on), after an epoch, when
    weights are set and when they are loaded.

    Args:
        variable: the weight; its `assign` is replaced by the guard's.
        host: the tables.

    Attributes:
        raise_next: whether a fault is to be raised when Keras reads the weights.
    """

    def __init__(self, variable: Any, host: HostTables) -> None:
        self._variable = variable
        self._host = host
        self.raise_next = False
        self.put = variable.assign
        variable.assign = self.assign

    def assign(self, value: Any) -> Any:
        """Writes a handle.

        Raises:
            InputError: `average-unsupported`.
            ShortlistError: what `HostTables.check` raises.
        """
        frame = inspect.currentframe()
        _refuse_average(frame)
        if not backends.is_concrete(value):
            return self.put(value)
        writer = callers.writer(frame)
        try:
            self._host.check(backends.to_number(value), writer)
        except ShortlistError as error:
            if keras.backend.backend() != "jax" or not callers.in_state_sync(frame):
                raise
            # Keras is writing all weights after an epoch: let it finish first.
            self._host.set_fault(error)
            value = self._host.handle
        self._rewind(value)
        self.raise_next = self._host.has_fault
        return self.put(value)

    def _rewind(self, value: Any) -> None:
        """Drops the gradients of steps that the new handle undoes."""
        held = self._variable._value
        if held is None or not backends.is_concrete(held):
            return
        if getattr(held, "is_deleted", bool)():  # given away to a JAX step
            return
        number = backends.to_number(value)
        if number < backends.to_number(held):
            self._host.rewind(number)


def refuse_swap(variable: Any) -> None:
    """Makes a weight that Keras does not average refuse to be swapped.

    Args:
        variable: a weight that is overwritten with its gradient.
    """
    put = variable.assign

    def assign(value: Any) -> Any:
        if value is None:
            _refuse_average(inspect.currentframe())
        return put(value)

    variable.assign = assign


def _refuse_average(frame: Any) -> None:
    """Raises if the writer of a handle keeps averages of the weights.

    Keras leaves weights that are overwritten with gradients out of its averages, and
    then fails on the gap: under TensorFlow always, under JAX where averages replace the
    weights during training, and in the callback that swaps them for the weights.

    Raises:
        InputError: `average-unsupported`.
    """
    if callers.writer(frame) == callers.SWAP:
        raise InputError(
            "average-unsupported",
            "The callback SwapEMAWeights swaps averages for the weights, and tables"
            " have none. Received it for a model with a DistributedEmbedding. Remove"
            " it, and keep the best epoch with shortlist.embeddings.TableCheckpoint.",
        )
    optimizer = None if frame is None else frame.f_back.f_locals.get("self")
    if not isinstance(optimizer, keras.optimizers.Optimizer) or not optimizer.use_ema:
        return
    backend = keras.backend.backend()
    replaced = optimizer.ema_overwrite_frequency
    if backend == "tensorflow" or (backend == "jax" and replaced):
        raise InputError(
            "average-unsupported",
            "Keras cannot average the weights of a model with tables on the host:"
            " under TensorFlow not at all, under JAX not with ema_overwrite_frequency."
            f" Received use_ema=True, ema_overwrite_frequency={replaced} under"
            f" {backend}. Leave them out, and keep the best epoch with"
            " shortlist.embeddings.TableCheckpoint.",
        )

"""Tables in the `state_dict` of PyTorch.

A `state_dict` holds references to weights. Tables are copied into it, so it is only
whole while the weights are of the same step: loading it tells by the handle.

Knows layers and PyTorch; what a layer stores is in `layer_state`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from shortlist.embeddings import host_calls, layer_state
from shortlist.errors import ArtifactError, ShortlistError

_HANDLE = "handle_of_the_weights"


class _Waiting:
    """Tables that were checked and wait for the weights beside them."""

    def __init__(self) -> None:
        self.loaded: layer_state.Loaded | None = None
        self.handle: np.ndarray | None = None


def hold(layer: Any) -> None:
    """Makes a built layer take over tables once its weights are loaded."""
    layer._torch_waiting = _Waiting()
    layer.register_load_state_dict_post_hook(_take)


def get(layer: Any) -> dict[str, Any]:
    """Copies of the tables and their optimizers' state, as tensors by name."""
    if not layer.built:
        return {}
    layer.sync()
    store: dict[str, Any] = {}
    layer_state.save(layer, store, None)
    store[_HANDLE] = host_calls.to_number(layer.handle.value)
    return {name: torch.tensor(np.asarray(array)) for name, array in store.items()}


def put(layer: Any, state: dict[str, Any]) -> None:
    """Checks what `get` gave against the layer.

    Raises:
        ArtifactError: `checkpoint-unreadable` or `checkpoint-mismatch`.
    """
    if not layer.built:
        layer.build()
    store = {name: tensor.cpu().numpy() for name, tensor in state.items()}
    waiting = layer._torch_waiting
    waiting.handle = store.pop(_HANDLE, None)
    waiting.loaded = layer_state.load(layer, store, None)


def _take(layer: Any, _: Any) -> None:
    """Takes over the tables that wait; without any, checks the handle that came."""
    waiting = layer._torch_waiting
    loaded, handle = waiting.loaded, waiting.handle
    waiting.loaded = waiting.handle = None
    now = host_calls.to_number(layer.handle.value)
    if loaded is None:
        try:
            layer._host.check(now, "load_state_dict()")
        except ShortlistError:
            layer._guard.put(layer._host.handle_of(layer._host.applied))
            raise
        return
    with loaded:
        if handle is None or now != handle:
            layer._guard.put(layer._host.handle_of(layer._host.applied))
            raise ArtifactError(
                "checkpoint-mismatch",
                "The tables of a state_dict must be of the step of its weights."
                " Received weights of another step: a state_dict refers to weights,"
                " which have been trained on. Keep copy.deepcopy(model.state_dict())."
                " The tables have not changed.",
            )
        loaded.commit()

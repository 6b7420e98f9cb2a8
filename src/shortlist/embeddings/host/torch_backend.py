"""Host tables under PyTorch: an `autograd.Function`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from shortlist.embeddings.host.lookup_call import LookupCall
from shortlist.errors import InputError


class _Lookup(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, handle: Any, call: LookupCall, bags: Any) -> Any:
        vectors = call.host.lookup(_numpy(handle), bags)
        ctx.handle, ctx.call, ctx.bags, ctx.device = handle, call, bags, handle.device
        ctx.rates = [float(rate) for rate in call.rates_at(call.host.step)]
        zero = torch.zeros((), device=handle.device)
        return (
            *(torch.from_numpy(vector).to(handle.device) for vector in vectors),
            zero,
        )

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        *gradients, scale = (one.detach().cpu() for one in cotangents)
        next_handle = ctx.call.append(
            _numpy(ctx.handle),
            ctx.bags,
            [np.ascontiguousarray(one.numpy()) for one in gradients],
            scale,
            ctx.rates,
        )
        return torch.tensor(next_handle, device=ctx.device), None, None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def lookup(
    call: LookupCall, handle: Any, arrays: Sequence[Any]
) -> tuple[list[Any], Any]:
    """The vectors of all features and the scalar zero; see `jax_backend.lookup`."""
    if any(array.requires_grad for array in arrays):
        raise InputError(
            "weights-not-data",
            "The weights of a DistributedEmbedding are data: no gradient flows to them."
            " Received weights that require one. Detach them.",
        )
    if any(array.is_meta for array in arrays):  # Keras asks for shapes only
        bags = call.bags([np.zeros(array.shape, np.int32) for array in arrays])
        sizes = [
            (one.num_bags, place.dim)
            for one, place in zip(bags, call.places, strict=True)
        ]
        vectors = [torch.empty(size, device="meta") for size in sizes]
        return vectors, torch.empty((), device="meta")
    bags = call.bags([_numpy(array) for array in arrays])
    found = _Lookup.apply(handle, call, bags)
    return list(found[:-1]), found[-1]


def _numpy(tensor: Any) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().cpu().numpy())


def is_exporting() -> bool:
    """Whether PyTorch is making a graph of the model to be used elsewhere."""
    return bool(torch.jit.is_tracing() or torch.compiler.is_exporting())


def is_concrete(value: Any) -> bool:
    """Whether `value` is a number; PyTorch has no symbols here."""
    return True

"""Host tables under PyTorch: an `autograd.Function`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from shortlist.embeddings.host.host_tables import HostTables
from shortlist.embeddings.table import Bags
from shortlist.errors import InputError


class _Lookup(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, handle: Any, host: HostTables, bags: Any, rates: Any, scale: Any
    ) -> Any:
        vectors = host.lookup(_numpy(handle), bags)
        ctx.handle, ctx.host, ctx.bags, ctx.device = handle, host, bags, handle.device
        ctx.loss_scale = scale
        ctx.rates = [float(rate) for rate in rates(host.step)]
        zero = torch.zeros((), device=handle.device)
        return (
            *(torch.from_numpy(vector).to(handle.device) for vector in vectors),
            zero,
        )

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        *gradients, scale = (one.detach().cpu() for one in cotangents)
        next_handle = ctx.host.append(
            _numpy(ctx.handle),
            ctx.bags,
            [np.ascontiguousarray(one.numpy()) for one in gradients],
            float(scale) if ctx.loss_scale is None else ctx.loss_scale,
            ctx.rates,
        )
        return torch.tensor(next_handle, device=ctx.device), None, None, None, None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def lookup(
    host: HostTables,
    handle: Any,
    arrays: Sequence[Any],
    pack: Callable[[Sequence[Any]], list[Bags]],
    rates: Callable[[Any], Sequence[Any]],
    loss_scale: float | None,
    dims: Sequence[int],
) -> tuple[list[Any], Any]:
    """The vectors of all features and the scalar zero; see `jax_backend.lookup`."""
    if any(array.requires_grad for array in arrays):
        raise InputError(
            "weights-not-data",
            "The weights of a DistributedEmbedding are data: no gradient flows to them."
            " Received weights that require one. Detach them.",
        )
    if any(array.is_meta for array in arrays):  # Keras asks for shapes only
        shapes = pack([np.zeros(array.shape, np.int32) for array in arrays])
        sizes = [(bags.num_bags, dim) for bags, dim in zip(shapes, dims, strict=True)]
        vectors = [torch.empty(size, device="meta") for size in sizes]
        return vectors, torch.empty((), device="meta")
    bags = pack([_numpy(array) for array in arrays])
    found = _Lookup.apply(handle, host, bags, rates, loss_scale)
    return list(found[:-1]), found[-1]


def _numpy(tensor: Any) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().cpu().numpy())


def is_exporting() -> bool:
    """Whether PyTorch is making a graph of the model to be used elsewhere."""
    return bool(torch.jit.is_tracing() or torch.compiler.is_exporting())


def is_concrete(value: Any) -> bool:
    """Whether `value` is a number; PyTorch has no symbols here."""
    return True

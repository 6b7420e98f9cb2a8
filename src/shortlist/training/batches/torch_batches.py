"""The loader as a PyTorch `IterableDataset`."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import IterableDataset, get_worker_info

from shortlist.data.load.loader import Loader

TensorBatch = dict[str, torch.Tensor]


def to_torch(loader: Loader) -> TorchBatches:
    """A dataset of the batches of a loader, for `DataLoader(..., batch_size=None)`.

    See `TorchBatches`.
    """
    return TorchBatches(loader)


class TorchBatches(IterableDataset):  # type: ignore[misc]
    """Batches as dicts of tensors, one epoch per iteration, in the loader's order.

    With `num_workers` of the `DataLoader` above 0 the batches are dealt to the workers
    in turn, on top of the shard of the loader; they come back in order. The first
    iteration starts at the position of the loader; `set_epoch` chooses another epoch,
    and without it every iteration is the same. The loader itself does not move.

    Args:
        loader: where the batches come from.
    """

    def __init__(self, loader: Loader) -> None:
        super().__init__()
        self.loader = loader
        state = loader.state()
        # Shared, so that workers that live on hear of another epoch.
        self._begin = torch.tensor([state["epoch"], state["batch"]]).share_memory_()

    def __len__(self) -> int:
        """Batches per epoch of the loader."""
        return len(self.loader)

    def set_epoch(self, number: int, batch: int = 0) -> None:
        """Makes the next iterations go through epoch `number` from `batch` on.

        As for `torch.utils.data.DistributedSampler`, call it before each iteration of
        the `DataLoader`.
        """
        self._begin.copy_(torch.tensor([number, batch]))

    def __iter__(self) -> Iterator[TensorBatch]:
        """The batches of the epoch, or of a worker's share of it."""
        epoch, first = self._begin.tolist()
        worker = get_worker_info()
        index, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
        indices = range(first + index, len(self.loader), count)
        for batch in self.loader.batches(epoch, indices):
            yield {name: torch.from_numpy(values) for name, values in batch.items()}

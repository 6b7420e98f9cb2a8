"""The loader as Keras wants it."""

from __future__ import annotations

from typing import Any

import keras

from shortlist.data.loader import Loader


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Feeds a `Loader` to stock `fit` under any backend.

    Args:
        loader: where the batches come from.
        with_label: whether a batch is `(x, label)`; otherwise `(x,)`, for models
            whose loss needs no label.
        reshuffle: whether every epoch has its own order; evaluation keeps one.
    """

    def __init__(
        self, loader: Loader, *, with_label: bool, reshuffle: bool = True
    ) -> None:
        super().__init__()
        self.loader = loader
        self.with_label = with_label
        self.reshuffle = reshuffle
        self.epoch = 0
        self.order = loader.order(0)

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.loader)

    def __getitem__(self, index: int) -> Any:
        """One batch of the current epoch."""
        batch = self.loader.batch(self.order, index, self.epoch)
        label = batch.pop("label")
        return (batch, label) if self.with_label else (batch,)

    def on_epoch_end(self) -> None:
        """Moves on to the order of the next epoch."""
        if self.reshuffle:
            self.epoch += 1
            self.order = self.loader.order(self.epoch)

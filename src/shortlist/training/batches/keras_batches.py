"""The loader as a Keras `PyDataset` or a Python generator."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Generator, Iterator
from typing import Any

import keras

from shortlist.data.load.examples import LABEL, WEIGHT, Batch
from shortlist.data.load.loader import Loader
from shortlist.embeddings.host.host_tables import SpanHook, no_span


def as_keras(
    batch: Batch, *, with_label: bool = True, with_weight: bool = True
) -> tuple[Any, ...]:
    """Splits a batch into `(x,)`, `(x, y)` or `(x, y, sample_weight)`.

    Args:
        batch: of a loader; not changed.
        with_label: include the label. It is always included with weights, which Keras
            takes only together with a label.
        with_weight: include `sample_weight`, if the batch has it.
    """
    features = {k: v for k, v in batch.items() if k not in (LABEL, WEIGHT)}
    if with_weight and WEIGHT in batch:
        return features, batch[LABEL], batch[WEIGHT]
    return (features, batch[LABEL]) if with_label else (features,)


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Feeds a `Loader` to stock `fit` and `evaluate` under any backend.

    Pass `shuffle=False` to `fit`; otherwise Keras reorders the batches of every epoch.
    Batches requested in order are prefetched; any other batch is made on request. An
    epoch of `fit` is a whole epoch of the loader, starting with its current one. An
    epoch of a single batch looks like Keras's first look at a model and may be skipped.

    For `steps_per_epoch`, use `generate`.

    Args:
        loader: where the batches come from.
        with_label: see `as_keras`; False for models whose loss needs no label.
        with_weight: see `as_keras`.
        reshuffle: use another order and other negatives in each epoch; without, those
            of epoch 0, as in evaluation.
    """

    def __init__(
        self,
        loader: Loader,
        *,
        with_label: bool = True,
        with_weight: bool = True,
        reshuffle: bool = True,
    ) -> None:
        super().__init__()
        self.loader = loader
        self.with_label = with_label
        self.with_weight = with_weight
        self.reshuffle = reshuffle
        self.epoch = loader.state()["epoch"] if reshuffle else 0
        self.watch: SpanHook = no_span
        self._lock = threading.Lock()
        self._ahead: Iterator[Batch] = iter(())
        self._next = 0
        self._is_begun = self._is_whole = self._is_held = False
        self._first = 0

    def __len__(self) -> int:
        """Batches of the current epoch from the position of `seek`."""
        return len(self.loader) - self._first

    def seek(self, epoch: int, batch: int = 0, *, held: bool = False) -> None:
        """Sets the next epoch of `fit` to `epoch`, from `batch` on.

        Args:
            epoch: from 0.
            batch: its first batch; later epochs are whole.
            held: stay there until the next call. Keras requests a batch before it
                trains a model.
        """
        with self._lock:
            self.epoch, self._first = epoch, batch
            self._forget()
            self._is_begun, self._is_held = False, held
            self.loader.seek(epoch * len(self.loader) + batch)

    def close(self) -> None:
        """Ends the prefetching threads, also within an epoch.

        TensorFlow keeps a reference to its input, and so to those threads.
        """
        with self._lock:
            self._forget()

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """One batch of the current epoch; see `as_keras`."""
        if not 0 <= index < len(self):
            raise IndexError(f"no batch {index} in an epoch of {len(self)}")
        with self.watch("data"):
            return self.convert(self._made(index))

    def convert(self, batch: Batch) -> tuple[Any, ...]:
        """A batch of the loader as Keras takes it; see `as_keras`."""
        return as_keras(batch, with_label=self.with_label, with_weight=self.with_weight)

    def on_epoch_begin(self) -> None:
        """Called by Keras before an epoch."""
        self._is_begun, self._is_whole = True, False

    def on_epoch_end(self) -> None:
        """Moves to the next epoch, if the last batch of this one was requested."""
        # Keras also ends an epoch before the first one and after its look at a batch.
        if self._is_held or not (self._is_begun and self._is_whole):
            return
        with self._lock:
            self._is_begun, self._first = False, 0
            self._forget()
            if self.reshuffle:
                self.epoch += 1
                self.loader.seek(self.epoch * len(self.loader))

    def _forget(self) -> None:
        """Ends prefetching; the caller holds the lock."""
        if isinstance(self._ahead, Generator):
            self._ahead.close()
        self._ahead, self._next = iter(()), 0

    def _made(self, index: int) -> Batch:
        """TensorFlow calls from two threads, one of which belongs to a past epoch."""
        with self._lock:
            self._is_whole |= index == len(self) - 1
            if index == 0:
                places = range(self._first, len(self.loader))
                self._forget()
                self._ahead = self.loader.batches(self.epoch, places)
            if index == self._next:
                for batch in self._ahead:
                    self._next += 1
                    return batch
            return self.loader.batch(self.epoch, self._first + index)


def generate(
    loader: Loader,
    *,
    with_label: bool = True,
    with_weight: bool = True,
    epochs: int | None = None,
) -> Generator[tuple[Any, ...], None, None]:
    """Yields batches for `fit(..., steps_per_epoch=len(loader))`, epoch after epoch.

    Starts at the position of the loader, also within an epoch, and advances it. Keras
    requests batches before their steps: to resume after step `n` of a training that
    started at epoch 0, call `loader.seek(n)`. Close the generator after `fit`:
    TensorFlow keeps it, and so its prefetching threads.

    Args:
        loader: where the batches come from.
        with_label: see `as_keras`.
        with_weight: see `as_keras`.
        epochs: number of epochs, including the current one; endless by default.
    """
    for _ in itertools.count() if epochs is None else range(epochs):
        with contextlib.closing(loader.epoch()) as made:
            for batch in made:
                yield as_keras(batch, with_label=with_label, with_weight=with_weight)

"""The loader as stock Keras wants it: a `PyDataset`, or a Python generator."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Generator, Iterator
from typing import Any

import keras

from shortlist.data.load.examples import LABEL, WEIGHT, Batch
from shortlist.data.load.loader import Loader
from shortlist.embeddings.host import Watch, unwatched


def as_keras(
    batch: Batch, *, with_label: bool = True, with_weight: bool = True
) -> tuple[Any, ...]:
    """Splits a batch into `(x,)`, `(x, y)` or `(x, y, sample_weight)`.

    Args:
        batch: of a loader; it stays as it is.
        with_label: whether the label is taken along. Weights bring it anyway: Keras
            takes them only beside it.
        with_weight: whether `sample_weight` is taken along, if the batch has it.
    """
    features = {k: v for k, v in batch.items() if k not in (LABEL, WEIGHT)}
    if with_weight and WEIGHT in batch:
        return features, batch[LABEL], batch[WEIGHT]
    return (features, batch[LABEL]) if with_label else (features,)


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Feeds a `Loader` to stock `fit` and `evaluate` under any backend.

    Give `fit` also `shuffle=False`: otherwise Keras reorders the batches of every
    epoch. Batches that are asked for in order are made ahead; any other one is made
    when it is asked for. The epochs of `fit` are whole epochs of the loader, the first
    being the one in which it stands; after each, it stands at the next. An epoch of one
    single batch cannot be told from Keras's first look at a model, which may skip it.

    For `steps_per_epoch`, use `generate`.

    Args:
        loader: where the batches come from.
        with_label: see `as_keras`; False for models whose loss needs no label.
        with_weight: see `as_keras`.
        reshuffle: whether every epoch has its own order and draws; evaluation keeps
            those of epoch 0.
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
        self.watch: Watch = unwatched
        self._lock = threading.Lock()
        self._ahead: Iterator[Batch] = iter(())
        self._next = 0
        self._is_begun = self._is_whole = self._is_held = False
        self._first = 0

    def __len__(self) -> int:
        """Batches of the current epoch, less those before the place sought."""
        return len(self.loader) - self._first

    def seek(self, epoch: int, batch: int = 0, *, held: bool = False) -> None:
        """Makes the next epoch of `fit` be `epoch` from `batch` on.

        Args:
            epoch: from 0.
            batch: its first one; the epochs that follow are whole again.
            held: stay there, whatever Keras asks for, until the next call. Keras looks
                at a batch before it trains a model.
        """
        with self._lock:
            self.epoch, self._first = epoch, batch
            self._forget()
            self._is_begun, self._is_held = False, held
            self.loader.seek(epoch * len(self.loader) + batch)

    def close(self) -> None:
        """Ends the threads that make batches ahead, in the middle of an epoch too.

        TensorFlow keeps what it was fed by, and with it those threads.
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
        """What Keras is given of a batch of the loader; see `as_keras`."""
        return as_keras(batch, with_label=self.with_label, with_weight=self.with_weight)

    def on_epoch_begin(self) -> None:
        """Waits for the batches of an epoch."""
        self._is_begun, self._is_whole = True, False

    def on_epoch_end(self) -> None:
        """Moves on to the next epoch, if all of this one was asked for."""
        # Keras ends an epoch also before the first one and after a look at a batch.
        if self._is_held or not (self._is_begun and self._is_whole):
            return
        with self._lock:
            self._is_begun, self._first = False, 0
            self._forget()
            if self.reshuffle:
                self.epoch += 1
                self.loader.seek(self.epoch * len(self.loader))

    def _forget(self) -> None:
        """Ends what makes batches ahead; whoever calls holds the lock."""
        if isinstance(self._ahead, Generator):
            self._ahead.close()
        self._ahead, self._next = iter(()), 0

    def _made(self, index: int) -> Batch:
        """TensorFlow asks from two threads, of which one belongs to a past epoch."""
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

    Begins where the loader stands, also within an epoch, and moves it. Keras asks
    ahead of the steps it has done: to go on after step `n` of a training that began at
    epoch 0, `loader.seek(n)`. Close the generator after `fit`: TensorFlow keeps it, and
    with it the threads that make batches ahead.

    Args:
        loader: where the batches come from.
        with_label: see `as_keras`.
        with_weight: see `as_keras`.
        epochs: how many, the one begun included; without end by default.
    """
    for _ in itertools.count() if epochs is None else range(epochs):
        with contextlib.closing(loader.epoch()) as made:
            for batch in made:
                yield as_keras(batch, with_label=with_label, with_weight=with_weight)

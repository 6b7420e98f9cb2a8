"""Checkpoints of an unfinished training, early stopping, and resuming.

A checkpoint holds the weights of the model, its tables, the state of all optimizers,
the seeds of its layers and, within an epoch, the metrics so far. The position of the
loader follows from the epoch and the batch.
"""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from shortlist import interrupts
from shortlist.atomic import disk_errors, fsync
from shortlist.embeddings.storage.saving import load_weights, save_weights
from shortlist.errors import ArtifactError
from shortlist.training.batches.keras_batches import Batches
from shortlist.training.loop.callbacks import Logs, check_weights_finite
from shortlist.training.loop.randomness import random_state, restore_random_state
from shortlist.training.loop.stops import Stop
from shortlist.training.runs.unfinished import Checkpoint, Unfinished

WEIGHTS_FILE = "model.weights.h5"
REST_FILE = "rest.npz"


class Checkpointing(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves checkpoints, stops early and restores the best epoch.

    It comes after all callbacks that add metrics to the logs.

    Args:
        unfinished: where the state is saved.
        batches: what the model is trained on.
        stops: called after each epoch; the first one decides which epoch is best.
        epochs: maximum number of epochs.
        minutes: also save within an epoch when this long has passed since the last
            checkpoint; 0 for never.
    """

    def __init__(
        self,
        unfinished: Unfinished,
        batches: Batches,
        stops: list[Stop],
        *,
        epochs: int,
        minutes: float = 0.0,
    ) -> None:
        super().__init__()
        self.unfinished = unfinished
        self.batches = batches
        self.stops = stops
        self.epochs = epochs
        self.minutes = minutes
        self.epoch = self.first_batch = 0
        self.is_done = False
        self.best_epoch: int | None = None
        self.signal: int | None = None
        self.ended_by = ""
        self._best_folder: str | None = None
        self._metrics: list[np.ndarray] = []
        self._is_begun = self._is_resumed = False
        self._saved_at = time.monotonic()

    def is_resumable(self, model: keras.Model) -> bool:
        """Whether there is a checkpoint of this model."""
        return self.unfinished.checkpoint_of(model.name) is not None

    def resume(self, model: keras.Model) -> None:
        """Sets a compiled model and this callback to the checkpoint, if there is one.

        Raises:
            ArtifactError: `training-damaged`.
        """
        found = self.unfinished.checkpoint_of(model.name)
        if found is None:
            self.batches.seek(0, held=True)
            return
        if not model.built:
            model.build()
        self._metrics = _load(self.unfinished.folder / found.folder, model)
        self.epoch, self.first_batch = found.epoch, found.batch
        self.is_done, self._is_resumed = found.is_last, True
        self.best_epoch, self._best_folder = found.best_epoch, found.best_folder
        self.ended_by = found.memory.get("ended_by", "")
        for stop in self.stops:
            stop.restore(found.memory)
        self.batches.seek(found.epoch, found.batch, held=True)
        self._random = found.random

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Restores the state of the checkpoint in the first epoch of a resumed fit."""
        if self._is_begun:
            return
        # Not earlier: Keras first runs a batch, which uses random numbers, and resets
        # the metrics.
        self._is_begun = True
        self.batches.seek(epoch, self.first_batch)
        if not self._is_resumed:
            return
        self._is_resumed = False
        restore_random_state(self._random)
        if not self._metrics:
            return
        for variable, value in zip(
            self.model.metrics_variables, self._metrics, strict=True
        ):
            variable.assign(value)

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Restores the generators again: PyTorch uses a number to start the epoch."""
        if self._metrics and batch == 0:
            restore_random_state(self._random)
            self._metrics = []

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Saves when interrupted or when it is time, but not after the last batch."""
        done = self.first_batch + batch + 1
        if done >= len(self.batches.loader):
            return
        due = self.minutes and time.monotonic() - self._saved_at > 60 * self.minutes
        if due or self.signal is not None:
            self._save(self.epoch, done)
            self._end_if_asked()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Saves, and stops if one of the stops decides so."""
        check_weights_finite(self.model, epoch + 1)
        self.epoch, self.first_batch = epoch + 1, 0
        verdicts = [stop.after_epoch(epoch + 1, logs or {}) for stop in self.stops]
        ended = [n for n, one in zip(self.stops, verdicts, strict=True) if one.stop]
        if ended or epoch + 1 == self.epochs:
            self.is_done, self.ended_by = True, ended[0].name if ended else "epochs"
        folder = _name(epoch + 1, 0)
        if verdicts and verdicts[0].is_best:
            self.best_epoch, self._best_folder = epoch + 1, folder
        self._save(epoch + 1, 0)
        if self.is_done:
            self.model.stop_training = True
        self._end_if_asked()

    def restore_best(self, model: keras.Model) -> int:
        """Restores the best epoch; returns its number, from 1."""
        if self._is_resumed:  # no epoch was left
            restore_random_state(self._random)
        if self.best_epoch is None or self._best_folder is None:
            return self.epoch
        if self.best_epoch != self.epoch or self.first_batch:
            path = self.unfinished.folder / self._best_folder / WEIGHTS_FILE
            load_weights(model, path, keep_optimizer=True)
        return self.best_epoch

    def _save(self, epoch: int, batch: int) -> None:
        with interrupts.saving():
            self._save_now(epoch, batch)

    def _save_now(self, epoch: int, batch: int) -> None:
        folder = _name(epoch, batch)
        with disk_errors(self.unfinished.out):
            _save(self.unfinished.folder / folder, self.model, within=batch > 0)
        memory: dict[str, Any] = {"ended_by": self.ended_by} if self.ended_by else {}
        for stop in self.stops:
            memory |= stop.memory()
        self.unfinished.save_checkpoint(
            Checkpoint(
                stage=self.model.name,
                epoch=epoch,
                batch=batch,
                folder=folder,
                random=random_state(),
                is_last=self.is_done,
                memory=memory,
                best_epoch=self.best_epoch,
                best_folder=self._best_folder,
            )
        )
        self._saved_at = time.monotonic()

    def _end_if_asked(self) -> None:
        if self.signal is not None:
            interrupts.raise_for(self.signal)

    @contextmanager
    def saves_when_interrupted(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the training after the batch; a second one at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: object) -> None:
            self.signal = number
            interrupts.note(number)
            restore()

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        # None means a handler that Python did not install.
        before = {
            number: signal.getsignal(number) or signal.SIG_DFL
            for number in interrupts.handled()
        }
        for number in before:
            signal.signal(number, ask)
        try:
            yield
        finally:
            restore()
        self._end_if_asked()


def _name(epoch: int, batch: int) -> str:
    return f"e{epoch:05d}-b{batch:06d}"


def _rest(model: keras.Model) -> list[Any]:
    """Variables that are not weights: the seed states of layers."""
    weights = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


def _save(folder: Path, model: keras.Model, *, within: bool) -> None:
    if folder.exists():  # of a process that was killed
        shutil.rmtree(folder)
    folder.mkdir()
    save_weights(model, folder / WEIGHTS_FILE)
    named = {"rest": _rest(model)}
    if within:
        named["metrics"] = model.metrics_variables
    arrays = {
        f"{kind}.{number}": keras.ops.convert_to_numpy(variable.value)
        for kind, variables in named.items()
        for number, variable in enumerate(variables)
    }
    np.savez(folder / REST_FILE, **arrays)
    fsync(folder / REST_FILE)
    fsync(folder)


def _load(folder: Path, model: keras.Model) -> list[np.ndarray]:
    """Loads a checkpoint; returns the metrics so far, if it is within an epoch."""
    load_weights(model, folder / WEIGHTS_FILE)
    try:
        with np.load(folder / REST_FILE, allow_pickle=False) as arrays:
            values = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError) as error:
        raise ArtifactError(
            "training-damaged",
            f"The checkpoint of the training is damaged: {error}. Start again with"
            " --overwrite.",
            file=folder / REST_FILE,
        ) from error
    for number, variable in enumerate(_rest(model)):
        variable.assign(values[f"rest.{number}"])
    count = sum(name.startswith("metrics.") for name in values)
    return [values[f"metrics.{number}"] for number in range(count)]

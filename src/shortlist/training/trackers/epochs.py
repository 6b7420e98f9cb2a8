"""Keras callbacks of trackers."""

from __future__ import annotations

from collections.abc import Callable

import keras

Logs = dict[str, float]


class TrackedEpochs(keras.callbacks.Callback):  # type: ignore[misc]
    """Reports the logs of each epoch.

    Args:
        report: called with the stage, the number of the epoch from 1, and the logs.
        stage: which model is trained.
    """

    def __init__(self, report: Callable[[str, int, Logs], None], stage: str) -> None:
        super().__init__()
        self.report = report
        self.stage = stage

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Reports the epoch."""
        values = {name: float(value) for name, value in (logs or {}).items()}
        self.report(self.stage, epoch + 1, values)


class Shielded(keras.callbacks.Callback):  # type: ignore[misc]
    """Wraps a callback so that its errors do not end a training.

    Args:
        inner: the callback.
        guard: calls a function and catches its errors.
    """

    def __init__(
        self,
        inner: keras.callbacks.Callback,
        guard: Callable[[Callable[[], None]], None],
    ) -> None:
        super().__init__()
        self.inner = inner
        self.guard = guard

    def set_model(self, model: keras.Model) -> None:
        """Forwards the model."""
        super().set_model(model)
        self.guard(lambda: self.inner.set_model(model))

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Forwards the call."""
        self.guard(lambda: self.inner.on_train_begin(logs))

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Forwards the call."""
        self.guard(lambda: self.inner.on_epoch_begin(epoch, logs))

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Forwards the call with a copy of the logs."""
        self.guard(lambda: self.inner.on_epoch_end(epoch, dict(logs or {})))

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Forwards the call."""
        self.guard(lambda: self.inner.on_train_end(logs))

"""Keras callbacks for models with tables: keep the best epoch, raise errors early.

Knows Keras callbacks and `saving`; knows nothing of file contents.
"""

from __future__ import annotations

import math
import shutil
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

import keras

from shortlist.embeddings.storage.saving import load_weights, save_weights, table_layers
from shortlist.errors import InputError, ShortlistError

__all__ = ["RaiseFaults", "TableCheckpoint", "table_layers"]

Logs = dict[str, Any]


class TableCheckpoint(keras.callbacks.EarlyStopping):  # type: ignore[misc]
    """Saves weights and tables of an epoch together, and restores the best.

    Use it in place of `EarlyStopping(restore_best_weights=True)`, which keeps weights
    but not tables. It can also be combined with `EarlyStopping` with
    `restore_best_weights=False`. Callbacks that add to the logs must come before it.

    Every file is complete: the last one stays until the next is written. It includes
    the state of the optimizer, so that training can resume from it with `load_weights`.
    `restore_best` restores dense weights and tables with their own optimizers; the
    optimizer of the model keeps the state it had when the training ended.

    Args:
        path: a `.weights.h5` file, with its tables in a folder beside it; each save
            replaces it. `None` for a temporary folder that is removed at the end of the
            training; large tables need as much space there.
        monitor: metric in the logs of an epoch that decides which is best.
        mode: `min`, `max`, or `auto` to infer it from the metric.
        save_best_only: save an epoch only if it is the best so far.
        restore_best: restore the best epoch at the end of the training.
        patience: epochs without improvement after which training stops; `None` for
            no limit.
        min_delta: smallest change that counts as an improvement.

    Attributes:
        best: value of `monitor` in the best epoch; `None` before there is one.
        best_epoch: its 0-based number; `None` before there is one.

    Raises:
        InputError: `invalid-argument`.

    Example:
        >>> model.fit(x, y, validation_data=val, epochs=20, callbacks=[
        ...     TableCheckpoint(None, restore_best=True, patience=3)])
    """

    def __init__(
        self,
        path: str | Path | None,
        monitor: str = "val_loss",
        mode: str = "auto",
        save_best_only: bool = False,
        restore_best: bool = False,
        patience: int | None = None,
        min_delta: float = 0.0,
    ) -> None:
        super().__init__(
            monitor=monitor,
            mode=mode,
            min_delta=min_delta,
            patience=sys.maxsize if patience is None else patience,
        )
        if path is None and not restore_best:
            raise InputError(
                "invalid-argument",
                "A TableCheckpoint must have a path or restore_best. Received neither."
                " Pass one of them.",
            )
        if path is not None and not str(path).endswith(".weights.h5"):
            raise InputError(
                "invalid-argument",
                f"The path must end in '.weights.h5'. Received: {str(path)!r}. Change"
                " its ending.",
            )
        self.path = None if path is None else Path(path)
        self.save_best_only = save_best_only or path is None
        self.restore_best = restore_best
        self.best: float | None = None
        self.best_epoch: int | None = None
        self._best_path: Path | None = None
        self._last_epoch: int | None = None
        self._remove: Any = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Resets the callback."""
        super().on_train_begin(logs)
        self.best_epoch = self._last_epoch = None
        self._clean_up()
        self._best_path = self.path if self.save_best_only else None
        if self.restore_best and self._best_path is None:
            parent = None if self.path is None else self.path.parent
            if parent is not None:
                parent.mkdir(parents=True, exist_ok=True)
            folder = tempfile.mkdtemp(prefix=".shortlist-best-", dir=parent)
            # Also if the training fails: then Keras does not call on_train_end.
            self._remove = weakref.finalize(self, shutil.rmtree, folder, True)
            self._best_path = Path(folder) / "best.weights.h5"

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Saves."""
        before = self.best_epoch
        self._last_epoch = epoch
        if self._needs_monitor or self.monitor in (logs or {}):
            super().on_epoch_end(epoch, logs)
        is_best = self.best_epoch != before
        if self.path is not None and not self.save_best_only:
            save_weights(self.model, self.path)
        if is_best and self._best_path is not None:
            save_weights(self.model, self._best_path)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Restores the best epoch."""
        super().on_train_end(logs)
        try:
            if (
                self.restore_best
                and self.best_epoch is not None
                and self.best_epoch != self._last_epoch
            ):
                assert self._best_path is not None
                load_weights(self.model, self._best_path, keep_optimizer=True)
        finally:
            self._clean_up()

    def get_monitor_value(self, logs: Logs | None) -> float | None:
        """The value of this epoch; NaN and infinity are never the best."""
        value = super().get_monitor_value(logs)
        if value is None or not math.isfinite(float(value)):
            return None
        return float(value)

    @property
    def _needs_monitor(self) -> bool:
        limited: bool = self.patience < sys.maxsize
        return self.save_best_only or self.restore_best or limited

    def _clean_up(self) -> None:
        if self._remove is not None:
            self._remove()
            self._remove = None


class RaiseFaults(keras.callbacks.Callback):  # type: ignore[misc]
    """Raises the error of a compiled JAX step right after its batch.

    Without it an id out of range is raised at the end of the epoch, or at the next call
    of the layer. It waits for each step to end, so the next batch is prepared later.
    """

    def set_model(self, model: Any) -> None:
        """Finds the layers."""
        super().set_model(model)
        self._layers = table_layers(model)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Raises."""
        self._raise(logs)

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Raises."""
        self._raise(logs)

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Raises."""
        self._raise(logs)

    def _raise(self, logs: Logs | None) -> None:
        if keras.backend.backend() == "jax":
            import jax

            jax.block_until_ready(logs)  # type: ignore[no-untyped-call]
        fault: ShortlistError | None = None
        for layer in self._layers:
            if layer.host_tables is not None:
                try:
                    layer.host_tables.raise_fault()
                except ShortlistError as error:
                    fault = fault or error
        on_device = [layer for layer in self._layers if layer.device_tables is not None]
        if fault is not None or on_device:
            # Gives the weights back to a JAX model. Tables on a device keep faults in
            # them, and after an error in evaluate or predict Keras does not do it.
            _ = self.model
        if fault is not None:
            raise fault
        for layer in on_device:
            layer.raise_fault()

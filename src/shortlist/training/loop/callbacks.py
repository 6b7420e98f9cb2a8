"""Keras callbacks: ranking metrics on validation, metrics as JSON lines, progress."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import msgspec
import numpy as np

from shortlist.embeddings.storage.saving import table_layers
from shortlist.errors import ShortlistError

if TYPE_CHECKING:
    from rich.progress import Progress

Logs = dict[str, float]
LINE_WIDTH = 80


class RankingValidation(keras.callbacks.Callback):  # type: ignore[misc]
    """Adds metrics of full-catalogue recommendation to the logs of an epoch.

    Args:
        measure: returns the metrics of the model as it is now; each appears in the
            logs with the prefix `val_`.
    """

    def __init__(self, measure: Callable[[], Logs]) -> None:
        super().__init__()
        self.measure = measure

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Measures and extends the logs, for the callbacks that follow."""
        if logs is not None:
            logs |= {f"val_{name}": value for name, value in self.measure().items()}


class StopOnNotFinite(keras.callbacks.Callback):  # type: ignore[misc]
    """Raises when the loss is NaN or infinite, and names the batch.

    The loss of a batch is read after the next batch; reading it at once would make the
    step wait for the device.

    Args:
        first_batch: number of the first batch of the first epoch, from 0.
    """

    def __init__(self, first_batch: int = 0) -> None:
        super().__init__()
        self.first_batch = first_batch
        self._last: tuple[int, Any] | None = None
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Stores the number of the epoch."""
        self._epoch, self._last = epoch, None

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Checks the loss of the previous batch."""
        self._check()
        if logs and "loss" in logs:
            self._last = self.first_batch + batch + 1, logs["loss"]

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Checks the loss of the last batch and of the epoch."""
        self._epoch = epoch
        self._check()
        self._last, self.first_batch = None, 0
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise not_finite(f"The loss must stay finite. It was {loss}", epoch + 1)

    def _check(self) -> None:
        if self._last is None:
            return
        batch, loss = self._last[0], float(self._last[1])
        if not math.isfinite(loss):
            was = f"The loss must stay finite. It was {loss} after batch {batch}"
            raise not_finite(was, self._epoch + 1)


def not_finite(what: str, epoch: int) -> ShortlistError:
    """The error for a loss or weight that is not finite, in an epoch counted from 1."""
    return ShortlistError(
        "loss-not-finite",
        f"{what} in epoch {epoch}. Lower learning_rate or raise temperature in the"
        " recipe, and train again with --overwrite. The checkpoint of the last good"
        " epoch, if any, is kept.",
    )


def check_weights_finite(model: keras.Model, epoch: int) -> None:
    """Raises `ShortlistError` if a weight is NaN or infinite after an epoch.

    The loss of a step is computed before its update, so it does not show a NaN that the
    last step caused.
    """
    named = [
        (weight.path, values)
        for weight, values in zip(model.weights, model.get_weights(), strict=True)
    ]
    for layer in table_layers(model):
        named += layer.get_embedding_tables().items()
    for name, values in named:
        if not np.isfinite(values).all():
            told = f"The weights must stay finite. {name!r} holds NaN or infinity"
            raise not_finite(f"{told} after the last batch", epoch)


def epoch_text(name: str, epoch: int, values: Logs, seconds: float) -> str:
    """The report of an epoch, wrapped at 80 columns.

    Args:
        name: which model is trained.
        epoch: its number, from 1.
        values: metrics by name; `val_` is left out where nothing of that name was
            measured in training.
        seconds: since the training began.
    """
    cells = [f"{name} epoch {epoch}:"]
    for key, value in values.items():
        short = key.removeprefix("val_")
        cells.append(f"{key if short in values else short} {value:.4f}")
    lines = [cells[0]]
    for place, cell in enumerate([*cells[1:], f"({seconds:.1f} s)"]):
        gap = "  " if place else " "
        if len(lines[-1]) + len(gap) + len(cell) > LINE_WIDTH:
            lines.append(f"    {cell}")
        else:
            lines[-1] += gap + cell
    return "\n".join(lines)


class EpochReport(keras.callbacks.Callback):  # type: ignore[misc]
    """Writes one JSON line per epoch; shows a bar on a terminal, else one line.

    Args:
        name: which model is trained.
        path: the `metrics.jsonl` to append to.
        quiet: show nothing.
    """

    def __init__(self, name: str, path: Path, *, quiet: bool = False) -> None:
        super().__init__()
        self.name = name
        self.path = path
        self.quiet = quiet
        self.live = sys.stderr.isatty() and not quiet
        self.progress: Progress | None = None
        self.started: float | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Starts the clock and the bar, once."""
        if self.started is None:
            self.started = time.perf_counter()
        if self.live and self.progress is None:
            from rich.console import Console
            from rich.progress import Progress

            self.progress = Progress(console=Console(stderr=True), transient=True)
            total = self.params["epochs"] * self.params["steps"]
            self.task = self.progress.add_task(self.name, total=total)
            self.progress.start()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Moves the bar."""
        if self.progress is not None:
            self.progress.advance(self.task)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Writes and shows the line of the epoch."""
        values = {key: float(value) for key, value in (logs or {}).items()}
        now = time.perf_counter()
        seconds = round(now - (now if self.started is None else self.started), 3)
        line: dict[str, Any] = {"model": self.name, "epoch": epoch + 1}
        line |= {"seconds": seconds} | values
        with self.path.open("ab") as stream:
            stream.write(msgspec.json.encode(line) + b"\n")
        text = epoch_text(self.name, epoch + 1, values, seconds)
        if self.progress is not None:
            self.progress.console.print(text, highlight=False)
        elif not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Takes the bar away; also after a training that failed."""
        if self.progress is not None:
            self.progress.stop()

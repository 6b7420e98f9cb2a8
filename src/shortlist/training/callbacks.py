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

from shortlist.embeddings.saving import table_layers
from shortlist.errors import ShortlistError

if TYPE_CHECKING:
    from rich.progress import Progress

Logs = dict[str, float]


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
    """Raises when the loss of an epoch is NaN or infinite."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Checks the loss."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise ShortlistError(
                "loss-not-finite",
                f"The loss must stay finite. It was {loss} in epoch {epoch + 1}. Lower"
                " learning_rate or raise temperature in the recipe.",
            )


def check_weights_finite(model: keras.Model) -> None:
    """Raises `ShortlistError` if a weight is NaN or infinite.

    The loss of a step is that of the weights before it: the last step can end in NaN
    without showing it.
    """
    named = [
        (weight.path, values)
        for weight, values in zip(model.weights, model.get_weights(), strict=True)
    ]
    for layer in table_layers(model):
        named += layer.get_embedding_tables().items()
    for name, values in named:
        if not np.isfinite(values).all():
            raise ShortlistError(
                "loss-not-finite",
                f"The weights must stay finite. {name!r} holds NaN or infinity"
                " after the last epoch. Lower learning_rate or raise temperature in the"
                " recipe.",
            )


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
        self.started = time.perf_counter()

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Starts the clock and the bar."""
        self.started = time.perf_counter()
        if self.live:
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
        seconds = round(time.perf_counter() - self.started, 3)
        line: dict[str, Any] = {"model": self.name, "epoch": epoch + 1}
        line |= {"seconds": seconds} | values
        with self.path.open("ab") as stream:
            stream.write(msgspec.json.encode(line) + b"\n")
        shown = "  ".join(f"{key} {value:.4f}" for key, value in values.items())
        text = f"{self.name} epoch {epoch + 1}: {shown}  ({seconds:.1f} s)"
        if self.progress is not None:
            self.progress.console.print(text, highlight=False)
        elif not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Takes the bar away; also after a training that failed."""
        if self.progress is not None:
            self.progress.stop()

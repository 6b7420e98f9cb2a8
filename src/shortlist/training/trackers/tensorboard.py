"""Logs trainings for TensorBoard, through the callback of Keras."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shortlist.packages import need_package
from shortlist.training.trackers.tracker import Tracker

if TYPE_CHECKING:
    import keras


class TensorBoard(Tracker):
    """Writes `tensorboard/<stage>/` into the run; `tensorboard --logdir` shows it.

    Keras (3.15) writes it with TensorFlow's summaries, whatever its backend, so that
    TensorFlow must be installed beside JAX and PyTorch too; and these are part of the
    package `tensorboard`, which TensorFlow (2.21) does not bring.
    """

    name = "TensorBoard"

    def check(self) -> None:
        """Needs TensorFlow and TensorBoard."""
        need_package("tensorflow", "tensorboard")
        need_package("tensorboard", "tensorboard")

    def callbacks(self, stage: str, folder: Path) -> list[keras.callbacks.Callback]:
        """The callback of Keras: scalars of every epoch."""
        import keras

        place = str(folder / "tensorboard" / stage)
        # No graph and no histograms: host tables are not among a model's weights.
        return [keras.callbacks.TensorBoard(place, write_graph=False)]

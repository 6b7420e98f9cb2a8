"""What is said of how the training of a model ended, and what to change.

Knows numbers of epochs; knows nothing of Keras.
"""

from __future__ import annotations

from typing import NamedTuple

STEEP_FALL = 0.01
"""Share of the loss that the last epoch took off, above which it was still falling."""


class Ending(NamedTuple):
    """How the training of a model ended.

    Args:
        stage: name of the model, and of its section in the recipe.
        monitor: the metric that tells which epoch is best.
        epoch: the last epoch, from 1.
        epochs: most epochs.
        best_epoch: the epoch that was kept, from 1.
        ended_by: name of the stop that ended it, or `epochs`.
        fell: by which share the last epoch lowered the loss.
        is_metric: whether `monitor` measures what is recommended; of a loss on the
            validation part it is normal to rise while the training loss falls.
    """

    stage: str
    monitor: str
    epoch: int
    epochs: int
    best_epoch: int
    ended_by: str
    fell: float
    is_metric: bool

    def note(self) -> str:
        """One sentence or two on an end that came too early, or nothing."""
        is_last = self.epoch - self.best_epoch <= self._nearly()
        if self.ended_by == "patience":
            if not self.is_metric or self.fell < STEEP_FALL:
                return ""
            return (
                f"{self.stage} stopped at epoch {self.epoch} of {self.epochs} with the"
                f" loss still falling ({self.fell:.1%} in that epoch): {self.monitor}"
                " was not better for as many epochs as patience allows. It may learn"
                f" more with a higher {self.stage}.patience."
            )
        setting = {
            "epochs": f"{self.stage}.epochs",
            "time_budget": "training.time_budget",
        }.get(self.ended_by)
        if setting is None or not is_last:
            return ""
        return (
            f"{self.stage} ended at epoch {self.epoch} of {self.epochs} with"
            f" {self.monitor} still getting better: epoch {self.best_epoch} was the"
            f" best. It may learn more with a higher {setting}."
        )

    def _nearly(self) -> int:
        """Epochs after the best one that say nothing yet."""
        return self.epochs // 20

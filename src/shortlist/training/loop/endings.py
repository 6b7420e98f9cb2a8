"""Notes on fits that ended too early, and what to change."""

from __future__ import annotations

from typing import NamedTuple

STEEP_FALL = 0.01
"""Relative fall of the loss in an epoch, above which it is still falling."""


class Ending(NamedTuple):
    """How the fit of a model ended.

    Args:
        stage: name of the model, and of its section in the recipe.
        monitor: the metric that decides which epoch is best.
        epoch: the last epoch, from 1.
        epochs: maximum number of epochs.
        best_epoch: the epoch that was kept, from 1.
        ended_by: name of the stop that ended it, or `epochs`.
        fell: relative fall of the loss in the last epoch.
        is_metric: whether `monitor` is a ranking metric; a validation loss normally
            rises at some point while the training loss falls.
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
        """A note if the fit ended too early, else an empty string."""
        is_last = self.epoch - self.best_epoch <= self._nearly()
        if self.ended_by == "patience":
            if not self.is_metric or self.fell < STEEP_FALL:
                return ""
            return (
                f"{self.stage} stopped at epoch {self.epoch} of {self.epochs} with the"
                f" loss still falling ({self.fell:.1%} in that epoch): {self.monitor}"
                " did not improve within patience. It may learn"
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
        """Epochs after the best one that are too few to judge."""
        return self.epochs // 20

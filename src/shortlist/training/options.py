"""How a training starts, resumes and is observed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from shortlist.training.trackers import Tracker

    CallbackFactory = Callable[[str, Path], list[keras.callbacks.Callback]]
    """Makes callbacks for a stage (`retrieval`, `ranker`) of the run in a folder."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of `train`.

    Args:
        resume: resume an interrupted training. If there is none, start one; if there is
            a finished run of this recipe and dataset, return it.
        warm_start: an older run to take rows and dense weights from.
        new_days: train only on the events that were appended since that run.
        probe_batch_size: find the largest batches of which a step fits in memory, and
            write them to the recipe of the run; see `largest_batch`. A resumed training
            keeps the batch sizes it started with.
        profile: measure where the time of the steps goes, and write a trace of them to
            the run; see `shortlist.training.resources.profile`.
        trackers: receive the training; `trackers.open_trackers` makes those of a
            recipe. A tracker that fails is shown as a warning.
        callbacks: make further Keras callbacks for the fit of each model.
    """

    resume: bool = False
    warm_start: str | Path | None = None
    new_days: bool = False
    probe_batch_size: bool = False
    profile: bool = False
    trackers: Sequence[Tracker] = ()
    callbacks: Sequence[CallbackFactory] = ()

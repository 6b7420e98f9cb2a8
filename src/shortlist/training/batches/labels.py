"""Labels and weights of the objectives of a ranker, made from a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from shortlist.data.load.examples import EVENT_LABEL, LABEL, WEIGHT, Batch
from shortlist.data.load.loader import Loader
from shortlist.data.store.dataset import Dataset
from shortlist.errors import InputError
from shortlist.recipe import RankerSection
from shortlist.training.batches.keras_batches import Batches

# `(x, y)` or `(x, y, sample_weight)` of a batch of the loader.
Targets = Callable[[Batch], tuple[Any, ...]]


class LabelledBatches(Batches):
    """`Batches` with labels and weights from a function.

    Args:
        loader: where the batches come from.
        targets: turns a batch into `(x, y)` or `(x, y, sample_weight)`.
        reshuffle: see `Batches`.
    """

    def __init__(
        self, loader: Loader, targets: Targets, *, reshuffle: bool = True
    ) -> None:
        super().__init__(loader, reshuffle=reshuffle)
        self.targets = targets

    def convert(self, batch: Batch) -> tuple[Any, ...]:
        """A batch of the loader, turned into `(x, y)` by `targets`."""
        return self.targets(batch)


def positive_target(positive_from: float) -> Targets:
    """1 where the label is at least `positive_from`, else 0."""

    def targets(batch: Batch) -> tuple[Any, ...]:
        features, weight = _features(batch)
        label = (batch[LABEL] >= positive_from).astype(np.float32)
        return (features, label) if weight is None else (features, label, weight)

    return targets


def head_targets(
    labels: Mapping[str, str], *, positive_from: float, list_size: int
) -> Targets:
    """A label and a weight for every head of a multi-task model.

    Args:
        labels: the label of each head: `label`, that of the event; `positive`, whether
            it is at least `positive_from`; `taken`, 1 for an event and 0 for its
            sampled negatives. For the other labels sampled negatives have weight 0 and
            events weight `list_size`, so that the mean is over the events.
        positive_from: smallest positive label.
        list_size: rows per event, including its sampled negatives.
    """

    def targets(batch: Batch) -> tuple[Any, ...]:
        features, weight = _features(batch)
        own = batch.get(EVENT_LABEL, batch[LABEL])
        known = ~np.isnan(own)
        own = np.where(known, own, np.float32(0))
        made = {
            "label": own,
            "positive": (own >= positive_from).astype(np.float32),
            "taken": batch[LABEL],
        }
        one = np.ones(len(own), np.float32) if weight is None else weight
        of_events = one * known * np.float32(list_size)
        weights = {
            name: one if label == "taken" else of_events
            for name, label in labels.items()
        }
        return features, {name: made[label] for name, label in labels.items()}, weights

    return targets


def check_labels(dataset: Dataset, section: RankerSection) -> None:
    """Checks before any work that the log has the labels that a ranker needs.

    Raises:
        InputError: there is no label to predict (`ranker-needs-label`), all labels are
            of one class (`label-one-class`), or they are not binary
            (`label-not-binary`).
    """
    for name, (objective, label) in section.labels().items():
        kind = dataset.schema.label_kind
        if (objective, label) == ("binary", "label") and kind != "binary":
            raise InputError(
                "label-not-binary",
                f"Head {name!r} of objective = 'binary' learns 0 or 1. Received: label"
                f" = 'label' of a log whose labels are {kind}. Set label = 'positive'"
                " or 'taken', or objective = 'explicit'.",
            )
    needed = {
        f"objective = {objective!r}" + (f" of head {name!r}" if name else ""): label
        for name, (objective, label) in section.labels().items()
        if label != "taken"
    }
    for who, label in needed.items():
        if dataset.schema.label is None:
            raise InputError(
                "ranker-needs-label",
                f"{who} predicts the label, so the schema must name one. Received: no"
                " label. Use objective = 'binary' with negatives.",
            )
        positive = dataset.part("train").label >= dataset.schema.positive_from
        if label == "positive" and len(np.unique(positive)) == 1:
            of = "positives" if positive[0] else "negatives"
            raise InputError(
                "label-one-class",
                f"{who} without negatives needs labels in {dataset.schema.label!r} both"
                f" of at least {dataset.schema.positive_from} and lower. Received:"
                f" {of} only. Set positive_from, or use negatives.",
            )


def _features(batch: Batch) -> tuple[Batch, np.ndarray | None]:
    left_out = (LABEL, WEIGHT, EVENT_LABEL)
    features = {name: v for name, v in batch.items() if name not in left_out}
    return features, batch.get(WEIGHT)

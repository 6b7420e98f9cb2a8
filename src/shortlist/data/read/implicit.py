"""Events of an implicit log: which of them count, and their confidence."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from shortlist.data.schema import Schema

_LARGEST = float(np.finfo(np.float32).max)


class ImplicitEvents(NamedTuple):
    """Events after the threshold, aligned with the labels.

    Args:
        keep: Boolean: whether the event counts at all.
        labels: Float32: 1 in an implicit log with a label column, else unchanged.
        weights: Float32, at least 1 where the event is kept; `None` without weights.
    """

    keep: pl.Series
    labels: pl.Series
    weights: pl.Series | None


def implicit_events(labels: pl.Series, schema: Schema) -> ImplicitEvents:
    """Applies the threshold and the weights of an implicit log with a label column.

    An event whose label r is below `positive_from` is left out; the others count 1
    with confidence 1 + alpha * r (`linear`) or 1 + alpha * log(1 + r) (`log`) after
    Hu, Koren, Volinsky (2008), Collaborative Filtering for Implicit Feedback Datasets.
    Labels of other logs stay as they are.

    Args:
        labels: checked labels, Float32, none of them missing; any number of events,
            so that a log can pass in chunks.
        schema: label kind, threshold and weights.
    """
    everything = pl.repeat(True, len(labels), dtype=pl.Boolean, eager=True)
    if schema.label_kind != "implicit" or schema.label is None:
        return ImplicitEvents(everything, labels, None)
    ones = pl.repeat(1.0, len(labels), dtype=pl.Float32, eager=True)
    keep = (labels >= schema.positive_from).alias("keep")
    if schema.weight == "none":
        return ImplicitEvents(keep, ones.alias(labels.name), None)
    # Below the threshold a label may be negative; such an event has no weight at all.
    strength = np.maximum(labels.cast(pl.Float64).to_numpy(), 0.0)
    if schema.weight == "log":
        strength = np.log1p(strength)
    weights = np.minimum(1.0 + schema.weight_alpha * strength, _LARGEST)
    weights = np.where(keep.to_numpy(), weights, 0.0).astype(np.float32)
    return ImplicitEvents(keep, ones.alias(labels.name), pl.Series("weight", weights))

"""Item vectors from features, for diversity and taste divergence.

Knows the item features of a dataset that have a limited number of values; hashed and
numeric features have none.
"""

from __future__ import annotations

import numpy as np

from shortlist.data.schema import Feature
from shortlist.data.store.dataset import Dataset
from shortlist.errors import InputError, did_you_mean

MOST_VALUES = 1024
_MOST_CELLS = 1 << 25


def value_features(dataset: Dataset) -> list[Feature]:
    """Item features whose values are rows of a table of at most 1,024 rows."""
    sizes = dataset.table_rows
    return [
        feature
        for feature in dataset.schema.owned_by("item")
        if feature.is_looked_up
        and not feature.is_hashed
        and sizes[feature.table] <= MOST_VALUES
        and dataset.num_items * sizes[feature.table] <= _MOST_CELLS
    ]


def taste_feature(dataset: Dataset, name: str | None = None) -> Feature | None:
    """The item feature that tastes are measured in.

    Args:
        dataset: what has the features.
        name: of the feature; by default the multi-valued one that comes first in the
            schema, else the first of all.

    Returns: the feature; `None` when no name is given and there is none.

    Raises:
        InputError: no such item feature, or one without a limited number of values
            (`taste-feature`).
    """
    features = value_features(dataset)
    if name is None:
        lists = [feature for feature in features if feature.kind == "multi_valued"]
        return next(iter([*lists, *features]), None)
    named = {feature.name: feature for feature in features}
    if name not in named:
        raise InputError(
            "taste-feature",
            "Tastes are measured in an item feature with at most"
            f" {MOST_VALUES:,} values. Received: {name!r}; there are {list(named)}."
            f"{did_you_mean(name, named)}",
        )
    return named[name]


def value_shares(dataset: Dataset, feature: Feature) -> np.ndarray:
    """Share of each value in each item row, `(num_items, values)` float32.

    A row sums to 1, or to 0 where the item has no known value; row 0 is zeros.
    """
    counts = _value_counts(dataset, feature)
    total = counts.sum(axis=1, keepdims=True)
    np.divide(counts, total, out=counts, where=total > 0)
    return counts


def feature_vectors(dataset: Dataset) -> np.ndarray | None:
    """All values of each item side by side, `(num_items, dim)` float32.

    Returns: `None` when the items have no such features.
    """
    blocks: list[np.ndarray] = []
    for feature in value_features(dataset):
        width = sum(block.shape[1] for block in blocks)
        width += dataset.table_rows[feature.table]
        if dataset.num_items * width <= _MOST_CELLS:
            blocks.append(_value_counts(dataset, feature))
    return np.concatenate(blocks, axis=1) if blocks else None


def _value_counts(dataset: Dataset, feature: Feature) -> np.ndarray:
    values = dataset.features[feature.name]
    values = values.reshape(len(values), -1)
    counts = np.zeros((dataset.num_items, dataset.table_rows[feature.table]))
    items = np.repeat(np.arange(len(values)), values.shape[1])
    flat = values.ravel()
    known = flat > 0  # row 0 is a value nobody knows, -1 is none
    np.add.at(counts, (items[known], flat[known]), 1.0)
    counts[0] = 0.0
    return counts.astype(np.float32)

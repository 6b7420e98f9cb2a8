"""Groups of users and of items that a report is divided by.

A group of users keeps these users; a group of items keeps all users with something
relevant in it, and asks how well that is found in the same lists.

References:
    Abdollahpouri, Burke and Mobasher, 2017, "Controlling popularity bias in
        learning-to-rank recommendation", https://doi.org/10.1145/3109859.3109912
        (short head and tail)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from shortlist.data.dataset import Dataset
from shortlist.data.schema import Feature
from shortlist.errors import InputError, did_you_mean

USER_EVENTS, ITEM_EVENTS, ITEM_POPULARITY = (
    "user_events",
    "item_events",
    "item_popularity",
)
BUILT_IN = (USER_EVENTS, ITEM_EVENTS, ITEM_POPULARITY)
COLD_BELOW = 5
HEAD_SHARE = 0.2
SMALL_BELOW = 30
"""Users of a group below which its means say little."""
MOST_GROUPS = 20
_EDGES = (0, COLD_BELOW, 20, 100)
_EVENT_GROUPS = ("cold (0 to 4)", "warm (5 to 19)", "warm (20 to 99)", "warm (100+)")


@dataclass(frozen=True, eq=False)
class Group:
    """One group of a slice.

    Args:
        slice: what divides: a built-in slice or a feature.
        owner: whether users or items are divided.
        name: of the group.
        rows: whether each user or item row belongs to it, `(num_rows,)`.
    """

    slice: str
    owner: Literal["user", "item"]
    name: str
    rows: np.ndarray


def groups_of(dataset: Dataset, name: str, known: tuple[str, ...]) -> list[Group]:
    """The groups of a slice, empty ones left out.

    Args:
        dataset: users, items and events.
        name: `user_events` or `item_events` (by number of known events: cold below
            5), `item_popularity` (the short head are the most popular items that
            together have 20 % of the known events), or a feature of users or items.
        known: parts whose events are known.

    Returns: at most 20 groups of a feature, the largest.

    Raises:
        InputError: no such feature, one of the context, or one with hashed values
            (`slice-unknown`).
    """
    if name == USER_EVENTS:
        users = dataset.interactions(*known).user_index
        counts = np.bincount(users, minlength=dataset.num_users)
        return _by_events(name, "user", counts)
    if name == ITEM_EVENTS:
        return _by_events(name, "item", dataset.item_counts(*known))
    if name == ITEM_POPULARITY:
        return _head_and_tail(dataset.item_counts(*known))
    return _by_feature(dataset, _feature(dataset, name))


def _by_events(
    name: str, owner: Literal["user", "item"], counts: np.ndarray
) -> list[Group]:
    place = np.searchsorted(_EDGES, counts, side="right") - 1
    groups = [
        Group(name, owner, label, place == i) for i, label in enumerate(_EVENT_GROUPS)
    ]
    return [group for group in groups if group.rows.any()]


def _head_and_tail(counts: np.ndarray) -> list[Group]:
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    head = np.zeros(len(counts), bool)
    head[order[before < HEAD_SHARE * counts.sum()]] = True
    head[0] = False
    return [
        Group(ITEM_POPULARITY, "item", "head (20 % of events)", head),
        Group(ITEM_POPULARITY, "item", "tail", ~head),
    ]


def _feature(dataset: Dataset, name: str) -> Feature:
    features = {
        feature.name: feature
        for owner in ("user", "item")
        for feature in dataset.schema.owned_by(owner)
    }
    if name not in features or features[name].is_hashed:
        known = [*BUILT_IN, *features]
        reason = "its values are hashed" if name in features else f"known are {known}"
        raise InputError(
            "slice-unknown",
            "A slice must be a feature of users or items with known values, or one of"
            f" {BUILT_IN}. Received: {name!r}; {reason}."
            f"{'' if name in features else did_you_mean(name, known)}",
        )
    return features[name]


def _by_feature(dataset: Dataset, feature: Feature) -> list[Group]:
    owner: Literal["user", "item"] = "user" if feature.owner == "user" else "item"
    values = dataset.features[feature.name]
    numbered: dict[int, str] = {}
    if feature.kind == "numeric":
        values, numbered = _quartiles(values)
    elif feature.kind == "bucketized":
        numbered = _bucket_names(dataset, feature)
    counts = np.bincount(values[1:][values[1:] >= 0])
    largest = np.argsort(-counts, kind="stable")[:MOST_GROUPS]
    groups: dict[str, np.ndarray] = {}
    for value in np.sort(largest[counts[largest] > 0]).tolist():
        label = numbered.get(value) or _value_name(dataset, feature, value)
        rows = values == value
        rows = rows.any(axis=1) if rows.ndim == 2 else rows
        rows[0] = False
        groups[label] = rows | groups[label] if label in groups else rows
    return [Group(feature.name, owner, label, rows) for label, rows in groups.items()]


def _value_name(dataset: Dataset, feature: Feature, value: int) -> str:
    known = value >= feature.oov_buckets
    return str(dataset.vocabularies[feature.table].id(value)) if known else "unknown"


def _quartiles(values: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
    """Quarter of each transformed number, and the names of the quarters."""
    edges = np.unique(np.quantile(values[1:], [0.25, 0.5, 0.75]))
    place = np.searchsorted(edges, values, side="right")
    names = {i: f"quarter {i + 1} of {len(edges) + 1}" for i in range(len(edges) + 1)}
    return place, names


def _bucket_names(dataset: Dataset, feature: Feature) -> dict[int, str]:
    """Rows of buckets: 0 is a missing number, 1 lies below the first boundary."""
    boundaries = dataset.info.numbers[feature.name].boundaries or ()
    texts = [f"{boundary:g}" for boundary in boundaries]
    names = {0: "unknown", 1: f"below {texts[0]}" if texts else "all"}
    for i, low in enumerate(texts):
        high = f" to {texts[i + 1]}" if i + 1 < len(texts) else " or more"
        names[i + 2] = f"{low}{high}"
    return names

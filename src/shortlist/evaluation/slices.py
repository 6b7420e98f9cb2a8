"""Groups of users, items and held-out events that a report is divided by.

A group of users keeps these users; a group of items or of events keeps all users with
something relevant in it, and asks how well that is found in the same lists.

References:
    Abdollahpouri, Burke and Mobasher, 2017, "Controlling popularity bias in
        learning-to-rank recommendation", https://doi.org/10.1145/3109859.3109912
        (short head and tail)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from shortlist.data.schema import CONTEXT, Feature, Owner
from shortlist.data.split import KNOWN
from shortlist.data.store.dataset import Dataset
from shortlist.errors import InputError, did_you_mean
from shortlist.evaluation.truth import event_values

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
_UNKNOWN = "(unknown)"  # in brackets: a value may be the word itself
_EDGES = (0, COLD_BELOW, 20, 100)
_EVENT_GROUPS = ("cold (0 to 4)", "warm (5 to 19)", "warm (20 to 99)", "warm (100+)")


@dataclass(frozen=True, eq=False)
class Group:
    """One group of a slice.

    Args:
        slice: what divides: a built-in slice or a feature.
        owner: whether users, items or, by their context, held-out events are divided.
        name: of the group.
        rows: whether each user or item row, or each event of
            `dataset.interactions(part)`, belongs to it, `(num_rows,)`.
    """

    slice: str
    owner: Owner
    name: str
    rows: np.ndarray


def groups_of(dataset: Dataset, name: str, part: str) -> list[Group]:
    """The groups of a slice, empty ones left out.

    Args:
        dataset: users, items and events.
        name: `user_events` or `item_events` (by number of known events: cold below
            5), `item_popularity` (the short head are the most popular items that
            together have 20 % of the known events), or a feature of users, of items
            or of the context.
        part: the held-out part; events of those before it are known.

    Returns: at most 20 groups of a feature, the largest.

    Raises:
        InputError: no such feature (`slice-unknown`).
    """
    known = KNOWN[part]
    if name == USER_EVENTS:
        users = dataset.interactions(*known).user_index
        counts = np.bincount(users, minlength=dataset.num_users)
        return _by_events(name, "user", counts)
    if name == ITEM_EVENTS:
        return _by_events(name, "item", dataset.item_counts(*known))
    if name == ITEM_POPULARITY:
        return _head_and_tail(dataset.item_counts(*known))
    return _by_feature(dataset, _feature(dataset, name), part)


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
    features = {feature.name: feature for feature in dataset.schema.features}
    if name not in features:
        known = [*BUILT_IN, *features]
        raise InputError(
            "slice-unknown",
            f"A slice must be one of {', '.join(known)}. Received: {name!r}."
            f"{did_you_mean(name, known)}",
        )
    return features[name]


def _by_feature(dataset: Dataset, feature: Feature, part: str) -> list[Group]:
    if feature.owner == CONTEXT:
        first, stored = 0, event_values(dataset, part, feature.name)
    else:
        first, stored = 1, dataset.features[feature.name]  # row 0 is nobody's
    places, labels = _labelled(dataset, feature, stored[first:])
    counts = np.bincount(places[places >= 0], minlength=1)
    largest = np.argsort(-counts, kind="stable")[:MOST_GROUPS]
    groups = []
    for place in np.sort(largest[counts[largest] > 0]).tolist():
        rows = np.zeros(len(stored), bool)
        inside = places == place
        rows[first:] = inside.any(axis=1) if inside.ndim == 2 else inside
        groups.append(Group(feature.name, feature.owner, labels(place), rows))
    return groups


def _labelled(
    dataset: Dataset, feature: Feature, values: np.ndarray
) -> tuple[np.ndarray, Callable[[int], str]]:
    """Group of each value, integers from 0 up or -1 for none, and how they are named.

    A missing number of a numeric feature is stored as a number: it is in a quarter.
    """
    if feature.kind == "numeric":
        edges = np.unique(np.quantile(values, [0.25, 0.5, 0.75]))
        quarters = np.searchsorted(edges, values, side="right")
        return quarters, lambda place: f"quarter {place + 1} of {len(edges) + 1}"
    if feature.kind == "bucketized":
        return values, _bucket_names(dataset, feature).__getitem__
    if feature.is_hashed:
        return values, lambda place: f"bucket {place}" if place else _UNKNOWN
    ids = dataset.vocabularies[feature.table]
    # All rows of unknown values are one group.
    known = np.where((0 <= values) & (values < feature.oov_buckets), 0, values)
    return known, lambda place: str(ids.id(place)) if place else _UNKNOWN


def _bucket_names(dataset: Dataset, feature: Feature) -> list[str]:
    """Rows of buckets: 0 is a missing number, 1 lies below the first boundary."""
    boundaries = dataset.info.numbers[feature.name].boundaries or ()
    texts = [f"{boundary:g}" for boundary in boundaries]
    if len(set(texts)) < len(texts):
        texts = [repr(boundary) for boundary in boundaries]
    names = [_UNKNOWN, f"below {texts[0]}" if texts else "all"]
    for i, low in enumerate(texts):
        high = f" to {texts[i + 1]}" if i + 1 < len(texts) else " or more"
        names.append(f"{low}{high}")
    return names

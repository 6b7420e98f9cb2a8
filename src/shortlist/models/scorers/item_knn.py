"""Item-based nearest neighbours, from co-occurrence counts.

Sources: Sarwar et al. (2001), Item-based Collaborative Filtering; Deshpande & Karypis
(2004), Item-based Top-N Recommendation; the measures, the decay and the rating weights
are those of SAR (Microsoft, Simple Algorithm for Recommendation).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from shortlist.data.split import DAY_MS
from shortlist.data.store.dataset import Dataset
from shortlist.data.store.ragged import Ragged, grouped
from shortlist.errors import InputError
from shortlist.models.options import ItemKnnOptions
from shortlist.models.scorers.co_occurrence import co_occurrence_rows
from shortlist.models.scorers.queries import KnownItems, Queries
from shortlist.models.scorers.scorer import Scorer, Shapes, check_times


class ItemKnn(Scorer):
    """A user's score of an item is the sum of its similarities to the known items.

    A repeated item counts as its newest event. Users without known items
    get popularity.

    Args:
        options: the options; the defaults if left out. Where the times of a query are
            not known, all its items count alike; an item without a label has the mean
            weight of the user's others.
        **changes: single options by name, as in `ItemKnn(neighbours=50)`.

    Raises:
        InputError: `invalid-argument`.
    """

    kind = "item_knn"

    def __init__(self, options: ItemKnnOptions | None = None, **changes: Any) -> None:
        self.options = ItemKnnOptions.of(options, changes)
        self.counts = np.zeros(0, np.float32)
        self.offsets = np.zeros(1, np.int32)
        self.indices = np.zeros(0, np.int32)
        self.similarities = np.zeros(0, np.float32)

    @property
    def uses_times(self) -> bool:  # type: ignore[override]
        """Whether the times of known items matter."""
        return self.options.half_life_days is not None

    @property
    def uses_values(self) -> bool:  # type: ignore[override]
        """Whether the labels of known items matter."""
        return self.options.rating_weights

    def fit(self, dataset: Dataset, parts: tuple[str, ...] = ("train",)) -> ItemKnn:
        """Counts the users of both items of each pair and keeps the nearest items.

        Raises:
            InputError: `rating_weights` without a label (`label-needed`), or
                `half_life_days` without times (`times-needed`).
        """
        if self.options.half_life_days is not None:
            check_times(dataset, "half_life_days")
        if self.options.rating_weights and dataset.schema.label is None:
            raise InputError(
                "label-needed",
                "rating_weights needs a label in the schema. Received: none. Name one"
                " or set rating_weights = false.",
            )
        known = KnownItems(dataset, parts).everyone().distinct()
        counts = np.bincount(known.items, minlength=dataset.num_items)
        owners, items, values = [], [], []
        for begin, both in co_occurrence_rows(known, dataset.num_items):
            rows = np.arange(begin, begin + len(both))
            near = self._similarities(both, counts[rows][:, None], counts[None, :])
            near[np.arange(len(rows)), rows] = 0.0
            for row, similar in zip(rows, near, strict=True):
                kept = nearest(similar, self.options.neighbours)
                owners.append(np.full(len(kept), row, np.int32))
                items.append(kept)
                values.append(similar[kept].astype(np.float32))
        self.counts = dataset.item_counts(*parts).astype(np.float32)
        self._index(np.concatenate(owners), np.concatenate(items), values)
        return self

    def score_all(self, queries: Queries) -> np.ndarray:
        """Scores `(n, num_items)` float32 of all item rows."""
        known = queries.distinct()
        weights = self._weights(known)
        scores = np.empty((len(known), self.num_items), np.float32)
        for query in range(len(known)):
            events = slice(known.offsets[query], known.offsets[query + 1])
            rows = known.items[events]
            scores[query] = (
                self._summed(rows, weights[events]) if len(rows) else self.counts
            )
        return self._finished(scores)

    def similar(self, row: int) -> np.ndarray:
        """Similarities of all items to one, `(num_items,)` float32."""
        scores = self._summed(np.array([row]), np.ones(1)).astype(np.float32)
        return self._finished(scores)

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments as plain values."""
        return self.options.model_dump()

    def arrays(self) -> dict[str, np.ndarray]:
        """Sparse similarities by known item, and `counts`.

        `offsets` `(num_items + 1,)` int32, `indices` `(m,)` int32: the items that count
        item i among their nearest are `indices[offsets[i]:offsets[i + 1]]`.
        `similarities` `(m,)` float32.
        """
        return {
            "counts": self.counts,
            "offsets": self.offsets,
            "indices": self.indices,
            "similarities": self.similarities,
        }

    def shapes(
        self, arrays: Mapping[str, np.ndarray], num_users: int, num_items: int
    ) -> Shapes:
        """As many similarities as there are indices."""
        size = arrays["indices"].size if "indices" in arrays else 0
        return {
            "offsets": (np.int32, (num_items + 1,)),
            "indices": (np.int32, (size,)),
            "similarities": (np.float32, (size,)),
        }

    def value_problem(self, arrays: Mapping[str, np.ndarray]) -> tuple[str, str] | None:
        """Offsets must rise over all indices, and indices must be item rows."""
        offsets, indices = arrays["offsets"], arrays["indices"]
        ends = offsets[0] == 0 and offsets[-1] == len(indices)
        if not ends or (np.diff(offsets) < 0).any():
            return f"must have offsets rising from 0 to {len(indices)}", "others"
        if ((indices < 0) | (indices >= len(arrays["counts"]))).any():
            return "must have rows of items as indices", "others"
        return None

    def _set_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.counts, self.offsets = arrays["counts"], arrays["offsets"]
        self.indices = arrays["indices"]
        self.similarities = arrays["similarities"]

    def _index(
        self, owners: np.ndarray, items: np.ndarray, values: list[np.ndarray]
    ) -> None:
        """Turns lists of nearest items into lists of those they are near to."""
        offsets, order = grouped(items, self.num_items)
        self.indices = owners[order]
        self.similarities = np.concatenate(values)[order]
        self.offsets = offsets.astype(np.int32)

    def _similarities(
        self, both: np.ndarray, first: np.ndarray, second: np.ndarray
    ) -> np.ndarray:
        """Similarities of a block `(rows, num_items)` from counts; 0 without users."""
        if self.options.similarity == "cooccurrence":
            return both.astype(np.float64)
        if self.options.similarity == "jaccard":
            below = first + second - both
        elif self.options.similarity == "cosine":
            below = np.sqrt(first * second.astype(np.float64))
        else:
            below = first * second.astype(np.float64)
        near: np.ndarray = both / np.maximum(below + self.options.shrinkage, 1e-12)
        return near

    def _weights(self, known: Queries) -> np.ndarray:
        weights = np.ones(len(known.items))
        if self.options.rating_weights and known.values is not None:
            weights *= _filled(known.values, known)
        if self.options.half_life_days is not None and known.times is not None:
            newest = np.full(len(known), np.iinfo(np.int64).min)
            np.maximum.at(newest, known.positions, known.times)
            age = (newest[known.positions] - known.times) / DAY_MS
            weights *= 0.5 ** (age / self.options.half_life_days)
        return weights

    def _summed(self, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
        near = Ragged(self.offsets, self.indices).places(rows)
        shares = self.similarities[near.values] * np.repeat(weights, near.lengths)
        summed: np.ndarray = np.bincount(
            self.indices[near.values], shares, minlength=self.num_items
        )
        return summed


def _filled(values: np.ndarray, known: Queries) -> np.ndarray:
    """Labels `(m,)`; one that is NaN becomes the mean of the user's others, or 1."""
    filled = values.astype(np.float64)
    missing = np.isnan(filled)
    if missing.any():
        owners = known.positions
        sums = np.bincount(owners, np.where(missing, 0, filled), minlength=len(known))
        sizes = np.bincount(owners[~missing], minlength=len(known))
        means = np.where(sizes > 0, sums / np.maximum(sizes, 1), 1.0)
        filled[missing] = means[owners[missing]]
    return filled


def nearest(similar: np.ndarray, neighbours: int | None) -> np.ndarray:
    """Rows of the highest similarities above 0, ties by lower row; in order of row."""
    positive = np.flatnonzero(similar > 0)
    if neighbours is None or len(positive) <= neighbours:
        return positive
    order = np.argsort(-similar[positive], kind="stable")[:neighbours]
    return np.sort(positive[order])

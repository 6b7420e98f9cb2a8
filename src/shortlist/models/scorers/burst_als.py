"""Implicit ALS whose items also learn from bursts, and whose labels set confidence.

Sources: Hu, Koren & Volinsky (2008), Collaborative Filtering for Implicit Feedback
Datasets; regularization by frequency as in Rendle et al. (2022), Revisiting the
Performance of iALS on Item Recommendation Benchmarks. Bursts as additional rows of the
matrix are ours. Knows arrays and datasets; knows no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from shortlist.data.store.dataset import Dataset
from shortlist.models.options import BurstAlsOptions
from shortlist.models.scorers.folded_factors import FoldedFactors, gram_of
from shortlist.models.scorers.normal_equations import solve_rows
from shortlist.models.scorers.queries import KnownItems, Queries
from shortlist.models.scorers.scorer import Shapes
from shortlist.models.validate import check_not_negative

LEAST_CONFIDENCE = 0.05
"""Of an observed pair, however low its label."""


class BurstAls(FoldedFactors):
    """Implicit ALS that also learns from the bursts of a user.

    Items of one user within `burst_seconds` are more closely related than items years
    apart. So the factorized matrix has a row for every user and, with the weight
    `burst_weight`, a row for every burst of at least two items; both share the item
    factors. An observed pair has the confidence `1 + label_weight * z`, where z is its
    label in standard deviations above the mean; any other pair has `unobserved`.

    As in `ImplicitAls`, the factors of a user are computed from the known items at
    query time. Users without known items get popularity. Without times there are no
    bursts, and without a label all pairs have the same confidence.

    Args:
        options: the options; the defaults if left out.
        seed: of the initial factors.
        **changes: single options by name, as in `BurstAls(factors=32)`.

    Raises:
        InputError: `invalid-argument`.
    """

    kind = "burst_als"
    is_seeded = True

    def __init__(
        self, options: BurstAlsOptions | None = None, *, seed: int = 0, **changes: Any
    ) -> None:
        check_not_negative(seed=seed)
        self.options = BurstAlsOptions.of(options, changes)
        self.seed = seed
        self.label = np.zeros(2, np.float32)  # mean and standard deviation
        self._set_factors(np.zeros((0, self.options.factors)), np.zeros(0))

    @property
    def uses_values(self) -> bool:  # type: ignore[override]
        """Whether the labels of known items matter."""
        return self.options.label_weight > 0

    def fit(self, dataset: Dataset, parts: tuple[str, ...] = ("train",)) -> BurstAls:
        """Solves for users and bursts and for items, in turn."""
        known = KnownItems(dataset, parts, values=self.uses_values).everyone()
        known = known.distinct()
        counts = np.bincount(known.items, minlength=dataset.num_items)
        self.counts = counts.astype(np.float32)
        self.label = label_moments(known.values)
        timed = dataset.schema.timestamp is not None and self.options.burst_weight > 0
        rows = self._rows(known, timed=timed)
        self._set_factors(self._alternate(*rows), self.counts)
        return self

    def fold_in(self, known: Queries) -> np.ndarray:
        """User factors `(n, factors)` float64 of distinct known items."""
        confidence = self.confidence(known.values, len(known.items))
        sizes = np.diff(known.offsets).astype(np.float64)
        return self._solve(
            (known.offsets, known.items, confidence),
            self.item_factors,
            self.options.unobserved * self._gram,
            sizes,
            self._num_trained,
        )

    def confidence(self, values: np.ndarray | None, size: int) -> np.ndarray:
        """Confidence of `size` observed pairs from their labels, `(size,)` float64."""
        deviation = float(self.label[1])
        if values is None or deviation == 0:
            return np.ones(size)
        standard = (values.astype(np.float64) - self.label[0]) / deviation
        standard[~np.isfinite(standard)] = 0.0
        weighted: np.ndarray = 1 + self.options.label_weight * standard
        return weighted.clip(min=LEAST_CONFIDENCE)

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments as plain values."""
        return {**self.options.model_dump(), "seed": self.seed}

    def arrays(self) -> dict[str, np.ndarray]:
        """`item_factors` `(num_items, factors)`, `counts`, `label` `(2,)`."""
        return {
            "item_factors": self.item_factors,
            "counts": self.counts,
            "label": self.label,
        }

    def shapes(
        self, arrays: Mapping[str, np.ndarray], num_users: int, num_items: int
    ) -> Shapes:
        """Factors of the items, and mean and deviation of the labels."""
        return {
            "item_factors": (np.float32, (num_items, self.item_factors.shape[1])),
            "label": (np.float32, (2,)),
        }

    def value_problem(self, arrays: Mapping[str, np.ndarray]) -> tuple[str, str] | None:
        """A deviation is at least 0."""
        if arrays["label"][1] < 0:
            return "must have a deviation of labels of at least 0", "another"
        return None

    def _set_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.label = arrays["label"]
        self._set_factors(arrays["item_factors"], arrays["counts"])

    def _rows(
        self, known: Queries, *, timed: bool
    ) -> tuple[Queries, np.ndarray, np.ndarray]:
        """Users and bursts, the confidence of each entry, the weight of each row."""
        sizes = np.diff(known.offsets)
        mean = max(float(sizes[sizes > 0].mean()) if sizes.any() else 1.0, 1.0)
        weights = (np.maximum(sizes, 1) / mean) ** -self.options.user_balance
        confidence = self.confidence(known.values, len(known.items))
        if not timed:
            return known, confidence, weights
        found = bursts(known, self.options.burst_seconds)
        rows = Queries(
            np.zeros(len(known) + len(found), np.int32),
            np.concatenate([known.offsets, known.offsets[-1] + found.offsets[1:]]),
            np.concatenate([known.items, found.items]),
        )
        confidence = np.concatenate([confidence, np.ones(len(found.items))])
        of_bursts = np.full(len(found), self.options.burst_weight)
        return rows, confidence, np.concatenate([weights, of_bursts])

    def _alternate(
        self, rows: Queries, confidence: np.ndarray, weights: np.ndarray
    ) -> np.ndarray:
        """Item factors `(num_items, factors)` float64."""
        num_items, present = len(self.counts), np.diff(rows.offsets) > 0
        order = np.argsort(rows.items, kind="stable")
        offsets, owners = rows.transposed(num_items)
        by_item = (offsets, owners, (confidence * weights[rows.positions])[order])
        of_items = np.bincount(
            rows.items, weights=weights[rows.positions], minlength=num_items
        )
        of_rows = np.diff(rows.offsets).astype(np.float64)
        weights = np.where(present, weights, 0.0)
        rng = np.random.default_rng(self.seed)
        width = self.options.factors
        items = rng.normal(0, 0.1 / width**0.5, (num_items, width))
        items[self.counts == 0] = 0.0
        trained = int(np.count_nonzero(self.counts))
        by_row = (rows.offsets, rows.items, confidence)
        for _ in range(self.options.iterations):
            gram = self.options.unobserved * gram_of(items)
            users = self._solve(by_row, items, gram, of_rows, trained)
            gram = self.options.unobserved * gram_of(users * np.sqrt(weights)[:, None])
            items = self._solve(by_item, users, gram, of_items, float(weights.sum()))
        return items

    def _solve(
        self,
        entries: tuple[np.ndarray, np.ndarray, np.ndarray],
        vectors: np.ndarray,
        gram: np.ndarray,
        sizes: np.ndarray,
        others: float,
    ) -> np.ndarray:
        """Factors of rows with `entries` (offsets, columns, confidence)."""
        offsets, columns, weights = entries
        held = (sizes + self.options.unobserved * others) ** self.options.frequency
        ridge = self.options.regularization * held
        return solve_rows(
            offsets, columns, vectors, weights, weights, gram=gram, ridge=ridge
        )


def label_moments(values: np.ndarray | None) -> np.ndarray:
    """Mean and standard deviation of the finite labels, `(2,)` float32; 0 for none."""
    finite = np.zeros(0) if values is None else values[np.isfinite(values)]
    if not len(finite):
        return np.zeros(2, np.float32)
    wide = finite.astype(np.float64)
    return np.array([wide.mean(), wide.std()], np.float32)


def bursts(known: Queries, seconds: float) -> Queries:
    """The bursts of at least two items among distinct known items with times.

    A burst begins with a user's first event and with every one that comes more than
    `seconds` after the first of the burst before.

    Returns: a query of each burst, oldest first within a user.
    """
    assert known.times is not None
    positions = known.positions
    order = np.lexsort((known.items, known.times, positions))
    users, times = positions[order], known.times[order]
    begins: list[int] = []
    longest = round(seconds * 1000)
    place = 0
    while place < len(order):
        begins.append(place)
        # Past the end of the user, or past the first event that is too late.
        end = int(known.offsets[users[place] + 1])
        limit = times[place] + longest
        place += int(np.searchsorted(times[place:end], limit, side="right"))
    starts = np.array([*begins, len(order)], np.int64)
    sizes = np.diff(starts)
    kept = sizes >= 2
    offsets = np.concatenate([[0], np.cumsum(sizes[kept])]).astype(np.int64)
    rows = order[np.repeat(kept, sizes)]
    return Queries(
        known.user_index[users[starts[:-1][kept]]], offsets, known.items[rows]
    )

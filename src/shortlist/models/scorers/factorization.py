"""Biased matrix factorization of labels, by variational Bayes.

Sources: Koren, Bell & Volinsky (2009), Matrix Factorization Techniques for Recommender
Systems; Lim & Teh (2007), Variational Bayesian Approach to Movie Rating Prediction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from shortlist.data.store.dataset import Dataset
from shortlist.errors import InputError
from shortlist.models.options import FactorizationOptions
from shortlist.models.scorers.normal_equations import padded_blocks
from shortlist.models.scorers.queries import Queries
from shortlist.models.scorers.scorer import LAST, Shapes, blocks
from shortlist.models.scorers.vectors import VectorScorer, cosines
from shortlist.models.validate import check_not_negative

# Variances before the first sweep, in units of the variance of the labels.
FIRST_NOISE = 0.6
FIRST_FACTOR = 0.05
FIRST_BIAS = 0.2


class Factorization(VectorScorer):
    """Predicts a label: mean + user bias + item bias + dot product of factors.

    Each row of users and items has a normal distribution rather than a point; the
    rows of one side are solved in closed form given the other, and the variances of
    noise, biases and every factor are estimated from the data. A factor that explains
    nothing vanishes, so there is no regularization to choose and more factors do no
    harm. Known items do not matter: a user is identified by the row of the vocabulary;
    a user without labels gets the item biases.

    Args:
        options: the options; the defaults if left out.
        seed: of the initial factors.
        **changes: single options by name, as in `Factorization(factors=20)`.

    Raises:
        InputError: `invalid-argument`.
    """

    kind = "factorization"
    is_seeded = True
    predicts_label = True

    def __init__(
        self,
        options: FactorizationOptions | None = None,
        *,
        seed: int = 0,
        **changes: Any,
    ) -> None:
        check_not_negative(seed=seed)
        self.options = FactorizationOptions.of(options, changes)
        self.seed = seed
        width = self.options.factors + 1
        self.counts = np.zeros(0, np.float32)
        self.label = np.zeros(3, np.float32)  # mean, least, greatest
        self.users = np.zeros((0, width), np.float32)
        self.items = np.zeros((0, width), np.float32)
        self._prepare()

    def fit(
        self, dataset: Dataset, parts: tuple[str, ...] = ("train",)
    ) -> Factorization:
        """Solves for users and items in turn.

        Raises:
            InputError: the schema names no label, or no event has one
                (`label-needed`).
        """
        events = dataset.part(*parts)
        events = events.take((events.user_index > 0) & (events.item_index > 0))
        if dataset.schema.label is None or not len(events):
            raise InputError(
                "label-needed",
                "A factorization predicts the label, so the schema must name one and"
                f" events must have it. Received: label {dataset.schema.label!r} and"
                f" {len(events)} events. Name a label or use another kind.",
            )
        labels = events.label.astype(np.float64)
        mean, scale = labels.mean(), labels.std() or 1.0
        rows = (events.user_index, events.item_index)
        sizes = (dataset.num_users, dataset.num_items)
        rng = np.random.default_rng(self.seed)
        users, items = (
            _Side(r, n, self.options.factors, rng)
            for r, n in zip(rows, sizes, strict=True)
        )
        standard, noise = (labels - mean) / scale, FIRST_NOISE
        for sweep in range(self.options.sweeps):
            users.solve(items, standard, noise, estimate=sweep > 1)
            items.solve(users, standard, noise, estimate=sweep > 1)
            if sweep > 1:
                noise = _noise(users, items, standard)
        self.users = (users.means * scale).astype(np.float32)
        self.items = items.means.astype(np.float32)
        self.items[:, -1] = items.means[:, -1] * scale
        low, high = dataset.schema.label_min, dataset.schema.label_max
        self.label = np.array(
            [
                mean,
                labels.min() if low is None else low,
                labels.max() if high is None else high,
            ],
            np.float32,
        )
        counts = np.bincount(events.item_index, minlength=dataset.num_items)
        self.counts = counts.astype(np.float32)
        self._prepare()
        return self

    @property
    def item_vectors(self) -> np.ndarray:
        """Factors, bias and one: `(num_items, factors + 2)`."""
        return self._item_vectors

    def user_vectors(self, queries: Queries) -> np.ndarray:
        """Factors, one and what all items share: `(n, factors + 2)`."""
        rows = self.users[queries.user_index]
        ones = np.ones(len(rows), np.float32)
        return np.column_stack([rows[:, :-1], ones, rows[:, -1] + self.label[0]])

    def predict(
        self, queries: Queries, positions: np.ndarray, item_index: np.ndarray
    ) -> np.ndarray:
        """Predicted labels `(m,)` float32, within the range of the labels.

        An item without events gets the mean and the user's bias.
        """
        users = self.users[queries.user_index[positions]]
        labels = np.empty(len(positions), np.float32)
        for begin, end in blocks(len(positions), self.options.factors):
            mine, items = users[begin:end], self.items[item_index[begin:end]]
            labels[begin:end] = (
                np.einsum("nk,nk->n", mine[:, :-1], items[:, :-1])
                + mine[:, -1]
                + items[:, -1]
                + self.label[0]
            )
        return np.clip(labels, self.label[1], self.label[2])

    def similar(self, row: int) -> np.ndarray:
        """Cosines of the item factors, `(num_items,)` float32."""
        return self._finished(cosines(self.items[:, :-1], row))

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments as plain values."""
        return {**self.options.model_dump(), "seed": self.seed}

    def arrays(self) -> dict[str, np.ndarray]:
        """`users` and `items` `(rows, factors + 1)`, the last column the bias.

        `label` `(3,)` is mean, least and greatest; `counts` `(num_items,)`.
        """
        return {
            "users": self.users,
            "items": self.items,
            "label": self.label,
            "counts": self.counts,
        }

    def shapes(
        self, arrays: Mapping[str, np.ndarray], num_users: int, num_items: int
    ) -> Shapes:
        """Factors and bias of users and items, and the range of the labels."""
        width = self.items.shape[1]
        return {
            "users": (np.float32, (num_users, width)),
            "items": (np.float32, (num_items, width)),
            "label": (np.float32, (3,)),
        }

    def value_problem(self, arrays: Mapping[str, np.ndarray]) -> tuple[str, str] | None:
        """Predictions are clipped to the range of the labels."""
        if arrays["label"][1] > arrays["label"][2]:
            return "must have a least label up to the greatest", "another"
        return None

    def _set_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.users, self.items = arrays["users"], arrays["items"]
        self.label, self.counts = arrays["label"], arrays["counts"]
        self._prepare()

    def _prepare(self) -> None:
        last = np.where(self.counts > 0, np.float32(0), LAST)
        biases = self.items[:, -1] + last
        self._item_vectors = np.column_stack(
            [self.items[:, :-1], biases, np.ones(len(biases))]
        ).astype(np.float32)


class _Side:
    """Users or items: normal distributions of factors and bias, the bias last.

    Attributes:
        means: `(rows, k + 1)`.
        spreads: covariances `(rows, k + 1, k + 1)`.
        prior: expected squares `(k + 1,)`, the variance of the prior.
    """

    def __init__(
        self, index: np.ndarray, num_rows: int, factors: int, rng: np.random.Generator
    ) -> None:
        self.index = index
        self.order = np.argsort(index, kind="stable")
        sizes = np.bincount(index, minlength=num_rows)
        self.offsets = np.concatenate([[0], np.cumsum(sizes)])
        self.known = sizes > 0
        self.means = rng.normal(0, 0.1, (num_rows, factors + 1))
        self.means[~self.known] = 0.0
        self.means[:, -1] = 0.0
        self.spreads = np.zeros((num_rows, factors + 1, factors + 1))
        self.prior = np.full(factors + 1, FIRST_FACTOR)
        self.prior[-1] = FIRST_BIAS

    def solve(
        self, other: _Side, labels: np.ndarray, noise: float, *, estimate: bool
    ) -> None:
        """The distribution of every row given those of the other side.

        Args:
            other: the other side.
            labels: `(events,)`, centered.
            noise: variance of a label.
            estimate: whether the prior becomes that of the new rows.
        """
        width = self.means.shape[1]
        columns, sorted_labels = other.index[self.order], labels[self.order]
        flat = other.spreads.reshape(-1, width * width)
        for rows, entries, present in padded_blocks(self.offsets, width * width):
            chosen = columns[entries]
            inputs = other.means[chosen]
            left = sorted_labels[entries] - inputs[:, :, -1]
            inputs[:, :, -1] = 1.0
            inputs *= present[:, :, None]
            summed = np.matmul(present[:, None].astype(float), flat[chosen])
            spread = summed.reshape(-1, width, width)
            shared = spread[:, :-1, -1].copy()
            spread[:, -1], spread[:, :, -1] = 0.0, 0.0  # the input of a bias is a one
            matrix = np.matmul(inputs.transpose(0, 2, 1), inputs) + spread
            matrix = matrix / noise + np.diag(1 / self.prior)
            right = np.einsum("nl,nlk->nk", left, inputs)
            right[:, :-1] -= shared
            self.spreads[rows] = np.linalg.inv(matrix)
            means = np.matmul(self.spreads[rows], right[:, :, None])[:, :, 0]
            self.means[rows] = means / noise
        if estimate:
            variances = np.einsum("nkk->nk", self.spreads[self.known])
            squares = self.means[self.known] ** 2 + variances
            self.prior = np.maximum(squares.mean(axis=0), 1e-9)


def _noise(users: _Side, items: _Side, labels: np.ndarray) -> float:
    """Expected square of what the model leaves of a label."""
    total = 0.0
    for begin, end in blocks(len(labels), users.spreads[0].size):
        event = slice(begin, end)
        mine, spread = (
            users.means[users.index[event]],
            users.spreads[users.index[event]],
        )
        other = items.means[items.index[event]]
        wide = items.spreads[items.index[event]]
        left = labels[event] - np.einsum("nk,nk->n", mine[:, :-1], other[:, :-1])
        left -= mine[:, -1] + other[:, -1]
        # With a one beside the factors both biases are part of the quadratic forms.
        mine, other = mine.copy(), other.copy()
        mine[:, -1] = other[:, -1] = 1.0
        variance = np.einsum("nk,nkl,nl->n", other, spread, other)
        variance += np.einsum("nk,nkl,nl->n", mine, wide, mine)
        factors = (spread[:, :-1, :-1] * wide[:, :-1, :-1]).sum(axis=(1, 2))
        total += float((left**2 + variance + factors).sum())
    return max(total / len(labels), 1e-9)

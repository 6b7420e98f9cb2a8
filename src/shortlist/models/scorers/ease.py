"""EASE: item-item weights of a linear autoencoder, in closed form.

Source: Steck (2019), Embarrassingly Shallow Autoencoders for Sparse Data; the dropout
is that of Steck (2020), Autoencoders that don't overfit towards the Identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from shortlist.data.store.dataset import Dataset
from shortlist.errors import ResourceError
from shortlist.models.options import EaseOptions
from shortlist.models.scorers.co_occurrence import co_occurrences
from shortlist.models.scorers.queries import KnownItems, Queries
from shortlist.models.scorers.scorer import Scorer, Shapes

GIB = 2**30


class Ease(Scorer):
    """A user's score of an item is the sum of its weights to the known items.

    The weights minimize `||X - XB||^2 + l2 ||B||^2` with a zero diagonal, where X is
    the user-item matrix. With `dropout` p they are the expected weights of a denoising
    autoencoder that drops inputs with that probability: the regularization of item j
    is `l2 + p / (1 - p) * count_j` (EDLAE). Users without known items get popularity.

    Args:
        options: the options; the defaults if left out.
        **changes: single options by name, as in `Ease(l2=100)`.

    Raises:
        InputError: `invalid-argument`.
    """

    kind = "ease"

    def __init__(self, options: EaseOptions | None = None, **changes: Any) -> None:
        self.options = EaseOptions.of(options, changes)
        self.counts = np.zeros(0, np.float32)
        self.weights = np.zeros((0, 0), np.float32)

    def fit(self, dataset: Dataset, parts: tuple[str, ...] = ("train",)) -> Ease:
        """Inverts the regularized item-item matrix in float64.

        Raises:
            ResourceError: it would need more than `memory_limit_gb`
                (`catalogue-too-large`).
        """
        self._check_memory(dataset.num_items)
        known = KnownItems(dataset, parts).everyone().distinct()
        gram = co_occurrences(known, dataset.num_items)
        self.weights = ease_weights(gram, self.options.l2, self.options.dropout)
        self.counts = dataset.item_counts(*parts).astype(np.float32)
        return self

    def score_all(self, queries: Queries) -> np.ndarray:
        """Scores `(n, num_items)` float32 of all item rows."""
        known = queries.distinct()
        scores = np.empty((len(known), self.num_items), np.float32)
        for query in range(len(known)):
            rows = known.items[known.offsets[query] : known.offsets[query + 1]]
            # Row after row: the result does not depend on the other queries.
            scores[query] = self.weights[rows].sum(axis=0) if len(rows) else self.counts
        return self._finished(scores)

    def similar(self, row: int) -> np.ndarray:
        """The weights from one item to all, `(num_items,)` float32."""
        return self._finished(self.weights[row].copy())

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments as plain values."""
        return self.options.model_dump()

    def arrays(self) -> dict[str, np.ndarray]:
        """`weights` `(num_items, num_items)` and `counts` `(num_items,)`, float32."""
        return {"weights": self.weights, "counts": self.counts}

    def shapes(
        self, arrays: Mapping[str, np.ndarray], num_users: int, num_items: int
    ) -> Shapes:
        """A weight of each pair of items."""
        return {"weights": (np.float32, (num_items, num_items))}

    def _set_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.weights, self.counts = arrays["weights"], arrays["counts"]

    def _check_memory(self, num_items: int) -> None:
        # The Gram matrix, its inverse and a work copy in float64, the weights.
        needed = num_items**2 * (3 * 8 + 4) / GIB
        limit = self.options.memory_limit_gb
        if needed > limit:
            fits = int((limit * GIB / 28) ** 0.5)
            raise ResourceError(
                "catalogue-too-large",
                f"EASE holds dense matrices of items x items: {num_items} rows need"
                f" {needed:.1f} GiB, and memory_limit_gb is {limit}."
                f" Set columns.item_max_size = {max(1, fits - 1)}, raise the limit, or"
                " use kind = 'item_knn' or 'als'.",
            )


def ease_weights(gram: np.ndarray, l2: float, dropout: float = 0.0) -> np.ndarray:
    """Weights `(n, n)` float32 of a Gram matrix `(n, n)` float64, which it changes."""
    diagonal = np.diag_indices_from(gram)
    gram[diagonal] += l2 + dropout / (1 - dropout) * gram[diagonal]
    inverse = np.linalg.inv(gram)
    inverse /= -np.diag(inverse).copy()
    inverse[diagonal] = 0.0
    return inverse.astype(np.float32)

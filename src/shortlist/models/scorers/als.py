"""Implicit-feedback matrix factorization by alternating least squares.

Sources: Hu, Koren & Volinsky (2008), Collaborative Filtering for Implicit Feedback
Datasets; the regularization by frequency is that of Rendle et al. (2022), Revisiting
the Performance of iALS on Item Recommendation Benchmarks.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from shortlist.data.store.dataset import Dataset
from shortlist.errors import ResourceError
from shortlist.models.options import AlsOptions
from shortlist.models.scorers.folded_factors import FoldedFactors, gram_of
from shortlist.models.scorers.normal_equations import solve_rows
from shortlist.models.scorers.queries import KnownItems, Queries
from shortlist.models.scorers.scorer import Shapes
from shortlist.models.validate import check_not_negative


class ImplicitAls(FoldedFactors):
    """The dot product of a user's and an item's factors.

    The item factors are learned. The factors of a user are computed in closed form from
    the known items at query time, so a new event changes them and a new user needs no
    training. An observed pair has the confidence `1 + alpha`, any other pair 1. Users
    without known items get popularity.

    Args:
        options: the options; the defaults if left out. With `frequency` 0 the package
            `implicit` trains the model; above 0 the closed form here does, which is
            exact and slower.
        seed: of the initial factors.
        **changes: single options by name, as in `ImplicitAls(factors=32)`.

    Raises:
        InputError: `invalid-argument`.
    """

    kind = "als"
    is_seeded = True

    def __init__(
        self, options: AlsOptions | None = None, *, seed: int = 0, **changes: Any
    ) -> None:
        check_not_negative(seed=seed)
        self.options = AlsOptions.of(options, changes)
        self.seed = seed
        self.mean_confidence = 1.0
        self._set_factors(np.zeros((0, self.options.factors)), np.zeros(0))

    def fit(self, dataset: Dataset, parts: tuple[str, ...] = ("train",)) -> ImplicitAls:
        """Solves for users and items in turn.

        Raises:
            ResourceError: `implicit` is not installed (`package-missing`).
        """
        known = KnownItems(dataset, parts).everyone().distinct()
        self.counts = dataset.item_counts(*parts).astype(np.float32)
        num_users = max(1, int(np.count_nonzero(np.diff(known.offsets))))
        self.mean_confidence = self.options.alpha * len(
            known.items
        ) / num_users + np.count_nonzero(self.counts)
        train = self._by_frequency if self.options.frequency else self._by_implicit
        self._set_factors(train(known), self.counts)
        self.mean_confidence = float(np.float32(self.mean_confidence))  # as stored
        return self

    def fold_in(self, known: Queries) -> np.ndarray:
        """User factors `(n, factors)` float64 of distinct known items."""
        return self._solve(
            known.offsets, known.items, self.item_factors, self._gram, self._num_trained
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments as plain values."""
        return {**self.options.model_dump(), "seed": self.seed}

    def arrays(self) -> dict[str, np.ndarray]:
        """`item_factors` `(num_items, factors)`, `counts`, `mean_confidence` `(1,)`."""
        return {
            "item_factors": self.item_factors,
            "counts": self.counts,
            "mean_confidence": np.array([self.mean_confidence], np.float32),
        }

    def shapes(
        self, arrays: Mapping[str, np.ndarray], num_users: int, num_items: int
    ) -> Shapes:
        """Factors of the items, and the mean confidence of a row."""
        return {
            "item_factors": (np.float32, (num_items, self.item_factors.shape[1])),
            "mean_confidence": (np.float32, (1,)),
        }

    def value_problem(self, arrays: Mapping[str, np.ndarray]) -> tuple[str, str] | None:
        """It divides by the mean confidence."""
        if arrays["mean_confidence"][0] <= 0:
            return "must have a mean confidence above 0", "another"
        return None

    def _set_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.mean_confidence = float(arrays["mean_confidence"][0])
        self._set_factors(arrays["item_factors"], arrays["counts"])

    def _solve(
        self,
        offsets: np.ndarray,
        columns: np.ndarray,
        vectors: np.ndarray,
        gram: np.ndarray,
        others: int,
    ) -> np.ndarray:
        """Factors of rows with the observed `columns`, out of `others` columns."""
        ridge = np.full(len(offsets) - 1, float(self.options.regularization))
        if self.options.frequency:
            confidence = self.options.alpha * np.diff(offsets) + others
            ridge *= (confidence / self.mean_confidence) ** self.options.frequency
        return solve_rows(
            offsets,
            columns,
            vectors,
            np.full(len(columns), self.options.alpha),
            np.full(len(columns), 1 + self.options.alpha),
            gram=gram,
            ridge=ridge,
        )

    def _by_implicit(self, known: Queries) -> np.ndarray:
        # Both come with the package. It warns if its own threads and those of the BLAS
        # library compete for the processors, so BLAS gets one.
        implicit = import_implicit()
        sparse = importlib.import_module("scipy.sparse")
        threadpoolctl = importlib.import_module("threadpoolctl")
        confidence = np.full(len(known.items), 1 + self.options.alpha, np.float32)
        observed = sparse.csr_matrix(
            (confidence, known.items, known.offsets), (len(known), self.num_items)
        )
        with threadpoolctl.threadpool_limits(1, "blas"):
            model = implicit.AlternatingLeastSquares(
                factors=self.options.factors,
                regularization=self.options.regularization,
                iterations=self.options.iterations,
                random_state=self.seed,
                use_cg=False,
            )
            model.fit(observed, show_progress=False)
        item_factors: np.ndarray = model.item_factors
        return item_factors

    def _by_frequency(self, known: Queries) -> np.ndarray:
        by_item = known.transposed(self.num_items)
        rng = np.random.default_rng(self.seed)
        width = self.options.factors
        items = rng.normal(0, 0.1 / width**0.5, (self.num_items, width))
        items[self.counts == 0] = 0.0
        num_users = int(np.count_nonzero(np.diff(known.offsets)))
        num_items = int(np.count_nonzero(self.counts))
        for _ in range(self.options.iterations):
            gram = gram_of(items)
            users = self._solve(known.offsets, known.items, items, gram, num_items)
            items = self._solve(*by_item, users, gram_of(users), num_users)
        return items


def import_implicit() -> Any:
    """The ALS module of the package `implicit`.

    Raises:
        ResourceError: it is not installed (`package-missing`).
    """
    try:
        return importlib.import_module("implicit.cpu.als")
    except ImportError as error:
        raise ResourceError(
            "package-missing",
            "Implicit ALS is trained by the package `implicit`. It cannot be imported:"
            f" {error}. Run: pip install 'shortlist[als]' (or set frequency above 0,"
            " which needs no package).",
        ) from error

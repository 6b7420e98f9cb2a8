"""A weighted sum of retrieval models, each standardized for every user."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np

from shortlist.data.store.dataset import Dataset
from shortlist.errors import InputError
from shortlist.models.scorers.queries import KnownItems, Queries
from shortlist.models.scorers.scorer import Scorer, blocks
from shortlist.models.scorers.search import best_items, nothing_seen
from shortlist.models.validate import check_not_negative

STEPS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0)
"""Weights to try for one member while the others are fixed."""
ROUNDS = 4
USERS_AT_MOST = 4_000
"""Users that weights are fitted on: more of them change no second digit."""

# How good ranked item rows `(n, k)` of users `(n,)` are; higher is better.
Quality = Callable[[np.ndarray, np.ndarray], float]


class Blend(Scorer):
    """The weighted sum of its members' scores, standardized over the trained items.

    Standardizing every user's scores (mean 0, deviation 1) makes members comparable
    whose scores have different units.

    Args:
        members: by name.
        weights: of each member, at least 0; all 1 by default. `fit_weights` finds
            better ones.

    Raises:
        InputError: no member, or a weight is missing (`blend-members`) or below 0
            (`invalid-argument`).
    """

    kind = "blend"

    def __init__(
        self,
        members: Mapping[str, Scorer],
        *,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        weights = dict.fromkeys(members, 1.0) if weights is None else weights
        if not members or set(weights) != set(members):
            raise InputError(
                "blend-members",
                "A blend must have a member and a weight for each. Received: members"
                f" {sorted(members)} and weights of {sorted(weights)}.",
            )
        check_not_negative(**weights)
        self.members = dict(members)
        self.weights = {name: float(weights[name]) for name in members}
        self.counts = next(iter(members.values())).counts

    @property
    def uses_times(self) -> bool:  # type: ignore[override]
        """Whether a member looks at times."""
        return any(member.uses_times for member in self.members.values())

    @property
    def uses_values(self) -> bool:  # type: ignore[override]
        """Whether a member looks at labels."""
        return any(member.uses_values for member in self.members.values())

    def fit(self, dataset: Dataset, parts: tuple[str, ...] = ("train",)) -> Blend:
        """Fits the members; the weights stay as they are."""
        for member in self.members.values():
            member.fit(dataset, parts)
        self.counts = dataset.item_counts(*parts).astype(np.float32)
        return self

    def fit_weights(
        self,
        dataset: Dataset,
        users: np.ndarray,
        quality: Quality,
        *,
        parts: tuple[str, ...] = ("train",),
        k: int = 10,
        repeats: bool = False,
    ) -> dict[str, float]:
        """Chooses the weights by coordinate search, which is deterministic.

        It starts with the best single member. Then it tries the weights of `STEPS` for
        one member after the other and keeps improvements, until a round brings none.

        Args:
            dataset: holds the users' items.
            users: rows of users with held-out items.
            quality: of ranked item rows of those users; higher is better.
            parts: parts that the scores may use.
            k: length of the lists.
            repeats: whether the lists may contain items of `parts`.

        Returns: the weights, which the blend uses from now on.
        """
        users = users[:: max(1, -(-len(users) // USERS_AT_MOST))]
        queries = KnownItems(dataset, parts, values=self.uses_values).of(users)
        tables = {
            name: np.concatenate(
                [
                    self._standard(member, queries.part(begin, end))
                    for begin, end in blocks(len(queries), self.num_items)
                ]
            )
            for name, member in self.members.items()
        }
        seen = (
            nothing_seen(len(users))
            if repeats
            else dataset.histories(*parts).seen(users)
        )

        def measured(weights: Mapping[str, float]) -> float:
            scores = self._finished(_weighted(tables, weights))
            _, ranked = best_items(scores, k, seen)
            return quality(users, ranked)

        self.weights = coordinate_search(tuple(self.members), measured)
        return self.weights

    def score_all(self, queries: Queries) -> np.ndarray:
        """Scores `(n, num_items)` float32 of all item rows."""
        tables = {
            name: self._standard(member, queries)
            for name, member in self.members.items()
            if self.weights[name]
        }
        return self._finished(_weighted(tables, self.weights))

    def similar(self, row: int) -> np.ndarray | None:
        """The weighted sum of the members that have similar items."""
        tables = {}
        for name, member in self.members.items():
            scores = member.similar(row) if self.weights[name] else None
            if scores is not None:
                tables[name] = self._standardized(scores[None])
        if not tables:
            return None
        return self._finished(_weighted(tables, self.weights)[0])

    def get_config(self) -> dict[str, Any]:
        """Kind and arguments of the members, and their weights."""
        return {
            "members": {name: m.record() for name, m in self.members.items()},
            "weights": self.weights,
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """`counts`, and the arrays of the members under `<name>/`."""
        arrays = {"counts": self.counts.astype(np.float32)}
        for name, member in self.members.items():
            for key, array in member.arrays().items():
                arrays[f"{name}/{key}"] = array
        return arrays

    def towers(self) -> dict[str, Scorer]:
        """The members that are two-tower models, by name."""
        return {
            name: tower
            for name, member in self.members.items()
            for tower in member.towers().values()
        }

    @classmethod
    def of_members(
        cls,
        members: Mapping[str, Scorer],
        weights: Mapping[str, float],
        counts: np.ndarray,
    ) -> Self:
        """A blend of fitted members.

        Args:
            members: by name.
            weights: of each member.
            counts: training events of each item row, `(num_items,)`.
        """
        blend = cls(members, weights=weights)
        blend.counts = counts
        return blend

    def _set_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.counts = arrays["counts"]

    def _standard(self, member: Scorer, queries: Queries) -> np.ndarray:
        return self._standardized(member.score_all(queries))

    def _standardized(self, scores: np.ndarray) -> np.ndarray:
        trained = self.counts > 0
        known = scores[:, trained].astype(np.float64)
        mean = known.mean(axis=1, keepdims=True)
        deviation = known.std(axis=1, keepdims=True)
        standard = (scores - mean) / np.where(deviation > 0, deviation, 1.0)
        standard[:, ~trained] = 0.0
        standardized: np.ndarray = standard.astype(np.float32)
        return standardized


def coordinate_search(
    names: tuple[str, ...], measured: Callable[[Mapping[str, float]], float]
) -> dict[str, float]:
    """Weights that no change of a single one improves; ties change nothing."""
    alone = [{name: float(name == other) for name in names} for other in names]
    qualities = [measured(weights) for weights in alone]
    first = int(np.argmax(qualities))
    weights, best = alone[first], qualities[first]
    for _ in range(ROUNDS):
        before = dict(weights)
        for name in names:
            for step in STEPS:
                tried = {**weights, name: step}
                if step == weights[name] or not any(tried.values()):
                    continue
                quality = measured(tried)
                if quality > best:
                    weights, best = tried, quality
        if weights == before:
            break
    return weights


def _weighted(
    tables: Mapping[str, np.ndarray], weights: Mapping[str, float]
) -> np.ndarray:
    total: Any = 0.0
    for name, table in tables.items():
        if weights[name]:
            total = total + np.float32(weights[name]) * table
    scores: np.ndarray = total
    return scores

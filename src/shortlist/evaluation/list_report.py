"""The lists of a model and of popularity, and their metrics beyond accuracy.

Users are processed in blocks, so that their known events are never held all at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from shortlist.evaluation.item_vectors import (
    feature_vectors,
    taste_feature,
    value_shares,
)
from shortlist.evaluation.metrics import beyond_accuracy as beyond
from shortlist.evaluation.metrics.rankings import popularity_ranking
from shortlist.evaluation.metrics.table import bare_name
from shortlist.evaluation.options import EvaluationOptions
from shortlist.models.scorers.popularity import Popularity
from shortlist.models.scorers.search import nothing_seen

if TYPE_CHECKING:
    from shortlist.models.pipeline import Pipeline

NAMES = ("model", "popularity")
LORENZ_POINTS = 51


@dataclass(frozen=True)
class Lists:
    """The lists of all users, by `model` and `popularity`.

    Args:
        ranked: `(num_users, longest)` int32 item rows, padded with -1.
        per_user: metrics of each user, `(num_users,)` by `metric@k`.
        overall: metrics of all lists together, by `metric@k`.
        lorenz: share of the recommendations, and under `events` of the known events,
            of the least popular 0 %, 2 %, ..., 100 % of the items.
        measured_in: what diversity and taste divergence were measured in.
    """

    ranked: dict[str, np.ndarray]
    per_user: dict[str, dict[str, np.ndarray]]
    overall: dict[str, dict[str, float]]
    lorenz: dict[str, list[float]]
    measured_in: dict[str, str] = field(default_factory=dict)


def collect_lists(
    pipeline: Pipeline, users: np.ndarray, options: EvaluationOptions, *, block: int
) -> Lists:
    """Recommends to all users, block by block, and measures the lists.

    Args:
        pipeline: what recommends.
        users: user rows `(n,)`.
        options: the part, list lengths and metrics.
        block: users at once.

    Raises:
        InputError: `options.taste` is no such feature (`taste-feature`).
    """
    dataset, known = pipeline.dataset, options.known
    longest = min(max(options.ks), dataset.num_items - 1)
    counts = Popularity().fit(dataset, known).counts
    measured = _Measured(pipeline, counts, options)
    ranked = {name: np.full((len(users), longest), -1, np.int32) for name in NAMES}
    for start in range(0, len(users), block):
        here = slice(start, start + block)
        seen = dataset.histories(*known).seen(users[here])
        _, ranked["model"][here] = pipeline.recommend(users[here], longest, parts=known)
        left_out = nothing_seen(len(users[here])) if pipeline.repeats else seen
        ranked["popularity"][here] = popularity_ranking(counts, left_out, longest)
        measured.add(seen, {name: lists[here] for name, lists in ranked.items()})
    return Lists(
        ranked=ranked,
        per_user=measured.per_user(),
        overall={name: measured.overall(ranked[name], name) for name in NAMES},
        lorenz={"events": beyond.lorenz(counts[1:], LORENZ_POINTS)}
        | {
            name: beyond.lorenz(
                beyond.list_counts(lists, longest, dataset.num_items)[1:],
                LORENZ_POINTS,
            )
            for name, lists in ranked.items()
        },
        measured_in=measured.measured_in,
    )


class _Measured:
    """Collects the metrics that need the users' histories, block by block."""

    def __init__(
        self, pipeline: Pipeline, counts: np.ndarray, options: EvaluationOptions
    ) -> None:
        dataset = pipeline.dataset
        self.counts, self.names = counts, options.names
        self.ks = sorted(set(options.ks))
        self.measured_in: dict[str, str] = {}
        self.vectors = self._vectors(pipeline) if "diversity" in self.names else None
        feature = taste_feature(dataset, options.taste)
        self.shares = None
        if "taste_divergence" in self.names and feature is not None:
            self.shares = value_shares(dataset, feature)
            self.measured_in["taste_divergence"] = f"feature {feature.name}"
        self.blocks: dict[str, list[dict[str, np.ndarray]]] = {n: [] for n in NAMES}
        self.profiles: list[np.ndarray] = []

    def add(
        self, seen: tuple[np.ndarray, np.ndarray], ranked: dict[str, np.ndarray]
    ) -> None:
        """Measures the lists of a block of users with these known items."""
        tastes = None if self.shares is None else beyond.tastes(seen, self.shares)
        self.profiles.append(beyond.profile_popularity(seen, self.counts))
        for name, lists in ranked.items():
            self.blocks[name].append(dict(self._columns(lists, tastes)))

    def per_user(self) -> dict[str, dict[str, np.ndarray]]:
        """The requested metrics of all users, by model and `metric@k`."""
        return {
            name: {
                column: np.concatenate([block[column] for block in blocks])
                for column in blocks[0]
                if bare_name(column) in self.names
            }
            for name, blocks in self.blocks.items()
        }

    def overall(self, ranked: np.ndarray, name: str) -> dict[str, float]:
        """The metrics of all lists together."""
        values: dict[str, float] = {}
        profile = np.concatenate(self.profiles)
        for k in self.ks:
            listed = beyond.list_counts(ranked, k, len(self.counts))[1:]
            lengths = (ranked[:, :k] > 0).sum(axis=1)
            popular = np.concatenate([b[f"arp@{k}"] for b in self.blocks[name]])
            values |= {
                f"gini@{k}": beyond.gini(listed),
                f"popularity_lift@{k}": beyond.popularity_lift(popular, profile),
                f"personalization@{k}": beyond.personalization(listed, lengths),
            }
        return {
            metric: value
            for metric, value in values.items()
            if bare_name(metric) in self.names and np.isfinite(value)
        }

    def _columns(
        self, lists: np.ndarray, tastes: np.ndarray | None
    ) -> Iterator[tuple[str, np.ndarray]]:
        for k in self.ks:
            yield f"arp@{k}", beyond.average_popularity(lists, self.counts, k)
            if "novelty" in self.names:
                yield f"novelty@{k}", beyond.novelty(lists, self.counts, k)
            if self.vectors is not None:
                yield f"diversity@{k}", beyond.diversity(lists, self.vectors, k)
            if self.shares is not None and tastes is not None:
                divergence = beyond.taste_divergence(lists, tastes, self.shares, k)
                yield f"taste_divergence@{k}", divergence

    def _vectors(self, pipeline: Pipeline) -> np.ndarray | None:
        """Vectors of the items' features; without any, the model's own."""
        vectors = feature_vectors(pipeline.dataset)
        if vectors is not None:
            self.measured_in["diversity"] = "item features"
            return vectors
        places = pipeline.retrieval.item_places()
        if places is not None:
            self.measured_in["diversity"] = "item vectors of the model"
        return places

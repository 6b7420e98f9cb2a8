"""A trained pipeline against a held-out part: full catalogue, popularity beside it.

The catalogue is every item of the vocabulary. Items the user did before are removed
from the lists and from what counts as relevant; a held-out event of an item outside
the vocabulary stays relevant and is missed by everyone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from shortlist.data.dataset import Dataset, Part
from shortlist.data.split import KNOWN
from shortlist.errors import InputError
from shortlist.evaluation.evaluate import RankingReport, compare, evaluate_rankings
from shortlist.evaluation.pointwise import auc, mae, rmse, user_auc
from shortlist.evaluation.rankings import Csr, build_csr, popularity_ranking
from shortlist.models.popularity import Popularity


class Recommends(Protocol):
    """What is evaluated: `models.Pipeline` is one."""

    dataset: Dataset

    def recommend(
        self, user_index: np.ndarray, k: int, *, parts: tuple[str, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores and item rows `(n, k)`, best first."""
        ...

    def score_pairs(
        self, user_index: np.ndarray, item_index: np.ndarray, parts: tuple[str, ...]
    ) -> np.ndarray:
        """Scores `(n,)` of (user, item) rows."""
        ...


def evaluate_pipeline(
    pipeline: Recommends,
    *,
    objective: str | None = None,
    part: str = "test",
    ks: Sequence[int] = (5, 10, 20),
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Measures a pipeline on a held-out part.

    Args:
        pipeline: what is evaluated, over its dataset.
        objective: `explicit` when pair scores predict the label: adds RMSE and MAE.
        part: `test` or `validation`.
        ks: list lengths.
        resamples: bootstrap samples behind the 95 % intervals.
        seed: seed of the bootstrap.

    Returns: plain values: `metrics` and `intervals` of `model` and `popularity`,
        `comparison`, `pairs` (AUC, RMSE, MAE), and the numbers of users and events.

    Raises:
        InputError: nothing to evaluate on (code `no-relevant-items`).
    """
    dataset = pipeline.dataset
    events = dataset.part(part)
    users = np.unique(events.user_index[events.user_index > 0])
    if not len(users):
        raise InputError(
            "no-relevant-items",
            f"The {part} part must hold events of known users. Received:"
            f" {len(events)} events, none of them. Hold out more and prepare again.",
        )
    relevant = relevant_items(dataset, users, part)
    seen = dataset.histories(*KNOWN[part]).seen(users)
    counts = Popularity().fit(dataset, KNOWN[part]).counts
    longest = min(max(ks), dataset.num_items - 1)
    _, ranked = pipeline.recommend(users, longest, parts=KNOWN[part])

    def measure(lists: np.ndarray) -> RankingReport:
        return evaluate_rankings(
            lists,
            relevant,
            ks=ks,
            num_items=dataset.num_items - 1,
            resamples=resamples,
            seed=seed,
        )

    reports = {
        "model": measure(ranked),
        "popularity": measure(popularity_ranking(counts, seen, longest)),
    }
    compared = compare(reports["model"], reports["popularity"])
    return {
        "part": part,
        "part_sizes": dataset.info.parts,
        "users": reports["model"].num_users,
        "metrics": {name: report.to_dict() for name, report in reports.items()},
        "intervals": {
            name: {metric: list(ends) for metric, ends in report.intervals().items()}
            for name, report in reports.items()
        },
        "comparison": {
            name: {
                "ratio": c.ratio,
                "difference": c.difference,
                "low": c.low,
                "high": c.high,
            }
            for name, c in compared.items()
        },
        "pairs": _pair_metrics(pipeline, events, objective, KNOWN[part]),
    }


def ranking_metrics(
    dataset: Dataset, users: np.ndarray, ranked: np.ndarray, part: str
) -> dict[str, float]:
    """nDCG and recall at the length of the lists, for validation during training.

    Args:
        dataset: where the held-out part is.
        users: user rows `(n,)`.
        ranked: item rows `(n, k)`, best first, padded with -1.
        part: the held-out part.
    """
    k = ranked.shape[1]
    report = evaluate_rankings(
        ranked,
        relevant_items(dataset, users, part),
        ks=(k,),
        num_items=dataset.num_items - 1,
    )
    means = report.to_dict()
    return {name: means[name] for name in (f"ndcg@{k}", f"recall@{k}")}


def relevant_items(dataset: Dataset, users: np.ndarray, part: str) -> Csr:
    """Items of each user's held-out events that the user had not done before.

    Returns: offsets `(n + 1,)` and item rows; 0 is an item outside the vocabulary.
    """
    events = dataset.interactions(part)
    position = np.zeros(dataset.num_users, np.int64) - 1
    position[users] = np.arange(len(users))
    of_users = position[events.user_index] >= 0
    keys = _keys(dataset, position[events.user_index], events.item_index)[of_users]
    # Each item once per user; items outside the vocabulary may be different ones.
    unknown = events.item_index[of_users] == 0
    keys = np.concatenate([np.unique(keys[~unknown]), keys[unknown]])
    offsets, items = dataset.histories(*KNOWN[part]).seen(users)
    seen_users = np.repeat(np.arange(len(users)), np.diff(offsets))
    keys = keys[~np.isin(keys, _keys(dataset, seen_users, items))]
    return build_csr(keys // dataset.num_items, keys % dataset.num_items, len(users))


def _keys(dataset: Dataset, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    keys: np.ndarray = users.astype(np.int64) * dataset.num_items + items
    return keys


def _pair_metrics(
    pipeline: Recommends,
    events: Part,
    objective: str | None,
    known: tuple[str, ...],
) -> dict[str, float | int]:
    """Metrics of the held-out pairs whose user and item are known."""
    schema = pipeline.dataset.schema
    pairs = events.take((events.user_index > 0) & (events.item_index > 0))
    if schema.label is None or not len(pairs):
        return {}
    scores = pipeline.score_pairs(pairs.user_index, pairs.item_index, known)
    positive = pairs.label >= schema.positive_from
    by_user = user_auc(pairs.user_index, positive, scores)
    measured: dict[str, float | int] = {
        "pairs": len(pairs),
        "auc": auc(positive, scores),
        "auc_per_user": by_user.mean,
        "auc_users": by_user.num_users,
    }
    if objective == "explicit":
        low = -np.inf if schema.label_min is None else schema.label_min
        high = np.inf if schema.label_max is None else schema.label_max
        clipped = np.clip(scores, low, high)
        measured["rmse"] = rmse(pairs.label, clipped)
        measured["mae"] = mae(pairs.label, clipped)
    return {name: value for name, value in measured.items() if not math.isnan(value)}

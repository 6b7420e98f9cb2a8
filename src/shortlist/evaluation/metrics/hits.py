"""Ranking metrics of whole lists, one value per user.

`find_hits` compares the lists with the truth once; the metrics are formulas over its
result. A user without relevant items has no metric: NaN, to be left out and counted.

References:
    Järvelin and Kekäläinen, 2002, "Cumulated gain-based evaluation of IR techniques",
        https://doi.org/10.1145/582415.582418 (nDCG)
    Voorhees, 1999, "The TREC-8 Question Answering Track Report" (MRR)
    Manning, Raghavan and Schütze, 2008, "Introduction to Information Retrieval",
        chapter 8 (precision, recall, MAP)
    Ge, Delgado-Battenfeld and Jannach, 2010, "Beyond accuracy",
        https://doi.org/10.1145/1864708.1864761 (catalogue coverage)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from shortlist.errors import InputError
from shortlist.evaluation.metrics.rankings import Csr, check_csr, check_k, check_ranking

_BLOCK_USERS = 8192

PerUser = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Hits:
    """Which places of which lists hold a relevant item."""

    places: NDArray[np.bool_]
    """`(num_users, max_k)`, best place first."""
    num_relevant: NDArray[np.int64]
    """`(num_users,)`: relevant items, in the list or not."""

    def top(self, k: int) -> NDArray[np.bool_]:
        """The first `k` places; all there are if the lists are shorter."""
        check_k(k)
        return self.places[:, :k]


def find_hits(ranked: NDArray[Any], relevant: Csr) -> Hits:
    """Compares ranked lists with the relevant items.

    Args:
        ranked: `(num_users, max_k)` item rows, best first, padded with -1.
        relevant: relevant items of each user, `(offsets, indices)`. An item named
            twice counts once. Every entry of row 0 counts as one relevant item that
            no list can hit: an item that the catalogue did not know.

    Raises:
        InputError: `ranking-shape`, `ranking-padding`, `ranking-duplicate` or
            `relevance-shape`.
    """
    ranked = np.asarray(ranked)
    check_ranking(ranked[:0])
    check_csr(relevant, len(ranked))
    offsets, indices = relevant
    places = np.zeros(ranked.shape, bool)
    num_relevant = np.zeros(len(ranked), np.int64)
    highest = [array.max() for array in (ranked, indices) if array.size]
    stride = int(max(highest, default=0)) + 1
    for start in range(0, len(ranked), _BLOCK_USERS):
        lists = ranked[start : start + _BLOCK_USERS].astype(np.int64)
        check_ranking(lists, first=start)
        part = slice(start, start + len(lists))
        lengths = np.diff(offsets[start : part.stop + 1])
        users = np.repeat(np.arange(len(lists)), lengths)
        items = indices[offsets[start] : offsets[part.stop]].astype(np.int64)
        known = items > 0
        # One sorted key per distinct (user, item): the lists are looked up in them.
        keys = np.unique(users[known] * stride + items[known])
        num_relevant[part] = np.bincount(keys // stride, minlength=len(lists))
        num_relevant[part] += np.bincount(users[~known], minlength=len(lists))
        if len(keys):
            wanted = np.arange(len(lists))[:, None] * stride + lists
            found = keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)]
            places[part] = (found == wanted) & (lists > 0)
    return Hits(places, num_relevant)


def recall(hits: Hits, k: int) -> PerUser:
    """Share of the user's relevant items in the first `k`, `(num_users,)`.

    Divides by all relevant items, also when there are more than `k`.
    """
    return _per_user(hits, hits.top(k).sum(axis=1), hits.num_relevant)


def precision(hits: Hits, k: int) -> PerUser:
    """Share of the first `k` places that are hits; empty places are misses."""
    return _per_user(hits, hits.top(k).sum(axis=1), k)


def hit_rate(hits: Hits, k: int) -> PerUser:
    """1 if any of the first `k` is relevant, else 0."""
    return _per_user(hits, hits.top(k).any(axis=1), 1)


def mrr(hits: Hits, k: int) -> PerUser:
    """1 / place of the first hit among the first `k` (1-based), 0 without a hit."""
    top = hits.top(k)
    if not top.shape[1]:
        return _per_user(hits, np.zeros(len(top)), 1)
    return _per_user(hits, top.any(axis=1), top.argmax(axis=1) + 1)


def ndcg(hits: Hits, k: int) -> PerUser:
    """Discounted gain over the best possible one, `(num_users,)`.

    A hit at place p (1-based) gains 1 / log2(p + 1). The best list has
    `min(k, num_relevant)` hits in front.
    """
    top = hits.top(k)
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])
    best = ideal[np.minimum(hits.num_relevant, k)]
    return _per_user(hits, top @ discounts[: top.shape[1]], best)


def average_precision(
    hits: Hits, k: int, *, normalize: Literal["k", "all"] = "k"
) -> PerUser:
    """Precision at each hit among the first `k`, summed and normalized: AP@k.

    Its mean over users is MAP@k.

    Args:
        hits: result of `find_hits`.
        k: places looked at.
        normalize: `k` divides by `min(k, num_relevant)`, so that 1 can be reached;
            `all` divides by `num_relevant`, as the recommenders-team benchmarks do.

    Returns:
        `(num_users,)`.
    """
    top = hits.top(k)
    precisions = np.cumsum(top, axis=1, dtype=np.int32) / np.arange(1, top.shape[1] + 1)
    summed = np.where(top, precisions, 0.0).sum(axis=1)
    reachable = hits.num_relevant
    if normalize == "k":
        reachable = np.minimum(reachable, k)
    return _per_user(hits, summed, reachable)


FORMULAS: dict[str, Callable[[Hits, int], PerUser]] = {
    "recall": recall,
    "ndcg": ndcg,
    "mrr": mrr,
    "map": average_precision,
    "hit_rate": hit_rate,
    "precision": precision,
}
"""The function of each metric in `table.HIT_METRICS`."""


def coverage(ranked: NDArray[Any], k: int, num_items: int) -> float:
    """Share of the catalogue that is in the first `k` of any list.

    Args:
        ranked: `(num_users, max_k)` item rows, padded with -1.
        k: places looked at.
        num_items: items of the catalogue, row 0 not counted.

    Raises:
        InputError: an item row above `num_items` (`ranking-out-of-range`).
    """
    check_k(k)
    rows = ranked[:, :k]
    if num_items < 1 or (ranked.size and ranked.max() > num_items):
        highest = ranked.max() if ranked.size else "no row"
        raise InputError(
            "ranking-out-of-range",
            "Item rows must be from 1 to num_items, and num_items at least 1."
            f" Received: {highest} with num_items={num_items}. Count the catalogue"
            " without row 0.",
        )
    recommended = np.zeros(num_items + 1, bool)
    recommended[rows[rows > 0]] = True
    return float(recommended.sum() / num_items)


def _per_user(hits: Hits, value: Any, divisor: Any) -> PerUser:
    """`value / divisor` where the user has relevant items, else NaN."""
    result: PerUser = np.full(len(hits.num_relevant), np.nan)
    np.divide(value, divisor, out=result, where=hits.num_relevant > 0)
    return result

"""Metrics beyond accuracy: novelty, diversity, popularity, preferences.

A metric with one value per user is 0 for a user with an empty list, save for the
divergence of tastes; the others describe all lists together. Knows item counts and item
vectors; knows nothing of the truth.

References:
    Vargas and Castells, 2011, "Rank and relevance in novelty and diversity metrics",
        https://doi.org/10.1145/2043932.2043955 (novelty as self-information)
    Ziegler, McNee, Konstan and Lausen, 2005, "Improving recommendation lists through
        topic diversification", https://doi.org/10.1145/1060745.1060754 (intra-list)
    Yin, Cui, Li, Yao and Chen, 2012, "Challenging the long tail recommendation",
        https://doi.org/10.14778/2311906.2311916 (average recommendation popularity)
    Abdollahpouri, Mansoury, Burke and Mobasher, 2020, "The connection between
        popularity bias, calibration, and fairness in recommendation",
        https://doi.org/10.1145/3383313.3418487 (popularity lift)
    Adomavicius and Kwon, 2012, "Improving aggregate recommendation diversity",
        https://doi.org/10.1109/TKDE.2011.15 (Gini)
    Zhou, Kuscsik, Liu, Medo, Wakeling and Zhang, 2010, "Solving the apparent
        diversity-accuracy dilemma", https://doi.org/10.1073/pnas.1000488107
        (personalization)
    Steck, 2018, "Calibrated recommendations",
        https://doi.org/10.1145/3240323.3240372 (taste calibration)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortlist.data.store.ragged import ranges
from shortlist.evaluation.metrics.rankings import Csr, check_k

TASTE_ALPHA = 0.01  # Steck's: how much of the taste is mixed into the list's shares
_BLOCK_CELLS = 1 << 23

PerUser = NDArray[np.float64]


def novelty(ranked: NDArray[Any], counts: NDArray[Any], k: int) -> PerUser:
    """Mean of -log2 p(item) over the first `k` of each list, in bits, `(num_users,)`.

    p is the item's share of the known events; an item without any counts as one with
    one event.

    Args:
        ranked: `(num_users, max_k)` item rows, best first, padded with -1.
        counts: known events of each item row, `(num_rows,)`.
        k: places looked at.
    """
    events = max(float(counts.sum()), 1.0)
    bits = -np.log2(np.maximum(counts, 1) / events)
    return _mean_over_list(ranked, np.maximum(bits, 0.0), k)


def average_popularity(ranked: NDArray[Any], counts: NDArray[Any], k: int) -> PerUser:
    """Mean known events of the first `k` items of each list, `(num_users,)`.

    Its mean over users is the average recommendation popularity (ARP). Arguments as
    `novelty`.
    """
    return _mean_over_list(ranked, np.asarray(counts, np.float64), k)


def profile_popularity(seen: Csr, counts: NDArray[Any]) -> PerUser:
    """Mean known events of the items of each user's own past, `(num_users,)`.

    Args:
        seen: items of each user, `(offsets, indices)`.
        counts: known events of each item row.
    """
    offsets, indices = seen
    sums = np.concatenate([[0.0], np.cumsum(counts[indices], dtype=np.float64)])
    lengths = np.diff(offsets)
    means: PerUser = np.zeros(len(lengths))
    np.divide(np.diff(sums[offsets]), lengths, out=means, where=lengths > 0)
    return means


def popularity_lift(recommended: PerUser, profile: PerUser) -> float:
    """How much more popular the lists are than the pasts: (GAP_r - GAP_p) / GAP_p.

    Args:
        recommended: mean popularity of each user's list, of `average_popularity`.
        profile: mean popularity of each user's past, of `profile_popularity`.

    Returns: 0 for lists as popular as the past, 1 for twice as popular; NaN where the
        pasts are empty.
    """
    past = float(profile.mean()) if len(profile) else 0.0
    return float(recommended.mean()) / past - 1.0 if past else float("nan")


def gini(recommended: NDArray[Any]) -> float:
    """Inequality of how often items are recommended: 0 all alike, near 1 a few only.

    `sum((2 j - n - 1) x_j) / (n sum(x))` over the n items in ascending order.

    Args:
        recommended: number of lists with each item of the catalogue, `(num_items,)`.
    """
    ordered = np.sort(np.asarray(recommended, np.float64))
    n, total = len(ordered), float(ordered.sum())
    if not total:
        return float("nan")
    place = 2.0 * np.arange(1, n + 1) - n - 1
    return float(place @ ordered / (n * total))


def lorenz(counts: NDArray[Any], points: int = 51) -> list[float]:
    """Share of `counts` held by the least counted 0 %, ..., 100 % of the items.

    Args:
        counts: `(num_items,)`.
        points: number of shares of items, evenly spaced.
    """
    ordered = np.sort(np.asarray(counts, np.float64))
    total = np.concatenate([[0.0], np.cumsum(ordered)])
    shares = total / (total[-1] or 1.0)
    places = np.linspace(0, len(ordered), points)
    held: list[float] = np.interp(places, np.arange(len(total)), shares).tolist()
    return held


def personalization(recommended: NDArray[Any], lengths: NDArray[Any]) -> float:
    """1 - mean overlap of two users' lists: 1 nothing in common, 0 all lists alike.

    The items that pairs of users share, over those that they could: of each pair as
    many as its shorter list has, which is k where all lists are full. Exact over all
    pairs: an item in c lists is shared by c (c - 1) / 2 pairs.

    Args:
        recommended: number of lists with each item, `(num_items,)`; see `list_counts`.
        lengths: items of each list among its first k, `(num_users,)`.

    Returns: NaN where there are no two lists with items.
    """
    c = np.asarray(recommended, np.float64)
    shared = float((c * (c - 1) / 2).sum())
    # In ascending order a list is the shorter one in its pairs with all that follow.
    after = np.arange(len(lengths) - 1, -1, -1.0)
    most = float(np.sort(lengths) @ after)
    return 1.0 - shared / most if most else float("nan")


def list_counts(ranked: NDArray[Any], k: int, num_rows: int) -> NDArray[np.int64]:
    """How many lists hold each item row among their first `k`, `(num_rows,)`."""
    check_k(k)
    counts: NDArray[np.int64] = np.zeros(num_rows, np.int64)
    for block in _blocks(ranked, k):
        rows = ranked[block, :k]
        counts += np.bincount(rows[rows > 0], minlength=num_rows)
    return counts


def diversity(ranked: NDArray[Any], vectors: NDArray[Any], k: int) -> PerUser:
    """Mean cosine distance of two items among the first `k`, `(num_users,)`.

    For unit vectors the sum over pairs is `(|sum x|^2 - sum |x|^2) / 2`, so no pair is
    ever formed. A list of fewer than two items has 0.

    Args:
        ranked: `(num_users, max_k)` item rows, best first, padded with -1.
        vectors: of every item row, `(num_rows, dim)`; a vector of zeros is at distance
            1 from all others.
        k: places looked at.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    units[0] = 0.0
    own = (norms[:, 0] > 0).astype(np.float64)
    own[0] = 0.0
    result: PerUser = np.zeros(len(ranked))
    for block in _blocks(ranked, k, vectors.shape[1]):
        rows = np.maximum(ranked[block, :k], 0)
        total = np.zeros((len(rows), vectors.shape[1]), units.dtype)
        for place in range(rows.shape[1]):
            total += units[rows[:, place]]
        similar = np.einsum("nd,nd->n", total, total, dtype=np.float64)
        similar -= own[rows].sum(axis=1)
        length = (rows > 0).sum(axis=1)
        pairs = length * (length - 1)
        np.divide(similar, pairs, out=similar, where=pairs > 0)
        result[block] = np.where(pairs > 0, 1.0 - similar, 0.0)
    return result


def tastes(seen: Csr, shares: NDArray[Any]) -> NDArray[np.float64]:
    """What each user's past is made of, `(num_users, values)`; rows sum to 1.

    Args:
        seen: items of each user, `(offsets, indices)`.
        shares: of each value of a feature in each item row, `(num_rows, values)`.
    """
    offsets, indices = seen
    num_users, width = len(offsets) - 1, shares.shape[1]
    item, value = np.nonzero(shares)
    weight = shares[item, value]
    begins = np.searchsorted(item, np.arange(len(shares) + 1))
    sizes = np.diff(begins)[indices]
    entries = ranges(begins[indices], sizes)
    users = np.repeat(np.repeat(np.arange(num_users), np.diff(offsets)), sizes)
    sums = np.bincount(
        users * width + value[entries],
        weights=weight[entries],
        minlength=num_users * width,
    ).astype(np.float64)
    return _normalized(sums.reshape(num_users, width))


def taste_divergence(
    ranked: NDArray[Any],
    taste: NDArray[Any],
    shares: NDArray[Any],
    k: int,
    *,
    alpha: float = TASTE_ALPHA,
) -> PerUser:
    """Kullback-Leibler divergence of each list from its user's taste, `(num_users,)`.

    `sum(p log(p / ((1 - alpha) q + alpha p)))` over the values of a feature, p being
    their shares in the user's past and q in the list; natural logarithm. 0 is a list
    like the past; lower is better calibrated.

    Args:
        ranked: `(num_users, max_k)` item rows, best first, padded with -1.
        taste: p, of `tastes`.
        shares: of each value in each item row, `(num_rows, values)`; row 0 is zeros.
        k: places looked at.
        alpha: keeps the divergence finite where the list lacks a value.

    Returns: NaN for a user without a taste, whose past has no known value.
    """
    result: PerUser = np.zeros(len(ranked))
    for block in _blocks(ranked, k, shares.shape[1]):
        rows = np.maximum(ranked[block, :k], 0)
        total = np.zeros((len(rows), shares.shape[1]))
        for place in range(rows.shape[1]):
            total += shares[rows[:, place]]
        p = taste[block]
        mixed = (1.0 - alpha) * _normalized(total) + alpha * p
        ratio = np.divide(p, mixed, out=np.ones_like(mixed), where=p > 0)
        divergence = (p * np.log(ratio)).sum(axis=1)
        result[block] = np.where(p.any(axis=1), divergence, np.nan)
    return result


def _mean_over_list(
    ranked: NDArray[Any], values: NDArray[np.float64], k: int
) -> PerUser:
    """Mean of the items' values over the first `k`, 0 for an empty list."""
    check_k(k)
    result: PerUser = np.zeros(len(ranked))
    for block in _blocks(ranked, k):
        rows = ranked[block, :k]
        there = rows > 0
        sums = np.where(there, values[np.maximum(rows, 0)], 0.0).sum(axis=1)
        length = there.sum(axis=1)
        result[block] = sums / np.maximum(length, 1)
    return result


def _normalized(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    total = sums.sum(axis=1, keepdims=True)
    result: NDArray[np.float64] = np.zeros_like(sums)
    np.divide(sums, total, out=result, where=total > 0)
    return result


def _blocks(ranked: NDArray[Any], k: int, width: int = 1) -> Iterator[slice]:
    """Blocks of users whose work fits the memory that is meant for it."""
    check_k(k)
    step = max(1, _BLOCK_CELLS // max(width, k))
    for start in range(0, len(ranked), step):
        yield slice(start, min(start + step, len(ranked)))

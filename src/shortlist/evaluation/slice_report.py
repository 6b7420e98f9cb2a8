"""The metrics of hits, slice by slice, with the number of users and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from shortlist.data.schema import CONTEXT
from shortlist.data.store.dataset import Dataset
from shortlist.evaluation.evaluate import HIT_METRICS
from shortlist.evaluation.metrics.bootstrap import bootstrap_means, percentile_interval
from shortlist.evaluation.metrics.hits import Hits, find_hits
from shortlist.evaluation.metrics.rankings import Csr
from shortlist.evaluation.slices import SMALL_BELOW, Group, groups_of
from shortlist.evaluation.truth import relevant_items

SLICE_K = 10
MOST_RESAMPLES = 200


def slice_reports(
    dataset: Dataset,
    users: np.ndarray,
    ranked: Mapping[str, np.ndarray],
    relevant: Csr,
    *,
    slices: Sequence[str],
    part: str,
    ks: Sequence[int],
    names: Sequence[str],
    resamples: int,
    seed: int,
    repeats: bool = False,
) -> list[dict[str, Any]]:
    """Divides a report by users, by items and by held-out events.

    Args:
        dataset: users, items and events.
        users: rows of the users, `(n,)`.
        ranked: lists of the users by model, `(n, longest)` each.
        relevant: relevant items of the users.
        slices: built-in slices and features.
        part: the held-out part.
        ks: list lengths; slices have 10 if it is one of them, else the longest.
        names: metrics wanted.
        resamples: bootstrap samples, at most 200 of them are taken.
        seed: seed of the bootstrap.
        repeats: as for `relevant_items`.

    Returns: for each group that has users `slice`, `owner`, `group`, `users`, `small`
        (fewer than 30 users), `metrics` and `intervals` by model.

    Raises:
        InputError: an unknown slice (`slice-unknown`).
    """
    k = SLICE_K if SLICE_K in ks else max(ks)
    everything = {name: find_hits(lists, relevant) for name, lists in ranked.items()}
    wanted = [name for name in HIT_METRICS if name in names]
    reports = []
    for name in slices:
        for group in groups_of(dataset, name, part):
            if group.owner == CONTEXT:
                taken = relevant_items(
                    dataset, users, part, group.rows, repeats=repeats
                )
                inside = {model: find_hits(ranked[model], taken) for model in ranked}
            else:
                inside = {
                    model: _inside(group, hits, users, ranked[model], relevant)
                    for model, hits in everything.items()
                }
            found = _measure(inside, wanted, k, min(resamples, MOST_RESAMPLES), seed)
            if found is not None:
                about = {"slice": name, "owner": group.owner, "group": group.name}
                reports.append({**about, **found})
    return reports


def _inside(
    group: Group, hits: Hits, users: np.ndarray, ranked: np.ndarray, relevant: Csr
) -> Hits:
    """The hits of a group: of its users, or on its items alone."""
    if group.owner == "user":
        chosen = group.rows[users]
        return Hits(hits.places[chosen], hits.num_relevant[chosen])
    offsets, items = relevant
    counted = np.concatenate([[0], np.cumsum(group.rows[items])])
    num_relevant = np.diff(counted[offsets])
    chosen = num_relevant > 0
    places = hits.places[chosen] & group.rows[np.maximum(ranked[chosen], 0)]
    return Hits(places, num_relevant[chosen])


def _measure(
    hits: Mapping[str, Hits], wanted: Sequence[str], k: int, resamples: int, seed: int
) -> dict[str, Any] | None:
    """Means and intervals of all models, of one bootstrap; `None` without users."""
    columns = {}
    for model, found in hits.items():
        kept = found.num_relevant > 0
        evaluated = Hits(found.places[kept], found.num_relevant[kept])
        for name in wanted:
            columns[model, f"{name}@{k}"] = HIT_METRICS[name](evaluated, k)
    if not columns or not len(next(iter(columns.values()))):
        return None
    values = np.stack(list(columns.values()), axis=1)
    means = bootstrap_means(values, resamples=resamples, seed=seed)
    ends = percentile_interval(means).tolist()
    metrics: dict[str, dict[str, float]] = {model: {} for model in hits}
    intervals: dict[str, dict[str, list[float]]] = {model: {} for model in hits}
    averages = values.mean(axis=0).tolist()
    for (model, name), mean, interval in zip(columns, averages, ends, strict=True):
        metrics[model][name] = mean
        intervals[model][name] = interval
    return {
        "users": len(values),
        "small": len(values) < SMALL_BELOW,
        "metrics": metrics,
        "intervals": intervals,
    }

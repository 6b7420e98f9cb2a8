"""The metrics of hits, slice by slice, with the number of users and intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from shortlist.data.schema import CONTEXT
from shortlist.data.store.dataset import Dataset
from shortlist.evaluation.metrics.bootstrap import bootstrap_means, percentile_interval
from shortlist.evaluation.metrics.hits import FORMULAS, Hits, find_hits
from shortlist.evaluation.metrics.rankings import Csr
from shortlist.evaluation.options import EvaluationOptions
from shortlist.evaluation.slices import BUILT_IN, SMALL_BELOW, Group, groups_of
from shortlist.evaluation.truth import relevant_items

SLICE_K = 10
MOST_RESAMPLES = 200


def slice_reports(
    dataset: Dataset,
    users: np.ndarray,
    ranked: Mapping[str, np.ndarray],
    relevant: Csr,
    options: EvaluationOptions,
    *,
    repeats: bool = False,
) -> list[dict[str, Any]]:
    """Divides a report by users, by items and by held-out events.

    Slices have one list length: 10 if it is one of `options.ks`, else the longest.

    Args:
        dataset: users, items and events.
        users: rows of the users, `(n,)`.
        ranked: lists of the users by model, `(n, longest)` each.
        relevant: relevant items of the users.
        options: the slices besides the built-in ones, the part, list lengths, metrics
            and bootstrap.
        repeats: as for `relevant_items`.

    Returns: for each group that has users `slice`, `owner`, `group`, `users`, `small`
        (fewer than 30 users), `metrics` and `intervals` by model.

    Raises:
        InputError: an unknown slice (`slice-unknown`).
    """
    everything = {name: find_hits(lists, relevant) for name, lists in ranked.items()}
    reports = []
    for name in dict.fromkeys([*BUILT_IN, *options.slices]):
        for group in groups_of(dataset, name, options.part):
            if group.owner == CONTEXT:
                chosen = relevant_items(
                    dataset, users, options.part, group.rows, repeats=repeats
                )
                inside = {model: find_hits(ranked[model], chosen) for model in ranked}
            else:
                inside = {
                    model: _inside(group, hits, users, ranked[model], relevant)
                    for model, hits in everything.items()
                }
            found = _measure(inside, options)
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
    hits: Mapping[str, Hits], options: EvaluationOptions
) -> dict[str, Any] | None:
    """Means and intervals of all models from one bootstrap; `None` without users."""
    k = SLICE_K if SLICE_K in options.ks else max(options.ks)
    wanted = [name for name in FORMULAS if name in options.names]
    resamples = min(options.resamples, MOST_RESAMPLES)
    columns = {}
    for model, found in hits.items():
        kept = found.num_relevant > 0
        evaluated = Hits(found.places[kept], found.num_relevant[kept])
        for name in wanted:
            columns[model, f"{name}@{k}"] = FORMULAS[name](evaluated, k)
    if not columns or not len(next(iter(columns.values()))):
        return None
    values = np.stack(list(columns.values()), axis=1)
    means = bootstrap_means(values, resamples=resamples, seed=options.seed)
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

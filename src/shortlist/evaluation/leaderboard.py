"""Leaderboard of evaluated runs, with a significance test for every pair of runs.

A pair is compared on the users that both runs have, by the difference of each user. It
reads the evaluation files of runs and needs no models.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shortlist.errors import ArtifactError, InputError, did_you_mean
from shortlist.evaluation.metrics.bootstrap import bootstrap_means, percentile_interval
from shortlist.evaluation.metrics.significance import FLIPS, holm, sign_flip_test
from shortlist.evaluation.metrics.table import (
    COUNTS,
    MAIN_K,
    MAIN_METRIC,
    bare_name,
    higher_is_better,
)
from shortlist.evaluation.user_values import Evaluation

_EQUAL = 1e-12


def open_evaluations(folders: Sequence[str | Path]) -> dict[str, Evaluation]:
    """The evaluations of runs by name: the folder as given.

    Raises:
        InputError: fewer than two runs (`compare-too-few`), or one of them twice
            (`compare-repeated`).
        ArtifactError: no folder there (`run-missing`), not evaluated
            (`evaluation-missing`) or damaged (`evaluation-damaged`).
    """
    if len(folders) < 2:
        raise InputError(
            "compare-too-few",
            f"There must be at least two runs to compare. Received: {len(folders)}."
            " Run: shortlist compare RUN RUN",
        )
    found: dict[Path, str] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise ArtifactError(
                "run-missing",
                f"There is no run at {str(folder)!r}. Give folders that `shortlist"
                " train` wrote.",
                file=folder,
            )
        if folder.resolve() in found:
            raise InputError(
                "compare-repeated",
                f"Each run must be given once. Received twice: {str(folder)!r}. Leave"
                " one out.",
            )
        found[folder.resolve()] = str(folder)
    return {name: Evaluation.load(name) for name in found.values()}


def rank_runs(
    runs: Mapping[str, Evaluation],
    metric: str | None = None,
    *,
    resamples: int = 1000,
    flips: int = FLIPS,
    seed: int = 0,
) -> dict[str, Any]:
    """Ranks runs and tests every pair of them.

    Args:
        runs: evaluations by name, at least two.
        metric: what runs are ranked by and tested on: `metric@k`, or a metric without
            k, then at 10 or else the longest list. The default is `ndcg`, else the
            first metric with a preferred direction; without one the runs keep the
            given order.
        resamples: bootstrap samples for the 95 % intervals.
        flips: random sign flips where there are too many to try all.
        seed: seed of the bootstrap and of the sign flips.

    Returns: plain values: `metric`, `higher_is_better` (`None` if neither is better),
        `part`, `ks`, `dataset_fingerprint`; `runs`, the best first, each with `run`,
        `users`, `metrics`, `interval` (of `metric`) and `against_popularity` (the
        difference with its interval); `popularity`, its metrics;
        `best`, the names of the best runs by metric; `pairs`, each with `first`,
        `second`, `users`, `difference` (first - second), `low`, `high`, `p`, `p_holm`
        and `exact`; `slices`; and `notes`.

    Raises:
        InputError: fewer than two runs (`compare-too-few`), an unknown metric, one
            without a preferred direction, or one that not every run has for each user
            (`compare-metric`).
        ArtifactError: runs of different datasets (`compare-dataset`), parts
            (`compare-part`), list lengths (`compare-ks`) or `evaluation.repeats`
            (`compare-repeats`), or without a user that
            both were evaluated on (`compare-users`).
    """
    _check_alike(runs)
    reports = {name: run.report for name, run in runs.items()}
    metric = _metric(metric, runs)
    metrics = {name: _metrics(report) for name, report in reports.items()}
    notes = _drop_incomparable(reports, metrics, metric)
    higher = higher_is_better(metric)
    sign = 0 if higher is None else -1 if higher else 1
    ranked = sorted(runs, key=lambda name: metrics[name][metric] * sign)
    first = reports[next(iter(runs))]
    return {
        "metric": metric,
        "higher_is_better": higher,
        **{name: first[name] for name in ("part", "ks", "dataset_fingerprint")},
        "runs": [_row(name, runs[name], metric, metrics[name]) for name in ranked],
        "popularity": _popularity(reports),
        "best": _best(metrics),
        "pairs": _pairs(
            {name: runs[name] for name in ranked},
            *(metric, resamples, flips, seed),
        ),
        "slices": {name: reports[name].get("slices", []) for name in ranked},
        "notes": notes,
    }


def _row(
    name: str, run: Evaluation, metric: str, metrics: Mapping[str, float]
) -> dict[str, Any]:
    return {
        "run": name,
        "users": len(run.users),
        "metrics": metrics,
        "interval": run.report["intervals"]["model"][metric],
        "against_popularity": run.report.get("comparison", {}).get(metric),
    }


def _popularity(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The metrics of popularity in any report; the first report wins."""
    found: dict[str, float] = {}
    for report in reversed(list(reports.values())):
        found |= report["metrics"]["popularity"]
    return found


def _check_alike(runs: Mapping[str, Evaluation]) -> None:
    if len(runs) < 2:
        raise InputError(
            "compare-too-few",
            f"There must be at least two runs to compare. Received: {len(runs)}.",
        )
    for code, field, words, hint in (
        (
            "compare-dataset",
            "dataset_fingerprint",
            "one dataset",
            "Train and evaluate them on one dataset",
        ),
        ("compare-part", "part", "one part", "Evaluate them on one part"),
        (
            "compare-repeats",
            "repeats",
            "lists that all include seen items or all exclude them",
            "Evaluate them with the same evaluation.repeats",
        ),
        (
            "compare-ks",
            "ks",
            "lists of the same lengths",
            "Evaluate them with the same evaluation.ks",
        ),
    ):
        # Reports of earlier versions have no `repeats`.
        absent = False if field == "repeats" else None
        values = {name: run.report.get(field, absent) for name, run in runs.items()}
        name, value = next(iter(values.items()))
        for other, differing in values.items():
            if differing != value:
                raise ArtifactError(
                    code,
                    f"Runs that are compared must be evaluated on {words}. Received:"
                    f" {field} = {value!r} of {name!r} and {differing!r} of"
                    f" {other!r}. {hint}.",
                )


def _metric(wanted: str | None, runs: Mapping[str, Evaluation]) -> str:
    """The full name of the metric, which every run has for each user.

    Raises:
        InputError: there is none, or it has no preferred direction (`compare-metric`).
    """
    known = [
        name
        for name in next(iter(runs.values())).names
        if all(name in run.names for run in runs.values())
    ]
    names = list(dict.fromkeys(bare_name(name) for name in known))
    ks = next(iter(runs.values())).report["ks"]
    main_k = MAIN_K if MAIN_K in ks else max(ks)
    ranking = [name for name in known if higher_is_better(name) is not None]
    if wanted is not None and higher_is_better(wanted) is None:
        raise InputError(
            "compare-metric",
            f"{wanted!r} has no preferred direction, so runs cannot be ranked by it; it"
            f" is in the table. Use one of: {', '.join(ranking) or 'none here'}.",
        )
    if wanted is None and names:
        bare = list(dict.fromkeys(map(bare_name, ranking))) or names
        wanted = MAIN_METRIC if MAIN_METRIC in bare else bare[0]
    full = wanted if wanted is None or "@" in wanted else f"{wanted}@{main_k}"
    if full is None or full not in known:
        offered = [*names, *known]
        raise InputError(
            "compare-metric",
            "The metric must be one that every run has for each user:"
            f" {', '.join(known) or 'there is none'}. Received: {wanted!r}."
            f"{did_you_mean(wanted or '', offered)}",
        )
    return full


def _metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of lists, then those of pairs."""
    pairs = {n: v for n, v in report["pairs"].items() if n not in COUNTS}
    return {**report["metrics"]["model"], **pairs}


def _drop_incomparable(
    reports: Mapping[str, Mapping[str, Any]],
    metrics: Mapping[str, dict[str, float]],
    metric: str,
) -> list[str]:
    """Drops metrics that the runs measured in different things; returns notes on them.

    Raises:
        InputError: the runs are compared by one of them (`compare-metric`).
    """
    notes = []
    bases = [report.get("measured_in", {}) for report in reports.values()]
    for name in sorted({name for basis in bases for name in basis}):
        found = {basis.get(name) for basis in bases}
        if len(found) == 1 and "of the model" not in str(next(iter(found))):
            continue
        reason = (
            "not every run measured it, or with different item vectors"
            if len(found) > 1
            else "each run measured it with the item vectors of its own model"
        )
        note = f"{name} is not compared: {reason}"
        if bare_name(metric) == name:
            raise InputError("compare-metric", f"{note}. Choose another metric.")
        notes.append(note)
        for values in metrics.values():
            for full in [full for full in values if bare_name(full) == name]:
                del values[full]
    return notes


def _best(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, list[str]]:
    """The best runs in each metric that has a direction and that all runs have."""
    best: dict[str, list[str]] = {}
    for metric in next(iter(metrics.values())):
        name = bare_name(metric)
        higher = higher_is_better(name)
        if higher is None:
            continue
        values = {run: held.get(metric) for run, held in metrics.items()}
        known = [value for value in values.values() if value is not None]
        if len(known) < len(values):
            continue
        top = max(known) if higher else min(known)
        best[metric] = [
            run
            for run, value in values.items()
            if value is not None and abs(value - top) <= _EQUAL
        ]
    return best


def _pairs(
    runs: Mapping[str, Evaluation],
    metric: str,
    resamples: int,
    flips: int,
    seed: int,
) -> list[dict[str, Any]]:
    found = {
        (first, second): _differences(runs, first, second, metric)
        for first, second in itertools.combinations(runs, 2)
    }
    intervals = _intervals(list(found.values()), resamples, seed)
    pairs: list[dict[str, Any]] = []
    for ((first, second), (_, differences)), ends in zip(
        found.items(), intervals, strict=True
    ):
        test = sign_flip_test(differences, flips=flips, seed=seed)
        pairs.append(
            {
                "first": first,
                "second": second,
                "users": len(differences),
                "difference": float(differences.mean()),
                "low": ends[0],
                "high": ends[1],
                "p": test.p,
                "exact": test.exact,
            }
        )
    corrected = holm([pair["p"] for pair in pairs])
    for pair, p in zip(pairs, corrected, strict=True):
        pair["p_holm"] = p
    return pairs


def _differences(
    runs: Mapping[str, Evaluation], first: str, second: str, metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """Users with a value in both runs, and their differences, `(n,)` each."""
    one, other = runs[first], runs[second]
    users, mine, theirs = np.intersect1d(
        one.users, other.users, assume_unique=True, return_indices=True
    )
    differences = (
        one.values[mine, one.names.index(metric)]
        - other.values[theirs, other.names.index(metric)]
    )
    known = ~np.isnan(differences)
    if not known.any():
        raise ArtifactError(
            "compare-users",
            f"The runs {first!r} and {second!r} have no evaluated users in common that"
            f" have {metric}. Evaluate them again.",
        )
    return users[known], differences[known]


def _intervals(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], resamples: int, seed: int
) -> list[list[float]]:
    """95 % intervals of the mean differences of each pair of runs."""
    first = pairs[0][0]
    if all(np.array_equal(users, first) for users, _ in pairs):  # nearly always
        together = [np.stack([values for _, values in pairs], axis=1)]
    else:
        together = [values[:, None] for _, values in pairs]
    ends: list[list[float]] = []
    for values in together:
        means = bootstrap_means(values, resamples=resamples, seed=seed)
        ends += percentile_interval(means).tolist()
    return ends

"""Summary of cross-validation: mean and standard deviation of each metric over folds.

Folds share most of their training events, so the standard deviation shows how a metric
varies between folds, not the error of its mean; there is no significance test.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from shortlist.evaluation.metrics.table import COUNTS, HIT_METRICS, bare_name
from shortlist.page import Table


def summarize_folds(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarizes the reports of `evaluate_pipeline`, one per fold.

    Args:
        reports: at least two, oldest fold first.

    Returns: plain values: `folds`, `users` of each; `metrics` and, of pairs, `pairs`:
        for each metric in all folds `mean`, `spread` (standard deviation, n - 1),
        `low`, `high` and `values` by fold; `popularity`, the same; and
        `better_than_popularity`, in how many folds the model's value was higher.
    """
    model = [report["metrics"]["model"] for report in reports]
    popularity = [report["metrics"]["popularity"] for report in reports]
    return {
        "folds": len(reports),
        "users": [report["users"] for report in reports],
        "metrics": _summaries(model),
        "popularity": _summaries(popularity),
        "better_than_popularity": {
            name: sum(
                ours[name] > theirs[name]
                for ours, theirs in zip(model, popularity, strict=True)
            )
            for name in _in_all(model)
        },
        "pairs": _summaries([report["pairs"] for report in reports]),
    }


def cross_validation_table(
    summary: Mapping[str, Any], *, is_short: bool = False
) -> Table:
    """The table of what `summarize_folds` returned: a row per metric.

    Args:
        summary: of the folds.
        is_short: show only metrics of hits and pairs, and coverage, if there are any.
    """
    found = {**summary["metrics"], **summary["pairs"]}
    names = [name for name in found if name not in COUNTS]
    main = {*HIT_METRICS, "coverage"}
    short = [name for name in names if "@" not in name or bare_name(name) in main]
    rows = []
    for name in (short or names) if is_short else names:
        values = found[name]
        beside = summary["popularity"].get(name)
        better = summary["better_than_popularity"].get(name)
        rows.append(
            (
                name,
                f"{values['mean']:.4f}",
                f"{values['spread']:.4f}",
                " ".join(f"{value:.4f}" for value in values["values"]),
                f"{beside['mean']:.4f}" if beside else "-",
                "-" if better is None else f"{better} of {summary['folds']}",
            )
        )
    header = ("metric", "mean", "spread", "by fold", "popularity", "higher in")
    return Table(
        f"Cross-validation, {summary['folds']} folds",
        header,
        tuple(rows),
        "Spread: standard deviation over folds. They share training events: it is not"
        " the error of the mean.",
    )


def _in_all(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    return [name for name in metrics[0] if all(name in each for each in metrics)]


def _summaries(metrics: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    summaries = {}
    for name in _in_all(metrics):
        values = [float(each[name]) for each in metrics]
        summaries[name] = {
            "mean": statistics.fmean(values),
            "spread": statistics.stdev(values),
            "low": min(values),
            "high": max(values),
            "values": values,
        }
    return summaries

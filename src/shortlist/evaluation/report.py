"""A trained pipeline on a held-out part: full catalogue, with popularity as baseline.

The catalogue is every item of the vocabulary. Items that a user has interacted with
before are removed from the lists and from the relevant items, unless the pipeline
recommends them again (`repeats`). A held-out event of an item outside the vocabulary
stays relevant and is a miss for every model.

Users are processed in blocks. Only the lists and metrics of each user grow with their
number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from shortlist.data.schema import USER
from shortlist.data.store.dataset import Dataset, Part
from shortlist.errors import InputError
from shortlist.evaluation.evaluate import (
    RankingReport,
    compare_with_intervals,
    evaluate_rankings,
)
from shortlist.evaluation.list_report import Lists, collect_lists
from shortlist.evaluation.metrics.rankings import Csr
from shortlist.evaluation.metrics.table import bare_name
from shortlist.evaluation.options import EvaluationOptions
from shortlist.evaluation.pair_report import pair_report
from shortlist.evaluation.slice_report import slice_reports
from shortlist.evaluation.truth import nothing_relevant, relevant_items
from shortlist.evaluation.user_values import Evaluation
from shortlist.evaluation.verdict import verdict_of

if TYPE_CHECKING:
    from shortlist.models.pipeline import Pipeline

_BLOCK_USERS = 1 << 16


def evaluate_pipeline(
    pipeline: Pipeline, options: EvaluationOptions | None = None
) -> Evaluation:
    """Evaluates a pipeline on a held-out part.

    Args:
        pipeline: what is evaluated, over its dataset.
        options: what to measure; the defaults of `EvaluationOptions` if `None`.

    Returns: the metrics of each user, and a report of plain values: `metrics` and
        `intervals` of `model` and `popularity`, `comparison`, `verdict` (see
        `verdict_of`), `repeats`, `pairs`, `heads` (only with a multi-task ranker),
        `slices`, `lorenz`, and the numbers of users and events.

    Raises:
        InputError: nothing to evaluate on (`no-relevant-items`), or an unknown slice
            (`slice-unknown`) or feature (`taste-feature`).
    """
    options = EvaluationOptions() if options is None else options
    dataset, part = pipeline.dataset, options.part
    events = dataset.part(part)
    users = _known_users(dataset, events, part)
    relevant = relevant_items(dataset, users, part, repeats=pipeline.repeats)
    if not len(relevant[1]):
        raise nothing_relevant(dataset, users, part)
    lists = collect_lists(pipeline, users, options, block=_BLOCK_USERS)
    reports = _ranking_reports(lists, relevant, dataset.num_items - 1, options)
    pairs = pair_report(pipeline, events, options.objective, options.known)
    report: dict[str, Any] = {
        "part": part,
        "part_sizes": dataset.info.parts,
        "dataset_fingerprint": dataset.info.fingerprint,
        "ks": sorted(set(options.ks)),
        "users": reports["model"].num_users,
        "users_excluded": reports["model"].num_excluded,
        "unknown_users": _unknown_users(dataset, events, part),
        "catalogue": dataset.num_items - 1,
        "repeats": pipeline.repeats,
        **_compared(reports, lists),
        "pairs": pairs.metrics,
        **({"heads": pairs.heads} if pairs.heads else {}),
        "reliability": pairs.reliability,
        "slices": slice_reports(
            *(dataset, users, lists.ranked, relevant, options),
            repeats=pipeline.repeats,
        ),
        "lorenz": lists.lorenz,
        "measured_in": lists.measured_in,
        "notes": [*_notes(dataset, options.ks), *pairs.notes],
    }
    report = {"verdict": verdict_of(report, _kind(pipeline)), **report}
    report["notes"] += _left_out(reports["model"])
    report["notes"] += _not_measured(options.metrics or (), report["metrics"]["model"])
    return Evaluation(
        report=report,
        users=users[reports["model"].users],
        names=reports["model"].names,
        values=reports["model"].values,
    )


def _ranking_reports(
    lists: Lists, relevant: Csr, num_items: int, options: EvaluationOptions
) -> dict[str, RankingReport]:
    """The metrics of each user, of `model` and `popularity`."""
    return {
        name: evaluate_rankings(
            ranked,
            relevant,
            ks=options.ks,
            num_items=num_items,
            resamples=options.resamples,
            seed=options.seed,
            names=options.names,
        ).with_metrics(lists.per_user[name])
        for name, ranked in lists.ranked.items()
    }


def _compared(reports: Mapping[str, RankingReport], lists: Lists) -> dict[str, Any]:
    """`metrics`, `intervals` and `comparison` of the model and popularity."""
    compared, intervals = compare_with_intervals(
        reports["model"], reports["popularity"]
    )
    return {
        "metrics": {
            name: {**each.to_dict(), **lists.overall[name]}
            for name, each in reports.items()
        },
        "intervals": {
            name: {metric: list(ends) for metric, ends in each.items()}
            for name, each in zip(reports, intervals, strict=True)
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
    }


def ranking_metrics(
    dataset: Dataset,
    users: np.ndarray,
    ranked: np.ndarray,
    part: str,
    *,
    repeats: bool = False,
) -> dict[str, float]:
    """nDCG and recall at the length of the lists, for validation during training.

    Args:
        dataset: where the held-out part is.
        users: user rows `(n,)`.
        ranked: item rows `(n, k)`, best first, padded with -1.
        part: the held-out part.
        repeats: items that the user had interacted with before count too.
    """
    k = ranked.shape[1]
    report = evaluate_rankings(
        ranked,
        relevant_items(dataset, users, part, repeats=repeats),
        ks=(k,),
        num_items=dataset.num_items - 1,
        names=("ndcg", "recall"),
    )
    means = report.to_dict()
    return {name: means[name] for name in (f"ndcg@{k}", f"recall@{k}")}


def _kind(pipeline: Pipeline) -> str:
    """The retrieval model, as a recipe names it."""
    return pipeline.retrieval.kind


def _known_users(dataset: Dataset, events: Part, part: str) -> np.ndarray:
    """Known users with an event in the part, `(n,)` ascending."""
    users = np.flatnonzero(np.bincount(events.user_index, minlength=1))
    users = users[users > 0]
    if not len(users):
        raise InputError(
            "no-relevant-items",
            f"The {part} part must hold events of known users. Received:"
            f" {len(events)} events, none of them. Hold out more and prepare again.",
        )
    return users


def _unknown_users(dataset: Dataset, events: Part, part: str) -> dict[str, int]:
    """Users outside the vocabulary, who cannot be evaluated.

    Returns: their `events`, and the number of `users` first seen in the test part (0
        for another part); the events of other unknown users are not counted by user.
    """
    pending = dataset.info.pending.get(USER) if part == "test" else None
    users = pl.scan_ipc(dataset.path / pending).select(pl.len()) if pending else None
    return {
        "events": int(np.searchsorted(events.user_index, 1)),
        "users": 0 if users is None else int(users.collect().item()),
    }


def _left_out(report: RankingReport) -> list[str]:
    """Notes on how many users have no value of a metric."""
    missing = np.isnan(report.values).sum(axis=0).tolist()
    counts = {
        bare_name(name): count
        for name, count in zip(report.names, missing, strict=True)
        if count
    }
    return [
        f"{name} leaves out {count:,} users whose history has no known value of its"
        " feature."
        for name, count in counts.items()
    ]


def _not_measured(wanted: Sequence[str], found: Iterable[str]) -> list[str]:
    """A note on the requested metrics that could not be measured."""
    measured = set(map(bare_name, found))
    missing = [name for name in dict.fromkeys(wanted) if name not in measured]
    if not missing:
        return []
    return [
        f"Not measured, as there are no item features or no known events:"
        f" {', '.join(missing)}."
    ]


def _notes(dataset: Dataset, ks: Sequence[int]) -> list[str]:
    beyond = [k for k in sorted(set(ks)) if k > dataset.num_items - 1]
    if not beyond:
        return []
    return [
        f"k of {beyond} exceeds the catalogue of {dataset.num_items - 1:,} items:"
        " ranks beyond it count as misses."
    ]

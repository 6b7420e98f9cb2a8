"""A trained pipeline against a held-out part: full catalogue, popularity beside it.

The catalogue is every item of the vocabulary. Items that a user has taken before are
removed from the lists and from what counts as relevant, unless the pipeline recommends
them again (`repeats`). A held-out event of an item outside the vocabulary stays
relevant and is missed by everyone.

Users are taken in blocks: what is held at once does not grow with their number, save
the lists and the metrics of each user.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import polars as pl

from shortlist.data.schema import USER
from shortlist.data.split import KNOWN
from shortlist.data.store.dataset import Dataset, Part
from shortlist.errors import InputError, did_you_mean
from shortlist.evaluation.evaluate import (
    RankingReport,
    compare_with_intervals,
    evaluate_rankings,
)
from shortlist.evaluation.heads import head_metrics
from shortlist.evaluation.leaderboard import bare_name
from shortlist.evaluation.list_report import (
    Lists,
    collect_lists,
    recommends_seen,
)
from shortlist.evaluation.pair_report import pair_report
from shortlist.evaluation.slice_report import slice_reports
from shortlist.evaluation.slices import BUILT_IN
from shortlist.evaluation.truth import nothing_relevant, relevant_items
from shortlist.evaluation.user_values import Evaluation
from shortlist.evaluation.verdict import verdict_of
from shortlist.recipe import METRIC_NAMES

__all__ = [
    "Recommends",
    "evaluate_pipeline",
    "measure_pipeline",
    "ranking_metrics",
    "relevant_items",
]

_BLOCK_USERS = 1 << 16


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
    metrics: Sequence[str] | None = None,
    slices: Sequence[str] = (),
    taste: str | None = None,
) -> dict[str, Any]:
    """The report of `measure_pipeline`, whose arguments it takes."""
    return measure_pipeline(
        pipeline,
        objective=objective,
        part=part,
        ks=ks,
        resamples=resamples,
        seed=seed,
        metrics=metrics,
        slices=slices,
        taste=taste,
    ).report


def measure_pipeline(
    pipeline: Recommends,
    *,
    objective: str | None = None,
    part: str = "test",
    ks: Sequence[int] = (5, 10, 20),
    resamples: int = 1000,
    seed: int = 0,
    metrics: Sequence[str] | None = None,
    slices: Sequence[str] = (),
    taste: str | None = None,
) -> Evaluation:
    """Measures a pipeline on a held-out part.

    Args:
        pipeline: what is evaluated, over its dataset.
        objective: `explicit` when pair scores predict the label: adds RMSE and MAE;
            `binary` when they are logits: adds log loss and calibration.
        part: `test` or `validation`.
        ks: list lengths.
        resamples: bootstrap samples behind the 95 % intervals; slices take at most 200.
        seed: seed of the bootstrap.
        metrics: names of `recipe.METRIC_NAMES`; all of them by default.
        slices: features to divide the report by, beside the built-in slices.
        taste: item feature that tastes are measured in; see `taste_feature`.

    Returns: the metrics of each user, and a report of plain values: `metrics` and
        `intervals` of `model` and `popularity`, `comparison`, `verdict` (see
        `verdict_of`), `repeats`, `pairs`, `heads` (of a
        multi-task ranker; absent without one), `slices`, `lorenz`, and the numbers of
        users and events.

    Raises:
        InputError: nothing to evaluate on (`no-relevant-items`), or an unknown part
            (`part-unknown`), metric (`metric-unknown`), slice (`slice-unknown`) or
            feature (`taste-feature`).
    """
    names = _known_metrics(metrics)
    dataset = pipeline.dataset
    if part not in KNOWN:
        raise InputError(
            "part-unknown",
            f"The part must be one of {', '.join(KNOWN)}. Received: {part!r}."
            f"{did_you_mean(part, KNOWN)}",
        )
    events = dataset.part(part)
    users = _known_users(dataset, events, part)
    repeats = recommends_seen(pipeline)
    relevant = relevant_items(dataset, users, part, repeats=repeats)
    if not len(relevant[1]):
        raise nothing_relevant(dataset, users, part)
    longest = min(max(ks), dataset.num_items - 1)
    lists = collect_lists(
        pipeline, users, longest, part, names, ks, taste, block=_BLOCK_USERS
    )
    reports = {
        name: evaluate_rankings(
            lists.ranked[name],
            relevant,
            ks=ks,
            num_items=dataset.num_items - 1,
            resamples=resamples,
            seed=seed,
            names=names,
            extra=lists.per_user[name],
        )
        for name in lists.ranked
    }
    model = reports["model"]
    compared, intervals = compare_with_intervals(model, reports["popularity"])
    pairs = pair_report(pipeline, events, objective, KNOWN[part])
    report: dict[str, Any] = {
        "part": part,
        "part_sizes": dataset.info.parts,
        "dataset_fingerprint": dataset.info.fingerprint,
        "ks": sorted(set(ks)),
        "users": model.num_users,
        "users_excluded": model.num_excluded,
        "unknown_users": _unknown_users(dataset, events, part),
        "catalogue": dataset.num_items - 1,
        "repeats": repeats,
        "metrics": {name: _means(each, lists, name) for name, each in reports.items()},
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
        "pairs": pairs.metrics,
        **_heads(pipeline, events, KNOWN[part]),
        "reliability": pairs.reliability,
        "slices": slice_reports(
            dataset,
            users,
            lists.ranked,
            relevant,
            slices=list(dict.fromkeys([*BUILT_IN, *slices])),
            part=part,
            ks=ks,
            names=names,
            resamples=resamples,
            seed=seed,
            repeats=repeats,
        ),
        "lorenz": lists.lorenz,
        "measured_in": lists.measured_in,
        "notes": [*_notes(dataset, ks), *pairs.notes],
    }
    report = {"verdict": verdict_of(report, _kind(pipeline)), **report}
    report["notes"] += _left_out(model)
    report["notes"] += _not_measured(metrics or (), report["metrics"]["model"])
    return Evaluation(
        report=report,
        users=users[model.users],
        names=model.names,
        values=model.values,
    )


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
        repeats: items that the user had taken before count too.
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


def _kind(pipeline: Recommends) -> str:
    """Which retrieval model it is, as a recipe names it."""
    return getattr(getattr(pipeline, "retrieval", None), "kind", "two_tower")


def _known_metrics(metrics: Sequence[str] | None) -> tuple[str, ...]:
    for name in metrics or ():
        if name not in METRIC_NAMES:
            raise InputError(
                "metric-unknown",
                f"A metric must be one of {', '.join(METRIC_NAMES)}. Received:"
                f" {name!r}."
                f"{did_you_mean(name, METRIC_NAMES)}",
            )
    return METRIC_NAMES if metrics is None else tuple(dict.fromkeys(metrics))


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


def _heads(
    pipeline: Recommends, events: Part, known: tuple[str, ...]
) -> dict[str, dict[str, dict[str, float]]]:
    score_heads = getattr(pipeline, "score_heads", None)
    pairs = events.take((events.user_index > 0) & (events.item_index > 0))
    schema = pipeline.dataset.schema
    if score_heads is None or schema.label is None or not len(pairs):
        return {}
    outputs = score_heads(pairs.user_index, pairs.item_index, known)
    return {"heads": head_metrics(outputs, pairs, schema)} if outputs else {}


def _means(report: RankingReport, lists: Lists, name: str) -> dict[str, float]:
    return {**report.to_dict(), **lists.together[name]}


def _unknown_users(dataset: Dataset, events: Part, part: str) -> dict[str, int]:
    """Who cannot be evaluated, because no model can know them.

    Returns: their `events`, and the number of `users` that came in the test part alone,
        0 for another part; users left out of the vocabulary are not told apart.
    """
    pending = dataset.info.pending.get(USER) if part == "test" else None
    users = pl.scan_ipc(dataset.path / pending).select(pl.len()) if pending else None
    return {
        "events": int(np.searchsorted(events.user_index, 1)),
        "users": 0 if users is None else int(users.collect().item()),
    }


def _left_out(report: RankingReport) -> list[str]:
    """Says how many users have no value of a metric."""
    missing = np.isnan(report.values).sum(axis=0).tolist()
    counts = {
        bare_name(name): count
        for name, count in zip(report.names, missing, strict=True)
        if count
    }
    return [
        f"{name} leaves out {count:,} users whose past has no known value of its"
        " feature."
        for name, count in counts.items()
    ]


def _not_measured(wanted: Sequence[str], found: Iterable[str]) -> list[str]:
    """Says which metrics were asked for and have nothing to be measured in."""
    measured = set(map(bare_name, found))
    missing = [name for name in dict.fromkeys(wanted) if name not in measured]
    if not missing:
        return []
    return [
        f"Not measured, for want of item features or of known events:"
        f" {', '.join(missing)}."
    ]


def _notes(dataset: Dataset, ks: Sequence[int]) -> list[str]:
    beyond = [k for k in sorted(set(ks)) if k > dataset.num_items - 1]
    if not beyond:
        return []
    return [
        f"k of {beyond} exceeds the catalogue of {dataset.num_items - 1:,} items:"
        " places beyond it count as misses."
    ]

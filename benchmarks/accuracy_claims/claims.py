"""What is claimed of the rows of the table, against published figures."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator

from accuracy_claims import models, rivals
from accuracy_claims.protocol import METRICS
from accuracy_claims.table import figures, table
from harness import Better, Claim, against_rival, reported, within_limit

# Rows of the table of github.com/recommenders-team/recommenders (README, 2025-09-29).
PUBLISHED = {
    "BiVAE": {"ndcg": 0.475077, "map": 0.146126, "precision": 0.411771},
    "SAR": {
        "ndcg": 0.382461,
        "map": 0.110591,
        "precision": 0.330753,
        "recall": 0.176385,
    },
    "Spark ALS": {
        "ndcg": 0.044239,
        "map": 0.004732,
        "precision": 0.048462,
        "recall": 0.017796,
    },
    "SVD": {"rmse": 0.938681, "mae": 0.742690},
}
# The best of BiVAE's row and its notebook.
PUBLISHED["BiVAE"]["recall"] = 0.220898

BEST_REACH = {"ndcg": 0.485, "map": 0.150, "precision": 0.422, "recall": 0.230}
BLEND_REACH = 0.495
TIME_LIMIT, EASE_LIMIT = 300.0, 2.0
NAMES = {
    **{"ndcg": "nDCG@10", "map": "MAP", "precision": "P@10", "recall": "R@10"},
    **{"rmse": "RMSE", "mae": "MAE"},
}


def best(quick: bool) -> Iterator[Claim]:
    """The single model that was best on splits of the training part."""
    name = models.best_single()
    for metric, reach in BEST_REACH.items():
        yield beyond(f"g1-best-{metric}", name, metric, reach, quick)


def blend(quick: bool) -> Iterator[Claim]:
    """The blend, its weights fitted on splits of the training part."""
    for metric in METRICS:
        reach = BLEND_REACH if metric == "ndcg" else None
        yield beyond(f"g1-blend-{metric}", models.BLEND, metric, reach, quick)


def two_tower(quick: bool) -> Iterator[Claim]:
    """Our Keras model under JAX, through the package's own training."""
    for metric in METRICS:
        reach = PUBLISHED["BiVAE"]["ndcg"] if metric == "ndcg" else None
        yield beyond(f"g1-two-tower-{metric}", models.TWO_TOWER, metric, reach, quick)


def baselines(quick: bool) -> Iterator[Claim]:
    """Models of the textbook against the same ones of the public table."""
    for name, row in (("item_knn", "SAR"), ("als", "Spark ALS")):
        for metric in METRICS:
            yield against_published(name, metric, row, "higher", quick)
    theirs = rivals.implicit_als(table())
    values = figures(table().rows("als", quick=quick), "ndcg")
    yield against_rival(
        "g1-als-package",
        "nDCG@10 of als; rival: the package implicit with its own defaults, same run",
        ours=statistics.mean(values),
        rival=theirs["ndcg"],
        unit=NAMES["ndcg"],
        better="higher",
    )
    rivals.assert_equal_ease(table())
    for name in ("popularity", "ease", "burst_als"):
        for metric in METRICS:
            id = f"g1-{name}-{metric}".replace("_", "-")
            yield beyond(id, name, metric, None, quick)


def rating(quick: bool) -> Iterator[Claim]:
    """The rating model on all test events, predictions clipped to 1 to 5."""
    for metric in ("rmse", "mae"):
        yield against_published(models.RATING, metric, "SVD", "lower", quick)
    yield beyond("g1-rating-ndcg", models.RATING, "ndcg", None, quick)


def seconds(quick: bool) -> Iterator[Claim]:
    """The whole table with one seed; EASE alone from the dataset to the figures."""
    rows = [table().row(name) for name in models.ALL]
    total = table().seconds + sum(row.seconds for row in rows)
    yield within_limit(
        "g1-time",
        "preparing the data, fitting and measuring every row of the table, one seed",
        ours=total,
        unit="s",
        limit=TIME_LIMIT,
    )
    for name, row in zip(models.ALL, rows, strict=True):
        yield reported(
            f"g1-time-{name}-alone".replace("_", "-"),
            f"{name}: fitting and measuring, one seed",
            ours=row.seconds,
            unit="s",
        )
    yield within_limit(
        "g1-time-ease",
        "EASE: fitting, all scores, lists and their measures",
        ours=table().row("ease").seconds,
        unit="s",
        limit=EASE_LIMIT,
    )


def beyond(id: str, name: str, metric: str, reach: float | None, quick: bool) -> Claim:
    """A claim of a mean above `reach`, or one that is only reported."""
    values = figures(table().rows(name, quick=quick), metric)
    ours = statistics.mean(values)
    return Claim(
        id=id,
        name=f"{NAMES[metric]} of {name}, {spread_of(values)}",
        ours=ours,
        rival=None,
        unit=NAMES[metric],
        ratio=None,
        reach=reach,
        met=reach is None or ours > reach,
        values=values,
    )


def against_published(
    name: str, metric: str, row: str, better: Better, quick: bool
) -> Claim:
    """A claim of a mean at least as good as that of a row of the public table."""
    values = figures(table().rows(name, quick=quick), metric)
    id = "rating" if name == models.RATING else name
    claim = against_rival(
        f"g1-{id}-{metric}".replace("_", "-"),
        f"{NAMES[metric]} of {name}, {spread_of(values)}; published: {row}",
        ours=statistics.mean(values),
        rival=PUBLISHED[row][metric],
        unit=NAMES[metric],
        better=better,
        reach=1.0,
    )
    return dataclasses.replace(claim, values=values)


def spread_of(values: tuple[float, ...]) -> str:
    """How many figures there are, and the greatest less the least."""
    return f"mean of {len(values)}, spread {max(values) - min(values):.4f}"

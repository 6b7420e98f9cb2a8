"""The table of metrics: names, which direction is better and what each measures.

Reports, leaderboards, early stopping and the recipe read it. It imports no NumPy;
`docs/evaluation.md` has the formulas.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

HITS: Literal["hits"] = "hits"
LISTS: Literal["lists"] = "lists"
PAIRS: Literal["pairs"] = "pairs"
COUNT: Literal["count"] = "count"


class Metric(NamedTuple):
    """One metric.

    Args:
        name: without a list length: `ndcg`, not `ndcg@10`.
        of: what it is computed from: `hits` (held-out items in a list), `lists` (the
            recommended items alone), `pairs` (scores of held-out pairs); a `count` is a
            number in a report and no metric.
        meaning: what it measures, in one line.
        better: which direction is better; `None` if neither is.
    """

    name: str
    of: Literal["hits", "lists", "pairs", "count"]
    meaning: str
    better: Literal["higher", "lower"] | None = "higher"


_TABLE = (
    Metric("recall", HITS, "share of a user's held-out items among the first k"),
    Metric("ndcg", HITS, "held-out items among the first k; higher ranks count more"),
    Metric("mrr", HITS, "1 / rank of the first held-out item"),
    Metric("map", HITS, "mean precision at the ranks of held-out items"),
    Metric("hit_rate", HITS, "share of users with a held-out item among the first k"),
    Metric("precision", HITS, "share of the first k that are held-out items"),
    Metric(
        "novelty", LISTS, "how rare the recommended items are, in bits; higher is rarer"
    ),
    Metric("diversity", LISTS, "how different the items of a list are, 0 to 1"),
    Metric("arp", LISTS, "mean number of events of the recommended items", None),
    Metric(
        "taste_divergence",
        LISTS,
        "distance of lists from users' preferences; lower is better",
        "lower",
    ),
    Metric("coverage", LISTS, "share of the catalogue that is in any list"),
    Metric(
        "gini",
        LISTS,
        "0 if all items are recommended equally often, 1 if only one is",
        "lower",
    ),
    Metric(
        "popularity_lift",
        LISTS,
        "how much more popular lists are than histories; 0 is equal",
        None,
    ),
    Metric(
        "personalization", LISTS, "how different the lists of two users are, 0 to 1"
    ),
    Metric(
        "pairs", COUNT, "held-out pairs of a known user and item that were scored", None
    ),
    Metric("auc", PAIRS, "chance that a positive pair scores above a negative one"),
    Metric("auc_per_user", PAIRS, "AUC within each user, averaged"),
    Metric("auc_users", COUNT, "users with positive and negative pairs", None),
    Metric(
        "rmse",
        PAIRS,
        "root mean squared error of predicted labels; lower is better",
        "lower",
    ),
    Metric(
        "mae",
        PAIRS,
        "mean absolute error of predicted labels; lower is better",
        "lower",
    ),
    Metric(
        "log_loss",
        PAIRS,
        "negative log-likelihood of the labels; lower is better",
        "lower",
    ),
    Metric(
        "calibration_error",
        PAIRS,
        "gap between predicted and observed rates; lower is better",
        "lower",
    ),
)
METRICS = {metric.name: metric for metric in _TABLE}
HIT_METRICS = tuple(name for name, metric in METRICS.items() if metric.of == HITS)
LIST_METRICS = tuple(n for n, each in METRICS.items() if each.of in (HITS, LISTS))
"""The metrics that `[evaluation] metrics` chooses from."""
COUNTS = tuple(name for name, metric in METRICS.items() if metric.of == COUNT)
MAIN_METRIC, MAIN_K = "ndcg", 10


def bare_name(metric: str) -> str:
    """`ndcg` for `ndcg@10`."""
    return metric.partition("@")[0]


def higher_is_better(metric: str) -> bool | None:
    """Whether higher values of `ndcg` or `ndcg@10` are better; `None` if neither.

    Metrics that are not in the table, such as those of a user's own function, are
    better when higher.
    """
    known = METRICS.get(bare_name(metric))
    if known is None or known.of == COUNT:
        return True
    return None if known.better is None else known.better == "higher"


def meanings_of(metrics: Iterable[str]) -> list[tuple[str, str]]:
    """Name and meaning of each metric, `ndcg` for `ndcg@5` and `ndcg@10`, in order."""
    names = dict.fromkeys(map(bare_name, metrics))
    return [(name, METRICS[name].meaning) for name in names if name in METRICS]

"""What every metric says, in a line: shown where the metrics are.

`docs/evaluation.md` has the formulas.
"""

from __future__ import annotations

from collections.abc import Iterable

from shortlist.evaluation.leaderboard import bare_name

MEANINGS = {
    "recall": "share of a user's held-out items among the first k",
    "ndcg": "held-out items among the first k; higher places count more",
    "mrr": "1 / place of the first held-out item",
    "map": "mean precision at the places of held-out items",
    "hit_rate": "share of users with a held-out item among the first k",
    "precision": "share of the first k that are held-out items",
    "novelty": "how rare the listed items are, in bits; higher is rarer",
    "diversity": "how different the items of a list are, 0 to 1",
    "arp": "mean number of events of the listed items; higher is more popular",
    "taste_divergence": "how far lists are from the mix users like; lower is better",
    "coverage": "share of the catalogue that is in any list",
    "gini": "0 if all items are listed equally often, 1 if only one is",
    "popularity_lift": "how much more popular lists are than pasts; 0 is equal",
    "personalization": "how different the lists of two users are, 0 to 1",
    "pairs": "held-out pairs of a known user and item that were scored",
    "auc": "chance that a positive pair scores above a negative one",
    "auc_per_user": "the same within each user",
    "auc_users": "users with both kinds of pairs",
    "rmse": "error of predicted labels; large ones count more; lower is better",
    "mae": "mean error of predicted labels; lower is better",
    "log_loss": "how unlikely the model held what happened; lower is better",
    "calibration_error": "gap of predicted and observed chances; lower is better",
}


def meanings_of(metrics: Iterable[str]) -> list[tuple[str, str]]:
    """Name and meaning of each metric, `ndcg` for `ndcg@5` and `ndcg@10`, in order."""
    names = dict.fromkeys(map(bare_name, metrics))
    return [(name, MEANINGS[name]) for name in names if name in MEANINGS]

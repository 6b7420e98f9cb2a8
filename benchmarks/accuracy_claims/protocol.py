"""The public protocol on MovieLens-100K: split, lists and metrics, written anew here.

It is that of the table in github.com/recommenders-team/recommenders: 75 % of each
item's events train; every test event of a user is relevant, whatever the rating; lists
hold the ten best of the items that the user has no training event of.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl

from shortlist.data import Dataset, LogFiles, Schema, Split, prepare
from shortlist.evaluation.metrics import hits as metrics
from shortlist.evaluation.metrics.rankings import build_csr
from shortlist.models.scorers import KnownItems, Scorer, best_items
from shortlist.public_data.logs import fetch

K = 10
SPLIT_SEED = 42
VALIDATION_SEEDS = (1, 2, 3)
FIRST_TEST_ROWS = [(57, 1), (141, 1), (184, 1), (15, 1), (486, 1)]
METRICS = ("ndcg", "map", "precision", "recall")

Figures = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Log:
    """Events in the order of a file: ids of users and items, ratings, seconds."""

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    timestamp: np.ndarray

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: np.ndarray) -> Log:
        """The events at `rows`, in that order."""
        columns = (getattr(self, f.name)[rows] for f in dataclasses.fields(self))
        return Log(*columns)


def movielens() -> Log:
    """The 100,000 events in the order of u.data."""
    source = fetch("ml-100k", progress=False)
    names = [f.name for f in dataclasses.fields(Log)]
    table = pl.read_csv(
        source.events, separator="\t", has_header=False, new_columns=names
    )
    return Log(*(table[name].to_numpy() for name in names))


def stratified(log: Log, seed: int, ratio: float = 0.75) -> tuple[Log, Log]:
    """Training and test part: of each item's events, in random order, the first go on.

    A seed gives the parts that `python_stratified_split(filter_by="item")` gives.
    """
    drawn = np.random.RandomState(seed).rand(len(log))
    ordered = log.take(np.lexsort((drawn, log.item)))
    first = np.searchsorted(ordered.item, ordered.item, side="left")
    size = np.searchsorted(ordered.item, ordered.item, side="right") - first
    train = np.arange(1, len(log) + 1) - first <= np.round(ratio * size)
    return ordered.take(train), ordered.take(~train)


def public_split(log: Log) -> tuple[Log, Log]:
    """The split of the table, its documented sizes asserted."""
    train, test = stratified(log, SPLIT_SEED)
    sizes = len(train), len(test), *(len(np.unique(c)) for c in (test.user, test.item))
    assert sizes == (75_066, 24_934, 943, 1_473), sizes
    assert len(np.unique(train.user)) == 943 and len(np.unique(train.item)) == 1_682
    rows = list(zip(test.user[:5].tolist(), test.item[:5].tolist(), strict=True))
    assert rows == FIRST_TEST_ROWS, rows
    assert int((np.bincount(test.user)[1:] < K).sum()) == 284
    return train, test


def facts() -> dict[str, object]:
    """What the figures stand on, for `--json`; the sizes are asserted."""
    train, test = public_split(movielens())
    return {
        "data": "MovieLens-100K, 100,000 events in the order of u.data",
        "split": f"75 % of each item's events train, drawn with seed {SPLIT_SEED}",
        "relevant": "every test event, whatever its rating",
        "lists": f"the {K} best of the items without a training event of the user",
        "train_events": len(train),
        "test_events": len(test),
        "test_users": len(np.unique(test.user)),
        "test_items": len(np.unique(test.item)),
        "validation": {
            str(seed): {"train_events": len(fitted), "held_out_events": len(held_out)}
            for seed, (fitted, held_out) in zip(
                VALIDATION_SEEDS, validation_splits(train), strict=True
            )
        },
    }


def validation_splits(train: Log) -> list[tuple[Log, Log]]:
    """Splits of the training part, drawn in the same way."""
    return [stratified(train, seed) for seed in VALIDATION_SEEDS]


def as_dataset(
    train: Log, test: Log, folder: Path, *, weight_alpha: float | None = None
) -> Dataset:
    """The two parts as a dataset of the package.

    Ratings are labels; with `weight_alpha` they are not, and an event weighs
    `1 + weight_alpha * rating` in the loss of a two-tower model; 0 for no weights.
    """
    for name, log in (("train", train), ("test", test)):
        # Events of one second keep the order of the file; here that must tell nothing.
        order = np.lexsort((log.item, log.timestamp, log.user))
        columns = dataclasses.asdict(log.take(order))
        pl.DataFrame(columns).write_parquet(folder / f"{name}.parquet")
    columns = {"user_id": "user", "item_id": "item", "timestamp": "timestamp"}
    if weight_alpha is None:
        schema = Schema(
            **columns,
            label="rating",
            label_kind="explicit",
            positive_from=4.0,
            label_min=1.0,
            label_max=5.0,
        )
    else:
        weighted = {"weight": "linear", "weight_alpha": weight_alpha}
        schema = Schema(
            **columns,
            label="rating",
            label_kind="implicit",
            **(weighted if weight_alpha else {}),
        )
    return prepare(
        LogFiles(folder / "train.parquet", test_events=folder / "test.parquet"),
        schema,
        folder / "dataset",
        split=Split(kind="files", validation=0.0),
        overwrite=True,
    )


def ranked_items(scorer: Scorer, dataset: Dataset) -> np.ndarray:
    """External ids of each user's ten best unseen items, `(num_users, 10)`."""
    users = np.arange(1, dataset.num_users, dtype=np.int32)
    known = KnownItems(dataset, ("train",), values=scorer.uses_values).of(users)
    _, rows = best_items(scorer.score_all(known), K, (known.offsets, known.items))
    return dataset.vocabularies["item"].ids.fill_null(0).to_numpy()[rows]


def user_ids(dataset: Dataset) -> np.ndarray:
    """External ids of the rows of `ranked_items`."""
    return dataset.vocabularies["user"].ids[1:].to_numpy()


def measure(users: np.ndarray, lists: np.ndarray, test: Log) -> Figures:
    """Means over the users with test events; equal to the package's, asserted."""
    relevant: dict[int, set[int]] = {}
    for user, item in zip(test.user.tolist(), test.item.tolist(), strict=True):
        relevant.setdefault(user, set()).add(item)
    discounts = 1 / np.log2(np.arange(2, K + 2))
    rows = []
    for user, items in zip(users.tolist(), lists.tolist(), strict=True):
        if user not in relevant:
            continue
        hits = np.array([item in relevant[user] for item in items], float)
        actual = len(relevant[user])
        ranks = np.arange(1, K + 1)
        rows.append(
            (
                hits @ discounts / discounts[: min(K, actual)].sum(),
                (hits * hits.cumsum() / ranks).sum() / actual,
                hits.sum() / K,
                hits.sum() / actual,
            )
        )
    figures = dict(zip(METRICS, np.mean(rows, axis=0).tolist(), strict=True))
    _assert_equal(figures, users, lists, test)
    return figures


def _assert_equal(
    figures: Figures, users: np.ndarray, lists: np.ndarray, test: Log
) -> None:
    known = np.isin(test.user, users)
    places = np.searchsorted(np.sort(users), test.user[known])
    positions = np.argsort(users)[places]
    hits = metrics.find_hits(
        lists, build_csr(positions, test.item[known], num_users=len(users))
    )
    theirs = (
        metrics.ndcg(hits, K),
        metrics.average_precision(hits, K, normalize="all"),
        metrics.precision(hits, K),
        metrics.recall(hits, K),
    )
    for name, values in zip(METRICS, theirs, strict=True):
        assert abs(np.nanmean(values) - figures[name]) < 1e-9, name


def rating_errors(model: Scorer, dataset: Dataset) -> Figures:
    """RMSE and MAE of the clipped predictions of all test events."""
    events = dataset.part("test")
    users = np.arange(dataset.num_users, dtype=np.int32)
    known = KnownItems(dataset, ("train",)).of(users)
    predicted = model.predict(known, events.user_index, events.item_index)
    assert predicted.min() >= 1 and predicted.max() <= 5
    errors = predicted.astype(np.float64) - events.label
    return {
        "rmse": float(np.sqrt((errors**2).mean())),
        "mae": float(np.abs(errors).mean()),
    }

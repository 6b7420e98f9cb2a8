"""Toy logs with a known answer, prepared once per session and shared by the suites.

`checkerboard`: even users like even items, odd users odd ones. Each user did all items
of the own colour but the four newest: two are the validation part, two the test part.
So after training the first four recommendations of everybody are known.

`synthetic`: a log drawn from a known law, with features of every kind.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from shortlist.data import Dataset, Feature, LogFiles, Schema, Split, prepare
from shortlist.public_data.synthetic import Generated, SyntheticLog, generate
from shortlist.recipe import Recipe, build_recipe
from shortlist.training.runs.run import Run

SIDE = 24  # users and items of the checkerboard
HELD_OUT = 2  # events per user in the validation part, and again in the test part

CHECKERBOARD_SCHEMA = Schema(
    user_id="user", item_id="item", timestamp="time", label="rating"
)
SYNTHETIC_SCHEMA = Schema(
    user_id="user_id",
    item_id="item_id",
    timestamp="timestamp_ms",
    label="rating",
    label_kind="explicit",
    positive_from=4.0,
    label_min=1.0,
    label_max=5.0,
    title="title",
    features=(
        Feature(name="segment", owner="user", kind="categorical"),
        Feature(name="category", owner="item", kind="categorical"),
        Feature(name="tags", owner="item", kind="multi_valued"),
        Feature(name="price", owner="item", kind="numeric"),
    ),
)
SYNTHETIC_LOG = SyntheticLog(
    num_users=120, num_items=80, num_events=6_000, temperature=0.25, seed=3
)


@functools.cache
def checkerboard(base: Path) -> Dataset:
    """The checkerboard; `base` is a directory of the test session."""
    rng = np.random.default_rng(0)
    users, items = [], []
    for user in range(SIDE):
        users += [user] * (SIDE // 2)
        items += rng.permutation(np.arange(user % 2, SIDE, 2)).tolist()
    log = {"user": users, "item": items, "time": 1_600_000_000 + np.arange(len(users))}
    # Ratings say nothing about taste, so that nothing but the events can be learned.
    log["rating"] = rng.integers(1, 6, len(users))
    file = base / "checkerboard.csv"
    pl.DataFrame(log).write_csv(file)
    split = Split(kind="last_n", test=HELD_OUT, validation=HELD_OUT)
    return prepare(file, CHECKERBOARD_SCHEMA, base / "checkerboard", split=split)


@functools.cache
def synthetic_log() -> Generated:
    """The log behind `synthetic`, with its truth."""
    return generate(SYNTHETIC_LOG)


@functools.cache
def synthetic(base: Path) -> Dataset:
    """The synthetic log with user and item features; the last 20 % is for testing."""
    generated = synthetic_log()
    for table in ("events", "users", "items"):
        generated.write_csv(base / f"synthetic-{table}.csv", table)
    return prepare(
        LogFiles(
            base / "synthetic-events.csv",
            users=base / "synthetic-users.csv",
            items=base / "synthetic-items.csv",
        ),
        SYNTHETIC_SCHEMA,
        base / "synthetic",
    )


def recipe(
    schema: Schema,
    *,
    seed: int = 0,
    retrieval: dict[str, Any] | None = None,
    ranker: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
) -> Recipe:
    """A recipe for models small enough for a test; `ranker=None` goes without one."""
    small = {"embedding_dim": 16, "feature_dim": 4, "history_length": 5}
    fitted = {"batch_size": 256, "learning_rate": 0.02, "epochs": 6, "patience": 2}
    return build_recipe(
        {
            "seed": seed,
            "log": {"events": "events.csv"},
            "columns": schema,
            "training": training or {},
            "retrieval": {**small, **fitted, "dropout": 0.2, **(retrieval or {})},
            "ranker": {"enabled": False}
            if ranker is None
            else {**small, **fitted, "hidden_units": [16], **ranker},
        }
    )


CHECKERBOARD_RECIPE = recipe(
    CHECKERBOARD_SCHEMA,
    retrieval={"batch_size": 64, "temperature": 0.3, "epochs": 12, "patience": 12},
    ranker={"epochs": 2, "batch_size": 64, "negatives": 3, "weights": [0, 0.01]},
)
SYNTHETIC_RECIPE = recipe(
    SYNTHETIC_SCHEMA,
    retrieval={"temperature": 0.3, "epochs": 12},
    ranker={"objective": "explicit", "candidates": 20, "weights": [0.5]},
)


@functools.cache
def checkerboard_run(base: Path) -> Run:
    """A binary ranker and retrieval, trained on the checkerboard."""
    return _train(checkerboard(base), base / "checkerboard-run", CHECKERBOARD_RECIPE)


@functools.cache
def synthetic_run(base: Path) -> Run:
    """An explicit ranker of weight 0.5 and retrieval, trained on the synthetic log."""
    return _train(synthetic(base), base / "synthetic-run", SYNTHETIC_RECIPE)


def train_with(dataset: Dataset, out: Path, recipe: Recipe, **options: Any) -> Run:
    """Trains quietly, with arguments of `train` and of `TrainOptions` by name."""
    from shortlist.evaluation import ranking_metrics
    from shortlist.training import TrainOptions, train

    given = {"validate": ranking_metrics, "quiet": True, **options}
    direct = {n: given.pop(n) for n in ("validate", "quiet", "overwrite") if n in given}
    return train(dataset, out, recipe, **direct, options=TrainOptions(**given))


def _train(dataset: Dataset, out: Path, recipe: Recipe) -> Run:
    from shortlist.evaluation import ranking_metrics
    from shortlist.training import train

    return train(dataset, out, recipe, validate=ranking_metrics, quiet=True)

"""What is said of trainings that ended too early; a sparse log gets a real model."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from shortlist.data import Dataset, Schema, Split, prepare
from shortlist.evaluation import ranking_metrics
from shortlist.training import train
from shortlist.training.loop.endings import Ending
from toy import recipe

SCHEMA = Schema(user_id="user", item_id="item", timestamp="time")


def ending(**changes: Any) -> str:
    fields: dict[str, Any] = {
        "stage": "retrieval",
        "monitor": "val_ndcg@10",
        "epoch": 40,
        "epochs": 40,
        "best_epoch": 40,
        "ended_by": "epochs",
        "fell": 0.002,
        "is_metric": True,
    }
    return Ending(**(fields | changes)).note()


@pytest.mark.parametrize(
    ("changes", "words", "setting"),
    [
        ({}, "ended at epoch 40 of 40", "retrieval.epochs."),
        ({"best_epoch": 38}, "epoch 38 was the best", "retrieval.epochs."),
        (
            {"stage": "ranker", "monitor": "val_loss", "is_metric": False},
            "val_loss still getting better",
            "ranker.epochs.",
        ),
        (
            {"ended_by": "time_budget", "epoch": 7, "best_epoch": 7},
            "ended at epoch 7 of 40",
            "training.time_budget.",
        ),
        (
            {"ended_by": "patience", "epoch": 4, "best_epoch": 1, "fell": 0.043},
            "epoch 4 of 40 with the loss still falling (4.3%",
            "retrieval.patience.",
        ),
    ],
)
def test_an_end_that_came_too_early_names_what_to_change(
    changes: dict[str, Any], words: str, setting: str
) -> None:
    note = ending(**changes)
    assert words in note and note.endswith(setting)


@pytest.mark.parametrize(
    "changes",
    [
        {"best_epoch": 20},
        {"best_epoch": 37},
        {"ended_by": "patience", "epoch": 21, "best_epoch": 18},
        {"ended_by": "cost", "epoch": 9, "best_epoch": 9},
        {"ended_by": "time_budget", "epoch": 30, "best_epoch": 12},
        # Of a loss on the validation part it is normal to rise while the other falls.
        {"ended_by": "patience", "epoch": 5, "fell": 0.05, "is_metric": False},
    ],
)
def test_an_end_as_it_should_be_needs_no_words(changes: dict[str, Any]) -> None:
    assert ending(**changes) == ""


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Users of 150 kinds with three to five of the ten items of their kind."""
    folder, draw = tmp_path_factory.mktemp("sparse"), random.Random(12)
    rows = []
    for user in range(600):
        kind, count = draw.randrange(150), draw.choice([3, 4, 5])
        rows += [
            (f"u{user}", f"i{kind * 10 + item}", 1_700_000_000 + user * 100 + place)
            for place, item in enumerate(draw.sample(range(10), count))
        ]
    log = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    log.write_csv(folder / "log.csv")
    split = Split(kind="last_n", test=1, validation=1)
    return prepare(folder / "log.csv", SCHEMA, folder / "dataset", split=split)


@pytest.mark.parametrize("seed", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_sparse_log_gets_a_model_whatever_the_seed(
    sparse: Dataset, tmp_path: Path, seed: int
) -> None:
    # Its validation metric is that of chance at first: with two of these seeds a
    # patience that counts from the first epoch ends with a third of this.
    chosen = recipe(
        SCHEMA,
        seed=seed,
        retrieval={
            **{"batch_size": 256, "learning_rate": 8e-3, "embedding_dim": 32},
            **{"epochs": 10, "patience": 2, "dropout": 0.4},
        },
    )
    run = train(sparse, tmp_path / "run", chosen, validate=ranking_metrics, quiet=True)
    reached = run.info.validation["retrieval"]["ndcg@10"]
    assert reached > 6 * run.info.popularity["ndcg@10"]
    assert run.info.epochs["retrieval"] >= 9
    (note,) = run.info.notes
    assert "retrieval.epochs" in note

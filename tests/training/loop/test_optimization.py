"""Schedules, accumulation, clipping and precision: what a recipe says of a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from shortlist.data import Dataset
from shortlist.errors import InputError
from shortlist.evaluation import ranking_metrics
from shortlist.recipe import OPTIMIZERS, TrainingSection
from shortlist.training import Run, load_pipeline, train
from shortlist.training.loop.optimization import (
    WarmUp,
    check_updates,
    optimization,
    precision,
)
from toy import CHECKERBOARD_SCHEMA, checkerboard, recipe

pytestmark = pytest.mark.backend

RATE, WARM_UP, TOTAL = 0.2, 4, 20


def expected(kind: str, update: int) -> float:
    """The formula of the docstring, in NumPy."""
    if update < WARM_UP:
        rise = (update + 1) / WARM_UP
    else:
        rise = 1.0
    share = np.clip((update - WARM_UP) / (TOTAL - WARM_UP), 0, 1)
    falls = {
        "constant": 1,
        "linear": 1 - share,
        "cosine": (1 + np.cos(np.pi * share)) / 2,
    }
    return float(RATE * rise * falls[kind])


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("per_update", [1, 3])
def test_a_schedule_is_its_formula(kind: str, per_update: int) -> None:
    schedule = WarmUp(RATE, kind, WARM_UP, TOTAL, per_update)
    again = keras.optimizers.schedules.deserialize(
        keras.optimizers.schedules.serialize(schedule)
    )
    for step in range(TOTAL * per_update + 5):
        wanted = expected(kind, step // per_update)
        for one in (schedule, again):
            np.testing.assert_allclose(one(step), wanted, rtol=1e-5, atol=1e-8)


def test_without_warm_up_a_constant_rate_is_a_number() -> None:
    moves = optimization(TrainingSection(), 0.01, 100)
    assert isinstance(moves.dense, keras.optimizers.Adam)
    assert float(moves.dense.learning_rate) == pytest.approx(0.01)
    assert (moves.table_optimizer, moves.table_learning_rate) == ("adam", 0.01)
    assert moves.dense.gradient_accumulation_steps is None
    assert moves.dense.global_clipnorm is None


def test_tables_count_updates_and_dense_weights_batches() -> None:
    section = TrainingSection(schedule="linear", warmup_steps=2, accumulate=4)
    moves = optimization(section, 0.1, total_batches=42)
    of_tables = keras.optimizers.schedules.deserialize(moves.table_learning_rate)
    assert (of_tables.total_steps, of_tables.steps_per_update) == (11, 1)
    of_dense = moves.dense._learning_rate
    for update in range(11):
        rates = [float(of_dense(4 * update + batch)) for batch in range(4)]
        assert rates == [float(of_tables(update))] * 4


def test_the_precision_is_set_back() -> None:
    before = keras.config.dtype_policy()
    with precision("mixed_bfloat16"):
        assert keras.config.dtype_policy().compute_dtype == "bfloat16"
    assert keras.config.dtype_policy() == before


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard(tmp_path_factory.getbasetemp())


def trained(dataset: Dataset, out: Path, **training: Any) -> Run:
    chosen = recipe(
        CHECKERBOARD_SCHEMA,
        retrieval={"batch_size": 48, "epochs": 8, "hidden_units": [8], "patience": 8},
        ranker={"batch_size": 96, "epochs": 2, "negatives": 2, "weights": [0]},
    )
    section = TrainingSection(**training)
    return train(
        dataset,
        out,
        chosen.model_copy(update={"training": section}),
        validate=ranking_metrics,
        quiet=True,
    )


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"accumulate": 1_000}, "accumulate = 1000, and .* batches of retrieval"),
        ({"warmup_steps": 10_000}, "at most the .* updates of retrieval.*10,000"),
    ],
)
def test_weights_that_would_not_move_are_told_before_any_work(
    dataset: Dataset, tmp_path: Path, training: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        trained(dataset, tmp_path / "run", **training)
    assert caught.value.code == "training-too-short"
    assert list(tmp_path.iterdir()) == []


def test_the_longest_warm_up_has_all_updates() -> None:
    section = TrainingSection(accumulate=3, warmup_steps=8)
    check_updates(section, "retrieval", batches=12, epochs=2)
    with pytest.raises(InputError, match="the 7 updates of ranker"):
        check_updates(section, "ranker", batches=11, epochs=2)


# Half of all items have the right colour: a list by chance has about half of them.
CHANCE = 0.25
TRIED = ("adam", "rowwise_adagrad")


@pytest.mark.parametrize(
    "training",
    [
        {"precision": "mixed_float16"},
        {"schedule": "linear", "accumulate": 2, "precision": "mixed_bfloat16"},
        {"optimizer": "rowwise_adagrad"},
        *[
            pytest.param(training, marks=pytest.mark.slow)
            for training in (
                {"precision": "mixed_bfloat16"},
                {"accumulate": 2, "clip_norm": 1.0},
                {"schedule": "cosine", "warmup_steps": 4},
                *[{"optimizer": name} for name in OPTIMIZERS if name not in TRIED],
            )
        ],
    ],
    ids=str,
)
def test_a_run_is_trained_and_read_again(
    dataset: Dataset, tmp_path: Path, training: dict[str, Any]
) -> None:
    run = trained(dataset, tmp_path / "run", **training)
    pipeline = load_pipeline(run, dataset)
    assert keras.config.dtype_policy().name == "float32"
    users = np.arange(1, dataset.num_users)
    _, items = pipeline.recommend(users, 10, parts=("train",))
    again = ranking_metrics(dataset, users, items, "validation")
    told = run.info.validation["retrieval"]["ndcg@10"]
    assert again["ndcg@10"] == pytest.approx(told, abs=0.02)
    if training.get("optimizer", "adam") == "adam":
        assert told > CHANCE
    assert run.recipe["training"]["precision"] == training.get("precision", "float32")

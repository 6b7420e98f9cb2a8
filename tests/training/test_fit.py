"""Training from a dataset to a run: what is learned, kept, written and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import polars as pl
import pytest

from shortlist.data import Dataset, ExampleOptions, Split, TrainingExamples, prepare
from shortlist.errors import ArtifactError, InputError, ResourceError, ShortlistError
from shortlist.evaluation import EvaluationOptions, evaluate_pipeline, ranking_metrics
from shortlist.models import Popularity
from shortlist.models.two_tower import TwoTower
from shortlist.training import Run, load_pipeline, train
from shortlist.training.batches.keras_batches import as_keras
from shortlist.training.runs.checkpoint import load_model
from shortlist.training.stages import UNTRIED_WEIGHT
from toy import (
    CHECKERBOARD_SCHEMA,
    HELD_OUT,
    checkerboard,
    checkerboard_run,
    recipe,
    synthetic,
    synthetic_run,
)

pytestmark = pytest.mark.backend

BRIEF = {"epochs": 1, "batch_size": 96, "embedding_dim": 4}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def dataset(base: Path) -> Dataset:
    return checkerboard(base)


@pytest.fixture(scope="module")
def run(base: Path) -> Run:
    return checkerboard_run(base)


def brief_recipe(*, seed: int = 0, **retrieval: Any) -> Any:
    """One epoch of retrieval alone."""
    return recipe(CHECKERBOARD_SCHEMA, seed=seed, retrieval=BRIEF | retrieval)


def lines_of(run: Run, model: str) -> list[dict[str, Any]]:
    text = (run.path / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    return [line for line in lines if line["model"] == model]


def weights_of(run: Run) -> list[np.ndarray]:
    """The dense weights of retrieval, then its tables."""
    trained = load_model(run.path / "retrieval", TwoTower)
    return [*trained.get_weights()[1:], *trained.lookup.tables().values()]


def test_the_known_answer_is_found(run: Run, dataset: Dataset) -> None:
    users = np.arange(1, dataset.num_users)
    pipeline = load_pipeline(run, dataset)
    _, items = pipeline.recommend(users, 2 * HELD_OUT, parts=("train",))
    for user, row in zip(users.tolist(), items.tolist(), strict=True):
        colour = int(dataset.vocabularies["user"].id(user)) % 2
        found = [int(dataset.vocabularies["item"].id(item)) % 2 for item in row]
        assert found == [colour] * (2 * HELD_OUT), f"row {user}"


def test_the_best_epoch_is_kept_and_not_the_last(run: Run, dataset: Dataset) -> None:
    measured = [line["val_ndcg@10"] for line in lines_of(run, "retrieval")]
    assert run.info.epochs["retrieval"] == int(np.argmax(measured)) + 1
    assert run.info.validation["retrieval"]["ndcg@10"] == max(measured)
    users = np.arange(1, dataset.num_users)
    pipeline = load_pipeline(run, dataset)
    pipeline.ranker_weight = 0.0  # the figure is that of retrieval
    _, items = pipeline.recommend(users, 10, parts=("train",))
    again = ranking_metrics(dataset, users, items, "validation")
    assert again["ndcg@10"] == pytest.approx(max(measured), abs=1e-6)


def test_the_best_ranker_is_kept_and_not_the_last(base: Path) -> None:
    run, dataset = synthetic_run(base), synthetic(base)
    measured = [line["val_loss"] for line in lines_of(run, "ranker")]
    best = int(np.argmin(measured))
    assert run.info.epochs["ranker"] == best + 1
    part = dataset.part("validation")
    known = part.take((part.user_index > 0) & (part.item_index > 0))
    ranker = load_pipeline(run, dataset).ranker
    assert ranker is not None
    # Every event of the part counts, also those after the last whole batch.
    options = ExampleOptions(history_length=5, history_parts=("train", "validation"))
    rows = TrainingExamples(dataset, ("validation",), options)
    assert len(rows) == len(known) and len(rows) % 256
    everything = rows.take(np.arange(len(rows)), np.random.default_rng(0))
    features, label = as_keras(everything)
    scores = ranker.predict(features, verbose=0)[:, 0]
    error = np.mean((scores - label) ** 2)
    assert error == pytest.approx(measured[best], rel=1e-4)


def test_patience_ends_the_training_early(base: Path) -> None:
    run = synthetic_run(base)
    lines, patience = lines_of(run, "retrieval"), run.recipe["retrieval"]["patience"]
    assert len(lines) <= run.recipe["retrieval"]["epochs"]
    if len(lines) < run.recipe["retrieval"]["epochs"]:
        assert len(lines) == run.info.epochs["retrieval"] + patience


def test_two_towers_beat_popularity_by_far(base: Path) -> None:
    # The quality floor: a law of taste is hidden in this log, and it must be found.
    run, dataset = synthetic_run(base), synthetic(base)
    found = run.info.validation["retrieval"]["ndcg@10"]
    report = evaluate_pipeline(
        load_pipeline(run, dataset), EvaluationOptions(part="validation", resamples=10)
    ).report
    popularity = report["metrics"]["popularity"]["ndcg@10"]
    assert found > 1.5 * popularity
    assert report["metrics"]["model"]["ndcg@10"] > 1.5 * popularity


def test_an_explicit_ranker_predicts_ratings_better_than_their_mean(base: Path) -> None:
    run, dataset = synthetic_run(base), synthetic(base)
    events = dataset.part("test")
    known = events.take((events.user_index > 0) & (events.item_index > 0))
    predicted = load_pipeline(run, dataset).score_pairs(
        known.user_index, known.item_index, ("train", "validation")
    )
    mean = float(dataset.part("train").label.mean())
    error = np.sqrt(np.mean((predicted - known.label) ** 2))
    assert error < 0.9 * np.sqrt(np.mean((mean - known.label) ** 2))


def test_the_run_directory_holds_what_it_promises(run: Run, dataset: Dataset) -> None:
    assert sorted(path.name for path in run.path.iterdir()) == [
        *("environment.json", "metrics.jsonl", "ranker", "recipe.json"),
        *("retrieval", "run.json", "schema.json", "vocabularies"),
    ]
    stored = json.loads((run.path / "recipe.json").read_text())
    assert stored["retrieval"]["embedding_dim"] == 16
    assert stored["ranker"]["negatives"] == 3
    assert (run.path / "schema.json").read_bytes() == dataset.schema.to_json()
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["backend"] == keras.backend.backend() == run.info.backend
    assert run.info.dataset_fingerprint == dataset.info.fingerprint
    assert run.info.objective == "binary"
    assert (run.info.retrieval_history, run.info.ranker_history) == (5, 5)
    assert set(run.info.epochs) == {"retrieval", "ranker"}
    assert 0 < run.info.seconds["retrieval"] <= run.info.seconds["total"]
    for model in ("retrieval", "ranker"):
        epochs = [line["epoch"] for line in lines_of(run, model)]
        assert epochs == list(range(1, len(epochs) + 1))


def test_the_weight_of_the_ranker_is_the_best_one_tried(run: Run) -> None:
    tried = run.info.validation["ranker_weights"]
    assert list(tried) == ["0.0", "0.01"]
    best = max(tried.values())
    # Of equal ones the smallest: a ranker that adds nothing is not asked.
    assert run.info.ranker_weight == min(float(w) for w in tried if tried[w] == best)
    assert run.info.validation["pipeline"]["ndcg@10"] == pytest.approx(best)


def test_a_loaded_pipeline_is_the_trained_one(run: Run, dataset: Dataset) -> None:
    first, second = (load_pipeline(run, dataset) for _ in range(2))
    assert first.ranker is not None and first.candidates == run.info.candidates
    assert first.ranker_weight == run.info.ranker_weight
    np.testing.assert_array_equal(
        first.retrieval.item_vectors, second.retrieval.item_vectors
    )


def test_one_seed_gives_one_run_and_another_seed_another(
    dataset: Dataset, tmp_path: Path
) -> None:
    runs = [
        train(
            dataset,
            tmp_path / f"run-{number}",
            brief_recipe(seed=seed, dropout=0.3),
            validate=ranking_metrics,
            quiet=True,
        )
        for number, seed in enumerate((4, 4, 5))
    ]
    first, again, other = (weights_of(run) for run in runs)
    for left, right in zip(first, again, strict=True):
        np.testing.assert_array_equal(left, right)
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert runs[0].info.validation == runs[1].info.validation


def test_without_a_validation_part_all_epochs_run(base: Path, tmp_path: Path) -> None:
    events = base / "checkerboard.csv"
    checkerboard(base)
    dataset = prepare(
        events,
        CHECKERBOARD_SCHEMA,
        tmp_path / "dataset",
        split=Split(kind="last_n", test=2, validation=0),
    )
    small = {"epochs": 2, "batch_size": 96, "embedding_dim": 4, "patience": 1}
    chosen = recipe(CHECKERBOARD_SCHEMA, retrieval=small, ranker=small)
    run = train(dataset, tmp_path / "run", chosen, validate=ranking_metrics, quiet=True)
    assert run.info.epochs == {"retrieval": 2, "ranker": 2}
    # Nothing was measured, so nothing is said to have been.
    assert run.info.validation == {
        "retrieval": {},
        "ranker_weights": {},
        "pipeline": {},
    }
    assert run.info.ranker_weight == UNTRIED_WEIGHT
    assert not [key for key in lines_of(run, "retrieval")[0] if key.startswith("val_")]


def test_users_who_only_repeat_themselves_are_not_measured(tmp_path: Path) -> None:
    # Their validation items are removed as seen: there is nothing to find for them.
    log = {
        "user": [*range(6)] * 4,
        "item": [user % 3 for user in range(6)] * 3 + [1, 1, 2, 3, 1, 2],
        "time": 1_600_000_000 + np.arange(24),
        "rating": [3] * 24,
    }
    log["item"][3] = 3  # so that item 3 is known
    pl.DataFrame(log).write_csv(tmp_path / "log.csv")
    split = Split(kind="last_n", test=0, validation=1)
    dataset = prepare(
        tmp_path / "log.csv", CHECKERBOARD_SCHEMA, tmp_path / "dataset", split=split
    )
    measured = []

    def validate(
        dataset: Dataset, users: np.ndarray, items: np.ndarray, part: str
    ) -> dict[str, float]:
        measured.append({dataset.vocabularies["user"].ids[int(u)] for u in users})
        return ranking_metrics(dataset, users, items, part)

    chosen = brief_recipe(batch_size=4)
    train(dataset, tmp_path / "run", chosen, validate=validate, quiet=True)
    # 0 went from item 0 to 1, 3 from items 3 and 0 to 3 again, 4 stayed with 1, ...
    assert measured[0] == {0}


def failing(error: BaseException) -> Any:
    def validate(*args: Any) -> dict[str, float]:
        raise error

    return validate


@pytest.mark.parametrize(
    "error",
    [RuntimeError("in the middle"), KeyboardInterrupt()],
    ids=["error", "ctrl-c"],
)
def test_a_training_that_fails_leaves_nothing_behind(
    dataset: Dataset, tmp_path: Path, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        train(
            dataset,
            tmp_path / "deep" / "run",
            brief_recipe(),
            validate=failing(error),
            quiet=True,
        )
    assert [path.name for path in tmp_path.rglob("*")] == ["deep"]


def test_a_training_that_fails_keeps_the_run_it_was_to_replace(
    dataset: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    older = '{"format": "shortlist-run"}'
    (out / "run.json").write_text(older)
    with pytest.raises(RuntimeError, match="in the middle"):
        train(
            dataset,
            out,
            brief_recipe(),
            validate=failing(RuntimeError("in the middle")),
            overwrite=True,
            quiet=True,
        )
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "run.json"]
    assert (out / "run.json").read_text() == older


def test_an_output_that_exists_is_refused_or_replaced(
    dataset: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "run.json").write_text('{"format": "shortlist-run"}')
    (out / "trace.json").write_text("a part of it")
    (out / "thesis.txt").write_text("no part of it")
    unasked = failing(AssertionError("training began"))
    for overwrite, code in ((False, "output-exists"), (True, "output-foreign")):
        with pytest.raises(InputError) as caught:
            train(
                *(dataset, out, brief_recipe()),
                validate=unasked,
                overwrite=overwrite,
                quiet=True,
            )
        assert caught.value.code == code
        assert len(list(out.iterdir())) == 3
    (out / "thesis.txt").unlink()
    run = train(
        dataset,
        out,
        brief_recipe(),
        validate=ranking_metrics,
        overwrite=True,
        quiet=True,
    )
    assert not (out / "trace.json").exists() and run.path == out
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_directory_that_is_no_run_is_never_replaced(
    dataset: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("a cat")
    unasked = failing(AssertionError("training began"))
    with pytest.raises(
        InputError, match="its run.json is missing or not ours"
    ) as caught:
        train(
            dataset,
            tmp_path / "photos",
            brief_recipe(),
            validate=unasked,
            overwrite=True,
        )
    assert caught.value.code == "output-foreign"
    assert (tmp_path / "photos" / "cat.jpg").read_text() == "a cat"


def test_a_full_disk_is_said_and_leaves_nothing(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shortlist.training.stages.save_retrieval", full)
    with pytest.raises(ResourceError, match="No space left") as caught:
        train(
            dataset,
            tmp_path / "run",
            brief_recipe(),
            validate=ranking_metrics,
            quiet=True,
        )
    assert caught.value.code == "no-space"
    assert "--resume then continues" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [".run.training"]


def test_a_loss_that_explodes_is_said_and_leaves_nothing(
    dataset: Dataset, tmp_path: Path
) -> None:
    wild = recipe(
        CHECKERBOARD_SCHEMA,
        retrieval={**BRIEF, "learning_rate": 1e30, "similarity": "dot", "epochs": 3},
        training={"optimizer": "sgd"},
    )
    with pytest.raises(ShortlistError, match="must stay finite") as caught:
        train(dataset, tmp_path / "run", wild, validate=ranking_metrics, quiet=True)
    assert caught.value.code == "loss-not-finite"
    assert "Lower learning_rate" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_explicit_ranker_without_labels_is_refused_before_any_work(
    tmp_path: Path,
) -> None:
    log = pl.DataFrame(
        {"user": [1, 1, 2, 2, 3, 3], "item": [1, 2, 1, 2, 1, 2], "time": range(1, 7)}
    ).with_columns(pl.col("time") + 1_600_000_000)
    log.write_csv(tmp_path / "log.csv")
    schema = type(CHECKERBOARD_SCHEMA)(user_id="user", item_id="item", timestamp="time")
    split = Split(kind="last_n", test=0, validation=0)
    dataset = prepare(tmp_path / "log.csv", schema, tmp_path / "dataset", split=split)
    with pytest.raises(InputError, match="so the schema must name one") as caught:
        train(
            dataset,
            tmp_path / "run",
            recipe(schema, ranker={"objective": "explicit"}),
            validate=failing(AssertionError("training began")),
        )
    assert caught.value.code == "ranker-needs-label"
    assert not (tmp_path / "run").exists()


def test_what_a_scorer_of_a_blend_refuses_is_told_before_the_tower_is_trained(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blend = brief_recipe(
        kind="blend",
        blend={"members": ["two_tower", "popularity"]},
        popularity={"segment": "age"},
    )
    monkeypatch.setattr(
        "shortlist.training.retrieval.fit_model", failing(AssertionError("began"))
    )
    with pytest.raises(InputError) as caught:
        train(dataset, tmp_path / "run", blend, validate=ranking_metrics)
    assert caught.value.code == "segment-unknown"
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_another_dataset_is_refused(run: Run, base: Path) -> None:
    with pytest.raises(ArtifactError, match="was trained on another dataset") as caught:
        load_pipeline(run, synthetic(base))
    assert caught.value.code == "dataset-mismatch"


def test_popularity_cannot_tell_the_colours(run: Run, dataset: Dataset) -> None:
    # Otherwise the first test would prove nothing.
    counts = Popularity().fit(dataset).counts[1:]
    best = np.argsort(-counts, kind="stable")[:4] + 1
    colours = {int(dataset.vocabularies["item"].id(int(row))) % 2 for row in best}
    assert colours == {0, 1}

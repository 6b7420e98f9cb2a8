"""One batch through everything: it finds what would fail later, and leaves nothing."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from shortlist.data import Dataset, Loader
from shortlist.errors import ArtifactError, InputError
from shortlist.evaluation import ranking_metrics
from shortlist.recipe import Recipe
from shortlist.training import fast_dev_run, train
from toy import CHECKERBOARD_SCHEMA, checkerboard, recipe

pytestmark = pytest.mark.backend

RANKER = {"batch_size": 64, "negatives": 2, "weights": [0, 1]}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard(tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go: a folder of the test alone."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def chosen(**retrieval: Any) -> Recipe:
    small = {"batch_size": 32, "embedding_dim": 4, "epochs": 9}
    return recipe(CHECKERBOARD_SCHEMA, retrieval=small | retrieval, ranker=RANKER)


def tried(dataset: Dataset, wanted: Recipe, **options: Any) -> Any:
    return fast_dev_run(dataset, wanted, validate=ranking_metrics, **options)


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in sorted(folder.rglob("*")):
        stat = path.stat()
        found[str(path)] = (stat.st_mtime_ns, stat.st_size)
    return found


def test_every_stage_does_one_batch_and_nothing_stays(
    dataset: Dataset, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[int, int]] = []
    batches = Loader.batches

    def counted(self: Loader, epoch: int, indices: Any) -> Any:
        for batch in batches(self, epoch, indices):
            made.append((self.seed, epoch))
            yield batch

    monkeypatch.setattr(Loader, "batches", counted)
    before = files_of(dataset.path)
    info = tried(dataset, chosen())
    assert info.epochs == {"retrieval": 1, "ranker": 1}
    assert set(info.validation) == {"retrieval", "ranker_weights", "pipeline"}
    assert 0 <= info.validation["pipeline"]["ndcg@10"] <= 1
    assert {epoch for _, epoch in made} <= {0, 1}
    assert files_of(dataset.path) == before
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    "retrieval",
    [
        {"kind": "ease"},
        {"kind": "als"},
        {"kind": "blend", "blend": {"members": ["two_tower", "item_knn"]}},
    ],
    ids=str,
)
def test_scorers_are_tried_too(
    dataset: Dataset, temporary: Path, retrieval: dict[str, Any]
) -> None:
    info = tried(dataset, chosen(**retrieval))
    assert info.epochs["ranker"] == 1
    assert list(temporary.iterdir()) == []


def test_a_mistake_of_a_later_stage_is_found(dataset: Dataset, temporary: Path) -> None:
    wrong = recipe(
        CHECKERBOARD_SCHEMA,
        retrieval={"batch_size": 32, "embedding_dim": 4},
        ranker={**RANKER, "monitor": "val_los"},
    )
    with pytest.raises(InputError, match="Did you mean 'val_loss'") as caught:
        tried(dataset, wrong)
    assert caught.value.code == "monitor-unknown"
    assert list(temporary.iterdir()) == []


def test_what_validation_raises_is_found(dataset: Dataset, temporary: Path) -> None:
    calls = []

    def validate(*args: Any) -> dict[str, float]:
        calls.append(args)
        if len(calls) == 4:  # with the ranker
            raise ZeroDivisionError("the fourth time")
        return ranking_metrics(*args)

    with pytest.raises(ZeroDivisionError):
        fast_dev_run(dataset, chosen(), validate=validate)
    assert list(temporary.iterdir()) == []


def test_a_warm_start_is_tried_too(dataset: Dataset, tmp_path: Path) -> None:
    first = chosen(epochs=1)
    run = train(dataset, tmp_path / "run", first, validate=ranking_metrics, quiet=True)
    before = files_of(run.path)
    assert tried(dataset, chosen(), warm_start=run.path).warm_start == str(run.path)
    with pytest.raises(InputError) as caught:
        tried(dataset, chosen(embedding_dim=5, hidden_units=[3]), warm_start=run.path)
    assert caught.value.code == "warm-start-mismatch"
    with pytest.raises(ArtifactError) as missing:
        tried(dataset, chosen(), warm_start=tmp_path / "nowhere")
    assert missing.value.code == "run-missing"
    assert files_of(run.path) == before
    assert sorted(os.listdir(tmp_path)) == ["run", "temporary"]

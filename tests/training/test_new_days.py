"""Days that were appended are trained on alone, from the weights of an older run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from shortlist.data import (
    Dataset,
    ExampleOptions,
    Loader,
    Negatives,
    Schema,
    Split,
    TrainingExamples,
    append,
    prepare,
)
from shortlist.data.store.dataset_info import read_info, with_sums, write_info
from shortlist.embeddings.storage.saving import table_layers
from shortlist.errors import ArtifactError, InputError
from shortlist.evaluation import ranking_metrics
from shortlist.models.ranker import Ranker
from shortlist.models.two_tower import TwoTower
from shortlist.recipe import Recipe, build_recipe
from shortlist.training import Run, fast_dev_run
from shortlist.training.runs.checkpoint import load_model
from shortlist.training.runs.run import write_json
from toy import train_with

pytestmark = pytest.mark.backend

DAY = 86_400
SCHEMA = Schema(user_id="user", item_id="item", timestamp="time", label="stars")


def write_days(path: Path, days: range, users: range, items: range) -> Path:
    """Every day has a new item, as long as there are some."""
    rows = [
        (f"u{u}", f"i{i}", 1 + (u + i) % 5, day * DAY + 100 * u + i)
        for day in days
        for u in users
        for i in items
        if (u + i + day) % 3 == 0 and i < day - 8
    ]
    names = ["user", "item", "stars", "time"]
    pl.DataFrame(rows, schema=names, orient="row").write_csv(path)
    return path


def chosen(**changes: Any) -> Recipe:
    # One epoch: which one is best depends on what is seen of all events.
    small = {"embedding_dim": 4, "history_length": 0, "batch_size": 16, "epochs": 1}
    return build_recipe(
        {
            "log": {"events": "log.csv"},
            "columns": SCHEMA,
            "retrieval": {**small, "hidden_units": [5]},
            "ranker": {**small, "negatives": 2, "weights": [0]},
            **changes,
        }
    )


def trained(dataset: Dataset, out: Path, recipe: Recipe | None = None, **o: Any) -> Run:
    return train_with(dataset, out, recipe or chosen(), **o)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Run]:
    """The first days, and the run that was trained on them."""
    folder = tmp_path_factory.mktemp("begun")
    log = write_days(folder / "first.csv", range(10, 20), range(8), range(12))
    split = Split(kind="time_cut", test=0.2, validation=0.2)
    first = prepare(log, SCHEMA, folder / "dataset", split=split)
    return first, trained(first, folder / "older")


@pytest.fixture
def first(begun: tuple[Dataset, Run], tmp_path: Path) -> Dataset:
    """A copy of the first days, for days to be appended."""
    shutil.copytree(begun[0].path, tmp_path / "dataset")
    return Dataset.open(tmp_path / "dataset")


@pytest.fixture
def older(begun: tuple[Dataset, Run], tmp_path: Path) -> Run:
    """A copy of the run."""
    shutil.copytree(begun[1].path, tmp_path / "older")
    return Run.open(tmp_path / "older")


def next_days(first: Dataset, tmp_path: Path, number: int = 20) -> Dataset:
    day = range(number, number + 2)
    log = write_days(tmp_path / f"{number}.csv", day, range(4, 11), range(3, 14))
    return append(first.path, log)


def without(dataset: Dataset, files: set[str], folder: Path) -> Dataset:
    """The same dataset whose training part never had these files."""
    shutil.copytree(dataset.path, folder)
    info = read_info(folder)
    left = tuple(s for s in info.segments if s.file not in files)
    write_info(folder, with_sums(folder, msgspec.structs.replace(info, segments=left)))
    return Dataset.open(folder)


def weights_of(run: Run) -> list[np.ndarray]:
    arrays = []
    for name, kind in (("retrieval", TwoTower), ("ranker", Ranker)):
        model = load_model(run.path / name, kind)  # type: ignore[type-var]
        arrays += [np.array(v) for v in model.trainable_weights[1:]]
        for layer in table_layers(model):
            arrays += layer.get_embedding_tables().values()
    return arrays


def assert_equal(one: Run, other: Run, *, equal: bool = True) -> None:
    pairs = zip(weights_of(one), weights_of(other), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs) is equal


def test_it_equals_a_training_that_has_no_other_rows(
    first: Dataset, older: Run, tmp_path: Path
) -> None:
    seen = {one.file for one in older.info.trained_on}
    second = next_days(first, tmp_path)
    assert second.num_items > first.num_items, "the vocabulary has grown"
    options = {"warm_start": older.path}
    run = trained(second, tmp_path / "run", new_days=True, **options)
    alone = without(second, seen, tmp_path / "alone")
    assert_equal(run, trained(alone, tmp_path / "reference", **options))
    assert_equal(run, trained(second, tmp_path / "all", **options), equal=False)


def test_a_run_says_what_it_has_seen_and_the_next_goes_on_from_there(
    first: Dataset, older: Run, tmp_path: Path
) -> None:
    assert sum(one.events for one in older.info.trained_on) == len(first.part("train"))
    last = max(one.last_timestamp_ms or 0 for one in older.info.trained_on)
    assert last == first.part("train").timestamp_ms.max()
    second = next_days(first, tmp_path)
    # The run that is continued may be the one that is replaced.
    options: dict[str, Any] = {"new_days": True, "warm_start": older.path}
    run = trained(second, older.path, overwrite=True, **options)
    assert sum(one.events for one in run.info.trained_on) == len(second.part("train"))
    assert older.info.new_files == () and len(run.info.new_files) == 1
    held_out = {s.file for s in first.info.segments if s.part == "validation"}
    assert set(run.info.new_files) == held_out
    with pytest.raises(InputError, match="was not trained on. Received: none") as none:
        trained(second, tmp_path / "again", **options)
    assert none.value.code == "new-days-none"
    third = next_days(second, tmp_path, 30)
    again = trained(third, tmp_path / "again", **options)
    assert not {*again.info.new_files} & {*run.info.new_files}


def test_the_rows_are_the_new_ones_and_the_histories_are_whole(
    first: Dataset, tmp_path: Path
) -> None:
    second = next_days(first, tmp_path)
    new = [s.file for s in second.info.segments if s.part == "train"][1:]
    length = 50
    options = ExampleOptions(history_length=length)
    everything = TrainingExamples(second, options=options)
    rows = TrainingExamples(second, options=options, files=new)
    assert rows.fingerprint != everything.fingerprint
    day = first.part("validation")
    batch = rows.take(np.arange(len(rows)), np.random.default_rng(0))
    whole = everything.take(np.arange(len(everything)), np.random.default_rng(0))
    assert len(rows) == len(day) > 0

    def keyed(batch: dict[str, np.ndarray]) -> dict[tuple[int, int, int], list[int]]:
        ids = zip(batch["user_index"], batch["item_index"], strict=True)
        histories = [row[row >= 0].tolist() for row in batch["history"]]
        return {
            (int(u), int(i), len(row)): row
            for (u, i), row in zip(ids, histories, strict=True)
        }

    mine, all_of_them = keyed(batch), keyed(whole)
    assert mine.items() <= all_of_them.items()
    before = first.histories("train")
    for (user, _, _), row in mine.items():
        if user < first.num_users:
            seen = before.last(np.array([user], np.int32), length)[0]
            assert len(row) >= (seen >= 0).sum(), "the days before are part of it"
    counts = np.bincount(day.item_index, minlength=second.num_items)
    share = np.maximum(counts, 1) / counts.sum()
    wanted = share[batch["item_index"]]
    np.testing.assert_allclose(batch["sampling_probability"], wanted, rtol=1e-6)


def test_items_of_other_days_are_still_drawn(first: Dataset, tmp_path: Path) -> None:
    second = next_days(first, tmp_path)
    new = [s.file for s in second.info.segments if s.part == "train"][1:]
    options = ExampleOptions(negatives=Negatives("uniform", 3))
    drawn = set()
    rows = TrainingExamples(second, options=options, files=new)
    for batch in Loader(rows, batch_size=len(rows), seed=0).epoch():
        drawn |= set(batch["item_index"][batch["label"] == 0].tolist())
    assert drawn == set(second.part("train").item_index.tolist())


class Interrupted(Exception):
    """What stops a training here."""


def test_an_interrupted_one_goes_on_with_its_rows(
    first: Dataset, older: Run, tmp_path: Path
) -> None:
    second = next_days(first, tmp_path)
    options: dict[str, Any] = {"new_days": True, "warm_start": older.path}
    whole = trained(second, tmp_path / "whole", **options)
    calls = []

    def validate(*args: Any) -> dict[str, float]:
        calls.append(args)
        if len(calls) == 2:
            raise Interrupted
        return ranking_metrics(*args)

    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        trained(second, out, validate=validate, **options)
    run = trained(second, out, resume=True)
    assert_equal(run, whole)
    assert run.info.new_files == whole.info.new_files
    assert trained(second, out, resume=True, **options).info == run.info


def test_what_it_cannot_follow_is_refused(
    first: Dataset, older: Run, tmp_path: Path
) -> None:

    def refused(kind: Any, code: str, dataset: Dataset, **options: Any) -> str:
        for call in (
            lambda: trained(dataset, tmp_path / "run", new_days=True, **options),
            lambda: fast_dev_run(
                dataset, chosen(), validate=ranking_metrics, new_days=True, **options
            ),
        ):
            with pytest.raises(kind) as caught:
                call()
            assert caught.value.code == code
        return str(caught.value)

    refused(InputError, "new-days-alone", first)
    refused(InputError, "new-days-none", first, warm_start=older.path)
    log = write_days(tmp_path / "other.csv", range(10, 20), range(9), range(9))
    split = Split(kind="time_cut", test=0.2, validation=0.2)
    other = prepare(log, SCHEMA, tmp_path / "other", split=split)
    other = next_days(other, tmp_path)
    told = refused(ArtifactError, "new-days-mismatch", other, warm_start=older.path)
    assert "a run with other events" in told
    # As earlier versions left it.
    info = msgspec.structs.replace(older.info, trained_on=(), files={}, checksum="")
    write_json(older.path / "run.json", info)
    second = next_days(first, tmp_path, 22)
    told = refused(ArtifactError, "new-days-mismatch", second, warm_start=older.path)
    assert "no record of its events" in told

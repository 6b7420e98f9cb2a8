"""A training that begins with the weights of an older run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import polars as pl
import pytest

from shortlist.data import Dataset, Feature, LogFiles, Schema, Split, prepare
from shortlist.embeddings.storage.saving import table_layers
from shortlist.errors import ArtifactError, InputError
from shortlist.evaluation import ranking_metrics
from shortlist.models.multitask import MultiTask
from shortlist.models.ranker import Ranker
from shortlist.models.two_tower import TwoTower
from shortlist.recipe import Recipe, build_recipe
from shortlist.training import Run
from shortlist.training.runs.checkpoint import load_model
from shortlist.training.runs.run import write_json
from shortlist.training.warm_start import warm_start
from toy import train_with

pytestmark = pytest.mark.backend

SCHEMA = Schema(
    user_id="user",
    item_id="item",
    timestamp="time",
    label="stars",
    label_kind="explicit",
    features=(
        Feature(name="genre", owner="item", kind="categorical"),
        Feature(name="shop", owner="item", kind="categorical", hash_buckets=5),
    ),
)
SMALL = {"embedding_dim": 4, "feature_dim": 2, "history_length": 3, "batch_size": 32}
SHORT = {**SMALL, "epochs": 2, "hidden_units": [6]}


def dataset_of(folder: Path, users: range, items: range, *, genres: int) -> Dataset:
    """Every user took most items; the more frequent ids come first in a vocabulary."""
    rng = np.random.default_rng(users.start)
    pairs = [(u, i) for u in users for i in items if rng.random() < 0.4 + i / 60]
    rng.shuffle(pairs)
    log = {
        "user": [u for u, _ in pairs],
        "item": [i for _, i in pairs],
        "time": 1_600_000_000 + np.arange(len(pairs)),
        "stars": rng.integers(1, 6, len(pairs)),
    }
    folder.mkdir()
    pl.DataFrame(log).write_csv(folder / "log.csv")
    table = {
        "item": list(items),
        "genre": [f"g{i % genres}" for i in items],
        "shop": [f"s{i % 3}" for i in items],
    }
    pl.DataFrame(table).write_csv(folder / "items.csv")
    return prepare(
        LogFiles(folder / "log.csv", items=folder / "items.csv"),
        SCHEMA,
        folder / "dataset",
        split=Split(kind="last_n", test=1, validation=1),
    )


def chosen(*, seed: int = 0, ranker: Any = None, **retrieval: Any) -> Recipe:
    return build_recipe(
        {
            "seed": seed,
            "log": {"events": "log.csv"},
            "columns": SCHEMA,
            "retrieval": {**SHORT, **retrieval},
            "ranker": {"enabled": False}
            if ranker is None
            else {**SHORT, "negatives": 2, "weights": [0, 1], **ranker},
        }
    )


BOTH = chosen(ranker={})


def trained(dataset: Dataset, out: Path, recipe: Recipe, **options: Any) -> Run:
    return train_with(dataset, out, recipe, **options)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("warm")


@pytest.fixture(scope="module")
def old_dataset(base: Path) -> Dataset:
    return dataset_of(base / "old", range(0, 20), range(0, 16), genres=3)


@pytest.fixture(scope="module")
def new_dataset(base: Path) -> Dataset:
    """Some ids are gone, some new, and those that stay have other rows."""
    return dataset_of(base / "new", range(5, 30), range(4, 24), genres=5)


@pytest.fixture(scope="module")
def older(base: Path, old_dataset: Dataset) -> Run:
    return trained(old_dataset, base / "older", BOTH)


def tables_of(model: keras.Model) -> dict[str, np.ndarray]:
    return {
        name: np.array(rows)
        for layer in table_layers(model)
        for name, rows in layer.get_embedding_tables().items()
    }


def dense_of(model: keras.Model) -> list[np.ndarray]:
    inside = {id(v) for layer in table_layers(model) for v in layer.variables}
    return [np.array(v) for v in model.weights if id(v) not in inside]


def fresh(dataset: Dataset, run: Run, name: str, **config: Any) -> keras.Model:
    """A model as the run's, over another dataset and with other first weights."""
    kind: Any = {"retrieval": TwoTower, "ranker": Ranker}[name]
    stored = json.loads((run.path / name / "model.json").read_text())
    rows = {table: dataset.table_rows[table] for table in stored["table_rows"]}
    keras.utils.set_random_seed(99)
    model = kind.from_config({**stored, "table_rows": rows, **config})
    model.build()
    return model


def test_the_vocabularies_differ_as_these_tests_need_them(
    old_dataset: Dataset, new_dataset: Dataset
) -> None:
    for name in ("user", "item", "genre"):
        ids, before = (d.vocabularies[name] for d in (new_dataset, old_dataset))
        rows = {one: before.row(one) for one in ids.ids[1:].to_list()}
        assert 0 in rows.values(), f"no new id of {name}"
        moved = {one for one, row in rows.items() if row and row != ids.row(one)}
        assert name == "genre" or moved


@pytest.mark.parametrize("name", ["retrieval", "ranker"])
def test_known_ids_take_their_rows_along_and_others_keep_theirs(
    old_dataset: Dataset, new_dataset: Dataset, older: Run, name: str
) -> None:
    model = fresh(new_dataset, older, name)
    first = tables_of(model)
    taken = warm_start(model, older.path, new_dataset)
    before = load_model(older.path / name, type(model))
    old, new = tables_of(before), tables_of(model)
    assert set(new) == {"user", "item", "genre", "shop"}
    known = 0
    for table in ("user", "item", "genre"):
        ids = new_dataset.vocabularies[table].ids.to_list()
        for row, one in enumerate(ids):
            there = old_dataset.vocabularies[table].row(one) if row else 0
            wanted = old[table][there] if there or not row else first[table][row]
            np.testing.assert_array_equal(new[table][row], wanted, f"{table} {one}")
            known += bool(there or not row)
    np.testing.assert_array_equal(new["shop"], old["shop"])  # hashed: no vocabulary
    for left, right in zip(dense_of(model), dense_of(before), strict=True):
        np.testing.assert_array_equal(left, right)
    rows = sum(len(table) for table in new.values())
    dense = len(dense_of(model))
    assert taken == (known + len(new["shop"]), rows, dense, dense)


def test_tables_of_another_width_keep_their_rows(
    new_dataset: Dataset, older: Run
) -> None:
    stored = json.loads((older.path / "retrieval" / "model.json").read_text())
    inputs = [
        {**one, "dim": 3} if one["table"] in ("genre", "shop") else one
        for one in stored["inputs"]
    ]
    model = fresh(new_dataset, older, "retrieval", inputs=inputs)
    first = tables_of(model)
    taken = warm_start(model, older.path, new_dataset)
    new = tables_of(model)
    np.testing.assert_array_equal(new["genre"], first["genre"])
    np.testing.assert_array_equal(new["shop"], first["shop"])
    assert not np.array_equal(new["item"], first["item"])
    # The first layer of the item tower is of another shape, the rest is the run's.
    assert 0 < taken.weights < taken.of_weights


def test_a_run_with_which_nothing_agrees_is_refused(
    new_dataset: Dataset, older: Run, tmp_path: Path
) -> None:
    other = chosen(embedding_dim=5, feature_dim=3, hidden_units=[])
    with pytest.raises(InputError, match="embedding_dim and hidden_units") as caught:
        trained(new_dataset, tmp_path / "run", other, warm_start=older.path)
    assert caught.value.code == "warm-start-mismatch"
    assert list(tmp_path.iterdir()) == []


@contextmanager
def no_training() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:

        def refuse(*args: Any) -> None:
            raise AssertionError("training began")

        patch.setattr("shortlist.training.stages.train_retrieval", refuse)
        yield


def refused(kind: Any, match: str, *args: Any, **options: Any) -> None:
    with no_training(), pytest.raises(kind, match=match) as caught:
        trained(*args, **options)
    assert caught.value.code == "warm-start-mismatch"


def test_a_run_without_a_model_is_refused_before_any_work(
    old_dataset: Dataset, older: Run, tmp_path: Path
) -> None:
    alone = trained(old_dataset, tmp_path / "alone", chosen(epochs=1))
    scored = trained(old_dataset, tmp_path / "scored", chosen(kind="popularity"))
    out, found = tmp_path / "run", "Found a run without"
    refused(
        ArtifactError, f"ranker.*{found}", old_dataset, out, BOTH, warm_start=alone.path
    )
    retrieval = chosen()
    refused(
        ArtifactError,
        f"retrieval.*{found}",
        *(old_dataset, out, retrieval),
        warm_start=scored.path,
    )
    shutil.rmtree(alone.path / "vocabularies")  # as earlier versions left it
    info = msgspec.structs.replace(alone.info, files={}, checksum="")
    write_json(alone.path / "run.json", info)
    refused(ArtifactError, found, old_dataset, out, retrieval, warm_start=alone.path)
    with pytest.raises(ArtifactError, match="no finished run at") as caught:
        trained(old_dataset, out, BOTH, warm_start=tmp_path / "nowhere")
    assert caught.value.code == "run-missing"


def test_a_recipe_that_trains_nothing_or_another_ranker_is_refused(
    old_dataset: Dataset, older: Run, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    fitted = chosen(kind="ease")
    refused(
        InputError,
        "scorers are fitted from scratch",
        *(old_dataset, run, fitted),
        warm_start=older.path,
    )
    heads = {"stars": {"objective": "explicit"}}
    other = chosen(ranker={"kind": "multi_task", "heads": heads, "negatives": 0})
    refused(
        InputError,
        "Found kind = 'single_task'",
        *(old_dataset, run, other),
        warm_start=older.path,
    )


def test_a_ranker_of_several_heads_begins_with_its_own(
    old_dataset: Dataset, tmp_path: Path
) -> None:
    heads = {"stars": {"objective": "explicit"}}
    several = chosen(ranker={"kind": "multi_task", "heads": heads, "negatives": 0})
    first = trained(old_dataset, tmp_path / "first", several)
    model = load_model(first.path / "ranker", MultiTask)
    wanted, known = dense_of(model), tables_of(model)
    again = MultiTask.from_config({**model.get_config(), "name": "ranker"})
    again.build()
    taken = warm_start(again, first.path, old_dataset)
    assert taken.rows == taken.of_rows == sum(map(len, known.values()))
    for left, right in zip(dense_of(again), wanted, strict=True):
        np.testing.assert_array_equal(left, right)


def test_renamed_heads_do_not_take_the_weights_of_others(
    old_dataset: Dataset, tmp_path: Path
) -> None:
    click = {"objective": "binary", "label": "taken"}
    heads = {"click": click, "stars": {"objective": "explicit"}}
    several = chosen(ranker={"kind": "multi_task", "heads": heads})
    first = trained(old_dataset, tmp_path / "first", several)
    config = load_model(first.path / "ranker", MultiTask).get_config()
    renamed = {"a_stars": config["heads"]["stars"], "click": config["heads"]["click"]}
    other = MultiTask.from_config(
        {**config, "name": "ranker", "heads": renamed, "score": {"click": 1.0}}
    )
    other.build()
    before = dense_of(other)
    taken = warm_start(other, first.path, old_dataset)
    assert (taken.weights, taken.rows) == (0, taken.of_rows)
    for left, right in zip(dense_of(other), before, strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_finished_run_that_began_otherwise_is_not_taken_for_this_one(
    old_dataset: Dataset, older: Run, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    plain = trained(old_dataset, out, BOTH)
    assert trained(old_dataset, out, BOTH, resume=True).info == plain.info
    with no_training(), pytest.raises(InputError, match="exists already") as caught:
        trained(old_dataset, out, BOTH, resume=True, warm_start=older.path)
    assert caught.value.code == "output-exists"


def test_the_tower_of_a_blend_is_a_tower_to_begin_with(
    old_dataset: Dataset, new_dataset: Dataset, tmp_path: Path
) -> None:
    members = {"members": ["two_tower", "popularity"]}
    blend = chosen(kind="blend", blend=members, epochs=1)
    first = trained(old_dataset, tmp_path / "blend", blend)
    for name, recipe in (("tower", chosen(epochs=1)), ("again", blend)):
        run = trained(new_dataset, tmp_path / name, recipe, warm_start=first.path)
        assert run.info.warm_start == str(first.path)


def test_the_first_step_is_that_of_the_older_weights(
    old_dataset: Dataset, older: Run, tmp_path: Path
) -> None:
    # With a rate that moves nothing the run is the older one.
    still = chosen(ranker={"learning_rate": 1e-30}, learning_rate=1e-30, seed=5)
    run = trained(old_dataset, tmp_path / "run", still, warm_start=older.path)
    for name, kind in (("retrieval", TwoTower), ("ranker", Ranker)):
        left, right = (
            load_model(one.path / name, kind)  # type: ignore[type-var]
            for one in (run, older)
        )
        for a, b in zip(dense_of(left), dense_of(right), strict=True):
            np.testing.assert_array_equal(a, b)
        assert tables_of(left).keys() == tables_of(right).keys()
        for table, rows in tables_of(left).items():
            np.testing.assert_array_equal(rows, tables_of(right)[table])
    assert run.info.validation["retrieval"] == older.info.validation["retrieval"]


class Interrupted(Exception):
    """What stops a training here."""


@pytest.fixture(scope="module")
def whole(base: Path, new_dataset: Dataset, older: Run) -> Run:
    """A warm start that nothing interrupted."""
    return trained(new_dataset, base / "whole", BOTH, warm_start=older.path)


@pytest.mark.parametrize(
    "at", [1, *[pytest.param(at, marks=pytest.mark.slow) for at in (0, 3)]]
)
def test_an_interrupted_one_goes_on_as_if_nothing_had_been(
    new_dataset: Dataset, older: Run, whole: Run, tmp_path: Path, at: int
) -> None:
    calls = 0

    def validate(*args: Any) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == at + 1:
            raise Interrupted
        return ranking_metrics(*args)

    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        trained(new_dataset, out, BOTH, warm_start=older.path, validate=validate)
    # That it began with another run need not be said again where it has begun.
    again: dict[str, Any] = {"warm_start": older.path} if at == 0 else {}
    if at == 1:
        with pytest.raises(InputError, match="differ: warm start") as caught:
            trained(new_dataset, out, BOTH, resume=True, warm_start=whole.path)
        assert caught.value.code == "resume-mismatch"
    run = trained(new_dataset, out, BOTH, resume=True, **again)
    assert run.info.warm_start == whole.info.warm_start == str(older.path)
    assert run.info.validation == whole.info.validation
    for name, kind in (("retrieval", TwoTower), ("ranker", Ranker)):
        left, right = (
            load_model(one.path / name, kind)  # type: ignore[type-var]
            for one in (run, whole)
        )
        for a, b in zip(dense_of(left), dense_of(right), strict=True):
            np.testing.assert_array_equal(a, b)
        for table, rows in tables_of(left).items():
            np.testing.assert_array_equal(rows, tables_of(right)[table])

"""A training that is interrupted and resumed ends as an uninterrupted one does."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from shortlist.data import Dataset, ExampleOptions, Loader, TrainingExamples
from shortlist.errors import ArtifactError, InputError, ShortlistError
from shortlist.models.ranker import Ranker
from shortlist.models.two_tower import TwoTower
from shortlist.recipe import Recipe
from shortlist.training import Run
from shortlist.training.runs.checkpoint import load_model
from shortlist.training.runs.unfinished import unfinished_folder
from toy import CHECKERBOARD_SCHEMA, checkerboard, recipe, synthetic, train_with

pytestmark = pytest.mark.backend

CHOSEN = recipe(
    CHECKERBOARD_SCHEMA,
    retrieval={
        **{"batch_size": 48, "epochs": 4, "patience": 4},
        **{"dropout": 0.3, "hidden_units": [8]},
    },
    ranker={
        **{"batch_size": 96, "epochs": 3, "patience": 3},
        **{"dropout": 0.3, "negatives": 2, "weights": [0, 0.1]},
    },
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard(tmp_path_factory.getbasetemp())


def trained(
    dataset: Dataset, out: Path, chosen: Recipe = CHOSEN, **options: Any
) -> Run:
    return train_with(dataset, out, chosen, **options)


@pytest.fixture(scope="module")
def whole(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run of a training that nothing interrupted."""
    return trained(dataset, tmp_path_factory.mktemp("whole") / "run")


def arrays_of(run: Run) -> list[np.ndarray]:
    """All dense weights and tables of a run."""
    model = load_model(run.path / "ranker", Ranker)
    ranker = [*model.get_weights()[1:], *model.lookup.tables().values()]
    return [*tower_arrays(run), *ranker]


def tower_arrays(run: Run) -> list[np.ndarray]:
    model = load_model(run.path / "retrieval", TwoTower)
    return [*model.get_weights()[1:], *model.lookup.tables().values()]


def epochs_of(run: Run) -> list[dict[str, Any]]:
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    return [{**json.loads(line), "seconds": 0} for line in lines]


def assert_same(run: Run, whole: Run) -> None:
    for left, right in zip(arrays_of(run), arrays_of(whole), strict=True):
        np.testing.assert_array_equal(left, right)
    assert epochs_of(run) == epochs_of(whole)
    told = [msgspec.structs.asdict(one.info) for one in (run, whole)]
    for values in told:
        assert values.pop("created_at") and values.pop("seconds")
        # Those of the files hold with the seconds of the epochs in one of them.
        assert values.pop("checksum")
        values["files"] = sorted(values["files"])
    assert told[0] == told[1]
    assert sorted(os.listdir(run.path)) == sorted(os.listdir(whole.path))
    assert os.listdir(run.path.parent) == ["run"]


class Interrupted(Exception):
    """What stops a training in these tests."""


def interrupted() -> None:
    raise Interrupted("Interrupted")


def raises_interrupted() -> Any:
    """TensorFlow tells errors of its threads in an error of its own."""
    return pytest.raises(Exception, match="Interrupted")


def terminated() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def interrupted_by_user() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@contextlib.contextmanager
def at_batch(
    epoch: int, index: int, rows: int, act: Callable[[], None]
) -> Iterator[None]:
    """`act` is called once, when this batch of a loader with so many rows is made."""
    batches, acted = Loader.batches, False

    def watched(self: Loader, number: int, indices: Any) -> Any:
        nonlocal acted
        for place, batch in zip(indices, batches(self, number, indices), strict=False):
            here = (number, place, self.batch_size) == (epoch, index, rows)
            if here and not acted:
                acted = True
                act()
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loader, "batches", watched)
        yield
    assert acted


RETRIEVAL, RANKER = 48, 96  # batch sizes tell the loaders apart


def slow(*places: tuple[int, int, int]) -> list[Any]:
    return [pytest.param(place, marks=pytest.mark.slow) for place in places]


IN_RETRIEVAL, IN_RANKER = (2, 0, RETRIEVAL), (1, 1, RANKER)
PLACES = [(0, 1, RETRIEVAL), (3, 2, RETRIEVAL)]


@pytest.mark.parametrize("place", [IN_RETRIEVAL, *slow(*PLACES, IN_RANKER)])
def test_an_interrupted_training_goes_on_from_the_last_epoch(
    dataset: Dataset, whole: Run, tmp_path: Path, place: tuple[int, int, int]
) -> None:
    out = tmp_path / "run"
    with at_batch(*place, interrupted), raises_interrupted():
        trained(dataset, out)
    assert not out.exists()
    assert_same(trained(dataset, out, resume=True), whole)


@pytest.mark.parametrize(
    "place",
    [
        IN_RANKER,
        *slow(*PLACES, IN_RETRIEVAL, (1, 3, RETRIEVAL), (0, 0, RANKER)),
    ],
)
def test_a_terminated_training_saves_and_goes_on_within_the_epoch(
    dataset: Dataset, whole: Run, tmp_path: Path, place: tuple[int, int, int]
) -> None:
    out = tmp_path / "run"
    before = signal.getsignal(signal.SIGTERM)
    with at_batch(*place, terminated), pytest.raises(SystemExit) as caught:
        trained(dataset, out)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    state = json.loads((tmp_path / ".run.training" / "state.json").read_text())
    # Batches are made ahead of the training, and the last of an epoch ends it.
    assert place[0] - 1 <= state["checkpoint"]["epoch"] <= place[0] + 1
    assert state["checkpoint"]["batch"] or state["checkpoint"]["epoch"]
    assert_same(trained(dataset, out, resume=True), whole)


def test_ctrl_c_saves_and_goes_on_within_the_epoch(
    dataset: Dataset, whole: Run, tmp_path: Path
) -> None:
    out, before = tmp_path / "run", signal.getsignal(signal.SIGINT)
    with at_batch(1, 3, RETRIEVAL, interrupted_by_user):
        with pytest.raises(KeyboardInterrupt):
            trained(dataset, out)
    assert signal.getsignal(signal.SIGINT) is before
    state = json.loads((tmp_path / ".run.training" / "state.json").read_text())
    assert state["checkpoint"]["batch"] or state["checkpoint"]["epoch"]
    assert_same(trained(dataset, out, resume=True), whole)


def test_a_checkpoint_within_an_epoch_is_made_when_it_is_time(
    dataset: Dataset, whole: Run, tmp_path: Path
) -> None:
    often = CHOSEN.training.model_copy(update={"checkpoint_minutes": 1e-9})
    out, chosen = tmp_path / "run", CHOSEN.model_copy(update={"training": often})
    with at_batch(2, 3, RETRIEVAL, interrupted), raises_interrupted():
        trained(dataset, out, chosen)
    state = json.loads((tmp_path / ".run.training" / "state.json").read_text())
    assert state["checkpoint"]["batch"] > 0
    assert_same(trained(dataset, out, resume=True), whole)


def test_epochs_of_one_batch_are_resumed_too(dataset: Dataset, tmp_path: Path) -> None:
    interactions = ExampleOptions(interactions_only=True)
    rows = len(TrainingExamples(dataset, options=interactions))
    options = {**CHOSEN.retrieval.model_dump(), "batch_size": rows}
    one = recipe(CHECKERBOARD_SCHEMA, retrieval=options)
    whole = trained(dataset, tmp_path / "whole" / "run", one)
    assert len(epochs_of(whole)) >= 3
    out = tmp_path / "again" / "run"
    with at_batch(2, 0, rows, interrupted), raises_interrupted():
        trained(dataset, out, one)
    assert not out.exists()
    again = trained(dataset, out, one, resume=True)
    for left, right in zip(*map(tower_arrays, (again, whole)), strict=True):
        np.testing.assert_array_equal(left, right)
    assert epochs_of(again) == epochs_of(whole)


def stopped_in_ranking(dataset: Dataset, out: Path, **options: Any) -> None:
    with at_batch(1, 1, RANKER, interrupted), raises_interrupted():
        trained(dataset, out, **options)


@pytest.fixture(scope="module")
def stopped_once(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a training without options was stopped in ranking."""
    folder = tmp_path_factory.mktemp("stopped")
    stopped_in_ranking(dataset, folder / "run")
    assert os.listdir(folder) == [".run.training"]
    return folder


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    """Where the run of a copy of that training will be."""
    shutil.copytree(stopped_once / ".run.training", tmp_path / ".run.training")
    return tmp_path / "run"


def test_a_stage_that_is_done_is_not_trained_again(
    dataset: Dataset, whole: Run, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shortlist.training.stages.train_retrieval", interrupted)
    assert_same(trained(dataset, stopped, resume=True), whole)


def test_the_old_run_stays_until_the_new_one_is_finished(
    dataset: Dataset, whole: Run, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    old = '{"format": "shortlist-run", "seconds": {}}'
    (out / "run.json").write_text(old)
    stopped_in_ranking(dataset, out, overwrite=True)
    assert (out / "run.json").read_text() == old
    # That it is to be replaced was said once.
    assert_same(trained(dataset, out, resume=True), whole)


def test_an_unfinished_training_is_not_begun_anew_by_mistake(
    dataset: Dataset, whole: Run, stopped: Path
) -> None:
    with pytest.raises(InputError, match="--resume, or start again") as caught:
        trained(dataset, stopped)
    assert caught.value.code == "training-unfinished"
    assert "retrieval is trained, ranker has done 1 epochs" in str(caught.value)
    assert_same(trained(dataset, stopped, overwrite=True), whole)


def test_resume_begins_where_nothing_was_begun_and_ends_where_all_is_done(
    dataset: Dataset, whole: Run, tmp_path: Path
) -> None:
    first = trained(dataset, tmp_path / "run", resume=True)
    assert_same(first, whole)
    again = trained(dataset, tmp_path / "run", resume=True)
    assert again.info.created_at == first.info.created_at
    other = CHOSEN.model_copy(update={"seed": 7})
    with pytest.raises(InputError, match="exists already"):
        trained(dataset, tmp_path / "run", other, resume=True)


def test_another_recipe_or_dataset_is_refused_by_the_names_of_what_differs(
    dataset: Dataset, whole: Run, stopped: Path, tmp_path_factory: Any
) -> None:
    out = stopped
    section = CHOSEN.retrieval.model_copy(update={"dropout": 0.1})
    other = CHOSEN.model_copy(update={"seed": 1, "retrieval": section})
    with pytest.raises(InputError, match="differ: retrieval.dropout, seed. ") as caught:
        trained(dataset, out, other, resume=True)
    assert caught.value.code == "resume-mismatch"
    elsewhere = synthetic(tmp_path_factory.getbasetemp())
    with pytest.raises(InputError, match="differ: dataset fingerprint. "):
        trained(elsewhere, out, resume=True)
    # Names and places may differ: no weight depends on them.
    assert_same(
        trained(dataset, out, CHOSEN.model_copy(update={"name": "x"}), resume=True),
        Run(whole.path, whole.info, whole.recipe),
    )


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (
            lambda text: text.replace('"format_version": 1', '"format_version": 2'),
            "newer",
        ),
        (lambda text: text[:-9], "damaged"),
        (lambda text: text.replace('"epochs"', '"epoch"'), "damaged"),
    ],
)
def test_a_state_that_cannot_be_read_is_refused(
    dataset: Dataset, stopped: Path, change: Callable[[str], str], code: str
) -> None:
    out, state = stopped, stopped.parent / ".run.training" / "state.json"
    state.write_text(change(state.read_text()))
    with pytest.raises(ArtifactError, match="start again with --overwrite|Start again"):
        trained(dataset, out, resume=True)
    with pytest.raises(ArtifactError) as caught:
        trained(dataset, out)
    assert caught.value.code == f"training-{code}"
    assert state.exists()


def test_a_second_trainer_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "run"
    refused = []

    def second() -> None:
        with pytest.raises(ShortlistError, match=rf"process {os.getpid()}\.") as caught:
            trained(dataset, out, overwrite=True)
        refused.append(caught.value.code)

    with at_batch(1, 0, RETRIEVAL, second):
        trained(dataset, out)
    assert refused == ["training-locked"]


def test_the_last_good_epoch_is_kept_when_the_loss_explodes(
    dataset: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "run"

    def poisoned(self: Loader, *place: int, real: Any = Loader.batches) -> Any:
        for index, batch in enumerate(real(self, *place)):
            if (place[0], index) == (2, 1):
                batch["sampling_probability"] = batch["sampling_probability"] * np.nan
            yield batch

    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(ShortlistError, match="nan after batch 2 in epoch 3") as caught,
    ):
        patch.setattr(Loader, "batches", poisoned)
        trained(dataset, out)
    assert caught.value.code == "loss-not-finite"
    state = json.loads((tmp_path / ".run.training" / "state.json").read_text())
    assert (state["checkpoint"]["epoch"], state["checkpoint"]["batch"]) == (2, 0)


def test_the_state_is_on_the_disk_of_a_linked_run(tmp_path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "run").symlink_to("big/run")
    folder = unfinished_folder(tmp_path / "run")
    assert folder == tmp_path / "big" / ".run.training"

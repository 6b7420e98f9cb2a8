"""Checkpoints: no code inside, and nothing but the right model comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file

from shortlist.data import Schema
from shortlist.embeddings.inputs import model_inputs
from shortlist.errors import ArtifactError
from shortlist.models.ranker import Ranker
from shortlist.models.two_tower import TwoTower
from shortlist.training.runs.checkpoint import WEIGHTS_FILE, load_model, save_model

pytestmark = pytest.mark.backend

INPUTS = model_inputs(
    Schema(user_id="user", item_id="item"),
    embedding_dim=4,
    feature_dim=2,
    history_length=2,
)
ROWS = {"user": 5, "item": 6}
BATCH = {
    "user_index": np.array([1, 4], np.int32),
    "item_index": np.array([5, 0], np.int32),
    "history": np.array([[1, 2], [3, -1]], np.int32),
}


def two_tower(seed: int = 0, *, embedding_dim: int = 4) -> TwoTower:
    keras.utils.set_random_seed(seed)
    model = TwoTower(INPUTS, ROWS, embedding_dim=embedding_dim, name="retrieval")
    model.build()
    return model


def vectors(model: TwoTower) -> np.ndarray:
    return np.asarray(model.predict_on_batch(BATCH)["user_vector"])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(tmp_path / "saved", two_tower())
    return tmp_path / "saved"


def test_a_checkpoint_is_json_hdf5_and_safetensors_and_nothing_else(
    saved: Path,
) -> None:
    files = sorted(path for path in saved.rglob("*") if path.is_file())
    assert [path.name.split("-")[0] for path in files] == [
        *["model.json", "model.weights.h5", "item", "user"]
    ]
    config = json.loads((saved / "model.json").read_text())
    assert config["embedding_dim"] == 4
    rows = {path.name.split("-")[0]: load_file(path)["rows"] for path in files[2:]}
    for name, expected in two_tower().lookup.tables().items():
        np.testing.assert_array_equal(rows[name], expected)


def test_equal_models_make_equal_tables_and_configurations(
    saved: Path, tmp_path: Path
) -> None:
    save_model(tmp_path / "again", load_model(saved, TwoTower))
    for path in (saved / "model.json", *(saved / f"{WEIGHTS_FILE}.tables").iterdir()):
        again = tmp_path / "again" / path.relative_to(saved)
        assert again.read_bytes() == path.read_bytes()


def test_saving_again_replaces_the_checkpoint(saved: Path) -> None:
    other = two_tower(seed=1)
    save_model(saved, other)
    np.testing.assert_array_equal(vectors(load_model(saved, TwoTower)), vectors(other))
    assert sorted(path.name for path in saved.parent.iterdir()) == ["saved"]


def test_models_made_before_do_not_disturb_the_names(saved: Path) -> None:
    # Keras numbers layers as they are made, so paths differ from process to process.
    expected = vectors(two_tower())
    for seed in range(3):
        two_tower(seed)
    np.testing.assert_array_equal(vectors(load_model(saved, TwoTower)), expected)


def cut(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[: len(raw) // 2])

    return damage


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def with_config(text: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / "model.json").write_text(text)

    return damage


def with_other_width(folder: Path) -> None:
    config = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(config | {"embedding_dim": 3}))


def with_a_bad_argument(folder: Path) -> None:
    config = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(config | {"dropout": 1.0}))


def without_a_table(folder: Path) -> None:
    next((folder / f"{WEIGHTS_FILE}.tables").glob("user-*")).unlink()


def with_a_cut_table(folder: Path) -> None:
    path = next((folder / f"{WEIGHTS_FILE}.tables").glob("user-*"))
    path.write_bytes(path.read_bytes()[:-4])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut(WEIGHTS_FILE), "truncated file|must be a checkpoint"),
        (cut("model.json"), "truncated"),
        (without(WEIGHTS_FILE), "No such file|not found"),
        (without("model.json"), "No such file"),
        (with_config("[1, 2]"), "must be a mapping|argument after"),
        (with_config("{}"), "missing 2 required positional arguments"),
        (with_other_width, "but the table to load|shape|incomplete or damaged"),
        (with_a_bad_argument, "`dropout` must be less than 1, received 1.0"),
        (without_a_table, "user-"),
        (with_a_cut_table, "user-"),
    ],
    ids=[
        *("cut-weights", "cut-config", "no-weights", "no-config", "list", "empty"),
        *("other-width", "bad-argument", "no-table", "cut-table"),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    damage: Callable[[Path], None], says: str, saved: Path
) -> None:
    damage(saved)
    with pytest.raises(ArtifactError, match=says) as caught:
        load_model(saved, TwoTower)
    assert caught.value.code == "checkpoint-unreadable"
    assert f"The checkpoint of TwoTower at '{saved}' cannot be read" in str(
        caught.value
    )
    assert caught.value.file == str(saved)


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="No such file") as caught:
        load_model(tmp_path / "nothing", TwoTower)
    assert caught.value.code == "checkpoint-unreadable"


def test_a_checkpoint_of_another_model_is_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="The checkpoint of Ranker at") as caught:
        load_model(saved, Ranker)
    assert caught.value.code == "checkpoint-unreadable"
    ranker = Ranker(INPUTS, ROWS)
    ranker.build()
    save_model(tmp_path / "ranker", ranker)
    with pytest.raises(ArtifactError, match="The checkpoint of TwoTower at"):
        load_model(tmp_path / "ranker", TwoTower)

"""The ranker against its NumPy twin."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from shortlist.data import Feature, Schema
from shortlist.embeddings.inputs import model_inputs
from shortlist.errors import InputError
from shortlist.models.ranker import Ranker
from suites import ModelSuite, run

pytestmark = pytest.mark.backend

SCHEMA = Schema(
    user_id="user",
    item_id="item",
    features=(
        Feature(name="genres", owner="item", kind="multi_valued"),
        Feature(name="age", owner="user", kind="numeric"),
    ),
)
INPUTS = model_inputs(SCHEMA, embedding_dim=4, feature_dim=3, history_length=3)
ROWS = {"user": 7, "item": 9, "genres": 5}
BATCH = {
    "user_index": np.array([1, 2, 3, 0], np.int32),
    "item_index": np.array([1, 5, 1, 8], np.int32),
    "history": np.array([[2, 3, 7], [4, -1, -1], [-1, -1, -1], [6, 6, 1]], np.int32),
    "age": np.array([0.5, -2.0, 0.0, 1.0], np.float32),
    "genres": np.array([[1, 4], [2, -1], [1, 4], [-1, -1]], np.int32),
    "label": np.array([1, 0, 0, 1], np.float32),
}
FEATURES = {name: values for name, values in BATCH.items() if name != "label"}


def make_model(**changes: Any) -> Ranker:
    model = Ranker(INPUTS, ROWS, **({"hidden_units": (8, 5)} | changes))
    model.compile(keras.optimizers.Adam(0.05), loss=model.loss_function())
    return model


def make_explicit() -> Ranker:
    return make_model(objective="explicit", mean_label=3.5)


class TestBinaryRanker(ModelSuite):
    make = staticmethod(make_model)
    batch = BATCH


class TestExplicitRanker(ModelSuite):
    make = staticmethod(make_explicit)
    batch = {**BATCH, "label": np.array([5, 1, 3, 4], np.float32)}


def twin(model: Ranker, batch: dict[str, np.ndarray]) -> np.ndarray:
    """Lookup and perceptron in NumPy, one row at a time, user features first."""
    tables = model.lookup.tables()
    dense = model.scorer.get_weights()
    order = [
        *[i for i in INPUTS if i.owner == "user"],
        *[i for i in INPUTS if i.owner == "item"],
    ]
    scores = []
    for row in range(len(batch["user_index"])):
        parts = []
        for i in order:
            value = batch[i.feature][row]
            if i.table is None:
                parts.append(np.array([value]))
                continue
            entries = [entry for entry in np.atleast_1d(value) if entry >= 0]
            total = sum((tables[i.table][e] for e in entries), np.zeros(i.dim))
            parts.append(total / max(len(entries), 1))
        vector = np.concatenate(parts)
        for kernel, bias in zip(dense[:-2:2], dense[1:-2:2], strict=True):
            vector = np.maximum(vector @ kernel + bias, 0)
        scores.append(vector @ dense[-2] + dense[-1])
    return np.array(scores)


@pytest.mark.parametrize("hidden_units", [(), (8,), (8, 5)])
def test_scores_equal_the_numpy_twin(hidden_units: tuple[int, ...]) -> None:
    model = make_model(hidden_units=hidden_units)
    found = run(model, FEATURES)["output"]
    assert found.shape == (4, 1)
    np.testing.assert_allclose(found, twin(model, FEATURES), rtol=1e-4, atol=1e-5)


def test_the_binary_loss_is_the_cross_entropy_of_the_logit() -> None:
    model = make_model()
    run(model, FEATURES)
    logits = twin(model, FEATURES)[:, 0]
    chance = 1 / (1 + np.exp(-logits))
    truth = BATCH["label"]
    expected = -np.mean(truth * np.log(chance) + (1 - truth) * np.log(1 - chance))
    found = float(model.test_on_batch(FEATURES, truth))
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_explicit_loss_is_the_squared_error_of_the_label() -> None:
    model = make_explicit()
    run(model, FEATURES)
    labels = np.array([5, 1, 3, 4], np.float32)
    expected = np.mean((twin(model, FEATURES)[:, 0] - labels) ** 2)
    found = float(model.test_on_batch(FEATURES, labels))
    assert found == pytest.approx(expected, rel=1e-4)


def test_an_explicit_ranker_begins_at_the_mean_label() -> None:
    model = make_explicit()
    run(model, FEATURES)
    assert model.scorer.get_weights()[-1].tolist() == [3.5]
    assert make_model().scorer.get_weights()[-1].tolist() == [0.0]


def test_dropout_acts_in_training_alone() -> None:
    model = make_model(dropout=0.5)
    quiet = run(model, FEATURES)["output"]
    np.testing.assert_array_equal(run(model, FEATURES)["output"], quiet)
    trained = keras.ops.convert_to_numpy(model(FEATURES, training=True))
    assert not np.allclose(trained, quiet)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("objective", "ranking"),
        ("objective", None),
        ("hidden_units", (16, -1)),
        ("hidden_units", "64"),
        ("dropout", 1.0),
        ("dropout", float("nan")),
        ("dropout", True),
        ("mean_label", float("nan")),
        ("mean_label", "3"),
    ],
)
def test_arguments_are_checked_before_anything_is_made(
    argument: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("something was made")

    monkeypatch.setattr(keras.Model, "__init__", made)
    with pytest.raises(InputError, match=rf"`{argument}(\.\d+)?` must be") as caught:
        Ranker(INPUTS, ROWS, **{argument: value})
    assert caught.value.code == "invalid-argument"
    shown = value[1] if isinstance(value, tuple) else value
    assert repr(shown) in str(caught.value)

"""The two-tower model and its loss against NumPy."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from shortlist.data import Feature, Schema
from shortlist.embeddings.inputs import Input, model_inputs
from shortlist.errors import InputError
from shortlist.models.options import Similarity
from shortlist.models.towers import UnitLength
from shortlist.models.two_tower import TwoTower
from suites import LayerSuite, ModelSuite, run

pytestmark = pytest.mark.backend

SCHEMA = Schema(
    user_id="user",
    item_id="item",
    features=(
        Feature(name="age", owner="user", kind="numeric"),
        Feature(name="genres", owner="item", kind="multi_valued"),
    ),
)
INPUTS = model_inputs(SCHEMA, embedding_dim=4, feature_dim=3, history_length=3)
ROWS = {"user": 7, "item": 9, "genres": 5}
TEMPERATURE = 0.25
BATCH = {
    "user_index": np.array([1, 2, 3, 4, 0], np.int32),
    "item_index": np.array([1, 5, 1, 8, 5], np.int32),  # 1 and 5 come twice
    "history": np.array(
        [[2, 3, 7], [4, -1, -1], [-1, -1, -1], [6, 6, 1], [8, 2, -1]], np.int32
    ),
    "age": np.array([0.5, -2.0, 0.0, 1.0, 0.25], np.float32),
    "genres": np.array([[1, 4], [2, -1], [1, 4], [-1, -1], [2, -1]], np.int32),
    "sampling_probability": np.array([0.3, 0.02, 0.3, 0.001, 0.02], np.float32),
}


def make_model(**changes: Any) -> TwoTower:
    arguments: dict[str, Any] = {
        "embedding_dim": 6,
        "hidden_units": (8,),
        "temperature": TEMPERATURE,
    }
    model = TwoTower(INPUTS, ROWS, **(arguments | changes))
    model.compile(optimizer=keras.optimizers.Adam(0.05))
    return model


class TestTwoTower(ModelSuite):
    make = staticmethod(make_model)
    batch = BATCH


class TestUnitLength(LayerSuite):
    make = UnitLength
    batch = BATCH

    # The layer maps one tensor, not a batch.
    def test_config_makes_an_equal_layer(self) -> None:
        layer = UnitLength(name="unit")
        assert UnitLength.from_config(layer.get_config()).name == "unit"

    def test_shapes_are_those_it_announces(self) -> None:
        assert UnitLength().compute_output_shape((None, 4)) == (None, 4)

    def test_a_row_does_not_depend_on_its_batch(self) -> None:
        vectors = np.array([[3.0, 4.0], [0.0, 2.0]], np.float32)
        expected = [[0.6, 0.8], [0.0, 1.0]]
        for row in range(2):
            alone = keras.ops.convert_to_numpy(UnitLength()(vectors[row : row + 1]))
            np.testing.assert_allclose(alone, expected[row : row + 1], rtol=1e-6)

    def test_padding_changes_nothing(self) -> None:
        vectors = np.array([[3.0, 4.0]], np.float32)
        padded = np.array([[3.0, 4.0, 0.0, 0.0]], np.float32)
        found = keras.ops.convert_to_numpy(UnitLength()(padded))
        np.testing.assert_allclose(found[:, 2:], 0.0)
        expected = keras.ops.convert_to_numpy(UnitLength()(vectors))
        np.testing.assert_allclose(found[:, :2], expected, rtol=1e-6)

    def test_unknown_ids_give_finite_numbers(self) -> None:
        zeros = keras.ops.convert_to_numpy(UnitLength()(np.zeros((2, 3), np.float32)))
        assert (zeros == 0).all()

    def test_one_seed_makes_one_layer(self) -> None:
        assert UnitLength().get_weights() == []


def tower_twin(
    model: TwoTower, inputs: tuple[Input, ...], batch: dict[str, np.ndarray], side: str
) -> np.ndarray:
    """Lookup, dense layers and normalization in NumPy, one row at a time."""
    tables = model.lookup.tables()
    dense = getattr(model, f"{side}_tower").get_weights()
    layers = list(zip(dense[::2], dense[1::2], strict=True))
    vectors = []
    for row in range(len(batch[inputs[0].feature])):
        parts = []
        for i in inputs:
            value = batch[i.feature][row]
            if i.table is None:
                parts.append(np.array([value]))
                continue
            entries = [entry for entry in np.atleast_1d(value) if entry >= 0]
            total = sum((tables[i.table][e] for e in entries), np.zeros(i.dim))
            parts.append(total / max(len(entries), 1))
        vector = np.concatenate(parts)
        for kernel, bias in layers[:-1]:
            vector = np.maximum(vector @ kernel + bias, 0)
        vector = vector @ layers[-1][0] + layers[-1][1]
        if model.options.similarity == "cosine":
            vector = vector / np.sqrt(np.sum(vector**2) + 1e-12)
        vectors.append(vector / model.options.temperature if side == "user" else vector)
    return np.array(vectors)


def loss_twin(
    user: np.ndarray,
    item: np.ndarray,
    item_index: np.ndarray,
    probability: np.ndarray | None,
    weights: np.ndarray | None = None,
) -> float:
    """The sampled softmax of Yi et al. (2019), one row at a time."""
    losses = []
    for row, own in enumerate(item_index):
        logits = {}
        for column, other in enumerate(item_index):
            if column != row and other == own:
                continue  # an accidental hit is no negative
            logits[column] = float(user[row] @ item[column])
            if probability is not None:
                logits[column] -= np.log(probability[column])
        total = np.log(sum(np.exp(logit) for logit in logits.values()))
        losses.append(total - logits[row])
    return float(np.average(losses, weights=weights))


def vectors_of(model: TwoTower) -> tuple[np.ndarray, np.ndarray]:
    outputs = run(model, BATCH)
    return outputs["user_vector"], outputs["item_vector"]


def loss_of(
    model: TwoTower,
    user: np.ndarray,
    item: np.ndarray,
    probability: np.ndarray | None,
    weights: np.ndarray | None = None,
) -> float:
    batch = {"item_index": BATCH["item_index"]}
    if probability is not None:
        batch["sampling_probability"] = probability
    outputs = {"user_vector": user, "item_vector": item}
    loss = model.compute_loss(x=batch, y_pred=outputs, sample_weight=weights)
    return float(keras.ops.convert_to_numpy(loss))


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("hidden_units", [(), (8, 5)])
def test_towers_equal_their_numpy_twins(
    similarity: Similarity, hidden_units: tuple[int, ...]
) -> None:
    model = make_model(similarity=similarity, hidden_units=hidden_units)
    user, item = vectors_of(model)
    inputs = {"user": model.user_inputs, "item": model.item_inputs}
    for side, found in (("user", user), ("item", item)):
        expected = tower_twin(model, inputs[side], BATCH, side)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_temperature_divides_the_score_and_is_part_of_the_user_vector() -> None:
    user, item = vectors_of(make_model())
    np.testing.assert_allclose(np.linalg.norm(item, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(user, axis=1), 1 / TEMPERATURE, rtol=1e-5)


def test_one_side_of_a_batch_gives_its_vector_alone() -> None:
    model = make_model()
    both = run(model, BATCH)
    for side, inputs in (("user", model.user_inputs), ("item", model.item_inputs)):
        alone = run(model, {i.feature: BATCH[i.feature] for i in inputs})
        assert list(alone) == [f"{side}_vector"]
        np.testing.assert_allclose(
            alone[f"{side}_vector"], both[f"{side}_vector"], rtol=1e-5, atol=1e-6
        )


def test_a_missing_feature_is_named() -> None:
    model = make_model()
    with pytest.raises(KeyError, match="age"):
        model({name: v for name, v in BATCH.items() if name != "age"})


@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_loss_equals_the_formula(corrected: bool, weighted: bool) -> None:
    model = make_model()
    user, item = vectors_of(model)
    probability = BATCH["sampling_probability"] if corrected else None
    weights = np.array([1, 0, 2.5, 0.5, 1], np.float32) if weighted else None
    expected = loss_twin(user, item, BATCH["item_index"], probability, weights)
    found = loss_of(model, user, item, probability, weights)
    assert found == pytest.approx(expected, rel=1e-5)


def test_training_and_evaluation_use_that_loss() -> None:
    model = make_model()
    user, item = vectors_of(model)
    args = (user, item, BATCH["item_index"], BATCH["sampling_probability"])
    expected = loss_twin(*args)
    assert float(model.test_on_batch(BATCH)) == pytest.approx(expected, rel=1e-5)
    assert float(model.train_on_batch(BATCH)) == pytest.approx(expected, rel=1e-5)


def test_weights_of_zero_give_no_nan() -> None:
    model = make_model()
    weights = np.zeros(5, np.float32)
    user, item = vectors_of(model)
    assert loss_of(model, user, item, BATCH["sampling_probability"], weights) == 0.0


def test_a_more_probable_item_gets_a_lower_logit() -> None:
    # A popular item is a negative more often, so each time it must count less: with
    # the sign turned round popular items would be pushed down twice.
    model = make_model()
    user, item = vectors_of(model)
    only_first = np.array([1, 0, 0, 0, 0], np.float32)
    rare = BATCH["sampling_probability"].copy()
    common = rare.copy()
    common[3] = 0.5  # the item of row 3 is a negative of row 0
    assert loss_of(model, user, item, common, only_first) < loss_of(
        model, user, item, rare, only_first
    )
    common = rare.copy()
    common[[0, 2]] = 0.9  # the positive of row 0: harder to tell from chance
    assert loss_of(model, user, item, common, only_first) > loss_of(
        model, user, item, rare, only_first
    )


def test_accidental_hits_are_no_negatives() -> None:
    # Rows 0 and 2 have the same item: the vector in column 2 may be anything.
    model = make_model()
    user, item = vectors_of(model)
    changed = item.copy()
    changed[2] = 40 * user[0]
    only_first = np.array([1, 0, 0, 0, 0], np.float32)
    probability = BATCH["sampling_probability"]
    assert loss_of(model, user, changed, probability, only_first) == pytest.approx(
        loss_of(model, user, item, probability, only_first), rel=1e-6
    )


def test_a_vector_of_zeros_has_a_finite_gradient() -> None:
    # Every input dropped and no bias: the tower gives zeros.
    model = make_model(hidden_units=())
    model.build()
    for tower in (model.user_tower, model.item_tower):
        tower.set_weights([np.zeros_like(w) for w in tower.get_weights()])
    engine = model.lookup.embedding
    engine.set_embedding_tables(
        {name: np.zeros_like(rows) for name, rows in model.lookup.tables().items()}
    )
    assert np.isfinite(float(model.train_on_batch(BATCH)))
    assert all(np.isfinite(w).all() for w in model.get_weights())
    assert all(np.isfinite(rows).all() for rows in model.lookup.tables().values())


def test_dropout_acts_in_training_alone() -> None:
    model = make_model(dropout=0.5)
    first, second = vectors_of(model)[0], vectors_of(model)[0]
    np.testing.assert_array_equal(first, second)
    predicted = model.predict_on_batch(BATCH)["user_vector"]
    np.testing.assert_allclose(predicted, first, rtol=1e-5, atol=1e-6)
    trained = keras.ops.convert_to_numpy(model(BATCH, training=True)["user_vector"])
    assert not np.allclose(trained, first)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("embedding_dim", 0),
        ("embedding_dim", -8),
        ("embedding_dim", 8.0),
        ("embedding_dim", True),
        ("embedding_dim", "8"),
        ("hidden_units", (16, 0)),
        ("hidden_units", "16"),
        ("hidden_units", 16),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("dropout", float("nan")),
        ("dropout", "0.1"),
        ("temperature", 0),
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", True),
    ],
)
def test_arguments_are_checked_before_anything_is_made(
    argument: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("something was made")

    monkeypatch.setattr(keras.Model, "__init__", made)
    with pytest.raises(InputError, match=rf"`{argument}(\.\d+)?` must be") as caught:
        make_model(**{argument: value})
    assert caught.value.code == "invalid-argument"
    shown = value[1] if isinstance(value, tuple) else value
    assert f"received {shown!r}" in str(caught.value)

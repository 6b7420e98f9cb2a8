"""Multi-task models: suite, formulas in NumPy, heads that must match their labels."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import onnxruntime
import pytest

from shortlist.bundle.export import to_onnx
from shortlist.data import Feature, Schema
from shortlist.embeddings.inputs import model_inputs
from shortlist.errors import InputError
from shortlist.models.multitask import MultiTask, mixture
from shortlist.models.options import Head
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
HEADS = {
    "rating": Head(objective="explicit", weight=0.5),
    "click": Head(objective="binary"),
}
BATCH: Any = {
    "user_index": np.array([1, 2, 3, 0], np.int32),
    "item_index": np.array([1, 5, 1, 8], np.int32),
    "history": np.array([[2, 3, 7], [4, -1, -1], [-1, -1, -1], [6, 6, 1]], np.int32),
    "age": np.array([0.5, -2.0, 0.25, 1.0], np.float32),
    "genres": np.array([[1, 4], [2, -1], [1, 4], [-1, -1]], np.int32),
    "label": {
        "rating": np.array([5, 1, 3, 4], np.float32),
        "click": np.array([1, 0, 0, 1], np.float32),
    },
}
FEATURES = {name: values for name, values in BATCH.items() if name != "label"}


def make_model(**changes: Any) -> MultiTask:
    options: dict[str, Any] = {
        "heads": HEADS,
        "hidden_units": (8,),
        "tower_units": (6,),
        "mean_label": 3.0,
    }
    model = MultiTask(INPUTS, ROWS, **options | changes)
    model.compile(keras.optimizers.Adam(0.02))
    return model


class TestSharedBottom(ModelSuite):
    make = staticmethod(make_model)
    batch = BATCH


class TestMmoe(ModelSuite):
    make = staticmethod(lambda: make_model(bottom="mmoe", num_experts=3))
    batch = BATCH


def flat_input() -> np.ndarray:
    width = make_model().towers.input_shape[-1]
    return np.random.default_rng(2).normal(size=(5, width)).astype(np.float32)


def outputs(model: MultiTask, flat: np.ndarray) -> dict[str, np.ndarray]:
    found = model.towers(flat)
    return {k: np.asarray(keras.ops.convert_to_numpy(v)) for k, v in found.items()}


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def dense_of(model: MultiTask) -> list[list[np.ndarray]]:
    """Weights of the dense layers, in the order in which they were made."""
    made = [x for x in model.towers.layers if isinstance(x, keras.layers.Dense)]
    made.sort(key=lambda x: int(x.name.partition("_")[2] or 0))
    return [layer.get_weights() for layer in made]


def test_heads_share_one_bottom() -> None:
    model, flat = make_model(), flat_input()
    (w0, b0), *towers = dense_of(model)
    bottom = relu(flat @ w0 + b0)
    found = outputs(model, flat)
    for name, ((w1, b1), (w2, b2)) in zip(HEADS, (towers[:2], towers[2:]), strict=True):
        expected = relu(bottom @ w1 + b1) @ w2 + b2
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5)


def test_every_head_weighs_the_experts_by_its_own_gate() -> None:
    model, flat = make_model(bottom="mmoe", num_experts=3), flat_input()
    weights = dense_of(model)
    experts = [relu(flat @ w + b) for w, b in weights[:3]]
    gates = [w for (w,) in weights[3:5]]
    towers = weights[5:]
    found = outputs(model, flat)
    for name, gate, ((w1, b1), (w2, b2)) in zip(
        HEADS, gates, (towers[:2], towers[2:]), strict=True
    ):
        powers = np.exp(flat @ gate)
        share = powers / powers.sum(axis=1, keepdims=True)
        read = sum(share[:, [e]] * experts[e] for e in range(3))
        expected = relu(read @ w1 + b1) @ w2 + b2
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-4)


def test_a_mixture_is_a_weighted_sum() -> None:
    gate = keras.ops.convert_to_tensor([[0.25, 0.75]])
    experts = keras.ops.convert_to_tensor([[[4.0, 0.0], [8.0, 4.0]]])
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(mixture(gate, experts)), [[7.0, 3.0]]
    )


def test_the_loss_is_the_weighted_sum_of_the_heads() -> None:
    model = make_model()
    found = run(model, FEATURES)
    label = BATCH["label"]
    chance = 1 / (1 + np.exp(-found["click"][:, 0]))
    click = -np.mean(
        label["click"] * np.log(chance) + (1 - label["click"]) * np.log(1 - chance)
    )
    rating = np.mean((found["rating"][:, 0] - label["rating"]) ** 2)
    logs = model.test_on_batch(FEATURES, label, return_dict=True)
    assert float(logs["loss"]) == pytest.approx(0.5 * rating + click, rel=1e-4)
    assert float(logs["rating_rmse"]) == pytest.approx(np.sqrt(rating), rel=1e-4)
    assert 0 <= float(logs["click_auc"]) <= 1


def test_a_row_of_weight_0_is_nothing_to_its_head() -> None:
    model = make_model()
    found = run(model, FEATURES)
    weights = {
        "rating": np.array([2, 0, 2, 0], np.float32),
        "click": np.ones(4, np.float32),
    }
    logs = model.test_on_batch(FEATURES, BATCH["label"], weights, return_dict=True)
    error = (found["rating"][:, 0] - BATCH["label"]["rating"])[[0, 2]] ** 2
    assert float(logs["rating_rmse"]) == pytest.approx(np.sqrt(error.mean()), rel=1e-4)
    again = {k: v.copy() for k, v in BATCH["label"].items()}
    again["rating"][[1, 3]] = 1e3
    changed = model.test_on_batch(FEATURES, again, weights, return_dict=True)
    assert float(changed["loss"]) == pytest.approx(float(logs["loss"]), rel=1e-6)


@pytest.mark.parametrize(
    ("score", "shares", "objective"),
    [
        (None, {"rating": 1.0}, "explicit"),
        ("click", {"click": 1.0}, "binary"),
        ({"click": 1.0, "rating": 0}, {"click": 1.0}, "binary"),
        ({"click": 2, "rating": -0.5}, {"click": 2.0, "rating": -0.5}, "listwise"),
    ],
)
@pytest.mark.parametrize("bottom", ["shared", "mmoe"])
def test_the_score_is_a_head_or_a_weighted_sum_also_when_exported(
    score: Any, shares: dict[str, float], objective: str, bottom: Any
) -> None:
    model = make_model(score=score, bottom=bottom)
    assert model.objective == objective
    assert model.get_config()["score"] == shares
    heads = run(model, FEATURES)
    expected = sum(share * heads[name] for name, share in shares.items())
    scored = model.score_on_batch(FEATURES)
    assert scored.dtype == np.float32
    np.testing.assert_allclose(scored, expected, rtol=1e-5, atol=1e-5)
    flat = flat_input()
    session = onnxruntime.InferenceSession(to_onnx(model.scorer))
    (source,) = session.get_inputs()
    (found,) = session.run(None, {source.name: flat})
    of_heads = outputs(model, flat)
    expected = sum(share * of_heads[name] for name, share in shares.items())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_an_absent_feature_is_its_default() -> None:
    model = make_model()
    given = {**FEATURES, "genres": np.full((4, 1), -1, np.int32)}
    absent = {name: values for name, values in FEATURES.items() if name != "genres"}
    expected = run(model, given)
    for name, values in run(model, absent).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-6)


def test_mean_label_is_where_explicit_heads_begin() -> None:
    assert [b.tolist() for *_, b in dense_of(make_model())[2::2]] == [[3.0], [0.0]]


def test_heads_that_do_not_predict_the_label_begin_at_nothing() -> None:
    kinds = {"own": "label", "taken": "taken"}
    heads = {n: {"objective": "explicit", "label": kind} for n, kind in kinds.items()}
    begun = dense_of(make_model(heads=heads, score="own"))
    assert [b.tolist() for *_, b in begun[2::2]] == [[3.0], [0.0]]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["rating"], "none for 'click'"),
        (["ratings", "click"], "none for 'rating'. Did you mean 'ratings'"),
        (["rating", "click", "clicks"], "one for 'clicks'. Did you mean 'click'"),
        ([], "none for 'rating'"),
    ],
)
def test_heads_and_labels_must_match(labels: list[str], message: str) -> None:
    model = make_model()
    with pytest.raises(InputError, match="must be those of the heads") as caught:
        model.check_labels(labels)
    assert caught.value.code == "heads-labels" and message in str(caught.value)


def test_training_refuses_labels_that_are_not_those_of_the_heads() -> None:
    label = {"rating": BATCH["label"]["rating"], "clik": BATCH["label"]["click"]}
    with pytest.raises(InputError, match="Did you mean 'clik'") as caught:
        make_model().train_on_batch(FEATURES, label)
    assert caught.value.code == "heads-labels"


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("heads", {}, "`heads` must map at least one name"),
        ("heads", {"a b": Head(objective="binary")}, "The name of a head must be"),
        ("heads", {"a": {"objective": "binry"}}, "Did you mean 'binary'"),
        ("heads", {"a": "binary"}, "`heads.a` must be a valid dictionary"),
        ("heads", {"a": {"objective": "binary", "wait": 1}}, "Did you mean 'weight'"),
        ("heads", {"a": {"objective": "binary", "weight": 0}}, "weight` must be"),
        ("bottom", "mmo", "Did you mean 'mmoe'"),
        ("num_experts", 0, "`num_experts` must be greater than or equal to 1"),
        ("tower_units", (0,), "`tower_units.0` must be greater than or equal to 1"),
        ("score", "clicks", "Did you mean 'click'"),
        ("score", {"click": float("nan")}, "must be a finite number, received nan"),
        ("score", {"click": 0}, "weight other than 0"),
    ],
)
def test_arguments_are_checked(argument: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_model(**{argument: value})
    assert caught.value.code == "invalid-argument"


def test_experts_need_a_hidden_layer() -> None:
    with pytest.raises(InputError, match="needs hidden_units for its experts"):
        make_model(bottom="mmoe", hidden_units=())

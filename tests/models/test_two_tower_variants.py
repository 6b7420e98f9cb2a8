"""Every variant of the two-tower model keeps what a model must keep."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import onnxruntime
import pytest

from shortlist.bundle.export import to_onnx
from shortlist.data import Feature, Schema
from shortlist.embeddings.features import concatenate
from shortlist.embeddings.inputs import model_inputs
from shortlist.errors import InputError
from shortlist.models import towers
from shortlist.models.two_tower import TwoTower, best_scores
from suites import ModelSuite, run

pytestmark = pytest.mark.backend

SCHEMA = Schema(
    user_id="user",
    item_id="item",
    features=(
        Feature(name="age", owner="user", kind="numeric"),
        Feature(name="genres", owner="item", kind="multi_valued"),
    ),
)
ROWS = {"user": 7, "item": 9, "genres": 5}
BATCH = {
    "user_index": np.array([1, 2, 3, 4, 0], np.int32),
    "item_index": np.array([1, 5, 1, 8, 5], np.int32),
    "history": np.array(
        [[2, 3, 7], [4, -1, -1], [-1, -1, -1], [6, 6, 1], [8, 2, -1]], np.int32
    ),
    "age": np.array([0.5, -2.0, 0.0, 1.0, 0.25], np.float32),
    "genres": np.array([[1, 4], [2, -1], [1, 4], [-1, -1], [2, -1]], np.int32),
    "sampling_probability": np.array([0.3, 0.02, 0.3, 0.001, 0.02], np.float32),
}
# As many negatives as rows: the suite takes rows of every array of a batch.
DRAWN = {
    "negative_item_index": np.array([1, 5, 8, 2, 3], np.int32),
    "negative_genres": np.array([[1, 4], [2, -1], [-1, -1], [3, -1], [0, 4]], np.int32),
    "negative_sampling_probability": np.full(5, 0.125, np.float32),
    "negative_share": np.array([0.3, 0.02, 0.001, 0.1, 0.2], np.float32),
}


def make(history: str = "mean", **changes: Any) -> TwoTower:
    inputs = model_inputs(
        SCHEMA,
        embedding_dim=4,
        feature_dim=3,
        history_length=3,
        as_sequence=history != "mean",
    )
    arguments = {"embedding_dim": 6, "temperature": 0.25, "history": history}
    model = TwoTower(inputs, ROWS, **(arguments | changes))
    model.compile(optimizer=keras.optimizers.Adam(0.05))
    return model


class TestGru(ModelSuite):
    make = staticmethod(lambda: make("gru"))
    batch = BATCH


class TestAttention(ModelSuite):
    make = staticmethod(lambda: make("attention", num_blocks=2, num_heads=2))
    batch = BATCH


class TestSeveralQueries(ModelSuite):
    make = staticmethod(lambda: make(num_queries=3, similarity="dot"))
    batch = BATCH


class TestLearnedTemperature(ModelSuite):
    make = staticmethod(lambda: make(learned_temperature=True))
    batch = BATCH


class TestOwnLayers(ModelSuite):
    make = staticmethod(
        lambda: make(
            user_layers=[keras.layers.Dense(5, activation="gelu")],
            item_layers=keras.Sequential([keras.Input((7,)), keras.layers.Dense(5)]),
        )
    )
    batch = BATCH


class TestItemBias(ModelSuite):
    make = staticmethod(lambda: make(item_bias=True, num_queries=2))
    batch = BATCH


SUMMED_SCHEMA = Schema(user_id="user", item_id="item")


def summed(**changes: Any) -> TwoTower:
    inputs = model_inputs(
        SUMMED_SCHEMA, embedding_dim=6, feature_dim=3, history_length=3
    )
    arguments = {"embedding_dim": 6, "temperature": 0.25, "projection": "sum"}
    model = TwoTower(inputs, ROWS, **(arguments | changes))
    model.compile(optimizer=keras.optimizers.Adam(0.05))
    return model


class TestSum(ModelSuite):
    make = staticmethod(lambda: summed(item_bias=True))
    batch = {k: v for k, v in BATCH.items() if k not in ("age", "genres")}


class TestMixed(ModelSuite):
    make = staticmethod(lambda: make(negatives="mixed"))
    batch = BATCH | DRAWN


class TestAll(ModelSuite):
    make = staticmethod(lambda: make(negatives="all"))
    batch = BATCH | DRAWN


class TestHardPairs(ModelSuite):
    make = staticmethod(lambda: make(loss="bpr", hard_negatives=2, similarity="dot"))
    batch = BATCH


VARIANTS = [
    {},
    {"item_bias": True},
    {"item_bias": True, "num_queries": 2, "similarity": "dot"},
    {"num_queries": 3},
    {"learned_temperature": True},
    {"history": "gru"},
    {"history": "attention", "num_heads": 2},
    {"history": "attention", "num_queries": 2, "learned_temperature": True},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.filterwarnings("ignore")  # of the exporters
def test_the_exported_user_tower_equals_the_model(variant: dict[str, Any]) -> None:
    model = make(**variant)
    model.train_on_batch(BATCH)
    columns = keras.ops.convert_to_numpy(
        concatenate(model.user_inputs, model.lookup(BATCH))
    )
    session = onnxruntime.InferenceSession(
        to_onnx(model.user_tower), providers=["CPUExecutionProvider"]
    )
    (entry,) = session.get_inputs()
    expected = run(model, BATCH)["user_vector"]
    for rows in (slice(None), slice(1, 2)):
        (found,) = session.run(None, {entry.name: columns[rows].astype(np.float32)})
        np.testing.assert_allclose(found, expected[rows], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_summed_towers_with_a_bias_equal_their_formula(similarity: str) -> None:
    model = summed(item_bias=True, similarity=similarity)
    found = run(model, TestSum.batch)
    tables = {name: np.asarray(table) for name, table in model.lookup.tables().items()}
    history = [row[row >= 0] for row in BATCH["history"]]
    read = np.stack(
        [tables["item"][r].mean(axis=0) if len(r) else np.zeros(6) for r in history]
    )
    users = (tables["user"][BATCH["user_index"]] + read)[:, :5]
    items = tables["item"][BATCH["item_index"]]
    vectors = items[:, :5]
    if similarity == "cosine":
        users = users / np.linalg.norm(users, axis=1, keepdims=True)
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = users @ vectors.T / 0.25 + items[:, 5]
    np.testing.assert_allclose(
        found["user_vector"] @ found["item_vector"].T, expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_unit_length_is_finite_for_short_vectors(precision: str) -> None:
    given = np.array([[0, 0, 0, 0.5], [1e-4, 1e-4, 0, 0.5], [3, 4, 0, 0.5]], "float32")
    expected = [[0, 0, 0, 0.5], [2**-0.5, 2**-0.5, 0, 0.5], [0.6, 0.8, 0, 0.5]]
    found = towers.UnitLengthBesideBias(dtype=precision)(given)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(keras.ops.cast(found, "float32")),
        expected,
        atol=4e-3,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"embedding_dim": 5},
        {"hidden_units": [4]},
        {"num_queries": 2},
        {"user_layers": keras.layers.Dense(4)},
    ],
    ids=str,
)
def test_a_sum_takes_inputs_of_one_width_and_nothing_between(
    changes: dict[str, Any],
) -> None:
    with pytest.raises(InputError, match="projection='sum'") as caught:
        summed(**changes)
    assert caught.value.code == "invalid-argument"


def test_an_item_bias_needs_a_column_beside_it() -> None:
    with pytest.raises(InputError, match="at least 2") as caught:
        make(embedding_dim=1, item_bias=True)
    assert caught.value.code == "invalid-argument"


def test_the_score_of_several_queries_is_that_of_the_best() -> None:
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=(4, 3, 5)), rng.normal(size=(6, 5))
    found = keras.ops.convert_to_numpy(
        best_scores(
            keras.ops.convert_to_tensor(users, dtype="float32"),
            keras.ops.convert_to_tensor(items, dtype="float32"),
        )
    )
    for user in range(4):
        for item in range(6):
            best = max(float(query @ items[item]) for query in users[user])
            assert found[user, item] == pytest.approx(best, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("history", ["mean", "attention"])
def test_attention_learns_an_order_that_the_mean_cannot_see(history: str) -> None:
    """The next item follows from the last one; all hold the same three items."""
    orders = np.array(
        [[1, 2, 3], [2, 1, 3], [1, 3, 2], [3, 1, 2], [2, 3, 1], [3, 2, 1]], np.int32
    )
    batch = {
        "history": orders,
        "item_index": (orders[:, -1] + 3).astype(np.int32),
        "negative_item_index": np.arange(1, 9, dtype=np.int32),
    }
    schema = Schema(user_id="user", item_id="item")
    sequence = history == "attention"
    inputs = [
        i
        for i in model_inputs(
            schema,
            embedding_dim=8,
            feature_dim=3,
            history_length=3,
            as_sequence=sequence,
        )
        if i.feature != "user_index"
    ]
    keras.utils.set_random_seed(0)
    model = TwoTower(
        inputs, {"item": 9}, embedding_dim=8, history=history, negatives="all"
    )
    model.compile(optimizer=keras.optimizers.Adam(0.02))
    for _ in range(60):
        loss = float(np.asarray(model.train_on_batch(batch)).ravel()[0])
    # Three items are equally likely to who does not see the order: log(3) = 1.10.
    assert loss < 0.2 if sequence else loss > 1.09


@pytest.mark.parametrize(
    ("argument", "value", "meant"),
    [
        ("loss", "brp", "bpr"),
        ("history", "atention", "attention"),
        ("similarity", "cosin", "cosine"),
        ("negatives", "inbatch", "in_batch"),
    ],
)
def test_an_unknown_name_is_refused_with_the_closest_one(
    argument: str, value: str, meant: str
) -> None:
    with pytest.raises(InputError, match=f"Did you mean '{meant}'"):
        make(**{argument: value})


def test_a_history_that_does_not_fit_the_inputs_is_refused() -> None:
    inputs = model_inputs(SCHEMA, embedding_dim=4, feature_dim=3, history_length=3)
    with pytest.raises(InputError, match="as_sequence"):
        TwoTower(inputs, ROWS, history="gru")


def test_one_layer_in_both_towers_is_refused() -> None:
    layer = keras.layers.Dense(4)
    with pytest.raises(InputError, match="different objects"):
        make(user_layers=layer, item_layers=layer)


def test_a_batch_without_the_negatives_is_refused() -> None:
    model = make(negatives="mixed")
    outputs = run(model, BATCH)
    with pytest.raises(InputError, match="negative_item_index") as caught:
        model.compute_loss(x=BATCH, y_pred=outputs)
    assert caught.value.code == "batch-incomplete"

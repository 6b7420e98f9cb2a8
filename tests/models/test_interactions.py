"""Every interaction against its formula in NumPy, its suite, and what it can learn."""

from __future__ import annotations

import re
from typing import Any, get_args

import keras
import keras_rs
import numpy as np
import onnxruntime
import pytest

from shortlist.bundle.export import to_onnx
from shortlist.data import Feature, Schema
from shortlist.embeddings.inputs import Input, input_width, model_inputs
from shortlist.errors import InputError
from shortlist.models.interactions import (
    pairwise_dots,
    pairwise_products,
    score_graph,
    widened,
)
from shortlist.models.listwise import ListwiseSoftmax
from shortlist.models.options import Interaction, RankerOptions
from shortlist.models.ranker import Ranker
from suites import ModelSuite, run

pytestmark = pytest.mark.backend

SCHEMA = Schema(
    user_id="user",
    item_id="item",
    features=(
        Feature(name="genres", owner="item", kind="multi_valued"),
        Feature(name="age", owner="user", kind="numeric"),
        Feature(name="price", owner="item", kind="numeric"),
    ),
)
INPUTS = model_inputs(SCHEMA, embedding_dim=4, feature_dim=3, history_length=3)
ROWS = {"user": 7, "item": 9, "genres": 5}
BATCH = {
    "user_index": np.array([1, 2, 3, 0], np.int32),
    "item_index": np.array([1, 5, 1, 8], np.int32),
    "history": np.array([[2, 3, 7], [4, -1, -1], [-1, -1, -1], [6, 6, 1]], np.int32),
    "age": np.array([0.5, -2.0, 0.25, 1.0], np.float32),
    "price": np.array([1.5, 2.0, -0.5, 1.0], np.float32),
    "genres": np.array([[1, 4], [2, -1], [1, 4], [-1, -1]], np.int32),
    "label": np.array([1, 0, 0, 1], np.float32),
}
FEATURES = {name: values for name, values in BATCH.items() if name != "label"}


def make_model(**changes: Any) -> Ranker:
    options = {"hidden_units": (8, 5), "list_size": 2} | changes
    model = Ranker(INPUTS, ROWS, **options)
    model.compile(keras.optimizers.Adam(0.02), loss=model.loss_function())
    return model


class TestNcf(ModelSuite):
    make = staticmethod(lambda: make_model(interaction="ncf"))
    batch = BATCH


class TestWideDeep(ModelSuite):
    make = staticmethod(lambda: make_model(interaction="wide_deep"))
    batch = BATCH


class TestDeepFm(ModelSuite):
    make = staticmethod(lambda: make_model(interaction="deepfm"))
    batch = BATCH


class TestDcn(ModelSuite):
    make = staticmethod(lambda: make_model(interaction="dcn"))
    batch = BATCH


class TestDcnLowRank(ModelSuite):
    make = staticmethod(lambda: make_model(interaction="dcn_low_rank", low_rank_dim=3))
    batch = BATCH


class TestDlrm(ModelSuite):
    make = staticmethod(lambda: make_model(interaction="dlrm"))
    batch = BATCH


class TestListwise(ModelSuite):
    make = staticmethod(lambda: make_model(objective="listwise", table_l2=0.01))
    batch = {**BATCH, "label": np.array([1, 0, 0, 1], np.float32)}

    def test_every_weight_is_trained(self) -> None:
        # A bias common to a list cancels out of its softmax: the last one stays.
        model = self.make()
        run(model, self.features())
        before = model.get_weights()
        self.train(model)
        moved = [
            not np.array_equal(old, new)
            for old, new in zip(before, model.get_weights(), strict=True)
        ]
        last = model.scorer.layers[-1].bias.path
        stayed = [w.path for w, m in zip(model.weights, moved, strict=True) if not m]
        assert set(stayed) <= {last}


# Formulas, from the flat input: the blocks are told apart by hand.

WIDTHS = {"user_index": 3, "history": 3, "segment": 2, "age": 1, "item_index": 3}
PLAIN = tuple(
    Input(
        feature=name,
        kind="numeric" if dim == 1 else "categorical",
        owner="item" if name == "item_index" else "user",
        table=None
        if dim == 1
        else {"item_index": "item", "history": "item"}.get(name, name),
        dim=dim,
    )
    for name, dim in WIDTHS.items()
)
SIZES: dict[str, Any] = {"hidden_units": [6, 4], "cross_layers": 2, "low_rank_dim": 2}
INTERACTIONS = get_args(Interaction)
GENERATOR = np.random.default_rng(5)
FLAT = GENERATOR.normal(size=(7, 30)).astype(np.float32)


def options_of(interaction: str, **sizes: Any) -> RankerOptions:
    return RankerOptions.model_validate({"interaction": interaction, **SIZES, **sizes})


def graph(interaction: str, **sizes: Any) -> tuple[Any, np.ndarray]:
    """The graph with random weights, and an input for it."""
    keras.utils.set_random_seed(3)
    options = options_of(interaction, **sizes)
    model = score_graph(options, PLAIN, bias=0.5)
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    return model, FLAT[:, : input_width(widened(interaction, PLAIN))]


def output(model: Any, flat: np.ndarray) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(model(flat)))


def layers(model: Any, kind: type) -> list[list[np.ndarray]]:
    """Weights of the layers of a kind, in the order in which they were made."""

    def number(layer: Any) -> int:
        found = re.search(r"_(\d+)$", layer.name)
        return int(found.group(1)) if found else 0

    chosen = [layer for layer in model.layers if isinstance(layer, kind)]
    return [layer.get_weights() for layer in sorted(chosen, key=number)]


def deep(dense: list[list[np.ndarray]], tensor: np.ndarray) -> np.ndarray:
    for kernel, bias in dense:
        tensor = np.maximum(tensor @ kernel + bias, 0)
    return tensor


def taken_apart(flat: np.ndarray, more: dict[str, int]) -> tuple[dict, dict]:
    """Vector and further columns of every input."""
    vectors, further, start = {}, {}, 0
    for name, dim in WIDTHS.items():
        vectors[name] = flat[:, start : start + dim]
        further[name] = flat[:, start + dim : start + dim + more.get(name, 0)]
        start += dim + more.get(name, 0)
    assert start == flat.shape[1]
    return vectors, further


def joined(vectors: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate(list(vectors.values()), axis=1)


LOOKED_UP = [name for name in WIDTHS if name != "age"]
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def test_ncf_multiplies_the_second_vectors_of_user_and_item() -> None:
    model, flat = graph("ncf")
    # The table of the items is also that of the history: it is as wide.
    more = {"user_index": 3, "item_index": 3, "history": 3}
    vectors, further = taken_apart(flat, more)
    *hidden, (kernel, bias) = layers(model, keras.layers.Dense)
    product = further["user_index"] * further["item_index"]
    both = np.concatenate([product, deep(hidden, joined(vectors))], axis=1)
    np.testing.assert_allclose(output(model, flat), both @ kernel + bias, **CLOSE)


def test_wide_and_deep_adds_a_weight_per_value() -> None:
    model, flat = graph("wide_deep")
    vectors, further = taken_apart(flat, dict.fromkeys(LOOKED_UP, 1))
    *hidden, (of_number,), (kernel, bias) = layers(model, keras.layers.Dense)
    wide = sum(further[name] for name in LOOKED_UP) + vectors["age"] @ of_number
    expected = wide + deep(hidden, joined(vectors)) @ kernel + bias
    np.testing.assert_allclose(output(model, flat), expected, **CLOSE)


def test_deepfm_adds_the_dot_products_of_all_pairs() -> None:
    model, flat = graph("deepfm")
    vectors, further = taken_apart(flat, dict.fromkeys(LOOKED_UP, 1))
    dense = layers(model, keras.layers.Dense)
    (of_segment,), (of_age,), (of_number,), *hidden, (kernel, bias) = dense
    fields = {name: vectors[name] for name in LOOKED_UP}
    fields["segment"] = fields["segment"] @ of_segment
    fields["age"] = vectors["age"] @ of_age
    names = list(fields)
    second = sum(
        np.sum(fields[a] * fields[b], axis=1, keepdims=True)
        for place, a in enumerate(names)
        for b in names[:place]
    )
    first = sum(further[name] for name in LOOKED_UP) + vectors["age"] @ of_number
    expected = first + second + deep(hidden, joined(vectors)) @ kernel + bias
    np.testing.assert_allclose(output(model, flat), expected, **CLOSE)


def test_the_second_order_of_an_fm_is_a_sum_over_pairs() -> None:
    vectors = GENERATOR.normal(size=(3, 5, 2)).astype(np.float32)
    expected = [
        sum(one[i] @ one[j] for i in range(5) for j in range(i)) for one in vectors
    ]
    found = keras.ops.convert_to_numpy(pairwise_products(vectors))
    np.testing.assert_allclose(np.asarray(found)[:, 0], expected, **CLOSE)


@pytest.mark.parametrize("num_inputs", [2, 5])
def test_the_dot_products_are_those_of_keras_rs(num_inputs: int) -> None:
    vectors = GENERATOR.normal(size=(3, num_inputs, 2)).astype(np.float32)
    rival = keras_rs.layers.DotInteraction()
    expected = rival([vectors[:, i] for i in range(num_inputs)])
    found = keras.ops.convert_to_numpy(pairwise_dots(vectors))
    np.testing.assert_allclose(found, keras.ops.convert_to_numpy(expected), **CLOSE)


@pytest.mark.parametrize("hidden_units", [(), (6, 4)])
@pytest.mark.parametrize("interaction", ["dcn", "dcn_low_rank"])
def test_dcn_multiplies_the_input_with_a_map_of_the_last_layer(
    interaction: str, hidden_units: tuple[int, ...]
) -> None:
    model, flat = graph(interaction, hidden_units=hidden_units)
    crossed = flat
    for weights in layers(model, keras_rs.layers.FeatureCross):
        kernels = [w for w in weights if w.ndim == 2]
        (bias,) = (w for w in weights if w.ndim == 1)
        if interaction == "dcn_low_rank":
            kernels.sort(key=lambda w: w.shape[1])
            assert [w.shape for w in kernels] == [(12, 2), (2, 12)]
        crossed = flat * (np.linalg.multi_dot([crossed, *kernels]) + bias) + crossed
    *hidden, (kernel, bias) = layers(model, keras.layers.Dense)
    assert len(hidden) == len(hidden_units)
    both = [crossed, deep(hidden, flat)] if hidden_units else [crossed]
    expected = np.concatenate(both, axis=1) @ kernel + bias
    np.testing.assert_allclose(output(model, flat), expected, rtol=1e-3, atol=1e-3)


def test_the_rank_is_a_quarter_of_the_width_unless_told() -> None:
    model, _ = graph("dcn_low_rank", low_rank_dim=None)
    shapes = {
        w.shape for one in layers(model, keras_rs.layers.FeatureCross) for w in one
    }
    assert shapes == {(12, 3), (3, 12), (12,)}


def test_dlrm_reads_the_dot_products_and_the_numbers() -> None:
    model, flat = graph("dlrm")
    vectors, _ = taken_apart(flat, {})
    dense = layers(model, keras.layers.Dense)
    (of_segment,), *others = dense
    bottom, top, (kernel, bias) = others[:3], others[3:5], others[5]
    numbers = deep(bottom, vectors["age"])
    assert numbers.shape == (7, 3)
    fields = [numbers] + [
        vectors[name] @ of_segment if name == "segment" else vectors[name]
        for name in LOOKED_UP
    ]
    dots = [
        np.sum(fields[i] * fields[j], axis=1, keepdims=True)
        for i in range(len(fields))
        for j in range(i)
    ]
    read = np.concatenate([numbers, *dots], axis=1)
    expected = deep(top, read) @ kernel + bias
    np.testing.assert_allclose(output(model, flat), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_a_single_lookup_is_enough_for_every_kind_but_ncf(interaction: str) -> None:
    inputs = (Input(feature="a", kind="categorical", owner="user", table="a", dim=3),)
    if interaction == "ncf":
        with pytest.raises(InputError, match="user_index and item_index") as caught:
            score_graph(options_of(interaction), inputs)
        assert caught.value.code == "invalid-argument"
        return
    width = input_width(widened(interaction, inputs))
    model = score_graph(options_of(interaction), inputs)
    assert output(model, FLAT[:, :width]).shape == (7, 1)


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_the_graph_answers_as_the_model_at_any_batch_size(interaction: str) -> None:
    model, flat = graph(interaction)
    session = onnxruntime.InferenceSession(to_onnx(model))
    (source,) = session.get_inputs()
    for batch_size in (1, 6):
        (found,) = session.run(None, {source.name: flat[:batch_size]})
        np.testing.assert_allclose(found, output(model, flat[:batch_size]), **CLOSE)


# Lists.


def softmax_loss(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Cross-entropy of each list, one list at a time."""
    losses = []
    for y, s in zip(labels, scores, strict=True):
        chance = np.exp(s - s.max()) / np.exp(s - s.max()).sum()
        share = y / y.sum() if y.sum() else y
        losses.append(-np.sum(share * np.log(chance)))
    return np.array(losses)


def test_the_listwise_loss_is_the_cross_entropy_of_each_list() -> None:
    scores = GENERATOR.normal(size=(5, 4)).astype(np.float32) * 3
    labels = np.array(
        [[1, 0, 0, 0], [1, 0, 0, 0], [3, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    ).astype(np.float32)
    loss = ListwiseSoftmax(4)
    flat = labels.ravel(), scores.reshape(-1, 1)
    expected = softmax_loss(labels, scores)
    assert expected[3] == 0
    assert float(loss(*flat)) == pytest.approx(expected.mean(), rel=1e-5)
    # A weight weighs its own label: here that of the first of each list.
    weights = np.repeat(np.array([1, 5, 1, 1, 1], np.float32), 4)
    weights.reshape(5, 4)[:, 1:] = np.array([1, 1, 1])
    single = labels[[0, 1]].ravel(), scores[[0, 1]].reshape(-1, 1)
    weighed = float(loss(*single, sample_weight=weights[:8]))
    assert weighed == pytest.approx((expected[0] + 5 * expected[1]) / 2, rel=1e-5)


def test_the_order_of_equal_labels_means_nothing() -> None:
    scores = np.array([[2.0], [0.5], [-1.0], [0.1]], np.float32)
    turned = scores[[0, 3, 2, 1]]
    labels = np.array([1, 0, 0, 0], np.float32)
    losses = [float(ListwiseSoftmax(4)(labels, s)) for s in (scores, turned)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("list_size", [1, 0, 2.0, True])
def test_a_list_has_at_least_two_rows(list_size: Any) -> None:
    with pytest.raises(InputError, match="`list_size` must be") as caught:
        ListwiseSoftmax(list_size)
    assert caught.value.code == "invalid-argument"


def test_a_loss_comes_back_from_its_configuration() -> None:
    again = keras.losses.deserialize(keras.losses.serialize(ListwiseSoftmax(3)))
    assert again.get_config() == ListwiseSoftmax(3).get_config()


# Absent inputs.


@pytest.mark.parametrize(
    "interaction",
    ["mlp", "dlrm", pytest.param("deepfm", marks=pytest.mark.slow)],
)
def test_an_absent_input_is_its_default(interaction: str) -> None:
    model = make_model(interaction=interaction)
    given = {
        **FEATURES,
        "genres": np.full((4, 1), -1, np.int32),
        "history": np.full((4, 3), -1, np.int32),
        "price": np.zeros(4, np.float32),
    }
    absent = {
        name: values
        for name, values in FEATURES.items()
        if name not in ("genres", "history", "price")
    }
    expected = run(model, given)["output"]
    np.testing.assert_allclose(run(model, absent)["output"], expected, rtol=1e-6)
    predicted = model.predict_on_batch(absent)
    np.testing.assert_allclose(predicted, expected, rtol=1e-5, atol=1e-6)
    loss = model.train_on_batch(absent, BATCH["label"])
    assert np.isfinite(float(np.asarray(loss).ravel()[0]))


def test_an_absent_categorical_input_is_row_0() -> None:
    inputs = (
        *INPUTS,
        Input(feature="shop", kind="categorical", owner="item", table="shop", dim=2),
    )
    model = Ranker(inputs, {**ROWS, "shop": 3})
    given = {**FEATURES, "shop": np.zeros(4, np.int32)}
    expected = run(model, given)["output"]
    np.testing.assert_allclose(run(model, FEATURES)["output"], expected, rtol=1e-6)


def test_an_id_is_never_taken_for_granted() -> None:
    misspelt = {
        name.replace("item_index", "item_indx"): v for name, v in FEATURES.items()
    }
    with pytest.raises(InputError, match="Did you mean 'item_indx'") as caught:
        make_model()(misspelt)
    assert caught.value.code == "batch-id-missing"


# What can be learned.


def taste() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A label that is the XOR of two categorical features: no sum of weights has it."""
    rng = np.random.default_rng(0)
    user, item = rng.integers(1, 7, (2, 512)).astype(np.int32)
    return {"user_index": user, "item_index": item}, ((user + item) % 2).astype(
        "float32"
    )


@pytest.mark.parametrize(
    ("interaction", "hidden_units", "learns"),
    [
        ("wide_deep", (), False),
        ("mlp", (), False),
        pytest.param("deepfm", (), True, marks=pytest.mark.slow),
        ("dcn", (), True),
        pytest.param("dcn_low_rank", (), True, marks=pytest.mark.slow),
        pytest.param("ncf", (), True, marks=pytest.mark.slow),
        pytest.param("dlrm", (), True, marks=pytest.mark.slow),
        ("wide_deep", (16,), True),
    ],
)
def test_crosses_are_learned_by_the_kinds_that_multiply(
    interaction: str, hidden_units: tuple[int, ...], learns: bool
) -> None:
    keras.utils.set_random_seed(1)
    inputs = [i for i in INPUTS if i.feature in ("user_index", "item_index")]
    model = Ranker(
        inputs,
        ROWS,
        interaction=interaction,
        hidden_units=hidden_units,
        table_learning_rate=0.05,
    )
    model.compile(keras.optimizers.Adam(0.05), loss=model.loss_function())
    features, label = taste()
    for _ in range(60):
        model.train_on_batch(features, label)
    scores = np.asarray(model.predict_on_batch(features))[:, 0]
    right = np.mean((scores > 0) == (label == 1))
    assert right > 0.99 if learns else right < 0.65


def test_table_l2_pulls_the_touched_rows_to_zero() -> None:
    # Plain SGD on a loss whose gradient is zero: what moves the rows is L2 alone.
    model = Ranker(
        INPUTS, ROWS, table_optimizer="sgd", table_learning_rate=0.5, table_l2=0.1
    )
    model.compile(keras.optimizers.SGD(0.0), loss=lambda y, s: 0.0 * s)
    run(model, FEATURES)
    before = model.lookup.tables()["user"].copy()
    model.train_on_batch(FEATURES, BATCH["label"])
    after = model.lookup.tables()["user"]
    touched = np.isin(np.arange(ROWS["user"]), BATCH["user_index"])
    np.testing.assert_allclose(after[touched], 0.95 * before[touched], rtol=1e-5)
    np.testing.assert_array_equal(after[~touched], before[~touched])


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("interaction", "deep_fm", "Did you mean 'deepfm'"),
        ("interaction", None, "`interaction` must be 'mlp', 'ncf'"),
        ("objective", "list_wise", "Did you mean 'listwise'"),
        (
            "cross_layers",
            0,
            "`cross_layers` must be greater than or equal to 1, received 0",
        ),
        (
            "low_rank_dim",
            0,
            "`low_rank_dim` must be greater than or equal to 1, received 0",
        ),
        (
            "table_l2",
            -1.0,
            "`table_l2` must be greater than or equal to 0, received -1.0",
        ),
        ("table_l2", float("nan"), "`table_l2` must be"),
    ],
)
def test_arguments_are_checked(argument: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Ranker(INPUTS, ROWS, **{argument: value})
    assert caught.value.code == "invalid-argument"

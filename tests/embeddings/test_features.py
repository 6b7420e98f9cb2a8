"""The lookup layer against its NumPy twin."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from shortlist.data import Feature, Schema
from shortlist.embeddings.features import FeatureEmbedding, concatenate
from shortlist.embeddings.inputs import model_inputs
from shortlist.errors import InputError
from suites import LayerSuite, assert_close, run

pytestmark = pytest.mark.backend

SCHEMA = Schema(
    user_id="user",
    item_id="item",
    features=(
        Feature(name="age", owner="user", kind="numeric"),
        Feature(name="genres", owner="item", kind="multi_valued"),
        Feature(name="main", owner="item", kind="categorical", vocabulary="genres"),
    ),
)
INPUTS = model_inputs(SCHEMA, embedding_dim=4, feature_dim=3, history_length=3)
ROWS = {"user": 6, "item": 8, "genres": 5}
BATCH = {
    "user_index": np.array([1, 5, 0], np.int32),
    "item_index": np.array([7, 1, 3], np.int32),
    "history": np.array([[2, 3, 7], [4, -1, -1], [-1, -1, -1]], np.int32),
    "age": np.array([0.5, -2.0, 0.0], np.float32),
    "genres": np.array([[1, 4], [2, -1], [0, 0]], np.int32),
    "main": np.array([4, 2, 0], np.int32),
}


def make_layer() -> FeatureEmbedding:
    return FeatureEmbedding(INPUTS, ROWS)


def twin(tables: dict[str, np.ndarray], batch: dict[str, np.ndarray]) -> Any:
    """One row and one entry at a time, straight from the definition."""
    looked_up = {}
    for i in INPUTS:
        values = batch[i.feature]
        if i.table is None:
            looked_up[i.feature] = values[:, None]
            continue
        table, vectors = tables[i.table], []
        for value in values:
            entries = [entry for entry in np.atleast_1d(value) if entry >= 0]
            total = sum((table[entry] for entry in entries), np.zeros(i.dim))
            vectors.append(total / max(len(entries), 1))
        looked_up[i.feature] = np.array(vectors, np.float32)
    return looked_up


def tables_of(layer: FeatureEmbedding) -> dict[str, np.ndarray]:
    return layer.tables()


class TestFeatureEmbedding(LayerSuite):
    make = staticmethod(make_layer)
    batch = BATCH


def test_lookup_equals_the_numpy_twin() -> None:
    layer = make_layer()
    found = run(layer, BATCH)
    assert_close(found, twin(tables_of(layer), BATCH))
    assert (found["history"][2] == 0).all()


def test_features_of_one_table_share_its_rows() -> None:
    layer = make_layer()
    found = run(layer, BATCH)
    shapes = {name: rows.shape for name, rows in tables_of(layer).items()}
    assert shapes == {"user": (6, 4), "item": (8, 4), "genres": (5, 3)}
    np.testing.assert_array_equal(found["main"][1], found["genres"][1])


def test_absent_features_are_left_out() -> None:
    layer = make_layer()
    some = {name: BATCH[name] for name in ("item_index", "main")}
    found = run(layer, some)
    assert_close(found, {name: twin(tables_of(layer), BATCH)[name] for name in some})
    shapes = {name: values.shape for name, values in some.items()}
    assert layer.compute_output_shape(shapes) == {
        "item_index": (3, 4),
        "main": (3, 3),
    }


def test_concatenate_follows_the_order_of_the_inputs() -> None:
    layer = make_layer()
    layer.build()
    wide = keras.ops.convert_to_numpy(concatenate(INPUTS, layer(BATCH)))
    parts = twin(tables_of(layer), BATCH)
    expected = np.concatenate([parts[i.feature] for i in INPUTS], axis=1)
    np.testing.assert_allclose(wide, expected, rtol=1e-5, atol=1e-6)


def test_tables_begin_with_different_numbers() -> None:
    tables = {"user": 6, "item": 6, "genres": 5}
    keras.utils.set_random_seed(0)
    layer = FeatureEmbedding(INPUTS, tables)
    layer.build()
    found = tables_of(layer)
    assert not np.array_equal(found["user"], found["item"])


def test_initializer_is_used_and_kept_in_the_config() -> None:
    layer = FeatureEmbedding(INPUTS, ROWS, embeddings_initializer="ones")
    layer.build()
    assert all((table == 1).all() for table in tables_of(layer).values())
    again = FeatureEmbedding.from_config(layer.get_config())
    again.build()
    assert all((table == 1).all() for table in tables_of(again).values())


def test_a_table_without_a_size_is_refused() -> None:
    with pytest.raises(InputError, match="Missing: 'genres'") as caught:
        FeatureEmbedding(INPUTS, {"user": 6, "item": 8})
    assert caught.value.code == "table-unknown"
    assert "for ['item', 'user']" in str(caught.value)


@pytest.mark.parametrize("rows", [0, -1, True, 2.0, "8"])
def test_a_size_that_is_no_positive_integer_is_refused(rows: Any) -> None:
    with pytest.raises(InputError, match="must be a whole number") as caught:
        FeatureEmbedding(INPUTS, {**ROWS, "item": rows})
    assert caught.value.code == "invalid-table"
    assert f"{rows!r} for table 'item'" in str(caught.value)

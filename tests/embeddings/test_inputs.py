"""The list of inputs that models, bundles and the server share."""

from __future__ import annotations

import msgspec
import pytest

from shortlist.data import Feature, Schema
from shortlist.embeddings.inputs import (
    Input,
    input_width,
    model_inputs,
    owned_by,
    table_dims,
)
from shortlist.errors import InputError

SCHEMA = Schema(
    user_id="user",
    item_id="item",
    features=(
        Feature(name="age", owner="user", kind="numeric"),
        Feature(name="city", owner="user", kind="categorical"),
        Feature(name="genres", owner="item", kind="multi_valued"),
        Feature(name="main", owner="item", kind="categorical", vocabulary="genres"),
        Feature(name="friend", owner="user", kind="categorical", vocabulary="user"),
    ),
)
INPUTS = model_inputs(SCHEMA, embedding_dim=8, feature_dim=3, history_length=5)


def test_ids_come_first_then_the_history_then_the_features_in_schema_order() -> None:
    found = [(i.feature, i.kind, i.owner, i.table, i.dim) for i in INPUTS]
    assert found == [
        ("user_index", "categorical", "user", "user", 8),
        ("item_index", "categorical", "item", "item", 8),
        ("history", "multi_valued", "user", "item", 8),
        ("age", "numeric", "user", None, 1),
        ("city", "categorical", "user", "city", 3),
        ("genres", "multi_valued", "item", "genres", 3),
        ("main", "categorical", "item", "genres", 3),
        ("friend", "categorical", "user", "user", 8),
    ]


def test_buckets_and_hashes_are_categories_and_the_context_stays_out() -> None:
    schema = Schema(
        user_id="user",
        item_id="item",
        features=(
            Feature(name="age", owner="user", kind="bucketized"),
            Feature(name="device", owner="context", kind="categorical"),
            Feature(name="zip", owner="user", kind="categorical", hash_buckets=9),
            Feature(name="hour", owner="context", kind="numeric"),
            Feature(name="words", owner="item", kind="multi_valued", hash_buckets=9),
        ),
    )
    inputs = model_inputs(schema, embedding_dim=8, feature_dim=3, history_length=0)
    assert [(i.feature, i.kind, i.owner, i.table, i.dim) for i in inputs[2:]] == [
        ("age", "categorical", "user", "age", 3),
        ("zip", "categorical", "user", "zip", 3),
        ("words", "multi_valued", "item", "words", 3),
    ]


def test_no_history_is_read_when_its_length_is_zero() -> None:
    inputs = model_inputs(SCHEMA, embedding_dim=8, feature_dim=3, history_length=0)
    assert [i for i in INPUTS if i.feature != "history"] == list(inputs)


def test_owned_by_keeps_the_order() -> None:
    assert [i.feature for i in owned_by(INPUTS, "user")] == [
        *("user_index", "history", "age", "city", "friend")
    ]
    assert [i.feature for i in owned_by(INPUTS, "item")] == [
        *("item_index", "genres", "main")
    ]


def test_input_width_counts_the_columns() -> None:
    assert input_width(INPUTS) == 8 + 8 + 8 + 1 + 3 + 3 + 3 + 8
    assert input_width(()) == 0


def test_table_dims_name_each_table_once() -> None:
    assert table_dims(INPUTS) == {"user": 8, "item": 8, "city": 3, "genres": 3}


@pytest.mark.parametrize("dim", [0, -4, True, 2.5])
def test_a_width_below_one_is_refused(dim: object) -> None:
    wrong = msgspec.structs.replace(INPUTS[0], dim=dim)
    with pytest.raises(InputError, match="must be a positive integer") as caught:
        table_dims([wrong])
    assert caught.value.code == "invalid-argument"
    assert f"dim={dim!r} for 'user_index'" in str(caught.value)


def test_two_widths_of_one_table_are_refused() -> None:
    wrong = msgspec.structs.replace(INPUTS[6], dim=4)
    with pytest.raises(InputError, match="3 and 4 for table 'genres'") as caught:
        table_dims([*INPUTS[:6], wrong])
    assert caught.value.code == "invalid-argument"


def test_inputs_survive_json_and_refuse_unknown_fields() -> None:
    raw = msgspec.json.encode(INPUTS)
    assert msgspec.json.decode(raw, type=tuple[Input, ...]) == INPUTS
    with pytest.raises(msgspec.ValidationError, match="unknown field `colour`"):
        msgspec.convert({**msgspec.to_builtins(INPUTS[0]), "colour": 1}, Input)

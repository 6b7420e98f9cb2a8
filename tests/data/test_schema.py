"""The schema: what it refuses, its canonical JSON and its fingerprint."""

from __future__ import annotations

import hashlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortlist.data import Feature, Schema
from shortlist.data.schema import RESERVED
from shortlist.errors import InputError

NAMES = st.text(min_size=1, max_size=8).filter(lambda n: n not in RESERVED | {"id"})
FEATURES = st.builds(
    Feature,
    name=NAMES,
    owner=st.sampled_from(["user", "item"]),
    kind=st.sampled_from(["categorical", "multi_valued", "numeric"]),
    vocabulary=st.sampled_from(["", "shared"]),
    separator=st.sampled_from(["|", ";"]),
)
SHOP = {"user_id": "u", "item_id": "i", "timestamp": "t", "label": "r"}
SCHEMAS = st.lists(NAMES, min_size=5, max_size=5, unique=True).flatmap(
    lambda names: st.builds(
        Schema,
        user_id=st.just(names[0]),
        item_id=st.just(names[1]),
        timestamp=st.sampled_from([None, names[2]]),
        label=st.sampled_from([None, names[3]]),
        label_kind=st.sampled_from(["explicit", "implicit", "binary"]),
        positive_from=st.floats(-5, 5),
        label_min=st.sampled_from([None, 0.5]),
        label_max=st.sampled_from([None, 5.0]),
        title=st.sampled_from([None, names[4]]),
        features=st.lists(FEATURES, max_size=3, unique_by=lambda f: f.name).map(tuple),
    )
)


def feature(name: str, **other: object) -> Feature:
    return Feature(name=name, **{"owner": "item", "kind": "categorical", **other})


@given(SCHEMAS)
def test_json_gives_the_same_schema_and_fingerprint_again(schema):
    again = Schema.from_json(schema.to_json())
    assert again == schema
    assert again.fingerprint() == schema.fingerprint()


def test_json_is_canonical_whatever_the_order_of_the_fields():
    raw = b'{"label": "r", "item_id": "i", "user_id": "u"}'
    schema = Schema(user_id="u", item_id="i", label="r")
    assert Schema.from_json(raw).to_json() == schema.to_json()
    keys = list(json.loads(schema.to_json()))
    assert keys == sorted(keys)


def test_fingerprint_is_pinned_and_follows_every_field():
    schema = Schema(user_id="u", item_id="i")
    raw = (
        '{"features":[],"item_id":"i","label":null,"label_kind":"implicit",'
        '"label_max":null,"label_min":null,"positive_from":1.0,"timestamp":null,'
        '"title":null,"user_id":"u"}'
    )
    assert schema.fingerprint() == hashlib.sha256(raw.encode()).hexdigest()[:16]
    others = [
        Schema(user_id="u2", item_id="i"),
        Schema(user_id="u", item_id="i", positive_from=2.0),
        Schema(user_id="u", item_id="i", features=(feature("genre"),)),
        Schema(
            user_id="u",
            item_id="i",
            features=(feature("genre", kind="multi_valued"),),
        ),
    ]
    fingerprints = {s.fingerprint() for s in [schema, *others]}
    assert len(fingerprints) == 1 + len(others)


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_names_of_batch_keys_and_id_tables_are_reserved(name):
    with pytest.raises(InputError, match=f"Received: .*{name}") as caught:
        Schema(user_id="u", item_id="i", features=(feature(name),))
    assert caught.value.code == "schema-name-taken"


def test_feature_names_are_unique_across_owners():
    features = (feature("tag"), feature("tag", owner="user"))
    with pytest.raises(InputError, match=r"must be unique.*\['tag'\]") as caught:
        Schema(user_id="u", item_id="i", features=features)
    assert caught.value.code == "schema-name-taken"


def test_title_cannot_take_the_column_of_the_ids():
    with pytest.raises(InputError, match="title must not be 'id'") as caught:
        Schema(user_id="u", item_id="i", title="id")
    assert caught.value.code == "schema-name-taken"


@pytest.mark.parametrize(
    "columns",
    [
        {"user_id": "a", "item_id": "a"},
        {"user_id": "u", "item_id": "a", "timestamp": "a"},
        {"user_id": "u", "item_id": "i", "timestamp": "a", "label": "a"},
    ],
)
def test_one_column_cannot_play_two_roles(columns):
    with pytest.raises(InputError, match=r"different columns.*\['a'\]") as caught:
        Schema(**columns)
    assert caught.value.code == "schema-column-twice"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'{"item_id": "i"}', "user_id"),
        (b'{"user_id": "u", "item_id": "i", "extra": 1}', "extra"),
        (b'{"user_id": "u", "item_id": "i", "label_kind": "stars"}', "stars"),
        (b'{"user_id": "u", "item_id": 7}', r"\$\.item_id"),
        (b'{"user_id": "u", "item_id": "u"}', "different columns"),
    ],
)
def test_json_of_no_schema_is_refused(raw, words):
    with pytest.raises(msgspec.ValidationError, match=words):
        Schema.from_json(raw)


def test_feature_looks_up_its_own_table_unless_it_shares_one():
    assert feature("genre").table == "genre"
    assert feature("genre", vocabulary="tags").table == "tags"


def test_features_of_an_owner_keep_the_order_of_the_schema():
    named = [("b", "item"), ("a", "user"), ("c", "item")]
    features = tuple(feature(name, owner=owner) for name, owner in named)
    schema = Schema(user_id="u", item_id="i", features=features)
    assert [f.name for f in schema.owned_by("item")] == ["b", "c"]
    assert [f.name for f in schema.owned_by("user")] == ["a"]


def test_fields_that_came_later_stay_out_of_the_json_while_they_have_their_default():
    plain = json.loads(Schema(**SHOP, features=(feature("genre"),)).to_json())
    assert sorted(plain) == sorted(
        ["features", "item_id", "label", "label_kind", "label_max", "label_min"]
        + ["positive_from", "timestamp", "title", "user_id"]
    )
    assert plain["features"] == [
        {
            "kind": "categorical",
            "name": "genre",
            "owner": "item",
            "separator": "|",
            "vocabulary": "",
        }
    ]


NEW_FEATURES = [
    feature("x", min_count=2),
    feature("x", max_size=3),
    feature("x", oov_buckets=4),
    feature("x", hash_buckets=5),
    feature("x", kind="numeric", transform="log"),
    feature("x", kind="bucketized", boundaries=(1.0, 2.0)),
    feature("x", kind="bucketized", num_buckets=3),
    feature("x", kind="multi_valued", max_length=2),
    feature("x", owner="context"),
]
NEW_SCHEMAS = [
    Schema(**SHOP, **fields)
    for fields in (
        {"user_min_count": 2},
        {"user_max_size": 9},
        {"item_min_count": 2},
        {"item_max_size": 9},
        {"weight": "log"},
        {"weight": "linear", "weight_alpha": 40.0},
        {"session_gap_minutes": 30.0},
    )
] + [Schema(**SHOP, features=(one,)) for one in NEW_FEATURES]


@pytest.mark.parametrize("schema", NEW_SCHEMAS, ids=str)
def test_every_later_field_survives_json_and_changes_the_fingerprint(schema):
    again = Schema.from_json(schema.to_json())
    assert again == schema
    assert again.fingerprint() == schema.fingerprint()
    others = {one.fingerprint() for one in NEW_SCHEMAS if one != schema}
    assert schema.fingerprint() not in others | {Schema(**SHOP).fingerprint()}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "numeric", "min_count": 2}, r"\['min_count'\] belong to categorical"),
        ({"kind": "bucketized", "oov_buckets": 2}, "oov_buckets.*is bucketized"),
        ({"kind": "numeric", "hash_buckets": 9}, "hash_buckets.*is numeric"),
        ({"max_length": 3}, "max_length.*belong to multi_valued"),
        ({"transform": "log"}, "transform.*belong to numeric features"),
        ({"kind": "bucketized", "transform": "log"}, "transform"),
        ({"boundaries": (1.0,)}, "boundaries.*belong to bucketized"),
        ({"kind": "numeric", "num_buckets": 3}, "num_buckets.*belong to bucketized"),
        (
            {"kind": "bucketized", "boundaries": (1.0,), "num_buckets": 3},
            "num_buckets.*fitted boundaries only",
        ),
        ({"kind": "bucketized", "vocabulary": "y"}, "vocabulary.*not shared"),
        ({"hash_buckets": 9, "max_size": 3}, "max_size.*hash_buckets has none"),
    ],
)
def test_fields_of_another_kind_of_feature_are_refused(fields, words):
    with pytest.raises(InputError, match=words) as caught:
        feature("x", **fields)
    assert caught.value.code == "schema-feature-field"
    assert "Remove the fields" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"min_count": 0}, "at least 1. Received: 0"),
        ({"max_size": 0}, "`max_size` of feature 'x'"),
        ({"oov_buckets": 0}, "`oov_buckets`"),
        ({"hash_buckets": -1}, "Received: -1"),
        ({"kind": "multi_valued", "max_length": 0}, "`max_length`"),
        ({"kind": "bucketized", "num_buckets": 1}, "at least 2"),
        ({"kind": "bucketized", "boundaries": (2.0, 1.0)}, r"\[2.0, 1.0\] of 'x'"),
        ({"kind": "bucketized", "boundaries": (1.0, 1.0)}, "each above the one before"),
        ({"kind": "bucketized", "boundaries": (float("nan"),)}, "finite"),
    ],
)
def test_values_out_of_range_are_refused(fields, words):
    with pytest.raises(InputError, match=words) as caught:
        feature("x", **fields)
    assert caught.value.code == "schema-feature-range"


@pytest.mark.parametrize(
    "name", ["user_min_count", "user_max_size", "item_min_count", "item_max_size"]
)
def test_limits_of_the_ids_are_at_least_one(name):
    with pytest.raises(InputError, match=f"`{name}` of the schema") as caught:
        Schema(**SHOP, **{name: 0})
    assert caught.value.code == "schema-feature-range"


@pytest.mark.parametrize(
    "other",
    [
        feature("b", vocabulary="a", min_count=2),
        feature("b", vocabulary="a", max_size=9),
        feature("b", vocabulary="a", oov_buckets=2),
        feature("b", vocabulary="a", hash_buckets=9),
    ],
)
def test_features_of_one_vocabulary_agree_on_its_rows(other):
    with pytest.raises(InputError, match="'a' and 'b', which differ, for 'a'") as e:
        Schema(**SHOP, features=(feature("a"), other))
    assert e.value.code == "schema-vocabulary-shared"
    alike = msgspec.structs.replace(other, name="a", vocabulary="")
    assert Schema(**SHOP, features=(alike, other)).features == (alike, other)


def test_buckets_are_not_shared():
    features = (feature("a", kind="bucketized"), feature("b", vocabulary="a"))
    with pytest.raises(InputError, match="none may be bucketized") as caught:
        Schema(**SHOP, features=features)
    assert caught.value.code == "schema-vocabulary-shared"


@pytest.mark.parametrize("fields", [{"min_count": 2}, {"hash_buckets": 9}])
@pytest.mark.parametrize("table", ["user", "item"])
def test_feature_on_the_table_of_the_ids_leaves_its_limits_alone(table, fields):
    one = feature("friend", vocabulary=table, **fields)
    with pytest.raises(InputError, match=f"{table}_min_count and {table}") as caught:
        Schema(**SHOP, features=(one,))
    assert caught.value.code == "schema-feature-field"


@pytest.mark.parametrize("column", list(SHOP.values()))
def test_context_feature_is_another_column_than_the_roles(column):
    with pytest.raises(InputError, match=rf"context.*Received: \['{column}'\]") as e:
        Schema(**SHOP, features=(feature(column, owner="context"),))
    assert e.value.code == "schema-column-twice"
    assert Schema(**SHOP, features=(feature(column),)).features[0].name == column


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"weight_alpha": 2.0}, "`weight_alpha` belongs to"),
        ({"weight": "log", "label_kind": "explicit"}, "label_kind = 'implicit'"),
        ({"weight": "log", "label": None}, "a label column"),
        ({"weight": "log", "weight_alpha": 0.0}, "above 0. Received: 0.0"),
        ({"weight": "log", "weight_alpha": float("inf")}, "finite"),
        ({"weight": "linear", "positive_from": -1.0}, "`positive_from`.*-1.0"),
    ],
)
def test_weights_without_a_sense_are_refused(fields, words):
    with pytest.raises(InputError, match=words) as caught:
        Schema(**(SHOP | fields))
    assert caught.value.code == "schema-weight"


@pytest.mark.parametrize(
    "fields",
    [
        {"session_gap_minutes": 0.0},
        {"session_gap_minutes": float("nan")},
        {"session_gap_minutes": 30.0, "timestamp": None},
    ],
)
def test_sessions_need_a_gap_and_a_time(fields):
    with pytest.raises(InputError, match="`session_gap_minutes` must") as caught:
        Schema(**(SHOP | fields))
    assert caught.value.code == "schema-session-gap"


def test_stored_tables_are_the_ids_and_the_vocabularies_of_all_owners():
    schema = Schema(
        **SHOP,
        item_min_count=3,
        user_max_size=7,
        features=(
            feature("b", vocabulary="tags", oov_buckets=2),
            feature("tags", oov_buckets=2, owner="user"),
            feature("h", hash_buckets=9),
            feature("n", kind="numeric"),
            feature("q", kind="bucketized"),
            feature("device", owner="context", max_size=5),
            feature("friend", vocabulary="user"),
        ),
    )
    assert schema.stored_tables == ("user", "item", "tags", "device")
    limits = {t: schema.limits(t) for t in schema.stored_tables}
    assert {t: (v.min_count, v.max_size, v.oov_buckets) for t, v in limits.items()} == {
        "user": (1, 7, 1),
        "item": (3, None, 1),
        "tags": (1, None, 2),
        "device": (1, 5, 1),
    }
    assert [f.name for f in schema.features if f.is_looked_up] == [
        *("b", "tags", "h", "q", "device", "friend")
    ]
    assert [f.name for f in schema.features if f.is_hashed] == ["h"]
    assert [f.name for f in schema.features if f.is_number] == ["n", "q"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"label_kind": "implicit"}, True),
        ({"label_kind": "implicit", "label": None}, False),
        ({"label_kind": "binary"}, True),
        ({"label_kind": "explicit"}, False),
    ],
)
def test_threshold_tells_what_was_taken_unless_all_of_it_was(fields, expected):
    assert Schema(**(SHOP | fields)).is_thresholded is expected

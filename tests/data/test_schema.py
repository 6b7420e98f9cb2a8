"""The schema: what it refuses, its canonical JSON and its fingerprint."""

from __future__ import annotations

import hashlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortlist.data.schema import RESERVED, Feature, Schema
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


def feature(name: str, **other: str) -> Feature:
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
    with pytest.raises(InputError, match="title not 'id'") as caught:
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

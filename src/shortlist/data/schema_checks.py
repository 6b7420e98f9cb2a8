"""What a schema refuses: fields that do not fit the kind, names and limits that clash.

Called by the structs of `schema.py` when they are made; knows no values.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from shortlist.errors import InputError

if TYPE_CHECKING:
    from shortlist.data.schema import Feature, Schema

_VOCABULARY = {"min_count": 1, "max_size": None, "oov_buckets": 1}
_BUCKETS: dict[str, Any] = {"boundaries": (), "num_buckets": 10}
# Fields by what they need, with their defaults.
_LOOKED_UP = {**_VOCABULARY, "hash_buckets": None}
_MULTI_VALUED = {"max_length": None}
_NUMERIC = {"transform": "standardize"}
_ID_TABLES = ("user", "item")


def check_feature(feature: Feature) -> None:
    """Raises `InputError` unless the fields of a feature fit its kind and range."""
    kind = feature.kind
    is_looked_up = kind in ("categorical", "multi_valued")
    for fields, fits, kinds in (
        (_LOOKED_UP, is_looked_up, "categorical and multi_valued features"),
        (_MULTI_VALUED, kind == "multi_valued", "multi_valued features"),
        (_NUMERIC, kind == "numeric", "numeric features"),
        (_BUCKETS, kind == "bucketized", "bucketized features"),
    ):
        if not fits:
            _refuse_fields(feature, fields, f"belong to {kinds}; this one is {kind}")
    if feature.hash_buckets is not None:
        why = "limit a vocabulary, and hash_buckets does without one"
        _refuse_fields(feature, _VOCABULARY, why)
    if feature.owner == "context":
        why = "belongs to user and item features; a context feature is always there"
        _refuse_fields(feature, {"from_log": False}, why)
    if feature.boundaries:
        _refuse_fields(feature, {"num_buckets": 10}, "is for fitted boundaries only")
    if kind == "bucketized" and feature.vocabulary not in ("", feature.name):
        why = "cannot be shared by a bucketized feature: its buckets are its own"
        _refuse_fields(feature, {"vocabulary": ""}, why)
    for name in ("min_count", "max_size", "oov_buckets", "hash_buckets", "max_length"):
        _check_at_least(1, name, getattr(feature, name), f"feature {feature.name!r}")
    _check_at_least(2, "num_buckets", feature.num_buckets, f"feature {feature.name!r}")
    _check_boundaries(feature)


def check_schema(schema: Schema, reserved: Collection[str], prefix: str) -> None:
    """Raises `InputError` unless the columns of a schema fit together."""
    _check_names(schema, reserved, prefix)
    _check_roles(schema)
    for name in ("user_min_count", "user_max_size", "item_min_count", "item_max_size"):
        _check_at_least(1, name, getattr(schema, name), "the schema")
    _check_shared(schema)
    _check_weight(schema)
    _check_sessions(schema)


def _check_names(schema: Schema, reserved: Collection[str], prefix: str) -> None:
    names = [feature.name for feature in schema.features]
    taken = {n for n in names if names.count(n) > 1 or n in reserved}
    taken |= {n for n in names if n.startswith(prefix)}
    taken |= {"id"} & {schema.title}  # the items are stored beside their ids
    if taken:
        raise InputError(
            "schema-name-taken",
            f"Feature names must be unique, none of {sorted(reserved)}, not begin with"
            f" {prefix!r}, and the title must not be 'id'. Received: {sorted(taken)}."
            " Rename the columns.",
        )


def _check_roles(schema: Schema) -> None:
    roles = [schema.user_id, schema.item_id, schema.timestamp, schema.label]
    twice = {name for name in roles if name and roles.count(name) > 1}
    if twice:
        raise InputError(
            "schema-column-twice",
            "User, item, timestamp and label must be different columns. Received:"
            f" {sorted(twice)} more than once. Name one column for each.",
        )
    of_log = {f.name for f in schema.features if f.owner == "context" or f.from_log}
    if both := of_log & set(roles):
        raise InputError(
            "schema-column-twice",
            "A context feature, and one with from_log, must be another column than"
            f" user, item, timestamp and label. Received: {sorted(both)}. Copy the"
            " column under another name.",
        )
    if schema.title_from_log and schema.title is None:
        raise InputError(
            "schema-title",
            "`title_from_log` must come with `title`, the column of the log. Received"
            " no title. Name it, or remove title_from_log.",
        )
    if any(f.name == schema.title and _apart(schema, f) for f in schema.features):
        raise InputError(
            "schema-title",
            "A title that is also a feature must come from the items file, and so must"
            f" the feature. Received: {schema.title!r}. Remove the feature, or copy the"
            " column under another name.",
        )


def _apart(schema: Schema, feature: Feature) -> bool:
    """Whether a feature of the title's name is another column than the title."""
    return feature.owner == "item" and (feature.from_log or schema.title_from_log)


def _check_shared(schema: Schema) -> None:
    """Features of one table must want the same rows of it."""
    looked_up = [f for f in schema.features if f.kind != "numeric"]
    first: dict[str, Feature] = {}
    for feature in looked_up:
        if feature.table in _ID_TABLES:
            why = (
                f"are set for the ids themselves, as {feature.table}_min_count and"
                f" {feature.table}_max_size, where a feature shares their table"
            )
            _refuse_fields(feature, _LOOKED_UP, why)
        other = first.setdefault(feature.table, feature)
        if _rows_wanted(feature) != _rows_wanted(other):
            raise InputError(
                "schema-vocabulary-shared",
                f"Features that share a vocabulary must agree on {[*_LOOKED_UP]}, and"
                f" none be bucketized. Received: {other.name!r} and {feature.name!r},"
                f" which differ, for {feature.table!r}. Set the same, or give them"
                " vocabularies of their own.",
            )


def _rows_wanted(feature: Feature) -> tuple[object, ...]:
    # A bucketized feature agrees with none but itself.
    own = feature.name if feature.kind == "bucketized" else None
    return (own, *(getattr(feature, name) for name in _LOOKED_UP))


def _check_weight(schema: Schema) -> None:
    if schema.weight == "none":
        if schema.weight_alpha != 1.0:
            raise InputError(
                "schema-weight",
                "`weight_alpha` belongs to weight = 'linear' or 'log'. Received:"
                f" weight_alpha={schema.weight_alpha!r} and weight = 'none'. Remove it"
                " or set the weight.",
            )
        return
    if schema.label_kind != "implicit" or schema.label is None:
        raise InputError(
            "schema-weight",
            "`weight` must come with label_kind = 'implicit' and a label column, such"
            f" as a number of plays. Received: weight={schema.weight!r} with"
            f" label_kind={schema.label_kind!r} and label={schema.label!r}. Remove it"
            " or change them.",
        )
    if not (math.isfinite(schema.weight_alpha) and schema.weight_alpha > 0):
        raise InputError(
            "schema-weight",
            "`weight_alpha` must be a finite number above 0. Received:"
            f" {schema.weight_alpha!r}. Set 1, or more for surer events.",
        )
    if schema.positive_from < 0:
        raise InputError(
            "schema-weight",
            "`positive_from` must be at least 0 with a weight, which would not be"
            f" positive else. Received: {schema.positive_from!r}. Raise it.",
        )


def _check_sessions(schema: Schema) -> None:
    gap = schema.session_gap_minutes
    if gap is None:
        return
    if schema.timestamp is None or not (math.isfinite(gap) and gap > 0):
        raise InputError(
            "schema-session-gap",
            "`session_gap_minutes` must be a finite number above 0, of a log with a"
            f" timestamp. Received: {gap!r} with timestamp={schema.timestamp!r}."
            " Remove it, or name the time column.",
        )


def _check_boundaries(feature: Feature) -> None:
    pairs = itertools.pairwise(feature.boundaries)
    finite = all(math.isfinite(b) for b in feature.boundaries)
    if not finite or any(low >= high for low, high in pairs):
        raise InputError(
            "schema-feature-range",
            "`boundaries` of a feature must be finite numbers, each above the one"
            f" before. Received: {list(feature.boundaries)} of {feature.name!r}. Sort"
            " them and leave repeats out.",
        )


def _check_at_least(low: int, name: str, value: int | None, place: str) -> None:
    if value is not None and value < low:
        raise InputError(
            "schema-feature-range",
            f"`{name}` of {place} must be at least {low}. Received: {value!r}. Raise"
            " it or leave it out.",
        )


def _refuse_fields(feature: Feature, defaults: dict[str, Any], why: str) -> None:
    changed = [
        name for name, value in defaults.items() if getattr(feature, name) != value
    ]
    if changed:
        raise InputError(
            "schema-feature-field",
            f"Every field of a feature must fit it: {changed} {why}. Received:"
            f" {feature.name!r} with them. Remove the fields or change the kind.",
        )

"""What the columns are. A `Schema` is stored with every dataset, run and bundle.

Knows names and limits, and which of them fit together; knows no values.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, Literal

import msgspec

from shortlist.data.feature import (
    CONTEXT,
    ITEM,
    LOOKED_UP_FIELDS,
    USER,
    Feature,
    Kind,
    Limits,
    Owner,
    check_at_least,
    refuse_fields,
)
from shortlist.errors import InputError

__all__ = [
    "CONTEXT",
    "FEATURE_PREFIX",
    "Feature",
    "HISTORY",
    "ITEM",
    "Kind",
    "LabelKind",
    "Limits",
    "NEGATIVE_PREFIX",
    "Owner",
    "RESERVED",
    "Schema",
    "USER",
    "Weight",
]

LabelKind = Literal["explicit", "implicit", "binary"]
Weight = Literal["none", "linear", "log"]

HISTORY = "history"
FEATURE_PREFIX = "feature:"
"""Begins the name of a stored column of a feature."""
# Keys of a batch, and the tables of the ids.
RESERVED = frozenset(
    {"user_index", "item_index", "label", "sample_weight", "sampling_probability"}
    | {HISTORY, USER, ITEM}
)
NEGATIVE_PREFIX = "negative_"
"""Begins the keys of a batch that describe sampled negatives."""


class Schema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The columns of a log and what they mean.

    Ids of users and items are never hashed: the server excludes items and names its
    answers by row, so a row must be one item. Row 0 is for all unknown ids.

    Args:
        user_id: column of the user's external id.
        item_id: column of the item's external id.
        timestamp: column of the event time, or `None` when the log has no time.
        label: column of the rating or click, or `None` when every event counts 1.
        label_kind: `explicit` (a rating), `binary` (0 or 1) or `implicit` (any event).
        positive_from: smallest label that counts as a positive for AUC and samples;
            with `implicit`, events of a smaller label are left out.
        label_min: smallest label allowed, or `None`.
        label_max: largest label allowed, or `None`.
        features: user, item and context features.
        title: item column shown to people, or `None`.
        user_min_count: users with fewer events are out-of-vocabulary.
        user_max_size: most users to keep, those with the most events first.
        item_min_count: items with fewer events are out-of-vocabulary.
        item_max_size: most items to keep, those with the most events first.
        weight: confidence of an implicit event with label r: `linear`, 1 + alpha * r;
            `log`, 1 + alpha * log(1 + r); `none`, all alike. Hu, Koren, Volinsky
            (2008), Collaborative Filtering for Implicit Feedback Datasets.
        weight_alpha: alpha of that.
        session_gap_minutes: events of one user further apart than this belong to
            different sessions; `None` for no sessions. Appended days start new ones.
        title_from_log: the title is a column of the log instead of the items file.

    Raises:
        InputError: names, limits or weights that do not fit together; the code begins
            with `schema-`.
    """

    user_id: str
    item_id: str
    timestamp: str | None = None
    label: str | None = None
    label_kind: LabelKind = "implicit"
    positive_from: float = 1.0
    label_min: float | None = None
    label_max: float | None = None
    features: tuple[Feature, ...] = ()
    title: str | None = None
    user_min_count: int = 1
    user_max_size: int | None = None
    item_min_count: int = 1
    item_max_size: int | None = None
    weight: Weight = "none"
    weight_alpha: float = 1.0
    session_gap_minutes: float | None = None
    title_from_log: bool = False

    def __post_init__(self) -> None:
        _check_schema(self)

    def owned_by(self, owner: Owner) -> tuple[Feature, ...]:
        """The features of one owner, in schema order."""
        return tuple(f for f in self.features if f.owner == owner)

    @property
    def log_features(self) -> tuple[Feature, ...]:
        """The features that are columns of the log, in schema order."""
        return tuple(f for f in self.features if f.owner == CONTEXT or f.from_log)

    @property
    def log_title(self) -> str | None:
        """The title, where it is a column of the log."""
        return self.title if self.title_from_log else None

    @property
    def log_attributes(self) -> Schema:
        """The same schema with the attributes that the log holds, and no others."""
        features = tuple(f for f in self.features if f.from_log)
        return msgspec.structs.replace(self, features=features, title=self.log_title)

    @property
    def file_attributes(self) -> Schema:
        """The same schema with the attributes that come from files, and no others."""
        features = (f for f in self.features if f.owner != CONTEXT and not f.from_log)
        title = None if self.title_from_log else self.title
        return msgspec.structs.replace(
            self, features=tuple(features), title=title, title_from_log=False
        )

    @property
    def stored_tables(self) -> tuple[str, ...]:
        """Names of the vocabularies: `user`, `item`, then those of the features."""
        named = (f.table for f in self.features if f.has_vocabulary)
        return tuple(dict.fromkeys((USER, ITEM, *named)))

    def limits(self, table: str) -> Limits:
        """The limits of one of `stored_tables`."""
        if table == USER:
            return Limits(min_count=self.user_min_count, max_size=self.user_max_size)
        if table == ITEM:
            return Limits(min_count=self.item_min_count, max_size=self.item_max_size)
        return next(
            f.limits for f in self.features if f.has_vocabulary and f.table == table
        )

    @property
    def is_thresholded(self) -> bool:
        """Whether an event below `positive_from` is not an interaction."""
        implicit = self.label_kind == "implicit" and self.label is not None
        return implicit or self.label_kind == "binary"

    def to_json(self) -> bytes:
        """The schema as canonical JSON.

        Fields added after the first format are left out at their default, so that
        the fingerprint of an old schema does not change.
        """
        features = [_written(f, _FIRST_FEATURE_FIELDS) for f in self.features]
        written = _written(self, _FIRST_SCHEMA_FIELDS) | {"features": features}
        return msgspec.json.encode(written, order="sorted")

    @classmethod
    def from_json(cls, raw: bytes) -> Schema:
        """Reads what `to_json` wrote; raises `msgspec.ValidationError`."""
        return msgspec.json.decode(raw, type=cls)

    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.to_json()).hexdigest()[:16]


# Fields of the first format, written whatever their value.
_FIRST_FEATURE_FIELDS = frozenset({"name", "owner", "kind", "vocabulary", "separator"})
_FIRST_SCHEMA_FIELDS = frozenset(
    {"user_id", "item_id", "timestamp", "label", "label_kind", "positive_from"}
    | {"label_min", "label_max", "features", "title"}
)


def _written(struct: msgspec.Struct, always: frozenset[str]) -> dict[str, Any]:
    return {
        field.name: value
        for field in msgspec.structs.fields(struct)
        if (value := getattr(struct, field.name)) != field.default
        or field.name in always
    }


def _check_schema(schema: Schema) -> None:
    """Raises `InputError` unless the columns of a schema fit together."""
    _check_names(schema)
    _check_roles(schema)
    for name in ("user_min_count", "user_max_size", "item_min_count", "item_max_size"):
        check_at_least(1, name, getattr(schema, name), "the schema")
    _check_shared(schema)
    _check_weight(schema)
    _check_sessions(schema)


def _check_names(schema: Schema) -> None:
    names = [feature.name for feature in schema.features]
    refused = {n for n in names if names.count(n) > 1 or n in RESERVED}
    refused |= {n for n in names if n.startswith(NEGATIVE_PREFIX)}
    refused |= {"id"} & {schema.title}  # the items are stored with their ids
    if refused:
        raise InputError(
            "schema-name-taken",
            f"Feature names must be unique, none of {sorted(RESERVED)}, not begin with"
            f" {NEGATIVE_PREFIX!r}, and the title must not be 'id'. Received:"
            f" {sorted(refused)}. Rename the columns.",
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
            "A context feature, or one with from_log, must not be the column of the"
            f" user, item, timestamp or label. Received: {sorted(both)}. Copy the"
            " column under another name.",
        )
    if schema.title_from_log and schema.title is None:
        raise InputError(
            "schema-title",
            "`title_from_log` needs `title`, the column of the log. Received: no"
            " title. Name it, or remove title_from_log.",
        )
    if any(
        f.name == schema.title and _differs_from_title(schema, f)
        for f in schema.features
    ):
        raise InputError(
            "schema-title",
            "A title that is also a feature must come from the items file, and so must"
            f" the feature. Received: {schema.title!r}. Remove the feature, or copy the"
            " column under another name.",
        )


def _differs_from_title(schema: Schema, feature: Feature) -> bool:
    """Whether an item feature with the title's name is another column."""
    return feature.owner == "item" and (feature.from_log or schema.title_from_log)


def _check_shared(schema: Schema) -> None:
    """Features that share a table must have the same limits."""
    looked_up = [f for f in schema.features if f.kind != "numeric"]
    first: dict[str, Feature] = {}
    for feature in looked_up:
        if feature.table in (USER, ITEM):
            why = (
                f"are set for the ids themselves, as {feature.table}_min_count and"
                f" {feature.table}_max_size, where a feature shares their table"
            )
            refuse_fields(feature, LOOKED_UP_FIELDS, why)
        other = first.setdefault(feature.table, feature)
        if _limits_of(feature) != _limits_of(other):
            raise InputError(
                "schema-vocabulary-shared",
                f"Features that share a vocabulary must agree on {[*LOOKED_UP_FIELDS]},"
                f" and none may be bucketized. Received: {other.name!r} and"
                f" {feature.name!r}, which differ, for {feature.table!r}. Set the same"
                " values, or give each its own vocabulary.",
            )


def _limits_of(feature: Feature) -> tuple[object, ...]:
    # A bucketized feature agrees with none but itself.
    own = feature.name if feature.kind == "bucketized" else None
    return (own, *(getattr(feature, name) for name in LOOKED_UP_FIELDS))


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
            "`weight` needs label_kind = 'implicit' and a label column, such as a"
            f" number of plays. Received: weight={schema.weight!r} with"
            f" label_kind={schema.label_kind!r} and label={schema.label!r}. Remove it"
            " or change them.",
        )
    if not (math.isfinite(schema.weight_alpha) and schema.weight_alpha > 0):
        raise InputError(
            "schema-weight",
            "`weight_alpha` must be a finite number above 0. Received:"
            f" {schema.weight_alpha!r}. Set 1, or more for more confidence.",
        )
    if schema.positive_from < 0:
        raise InputError(
            "schema-weight",
            "`positive_from` must be at least 0 with a weight, so that every weight is"
            f" positive. Received: {schema.positive_from!r}. Raise it.",
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

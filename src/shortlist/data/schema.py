"""What the columns are. A `Schema` travels with every dataset, run and bundle.

Knows names, kinds and limits, and which of them fit together. Knows no values: what is
fitted on them is in `vocabulary.py` and `numbers.py`.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final, Literal

import msgspec

from shortlist.data.schema_checks import check_feature, check_schema

Kind = Literal["categorical", "multi_valued", "numeric", "bucketized"]
Owner = Literal["user", "item", "context"]
Transform = Literal["standardize", "log", "quantile", "none"]
LabelKind = Literal["explicit", "implicit", "binary"]
Weight = Literal["none", "linear", "log"]

USER: Final = "user"
ITEM: Final = "item"
CONTEXT: Final = "context"
HISTORY = "history"
FEATURE_PREFIX = "feature:"
"""Begins the name of a stored column of a feature."""
# Keys of a batch, and the tables of the ids.
RESERVED = frozenset(
    {"user_index", "item_index", "label", "sample_weight", "sampling_probability"}
    | {HISTORY, USER, ITEM}
)
NEGATIVE_PREFIX = "negative_"
"""Begins the keys of a batch that describe drawn items."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Which values a vocabulary keeps, and where the others go.

    Args:
        min_count: rarer values are out-of-vocabulary.
        max_size: only so many values are kept, the most frequent ones; or `None`.
        oov_buckets: rows 0 to n - 1 that stand for values outside the vocabulary.
    """

    min_count: int = 1
    max_size: int | None = None
    oov_buckets: int = 1


class Feature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input column beside the ids.

    Args:
        name: column name in the file; also its key in a batch.
        owner: what it describes. `user` and `item` features come from the attribute
            file of that owner, or from the log, and are stored once per id; a `context`
            feature is a column of the log and is stored with each event.
        kind: `categorical` (one row), `multi_valued` (a list of rows), `numeric`
            (float32) or `bucketized` (a number as the row of its bucket).
        vocabulary: vocabulary and embedding table it looks up; its own name
            unless shared. Unused for numeric features.
        separator: splits a text column into the values of a multi-valued feature.
        min_count: values rarer than this in training are out-of-vocabulary.
        max_size: only the most frequent values are kept, so many.
        oov_buckets: rows 0 to n - 1 stand for values outside the vocabulary: row 0 also
            for a missing value, and an unknown value goes to row hash % n. The values
            of the vocabulary follow from row n on.
        hash_buckets: no vocabulary: a value goes to row 1 + hash % n; row 0 is a
            missing value.
        transform: of a numeric feature. `standardize`: zero mean and unit deviation;
            `log`: the same of sign(x) * log1p(|x|); `quantile`: the share of training
            values below; `none`: as it is.
        boundaries: of a bucketized feature: bucket i holds the numbers from boundary i
            to below boundary i + 1. Fitted on training values when empty.
        num_buckets: how many buckets of equal share are fitted without boundaries;
            fewer where values repeat.
        max_length: the first so many values of a multi-valued feature are kept.
        from_log: a user or item feature is a column of the log instead of the attribute
            file. Each id has the newest value in the log that is not missing.

    Raises:
        InputError: `schema-feature-field` for a field of another kind of feature,
            `schema-feature-range` for a value out of range.
    """

    name: str
    owner: Owner
    kind: Kind
    vocabulary: str = ""
    separator: str = "|"
    min_count: int = 1
    max_size: int | None = None
    oov_buckets: int = 1
    hash_buckets: int | None = None
    transform: Transform = "standardize"
    boundaries: tuple[float, ...] = ()
    num_buckets: int = 10
    max_length: int | None = None
    from_log: bool = False

    def __post_init__(self) -> None:
        check_feature(self)

    @property
    def table(self) -> str:
        """Name of the vocabulary and table the feature looks up."""
        return self.vocabulary or self.name

    @property
    def is_looked_up(self) -> bool:
        """Whether its values are rows of an embedding table."""
        return self.kind != "numeric"

    @property
    def is_number(self) -> bool:
        """Whether its column must hold numbers."""
        return self.kind in ("numeric", "bucketized")

    @property
    def is_hashed(self) -> bool:
        """Whether its rows are hashes, without a vocabulary."""
        return self.hash_buckets is not None

    @property
    def has_vocabulary(self) -> bool:
        """Whether its rows are those of a stored vocabulary."""
        return self.is_looked_up and not self.is_number and not self.is_hashed

    @property
    def limits(self) -> Limits:
        """The limits of its vocabulary."""
        return Limits(
            min_count=self.min_count,
            max_size=self.max_size,
            oov_buckets=self.oov_buckets,
        )


class Schema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The columns of a log and what they mean.

    The vocabularies of users and items always have one row for all other ids: seen
    items, excluded items and answers are rows, and a row that stood for one of several
    hashed ids could be neither excluded nor named.

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
        user_max_size: only the users with the most events are kept, so many.
        item_min_count: items with fewer events are out-of-vocabulary.
        item_max_size: only the items with the most events are kept, so many.
        weight: confidence of an implicit event with label r: `linear`, 1 + alpha * r;
            `log`, 1 + alpha * log(1 + r); `none`, all alike. Hu, Koren, Volinsky
            (2008), Collaborative Filtering for Implicit Feedback Datasets.
        weight_alpha: alpha of that.
        session_gap_minutes: events of one user further apart than this belong to
            different sessions; `None` for no sessions. Appended days begin anew.
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
        check_schema(self, RESERVED, NEGATIVE_PREFIX)

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
        """Whether an event below `positive_from` is one in which nothing was taken."""
        implicit = self.label_kind == "implicit" and self.label is not None
        return implicit or self.label_kind == "binary"

    def to_json(self) -> bytes:
        """The schema as canonical JSON.

        Fields that came after the first format are left out when they have their
        default, so that the fingerprint of an old schema stays what it was.
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

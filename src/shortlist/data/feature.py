"""An input column besides the ids, and which of its fields fit together.

Knows names, kinds and limits. Knows no values: what is fitted on them is in
`store/vocabulary.py` and `store/numbers.py`.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, Final, Literal

import msgspec

from shortlist.errors import InputError

Kind = Literal["categorical", "multi_valued", "numeric", "bucketized"]
Owner = Literal["user", "item", "context"]
Transform = Literal["standardize", "log", "quantile", "none"]

USER: Final = "user"
ITEM: Final = "item"
CONTEXT: Final = "context"

# Fields by the kind of feature that has them, with their defaults.
_VOCABULARY = {"min_count": 1, "max_size": None, "oov_buckets": 1}
_BUCKETS: dict[str, Any] = {"boundaries": (), "num_buckets": 10}
LOOKED_UP_FIELDS = {**_VOCABULARY, "hash_buckets": None}
_MULTI_VALUED = {"max_length": None}
_NUMERIC = {"transform": "standardize"}


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Which values a vocabulary keeps, and where the others go.

    Args:
        min_count: rarer values are out-of-vocabulary.
        max_size: most values to keep, the most frequent first; `None` for all.
        oov_buckets: rows 0 to n - 1 that stand for values outside the vocabulary.
    """

    min_count: int = 1
    max_size: int | None = None
    oov_buckets: int = 1


class Feature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input column besides the ids.

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
        max_size: most values to keep, the most frequent first; `None` for all.
        oov_buckets: rows 0 to n - 1 stand for values outside the vocabulary: row 0 also
            for a missing value, and an unknown value goes to row hash % n. The values
            of the vocabulary follow from row n on.
        hash_buckets: without a vocabulary a value goes to row 1 + hash % n; row 0 is
            a missing value.
        transform: of a numeric feature. `standardize`: zero mean and unit deviation;
            `log`: the same of sign(x) * log1p(|x|); `quantile`: the share of training
            values below; `none`: as it is.
        boundaries: of a bucketized feature: bucket i holds the numbers from boundary i
            to below boundary i + 1. Fitted on training values when empty.
        num_buckets: without boundaries, how many buckets with equally many training
            values are fitted; fewer where values repeat.
        max_length: most values to keep of a multi-valued feature, from the first on.
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
        _check_feature(self)

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


def _check_feature(feature: Feature) -> None:
    """Raises `InputError` unless the fields of a feature fit its kind and range."""
    kind = feature.kind
    is_looked_up = kind in ("categorical", "multi_valued")
    for fields, fits, kinds in (
        (LOOKED_UP_FIELDS, is_looked_up, "categorical and multi_valued features"),
        (_MULTI_VALUED, kind == "multi_valued", "multi_valued features"),
        (_NUMERIC, kind == "numeric", "numeric features"),
        (_BUCKETS, kind == "bucketized", "bucketized features"),
    ):
        if not fits:
            refuse_fields(feature, fields, f"belong to {kinds}; this one is {kind}")
    if feature.hash_buckets is not None:
        why = "limit a vocabulary; a feature with hash_buckets has none"
        refuse_fields(feature, _VOCABULARY, why)
    if feature.owner == "context":
        why = (
            "belongs to user and item features; a context feature is always in the log"
        )
        refuse_fields(feature, {"from_log": False}, why)
    if feature.boundaries:
        refuse_fields(feature, {"num_buckets": 10}, "is for fitted boundaries only")
    if kind == "bucketized" and feature.vocabulary not in ("", feature.name):
        why = "cannot be set for a bucketized feature: its buckets are not shared"
        refuse_fields(feature, {"vocabulary": ""}, why)
    for name in ("min_count", "max_size", "oov_buckets", "hash_buckets", "max_length"):
        check_at_least(1, name, getattr(feature, name), f"feature {feature.name!r}")
    check_at_least(2, "num_buckets", feature.num_buckets, f"feature {feature.name!r}")
    _check_boundaries(feature)


def _check_boundaries(feature: Feature) -> None:
    pairs = itertools.pairwise(feature.boundaries)
    finite = all(math.isfinite(b) for b in feature.boundaries)
    if not finite or any(low >= high for low, high in pairs):
        raise InputError(
            "schema-feature-range",
            "`boundaries` of a feature must be finite numbers, each above the one"
            f" before. Received: {list(feature.boundaries)} of {feature.name!r}. Sort"
            " them and remove repeats.",
        )


def check_at_least(low: int, name: str, value: int | None, place: str) -> None:
    """Raises `InputError` (`schema-feature-range`) if a number of `place` is below."""
    if value is not None and value < low:
        raise InputError(
            "schema-feature-range",
            f"`{name}` of {place} must be at least {low}. Received: {value!r}. Raise"
            " it or leave it out.",
        )


def refuse_fields(feature: Feature, defaults: dict[str, Any], why: str) -> None:
    """Raises `InputError` (`schema-feature-field`) unless fields have their default."""
    changed = [
        name for name, value in defaults.items() if getattr(feature, name) != value
    ]
    if changed:
        raise InputError(
            "schema-feature-field",
            f"Every field of a feature must fit its kind: {changed} {why}. Received:"
            f" feature {feature.name!r} with them. Remove the fields or change the"
            " kind.",
        )

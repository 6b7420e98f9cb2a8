"""What the columns are. A `Schema` travels with every dataset, run and bundle."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from shortlist.errors import InputError

Kind = Literal["categorical", "multi_valued", "numeric"]
Owner = Literal["user", "item"]
LabelKind = Literal["explicit", "implicit", "binary"]

USER = "user"
ITEM = "item"
HISTORY = "history"
# Keys of a batch, and the tables of the ids.
RESERVED = frozenset(
    {"user_index", "item_index", "label", "sampling_probability", HISTORY, USER, ITEM}
)


class Feature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input column beside the ids.

    Args:
        name: column name in the file; also its key in a batch.
        owner: whether it describes the user or the item; it comes from the attribute
            file of that owner and is stored once per id.
        kind: `categorical` (one row), `multi_valued` (a list of rows) or
            `numeric` (float32, standardized over the known ids).
        vocabulary: vocabulary and embedding table it looks up; its own name
            unless shared. Unused for numeric features.
        separator: splits a text column into the values of a multi-valued feature.
    """

    name: str
    owner: Owner
    kind: Kind
    vocabulary: str = ""
    separator: str = "|"

    @property
    def table(self) -> str:
        """Name of the vocabulary and table the feature looks up."""
        return self.vocabulary or self.name


class Schema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The columns of a log and what they mean.

    Args:
        user_id: column of the user's external id.
        item_id: column of the item's external id.
        timestamp: column of the event time, or `None` when the log has no time.
        label: column of the rating or click, or `None` when every event counts 1.
        label_kind: `explicit` (a rating), `binary` (0 or 1) or `implicit` (any event).
        positive_from: smallest label that counts as a positive for AUC and samples.
        label_min: smallest label allowed, or `None`.
        label_max: largest label allowed, or `None`.
        features: user and item features.
        title: item column shown to people, or `None`.
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

    def __post_init__(self) -> None:
        names = [feature.name for feature in self.features]
        taken = {n for n in names if names.count(n) > 1 or n in RESERVED}
        taken |= {"id"} & {self.title}  # the items are stored beside their ids
        if taken:
            raise InputError(
                "schema-name-taken",
                f"Feature names must be unique and none of {sorted(RESERVED)}, and the"
                f" title not 'id'. Received: {sorted(taken)}. Rename the columns.",
            )
        roles = [self.user_id, self.item_id, self.timestamp, self.label]
        twice = sorted({name for name in roles if name and roles.count(name) > 1})
        if twice:
            raise InputError(
                "schema-column-twice",
                "User, item, timestamp and label must be different columns. Received:"
                f" {twice} more than once. Name one column for each.",
            )

    def owned_by(self, owner: Owner) -> tuple[Feature, ...]:
        """The features of one owner, in schema order."""
        return tuple(f for f in self.features if f.owner == owner)

    def to_json(self) -> bytes:
        """The schema as canonical JSON."""
        return msgspec.json.encode(self, order="sorted")

    @classmethod
    def from_json(cls, raw: bytes) -> Schema:
        """Reads what `to_json` wrote; raises `msgspec.ValidationError`."""
        return msgspec.json.decode(raw, type=cls)

    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.to_json()).hexdigest()[:16]

"""Bodies of requests and of the answers that are not the recommender's own structs.

The decoder refuses unknown fields, wrong types and lists over their limit; rules that
the recommender holds itself, such as the range of k, are only described here.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from shortlist.serving.recommender import MAX_K
from shortlist.serving.results import ExternalId

MAX_ITEMS = 1000
MAX_EXCLUDED = 10_000
MAX_EVENTS = 1000

UserId = Annotated[
    ExternalId, msgspec.Meta(description="External id of the user; may be unknown.")
]
ItemId = Annotated[ExternalId, msgspec.Meta(description="External id of an item.")]
# The recommender checks k and refuses it with the code invalid-k.
K = Annotated[
    int,
    msgspec.Meta(
        description="Most items to return.",
        extra_json_schema={"minimum": 1, "maximum": MAX_K},
    ),
]


class RecommendRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What should this user see next? Without `user_id`: this visitor.

    `history` (item ids, oldest first) replaces the stored history of the user.
    """

    user_id: UserId | None = None
    k: K = 10
    history: Annotated[list[ItemId], msgspec.Meta(max_length=MAX_ITEMS)] | None = None
    exclude_ids: Annotated[list[ItemId], msgspec.Meta(max_length=MAX_EXCLUDED)] = []
    exclude_seen: (
        Annotated[
            bool,
            msgspec.Meta(
                description="Leave out what the user has seen; by default unless the"
                " bundle was exported with serving.repeats."
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET


class RankRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """In which order would this user like these items?"""

    user_id: UserId
    item_ids: Annotated[list[ItemId], msgspec.Meta(min_length=1, max_length=MAX_ITEMS)]


class EventRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One event; without `timestamp_ms` it happened on arrival."""

    user_id: UserId
    item_id: ItemId
    timestamp_ms: (
        Annotated[int, msgspec.Meta(description="Milliseconds since 1970.")] | None
    ) = None
    label: float | None = None
    event_id: (
        Annotated[
            str,
            msgspec.Meta(
                description="What a retry repeats: events of one id are kept once.",
                extra_json_schema={"pattern": "^[!-~]{1,256}$"},
            ),
        ]
        | None
    ) = None


class EventsRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Several events: all are stored, or none."""

    events: Annotated[
        list[EventRequest], msgspec.Meta(min_length=1, max_length=MAX_EVENTS)
    ]


class EventsAccepted(msgspec.Struct, omit_defaults=True):
    """The events are kept: on the disk, if the server has an events file."""

    accepted: int
    duplicates: Annotated[
        int, msgspec.Meta(description="How many of them were there by their id.")
    ] = 0


class Health(msgspec.Struct):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(msgspec.Struct):
    """The bundle is loaded."""

    name: str
    model_version: str
    num_items: int
    status: Literal["ready"] = "ready"


class RowProblem(msgspec.Struct):
    """What is wrong with one row of a request."""

    row: Annotated[int, msgspec.Meta(description="Position in the list, from 0.")]
    code: str
    detail: str


class Problem(msgspec.Struct, omit_defaults=True):
    """An error as RFC 9457 problem details; `type` ends in a stable code."""

    type: Annotated[str, msgspec.Meta(pattern="^urn:shortlist:error:[a-z0-9-]+$")]
    title: str
    status: int
    detail: str
    errors: list[RowProblem] = []

"""The answers of a recommender. The transports send these structs unchanged."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

ExternalId = str | int
Source = Literal["model", "history", "popular"]


class ScoredItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One item of a list; `title` is omitted if the catalogue has none."""

    item_id: ExternalId
    score: Annotated[float, msgspec.Meta(description="Higher is better.")]
    title: str | None = None


class Recommendations(msgspec.Struct, frozen=True, kw_only=True):
    """A list for one user, best first, without duplicates.

    Args:
        items: at most k; fewer if fewer are left after exclusions.
        source: `model` (a user of the training), `history` (an unknown user, by the
            items given or posted) or `popular`.
        cold_start: the model was not trained on this user.
        model_version: version of the bundle.
        degraded: a part of the model failed and a simpler answer was given.
    """

    items: list[ScoredItem]
    source: Source
    cold_start: bool
    model_version: str
    degraded: bool = False


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """Given items in the order of their scores for one user, best first.

    Args:
        items: the known items, each once.
        unknown_items: ids that the model does not know; they have no score.
        source: as in `Recommendations`.
        cold_start: as in `Recommendations`.
        model_version: version of the bundle.
        degraded: as in `Recommendations`.
    """

    items: list[ScoredItem]
    unknown_items: list[ExternalId]
    source: Source
    cold_start: bool
    model_version: str
    degraded: bool = False


class SimilarItems(msgspec.Struct, frozen=True, kw_only=True):
    """Items similar to one item, best first.

    Args:
        item_id: the item of the request.
        items: the score is a cosine or an item-item weight, or the number of training
            events.
        source: `model`, or `popular` if the model has no similar items.
        model_version: version of the bundle.
    """

    item_id: ExternalId
    items: list[ScoredItem]
    source: Source
    model_version: str

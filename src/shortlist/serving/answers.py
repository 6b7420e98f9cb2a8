"""Where an answer comes from: the model, the model with a history, or popular items.

Every answer falls back here. Knows users and items as rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from shortlist.models.scorers.queries import Queries
from shortlist.models.scorers.scorer import Exclusions
from shortlist.serving.catalogue import Scored
from shortlist.serving.histories import History
from shortlist.serving.model import Model
from shortlist.serving.results import Source


class User(NamedTuple):
    """The user of a request.

    Args:
        row: row of the user; 0 for one outside the vocabulary.
        history: the items to judge by.
        excluded: item rows that the answer must not contain, row 0 among them.
        trained: whether training saw the user.
        source: the source that the answer should have.
    """

    row: int
    history: History
    excluded: np.ndarray
    trained: bool
    source: Source


class Answer(NamedTuple):
    """Scored items, their source, and whether a part of the model failed."""

    scored: Scored
    source: Source
    degraded: bool


def best_source(model: Model | None, trained: bool, history: History) -> Source:
    """The source that the answer for a user should have."""
    if model is None or not (trained or len(history.items)):
        return "popular"
    return "model" if trained else "history"


def is_asked(model: Model | None, user: User) -> bool:
    """Whether the model answers: it may rank items for strangers too."""
    return model is not None and (user.source != "popular" or model.scores_strangers)


def or_popular(
    source: Source, found: Scored | None, popular: Callable[[], Scored]
) -> Answer:
    """The answer of the model, or else popular items.

    Args:
        source: the source that the answer should have.
        found: the answer of the model; `None` if it was not asked or failed.
        popular: the answer without the model.
    """
    if found is None:
        return Answer(popular(), "popular", degraded=source != "popular")
    return Answer(found, source, found.degraded)


def as_queries(users: Sequence[User]) -> Queries:
    """Queries of users with what is known of each at the moment."""
    histories = [user.history for user in users]
    joined = Queries.from_lists(
        [user.row for user in users], [history.items for history in histories]
    )
    times = values = None
    # Unknown times are all the same, and a missing label is NaN.
    if any(history.times is not None for history in histories):
        times = np.concatenate(
            [
                np.zeros(len(h.items), np.int64) if h.times is None else h.times
                for h in histories
            ]
        )
    if any(history.values is not None for history in histories):
        values = np.concatenate(
            [
                np.full(len(h.items), np.nan, np.float32)
                if h.values is None
                else h.values
                for h in histories
            ]
        )
    return Queries(joined.user_index, joined.offsets, joined.items, times, values)


def excluded_of(users: Sequence[User]) -> Exclusions:
    """The items that must not be in the answer of each user."""
    offsets = np.zeros(len(users) + 1, np.int64)
    np.cumsum([len(user.excluded) for user in users], out=offsets[1:])
    return offsets, np.concatenate([user.excluded for user in users])

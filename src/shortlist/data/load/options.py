"""What a training example contains, as one frozen structure.

Knows ranges of values; knows no dataset.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from shortlist.data.load.negatives import Negatives
from shortlist.errors import InputError, did_you_mean

HistoryFrom = Literal["before", "others"]
MOST_SECONDS = 1e10


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleOptions:
    """What `TrainingExamples` puts into a batch.

    Args:
        history_length: width of the history, 0 for none.
        history_parts: parts whose events are in the histories and in the items'
            shares; by default those of the examples.
        session_only: a history starts where the session of the event starts; the
            schema must have `session_gap_minutes`.
        interactions_only: leave out events whose binary label is not positive.
        unknown_rate: share of examples whose user is replaced by row 0, so that the
            out-of-vocabulary row learns to stand for new users.
        negatives: items sampled for each event or batch. With `uniform` or
            `popularity` the event itself has label 1, or with a binary label its own.
        keep_label: with such negatives, add the label of the log as `event_label`.
        history_from: `before` for the items before the event, `others` for all other
            items of the user, which is right only where the parts were not split by
            time.
        history_dropout: chance of an item to be left out of a history, from 0 to
            below 1.
        unknown_within: with `others`, limits the history of a user replaced by row 0
            to items within so many seconds of the event, because new users have short
            histories. No limit by default.

    Raises:
        InputError: `invalid-loader` for a value out of range.
    """

    history_length: int = 0
    history_parts: tuple[str, ...] | None = None
    session_only: bool = False
    interactions_only: bool = False
    unknown_rate: float = 0.0
    negatives: Negatives | None = None
    keep_label: bool = False
    history_from: HistoryFrom = "before"
    history_dropout: float = 0.0
    unknown_within: float | None = None

    def __post_init__(self) -> None:
        length, rate = self.history_length, self.unknown_rate
        if not isinstance(length, int) or length < 0:
            raise InputError(
                "invalid-loader",
                "`history_length` must be an integer of at least 0. Received:"
                f" {length!r}. Set 0 for no history.",
            )
        if not 0 <= rate <= 1:
            raise InputError(
                "invalid-loader",
                f"`unknown_rate` must be from 0 to 1. Received: {rate!r}. Set 0 to"
                " replace no user.",
            )
        _check_history(self)


def _check_history(options: ExampleOptions) -> None:
    kinds, kind = get_args(HistoryFrom), options.history_from
    if kind not in kinds:
        raise InputError(
            "invalid-loader",
            f"`history_from` must be one of {', '.join(kinds)}. Received:"
            f" {kind!r}.{did_you_mean(kind, kinds)}",
        )
    if not 0 <= options.history_dropout < 1:
        raise InputError(
            "invalid-loader",
            "`history_dropout` must be from 0 to below 1. Received:"
            f" {options.history_dropout!r}. Set 0 to keep all items.",
        )
    within = options.unknown_within
    if within is not None and not 0 < within <= MOST_SECONDS:
        raise InputError(
            "invalid-loader",
            f"`unknown_within` must be above 0 and at most {MOST_SECONDS:g} seconds."
            f" Received: {within!r}. Leave it out for whole histories.",
        )
    if kind == "before" and within is not None:
        raise InputError(
            "invalid-loader",
            "`unknown_within` needs history_from='others'. Received:"
            f" {within!r} with 'before'. Leave it out, or set history_from='others'.",
        )
    if kind == "others" and options.session_only:
        raise InputError(
            "invalid-loader",
            "`session_only` needs history_from='before'. Received: True with 'others'."
            " Leave it out, or set unknown_within instead.",
        )

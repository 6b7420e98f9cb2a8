"""The histories of a batch of events, as the options ask for them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from shortlist.data.load.options import ExampleOptions
from shortlist.data.schema import Schema
from shortlist.data.store.history import Histories
from shortlist.errors import InputError

_ANY_DISTANCE = np.iinfo(np.int64).max


class HistoryReader:
    """Reads padded histories.

    Args:
        histories: the items of every user.
        options: length and kind of the histories.
        gap_ms: longest time between two events of a session, with `session_only`.
    """

    def __init__(
        self, histories: Histories, options: ExampleOptions, gap_ms: int | None
    ) -> None:
        self.histories = histories
        self.options = options
        self.gap_ms = gap_ms

    def read(
        self,
        events: Mapping[str, np.ndarray],
        known: np.ndarray,
        generator: np.random.Generator,
    ) -> np.ndarray:
        """The histories of events, `(n, history_length)` int32, padded with -1.

        Args:
            events: `user_index`, `item_index` and `timestamp_ms`, each `(n,)`.
            known: whether the user is kept, not replaced by row 0, `(n,)` bool.
            generator: source of the randomness of dropout.
        """
        options = self.options
        if options.history_from == "before":
            history = self.histories.before(
                events["user_index"],
                events["timestamp_ms"],
                options.history_length,
                gap_ms=self.gap_ms,
            )
        else:
            history = self._others(events, known)
        if options.history_dropout:
            chances = generator.random(history.shape, dtype=np.float32)
            history[chances < options.history_dropout] = -1
        return history

    def _others(
        self, events: Mapping[str, np.ndarray], known: np.ndarray
    ) -> np.ndarray:
        near, within = None, self.options.unknown_within
        if within is not None:
            distance = np.where(known, _ANY_DISTANCE, np.int64(within * 1000))
            near = events["timestamp_ms"], distance
        return self.histories.others(
            events["user_index"],
            events["item_index"],
            self.options.history_length,
            near=near,
        )


def session_gap_ms(schema: Schema) -> int:
    """The session gap of a schema in milliseconds.

    Raises:
        InputError: `invalid-loader` for a schema without one.
    """
    minutes = schema.session_gap_minutes
    if minutes is None:
        raise InputError(
            "invalid-loader",
            "`session_only` needs `session_gap_minutes` in the schema. Received: None."
            " Set it and prepare again, or leave `session_only` out.",
        )
    return round(minutes * 60_000)

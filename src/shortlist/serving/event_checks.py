"""Which events are taken in. Knows the catalogue and the schema, and no store."""

from __future__ import annotations

import math

from shortlist.data.schema import Schema
from shortlist.errors import InputError
from shortlist.serving.catalogue import Catalogue, check_id, shortened
from shortlist.serving.events import Event

_DAY_MS = 24 * 3600 * 1000


def check_event(
    event: Event, catalogue: Catalogue, schema: Schema, *, now_ms: int
) -> None:
    """Raises unless the event may be stored.

    Raises:
        UnknownIdError: the item is not in the catalogue (`unknown-item`). The user may
            be new.
        InputError: `invalid-id`, `invalid-timestamp`, `future-timestamp` or
            `invalid-label`.
    """
    check_id("user_id", event.user_id)
    catalogue.require(event.item_id, suggest=False)  # there may be 1000 of them
    _check_timestamp(event.timestamp_ms, now_ms)
    if event.label is not None:
        _check_label(event.label, schema)


def _check_timestamp(timestamp_ms: int, now_ms: int) -> None:
    if type(timestamp_ms) is not int or timestamp_ms < 0:
        raise InputError(
            "invalid-timestamp",
            "`timestamp_ms` must be whole milliseconds since 1970. Received:"
            f" {shortened(timestamp_ms)}. Leave it out to use the time of arrival.",
        )
    if timestamp_ms > now_ms + _DAY_MS:
        raise InputError(
            "future-timestamp",
            "`timestamp_ms` must not be more than a day ahead. Received:"
            f" {shortened(timestamp_ms)}. Check the clock, and that the unit is"
            " milliseconds.",
        )


def _check_label(label: float, schema: Schema) -> None:
    low = -math.inf if schema.label_min is None else schema.label_min
    high = math.inf if schema.label_max is None else schema.label_max
    if not (math.isfinite(label) and low <= label <= high):
        raise InputError(
            "invalid-label",
            f"`label` must be a finite number from {low} to {high}. Received: {label}."
            " Send the scale of the training log.",
        )

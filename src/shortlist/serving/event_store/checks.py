"""Which events are accepted, by the catalogue and the schema."""

from __future__ import annotations

import math
import re

from shortlist.data.schema import Schema
from shortlist.data.split import DAY_MS
from shortlist.errors import InputError
from shortlist.serving.catalogue import Catalogue, check_id, shortened
from shortlist.serving.event_store.events import Event

MAX_EVENT_ID_LENGTH = 256
# 1990-01-01. Nobody clicked on anything before; seconds of today are days of 1970.
_EARLIEST_MS = 631_152_000_000


def check_event(
    event: Event, catalogue: Catalogue, schema: Schema, *, now_ms: int
) -> None:
    """Raises unless the event may be stored.

    Raises:
        UnknownIdError: the item is not in the catalogue (`unknown-item`). The user may
            be new.
        InputError: `invalid-id`, `invalid-timestamp`, `future-timestamp`,
            `invalid-label` or `invalid-event-id`.
    """
    check_id("user_id", event.user_id)
    catalogue.require(event.item_id, suggest=False)  # there may be 1000 of them
    _check_timestamp(event.timestamp_ms, now_ms)
    if event.label is not None:
        _check_label(event.label, schema)
    if event.event_id is not None:
        check_event_id("event_id", event.event_id)


def check_event_id(
    name: str, event_id: str, *, longest: int = MAX_EVENT_ID_LENGTH
) -> None:
    """Raises unless what names an event, or a request, can be kept.

    Raises:
        InputError: empty, too long or not printable ASCII (`invalid-event-id`).
    """
    if isinstance(event_id, str) and re.fullmatch("[!-~]+", event_id):
        if len(event_id) <= longest:
            return
    raise InputError(
        "invalid-event-id",
        f"`{name}` must be 1 to {longest} printable ASCII characters without blanks."
        f" Received: {shortened(event_id)}. A UUID is fine.",
    )


def _check_timestamp(timestamp_ms: int, now_ms: int) -> None:
    if type(timestamp_ms) is not int or timestamp_ms < 0:
        raise InputError(
            "invalid-timestamp",
            "`timestamp_ms` must be whole milliseconds since 1970. Received:"
            f" {shortened(timestamp_ms)}. Leave it out to use the time of arrival.",
        )
    if timestamp_ms < _EARLIEST_MS:
        hint = (
            "This looks like seconds: multiply it by 1000."
            if timestamp_ms >= _EARLIEST_MS // 1000
            else "Leave it out to use the time of arrival."
        )
        raise InputError(
            "invalid-timestamp",
            "`timestamp_ms` must be milliseconds since 1970, and not before 1990."
            f" Received: {shortened(timestamp_ms)}. {hint}",
        )
    if timestamp_ms > now_ms + DAY_MS:
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

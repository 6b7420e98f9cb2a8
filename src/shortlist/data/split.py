"""Splits of a log into training, validation and test parts.

The validation part is always taken out of what the test part leaves, so that nothing
is ever tuned on test data.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Literal

import numpy as np

from shortlist.errors import InputError, did_you_mean

TRAIN, VALIDATION, TEST = 0, 1, 2
PARTS = ("train", "validation", "test")
KNOWN = {"validation": ("train",), "test": ("train", "validation")}
"""Parts whose events are known when a part is evaluated."""
KINDS = ("last_fraction", "last_n", "time_cut", "random", "files")
TIME_KINDS = ("last_fraction", "last_n", "time_cut")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """How a log is divided.

    Kinds:
        `last_fraction`: each user's last share of events by time; `floor(n * test)` of
            a user's n events are test events.
        `last_n`: each user's last n events by time; users with too few keep all of
            them for training.
        `time_cut`: every event from one moment on, given by `test_from` and
            `validation_from` or as the last share of all events by time.
        `random`: a share of all events, drawn with `seed`.
        `files`: the user's own test file (and, if given, validation file); without a
            validation file the share is each training user's last events by time.

    Events of one user at the same time keep the order of the file.
    """

    __pydantic_config__ = {"extra": "forbid"}

    kind: Literal["last_fraction", "last_n", "time_cut", "random", "files"] = (
        "last_fraction"
    )
    test: float = 0.2
    """Share of events from 0 to below 1, or for `last_n` a number of events."""
    validation: float = 0.1
    """The same, of what the test part leaves."""
    test_from: str | None = None
    """For `time_cut`: ISO date or time of the first test event (UTC)."""
    validation_from: str | None = None
    """For `time_cut`: ISO date or time of the first validation event (UTC)."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(
                "split-kind",
                f"`kind` of a split must be one of {KINDS}. Received: {self.kind!r}."
                f"{did_you_mean(self.kind, KINDS)}",
            )
        for name in ("test", "validation"):
            self._check_amount(name, getattr(self, name))
        if self.kind != "time_cut" and (self.test_from or self.validation_from):
            raise InputError(
                "split-time",
                "`test_from` and `validation_from` belong to kind = 'time_cut'."
                f" Received: kind={self.kind!r}. Remove them or change the kind.",
            )
        moments = [m for m in (self.validation_from, self.test_from) if m is not None]
        times = [parse_moment(moment) for moment in moments]
        if len(times) == 2 and times[0] >= times[1]:
            raise InputError(
                "split-time",
                "`validation_from` must lie before `test_from`. Received:"
                f" {moments[0]!r} and {moments[1]!r}. Swap or change them.",
            )

    def _check_amount(self, name: str, amount: float) -> None:
        if self.kind == "last_n":
            valid = amount >= 0 and float(amount).is_integer()
            rule = "a number of events, 0 or more, for kind = 'last_n'"
        else:
            valid = 0 <= amount < 1
            rule = "a share from 0 to below 1"
        if not valid:
            raise InputError(
                "split-amount",
                f"`{name}` of a split must be {rule}. Received: {name}={amount!r}.",
            )


def assign_parts(
    user: np.ndarray, timestamp_ms: np.ndarray, split: Split
) -> np.ndarray:
    """Part of every event: 0 training, 1 validation, 2 test.

    Args:
        user: any integer key of the user, `(n,)`, in file order.
        timestamp_ms: `(n,)` int64.
        split: how to divide; for kind `files` only the validation share is used.

    Returns: `(n,)` int8.
    """
    parts = np.zeros(len(user), np.int8)
    everything = np.arange(len(user))
    if split.kind != "files":
        test = _held_out(user, timestamp_ms, split, split.test, split.test_from, 0)
        parts[test] = TEST
    rest = everything[parts == TRAIN]
    validation = _held_out(
        user[rest],
        timestamp_ms[rest],
        split,
        split.validation,
        split.validation_from,
        1,
    )
    parts[rest[validation]] = VALIDATION
    return parts


def _held_out(
    user: np.ndarray,
    timestamp_ms: np.ndarray,
    split: Split,
    amount: float,
    starts_at: str | None,
    stream: int,
) -> np.ndarray:
    """Mask `(n,)` of the events that one division holds out."""
    if split.kind == "random":
        generator = np.random.default_rng([split.seed, stream])
        held_out = np.zeros(len(user), bool)
        chosen = generator.permutation(len(user))[: int(len(user) * amount + 1e-9)]
        held_out[chosen] = True
        return held_out
    if split.kind == "time_cut":
        return timestamp_ms >= _cut(timestamp_ms, amount, starts_at)
    order = np.lexsort((timestamp_ms, user))  # stable: ties keep the file order
    starts = np.flatnonzero(np.r_[True, np.diff(user[order]) != 0][: len(user)])
    sizes = np.diff(np.r_[starts, len(user)])
    if split.kind == "last_n":
        held = np.where(sizes > amount, int(amount), 0)
    else:
        held = np.floor(sizes * amount + 1e-9).astype(np.int64)
    from_end = np.repeat(starts + sizes, sizes) - np.arange(len(user))
    held_out = np.zeros(len(user), bool)
    held_out[order] = from_end <= np.repeat(held, sizes)
    return held_out


def _cut(timestamp_ms: np.ndarray, amount: float, starts_at: str | None) -> int:
    if starts_at is not None:
        return parse_moment(starts_at)
    held = int(len(timestamp_ms) * amount + 1e-9)
    if held == 0:
        return np.iinfo(np.int64).max
    return int(np.sort(timestamp_ms)[-held])


def parse_moment(text: str) -> int:
    """Milliseconds since the epoch of an ISO date or time; UTC unless it says so."""
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            "split-time",
            "A moment must be an ISO date or time such as 2024-05-31 or"
            f" 2024-05-31T18:00:00Z. Received: {text!r}.",
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return (moment - dt.datetime.fromtimestamp(0, dt.UTC)) // dt.timedelta(
        milliseconds=1
    )

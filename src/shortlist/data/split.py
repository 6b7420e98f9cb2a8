"""Splits of a log into training, validation and test parts.

The validation part is always taken out of what the test part leaves, so that nothing
is ever tuned on test data.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from typing import Any, Literal

import numpy as np

from shortlist.data.kernels.ids import is_sorted
from shortlist.errors import InputError, did_you_mean, listed

DAY_MS = 86_400_000
"""Milliseconds of a day."""
TRAIN, VALIDATION, TEST = 0, 1, 2
PartName = Literal["train", "validation", "test"]
PARTS: tuple[PartName, ...] = ("train", "validation", "test")
KNOWN = {"validation": ("train",), "test": ("train", "validation")}
"""Parts whose events are known when a part is evaluated."""
KINDS = ("last_fraction", "last_n", "time_cut", "random", "files")
TIME_KINDS = ("last_fraction", "last_n", "time_cut")
_SAMPLE = 1 << 16
_SELECTED_BY_SAMPLE = 1 << 20
_NEVER = int(np.iinfo(np.int64).max)


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
    folds: int = 0
    """How many folds there are of the events outside the test part; see `folds.py`."""
    fold: int = 0
    """Which of them this is, from 1; 0 for the split itself."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(
                "split-kind",
                f"`kind` of a split must be one of {listed(KINDS)}. Received:"
                f" {self.kind!r}."
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
        if self.folds or self.fold:
            self._check_folds()

    def _check_folds(self) -> None:
        if self.folds < 2 or not 1 <= self.fold <= self.folds:
            raise InputError(
                "split-folds",
                "There must be 2 `folds` or more, and `fold` be one of them, from 1."
                f" Received: folds={self.folds}, fold={self.fold}.",
            )
        if self.kind == "files":
            raise InputError(
                "split-folds",
                "Folds are made by the rule of a split; kind = 'files' has none. Take"
                " another kind for cross-validation.",
            )
        if self.kind in TIME_KINDS and not (self.test or self.test_from):
            raise InputError(
                "split-folds",
                "Each fold of a split by time tests as much as the split does."
                f" Received: test={self.test:g}. Hold out some events.",
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

    Fastest where the events are sorted by user and time.

    Args:
        user: any integer key of the user, `(n,)`, in file order.
        timestamp_ms: `(n,)` int64.
        split: how to divide; for kind `files` only the validation share is used.

    Returns: `(n,)` int8.
    """
    if split.kind in ("last_fraction", "last_n", "files"):
        return _last_of_each_user(user, timestamp_ms, split)
    if split.kind == "time_cut":
        return _by_time(timestamp_ms, split)
    parts = np.zeros(len(user), np.int8)
    parts[drawn_rows(len(user), split.test, [split.seed, 0])] = TEST
    rest = np.flatnonzero(parts == TRAIN)
    parts[rest[drawn_rows(len(rest), split.validation, [split.seed, 1])]] = VALIDATION
    return parts


def _by_time(timestamp_ms: np.ndarray, split: Split) -> np.ndarray:
    n = len(timestamp_ms)
    test = _cut(timestamp_ms, n, split.test, split.test_from)
    rest = n if test == _NEVER else int(np.count_nonzero(timestamp_ms < test))
    validation = _cut(timestamp_ms, rest, split.validation, split.validation_from)
    parts = (timestamp_ms >= min(validation, test)).astype(np.int8)
    parts += timestamp_ms >= test
    return parts


def _last_of_each_user(
    user: np.ndarray, timestamp_ms: np.ndarray, split: Split
) -> np.ndarray:
    order = None
    if not is_sorted(user, timestamp_ms):
        order = np.lexsort((timestamp_ms, user))  # stable: ties keep the file order
        user = user[order]
    starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]][: len(user)])
    sizes = np.diff(np.r_[starts, len(user)])
    test = np.zeros_like(sizes)
    if split.kind != "files":
        test = _held_out(sizes, split.test, split)
    validation = _held_out(sizes - test, split.validation, split)
    counts = np.column_stack([sizes - test - validation, validation, test]).ravel()
    labels = np.tile(np.array([TRAIN, VALIDATION, TEST], np.int8), len(sizes))
    in_order = np.repeat(labels, counts)
    if order is None:
        return in_order
    parts = np.empty(len(user), np.int8)
    parts[order] = in_order
    return parts


def _held_out(sizes: np.ndarray, amount: float, split: Split) -> np.ndarray:
    """How many of each user's newest events are held out, `(users,)` int64."""
    if split.kind == "last_n":
        return np.where(sizes > amount, int(amount), 0)
    return np.floor(sizes * amount + 1e-9).astype(np.int64)


def drawn_rows(n: int, amount: float, seed: list[int]) -> np.ndarray:
    """A share of n rows at random, in random order."""
    chosen = np.random.default_rng(seed).permutation(n)
    return chosen[: int(n * amount + 1e-9)]


def _cut(
    timestamp_ms: np.ndarray, rest: int, amount: float, starts_at: str | None
) -> int:
    """Time of the first event held out of the `rest` earliest."""
    if starts_at is not None:
        return parse_moment(starts_at)
    held = int(rest * amount + 1e-9)
    return int(kth_smallest(timestamp_ms, rest - held)) if held else _NEVER


def kth_smallest(values: np.ndarray, k: int) -> Any:
    """Element `k` of the sorted values, exactly, in a few passes over them.

    A sample tells between which two values it must lie, nearly always; only those in
    between are sorted. Floyd and Rivest (1975), Expected Time Bounds for Selection.

    Args:
        values: `(n,)`.
        k: from 0 to n - 1.
    """
    if len(values) < _SELECTED_BY_SAMPLE:
        return np.partition(values, k)[k]
    sample = np.sort(values[:: len(values) // _SAMPLE])
    middle, margin = k * len(sample) // len(values), 5 * math.isqrt(len(sample))
    low = sample[max(middle - margin, 0)]
    high = sample[min(middle + margin, len(sample) - 1)]
    below = int(np.count_nonzero(values < low))
    between = values[(values >= low) & (values <= high)]
    if not below <= k < below + len(between):
        return np.partition(values, k)[k]
    return np.partition(between, k - below)[k - below]


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

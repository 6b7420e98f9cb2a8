"""When a training ends: on a metric, on the clock, on the price of the next epoch."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from shortlist.errors import InputError
from shortlist.training.loop.cost import MarginalCost, cost
from shortlist.training.loop.stops import (
    Floor,
    NoImprovement,
    Stop,
    TimeBudget,
    is_clear_of,
    mode_of,
)


def last_epoch(stop: Stop, values: list[float], each: Callable[[], Any] = int) -> int:
    """The epoch after which a stop stops; one more than there are if it never does."""
    for epoch, value in enumerate(values, 1):
        each()
        if stop.after_epoch(epoch, {"val_ndcg@10": value}).stop:
            return epoch
    return len(values) + 1


@pytest.mark.parametrize(
    ("mode", "values", "stops", "best"),
    [
        ("max", [0.1, 0.3, 0.2, 0.2, 0.9], 4, 2),
        ("min", [0.9, 0.5, 0.4, 0.5, 0.4], 5, 3),
        ("max", [0.1, 0.2, 0.3], 4, 3),
        ("max", [float("nan"), 0.2, float("inf"), 0.1], 4, 2),
        ("max", [0.1, 0.1, 0.1], 3, 1),  # as good is not better
    ],
)
def test_patience(mode: str, values: list[float], stops: int, best: int) -> None:
    told, stop = [], NoImprovement("val_ndcg@10", mode, 2)
    for epoch, value in enumerate(values, 1):
        told.append(stop.after_epoch(epoch, {"val_ndcg@10": value}))
        if told[-1].stop:
            break
    stopped = len(told) if told[-1].stop else len(values) + 1
    assert stopped == stops
    assert max(n for n, one in enumerate(told, 1) if one.is_best) == best


def test_an_unknown_metric_is_named_with_the_closest_one() -> None:
    stop = NoImprovement("val_ndgc@10", "max", 2)
    with pytest.raises(InputError, match="Did you mean 'val_ndcg@10'") as caught:
        stop.after_epoch(1, {"loss": 1.0, "val_ndcg@10": 0.5})
    assert caught.value.code == "monitor-unknown"


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [
        *[("val_loss", "min"), ("loss", "min"), ("val_rmse", "min")],
        *[("val_ndcg@10", "max"), ("val_recall@10", "max")],
        *[("test.gini@10", "min"), ("validation.ndcg@10", "max")],
        *[("test.taste_divergence@10", "min"), ("test.log_loss", "min")],
    ],
)
def test_what_is_better_follows_from_the_name(monitor: str, mode: str) -> None:
    assert mode_of(monitor) == mode


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def passes(self) -> None:
        self.seconds += 20.0


def test_no_epoch_begins_that_would_end_after_the_budget() -> None:
    # Epochs of 20 s in 1.5 minutes: four, and the fifth would end at 100 s.
    clock = Clock()
    stop = TimeBudget(1.5, lambda: clock.seconds)
    assert last_epoch(stop, [0.0] * 9, clock.passes) == 4


def test_what_earlier_processes_spent_counts() -> None:
    clock = Clock()
    clock.seconds = 60.0
    stop = TimeBudget(1.5, lambda: clock.seconds)
    assert last_epoch(stop, [0.0] * 9, clock.passes) == 1


# Best values after each epoch; gains 0.1, 0.08, 0.03, 0, 0.01: their means over three
# are 0.07, 0.03667 and 0.01333. An epoch of 20 s at 18 an hour costs 0.1.
VALUES = [0.2, 0.3, 0.38, 0.41, 0.40, 0.42, 0.42]


@pytest.mark.parametrize(
    ("least", "stops"), [(0.8, 4), (0.6, 5), (0.3, 6), (0.1, 7), (0.03, 8)]
)
def test_the_gain_expected_of_an_epoch_is_worth_its_price(
    least: float, stops: int
) -> None:
    for mode, sign in (("max", 1), ("min", -1)):
        clock = Clock()
        stop = MarginalCost(
            *("val_ndcg@10", mode),
            price_per_hour=18.0,
            min_gain_per_cost=least,
            spent_seconds=lambda clock=clock: clock.seconds,  # type: ignore[misc]
        )
        values = [sign * value for value in VALUES]
        assert last_epoch(stop, values, clock.passes) == stops, mode
    assert cost(20, 18.0) == pytest.approx(0.1)


@pytest.mark.parametrize("interrupted_after", range(1, 7))
def test_it_goes_on_from_what_it_remembers(interrupted_after: int) -> None:
    clock = Clock()

    def stops() -> list[Any]:
        spent = lambda: clock.seconds  # noqa: E731
        prices = {"price_per_hour": 18.0, "min_gain_per_cost": 0.0}
        worth = MarginalCost("m", "max", spent_seconds=spent, **prices)  # type: ignore[arg-type]
        return [NoImprovement("m", "max", 9), worth]

    def go(stops: list[Any], values: list[float]) -> None:
        for value in values:
            clock.passes()
            for stop in stops:
                stop.after_epoch(1, {"m": value})

    whole, first, rest = stops(), stops(), stops()
    go(whole, VALUES)
    go(first, VALUES[:interrupted_after])
    for before, after in zip(first, rest, strict=True):
        after.restore(before.memory())
        after._last = clock.seconds
    go(rest, VALUES[interrupted_after:])
    assert [one.memory() for one in rest] == [one.memory() for one in whole]


def after(stop: NoImprovement, *epochs: tuple[float, float]) -> list[bool]:
    """Whether the stop stops after each epoch of (loss, metric)."""
    return [
        stop.after_epoch(n, {"loss": loss, "val_ndcg@10": value}).stop
        for n, (loss, value) in enumerate(epochs, 1)
    ]


FLAT = [(7.0 - 0.2 * n, 0.001 if n == 0 else 0.0) for n in range(12)]


def test_patience_does_not_count_below_popularity_while_the_loss_falls() -> None:
    stop = NoImprovement("val_ndcg@10", "max", 2, Floor(0.002, 1000))
    assert not any(after(stop, *FLAT))
    assert any(after(NoImprovement("val_ndcg@10", "max", 2), *FLAT[:3]))


def test_patience_counts_from_the_first_epoch_above_popularity() -> None:
    stop = NoImprovement("val_ndcg@10", "max", 2, Floor(0.002, 1000))
    # 3 sqrt(0.05 * 0.95 / 1000) = 0.0207: 0.05 is above 0.002 by more than chance.
    stops = after(stop, *FLAT[:5], (5.9, 0.05), (5.8, 0.04), (5.7, 0.03))
    assert stops == [False] * 7 + [True]


def test_patience_counts_where_the_loss_no_longer_falls() -> None:
    stop = NoImprovement("val_ndcg@10", "max", 2, Floor(0.002, 1000))
    # A thousandth less is a fall, half of that is none.
    stops = after(stop, (4.0, 0.001), (3.99, 0.0), (3.989, 0.0), (3.99, 0.0))
    assert stops == [False, False, False, True]
    stop = NoImprovement("val_ndcg@10", "max", 2, Floor(0.002, 1000))
    assert after(stop, (4.0, 0.0), (4.0, 0.001), (4.1, 0.0), (4.1, 0.0))[-1]


@pytest.mark.parametrize(
    ("value", "users", "mode", "clear"),
    [
        (0.17, 943, "max", True),  # by 3 sqrt(0.17 * 0.83 / 943) = 0.0367
        (0.15, 943, "max", False),
        (0.15, 9430, "max", True),
        (0.0, 943, "max", False),
        (0.5, 4, "max", False),
        (1.0, 4, "max", True),
        (0.08, 943, "min", True),  # lower is better; 0.0265
        (0.11, 943, "min", False),
        (30.0, 5, "max", True),  # no mean of values up to 1: as it is
    ],
)
def test_above_popularity_is_more_than_chance(
    value: float, users: int, mode: str, clear: bool
) -> None:
    assert is_clear_of(value, Floor(0.12, users), mode) is clear


@pytest.mark.parametrize("interrupted_after", range(1, 12))
def test_counting_goes_on_as_if_uninterrupted(interrupted_after: int) -> None:
    epochs = [*FLAT[:6], (5.9, 0.05), (5.8, 0.06), (5.8, 0.05), (5.9, 0.05), (5, 0.05)]
    stops = [NoImprovement("val_ndcg@10", "max", 3, Floor(0.002, 99)) for _ in "abc"]
    whole, first, rest = stops
    expected = after(whole, *epochs)
    found = after(first, *epochs[:interrupted_after])
    rest.restore(json.loads(json.dumps(first.memory())))
    found += after(rest, *epochs[interrupted_after:])
    assert found == expected
    assert rest.memory() == whole.memory()


def test_the_memory_of_an_earlier_version_is_read() -> None:
    stop = NoImprovement("val_ndcg@10", "max", 2, Floor(0.002, 1000))
    stop.restore({"best": 0.001, "waited": 1})
    assert after(stop, (4.0, 0.0), (3.9, 0.0), (3.9, 0.0))[-1]
    plain = NoImprovement("val_loss", "min", 2)
    plain.restore({"best": 0.1, "waited": 1})
    assert plain.after_epoch(2, {"loss": 3.0, "val_loss": 0.2}).stop

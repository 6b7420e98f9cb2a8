"""Constructor arguments are checked before any work, and the message says which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shortlist.errors import InputError
from shortlist.models.validate import (
    check_above_zero,
    check_finite,
    check_positive,
    check_rate,
    check_units,
)

NAN, INFINITY = float("nan"), float("inf")
CASES: list[tuple[Callable[..., None], list[Any], list[Any], str]] = [
    (
        check_positive,
        [1, 64, 10**9],
        [0, -3, True, 2.0, 1.5, NAN, "8", None, [8]],
        "a positive integer",
    ),
    (
        check_units,
        [(), [], [1], (64, 32)],
        ["64", 64, None, {64}, NAN],
        "a sequence of positive integers",
    ),
    (
        check_rate,
        [0, 0.0, 0.5, 0.999],
        [1, 1.0, -0.1, NAN, INFINITY, True, False, "0.5", None],
        "a number from 0 to below 1",
    ),
    (
        check_above_zero,
        [1e-12, 1, 3.5],
        [0, 0.0, -1e-3, NAN, INFINITY, True, "0.1", None],
        "a finite number above 0",
    ),
    (
        check_finite,
        [0, -3.5, 1e300],
        [NAN, INFINITY, -INFINITY, True, "3", None],
        "a finite number",
    ),
]


@pytest.mark.parametrize(
    ("check", "value"),
    [(check, value) for check, good, _, _ in CASES for value in good],
)
def test_good_values_pass(check: Callable[..., None], value: Any) -> None:
    assert check(some_name=value) is None


@pytest.mark.parametrize(
    ("check", "value", "rule"),
    [(check, value, rule) for check, _, bad, rule in CASES for value in bad],
)
def test_bad_values_are_named_with_the_rule(
    check: Callable[..., None], value: Any, rule: str
) -> None:
    with pytest.raises(InputError) as caught:
        check(some_name=value)
    assert caught.value.code == "invalid-argument"
    assert str(caught.value) == (
        f"`some_name` must be {rule}. Received: some_name={value!r} (of type"
        f" {type(value).__name__}). Change it in the call or the recipe."
    )


@pytest.mark.parametrize("unit", [0, -8, True, 2.0, "8"])
def test_one_bad_unit_is_named(unit: Any) -> None:
    with pytest.raises(InputError, match="must be a positive integer") as caught:
        check_units(hidden_units=[64, unit])
    assert f"hidden_units={unit!r}" in str(caught.value)

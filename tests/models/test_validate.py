"""Constructor arguments are checked before any work, and the message says which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shortlist.errors import InputError
from shortlist.models.validate import (
    check_finite,
    check_not_negative,
    check_positive,
    model_arguments,
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
        check_not_negative,
        [0, 0.0, 3, 1e300],
        [-1, -1e-3, NAN, INFINITY, True, "0.1", None],
        "a finite number of at least 0",
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


def test_arguments_of_keras_are_told_from_options() -> None:
    given = {"name": "a", "dtype": "float32", "temperature": 0.1, "nme": "b"}
    of_keras, options = model_arguments(given)
    assert of_keras == {"name": "a", "dtype": "float32"}
    assert options == {"temperature": 0.1, "nme": "b"}

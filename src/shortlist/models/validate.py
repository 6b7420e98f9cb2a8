"""Checks of constructor arguments, made before any work starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsFloat

from shortlist.errors import InputError, did_you_mean


def check_positive(**values: int) -> None:
    """Raises `InputError` unless every value is an integer of at least 1."""
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            _refuse(name, "a positive integer", value)


def check_units(**values: Sequence[int]) -> None:
    """Raises `InputError` unless every value is a sequence of positive integers."""
    for name, units in values.items():
        if isinstance(units, str) or not isinstance(units, Sequence):
            _refuse(name, "a sequence of positive integers", units)
        for unit in units:
            check_positive(**{name: unit})


def check_rate(**values: float) -> None:
    """Raises `InputError` unless every value is at least 0 and below 1."""
    for name, value in values.items():
        if not _is_number(value) or not 0 <= value < 1:
            _refuse(name, "a number from 0 to below 1", value)


def check_above_zero(**values: float) -> None:
    """Raises `InputError` unless every value is a finite number above 0."""
    for name, value in values.items():
        if not _is_number(value) or not 0 < value < float("inf"):
            _refuse(name, "a finite number above 0", value)


def check_not_negative(**values: float) -> None:
    """Raises `InputError` unless every value is a finite number of at least 0."""
    for name, value in values.items():
        if not _is_number(value) or not 0 <= value < float("inf"):
            _refuse(name, "a finite number of at least 0", value)


def check_finite(**values: float) -> None:
    """Raises `InputError` unless every value is a finite number."""
    for name, value in values.items():
        if not _is_number(value) or not abs(float(value)) < float("inf"):
            _refuse(name, "a finite number", value)


def check_choice(choices: Sequence[str], **values: str) -> None:
    """Raises `InputError` unless every value is one of the choices."""
    for name, value in values.items():
        if value not in choices:
            hint = did_you_mean(str(value), choices)
            _refuse(name, f"one of {', '.join(choices)}", value, hint)


def check_flag(**values: bool) -> None:
    """Raises `InputError` unless every value is True or False."""
    for name, value in values.items():
        if not isinstance(value, bool):
            _refuse(name, "True or False", value)


def _is_number(value: object) -> bool:
    return isinstance(value, SupportsFloat) and not isinstance(value, bool | str)


def _refuse(name: str, rule: str, value: object, hint: str = "") -> None:
    raise InputError(
        "invalid-argument",
        f"`{name}` must be {rule}. Received: {name}={value!r} (of type"
        f" {type(value).__name__}).{hint} Change it in the call or the recipe.",
    )

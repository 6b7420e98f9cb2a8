"""Checks of constructor arguments that are not options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, SupportsFloat

from shortlist.errors import InputError

KERAS_ARGUMENTS = ("activity_regularizer", "autocast", "dtype", "name", "trainable")
"""What `keras.Model` takes by name."""


def check_positive(**values: int) -> None:
    """Raises `InputError` unless every value is an integer of at least 1."""
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            _refuse(name, "a positive integer", value)


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


def model_arguments(
    arguments: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits keyword arguments of a model: those of `keras.Model`, and options."""
    of_keras = {k: v for k, v in arguments.items() if k in KERAS_ARGUMENTS}
    return of_keras, {k: v for k, v in arguments.items() if k not in of_keras}


def _is_number(value: object) -> bool:
    return isinstance(value, SupportsFloat) and not isinstance(value, bool | str)


def _refuse(name: str, rule: str, value: object) -> None:
    raise InputError(
        "invalid-argument",
        f"`{name}` must be {rule}. Received: {name}={value!r} (of type"
        f" {type(value).__name__}). Change it in the call or the recipe.",
    )

"""Options accept values of their type alone, and say what else was given."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

from shortlist.errors import InputError
from shortlist.options import (
    AboveZero,
    Flag,
    NotNegative,
    Options,
    Positive,
    Rate,
    Weight,
)

NAN, INFINITY = float("nan"), float("inf")


class Inner(Options):
    """Options inside others."""

    rate: Rate = 0.5
    """a share"""


class Example(Options):
    """One field of each type."""

    positive: Positive = 1
    """a count, over
    two lines"""
    not_negative: NotNegative = 0
    """another count"""
    rate: Rate = 0.0
    above_zero: AboveZero = 1.0
    weight: Weight = 0.0
    flag: Flag = False
    units: list[Positive] = []
    inner: Inner = Inner()
    named: dict[str, Inner] = {}


class Wider(Example):
    """The same and one more."""

    more: Positive = 7


CASES: dict[str, tuple[list[Any], list[Any]]] = {
    "positive": ([1, 64, 10**9], [0, -3, True, 2.0, 1.5, NAN, "8", None, [8]]),
    "not_negative": ([0, 5], [-1, False, 0.0, "0", None]),
    "rate": (
        [0, 0.0, 0.5, 0.999],
        [1, 1.0, -0.1, NAN, INFINITY, True, False, "0.5", None],
    ),
    "above_zero": (
        [1e-12, 1, 3.5],
        [0, 0.0, -1e-3, NAN, INFINITY, True, "0.1", None],
    ),
    "weight": ([0, 0.0, 1e300], [-1e-3, NAN, INFINITY, True, "1", None]),
    "flag": ([True, False], [0, 1, "true", None]),
    "units": ([(), [], [1], (64, 32)], ["64", 64, None, NAN]),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, v) for name, (good, _) in CASES.items() for v in good]
)
def test_good_values_are_kept(name: str, value: Any) -> None:
    kept = getattr(Example.of(None, {name: value}), name)
    assert kept == (list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize(
    ("name", "value"), [(name, v) for name, (_, bad) in CASES.items() for v in bad]
)
def test_bad_values_are_named_with_the_rule(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"`{name}` must be") as caught:
        Example.of(None, {name: value})
    assert caught.value.code == "invalid-argument"
    assert f"received {value!r}. Change it in the call" in str(caught.value)


@pytest.mark.parametrize("unit", [0, -8, True, 2.0, "8"])
def test_one_bad_element_is_named(unit: Any) -> None:
    with pytest.raises(InputError, match=r"`units\.1` must be") as caught:
        Example.of(None, {"units": [64, unit]})
    assert f"received {unit!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"positiv": 1}, "`positiv` is not a field. Did you mean 'positive'?"),
        ({"inner": {"rte": 0.1}}, "`inner.rte` is not a field. Did you mean 'rate'?"),
        ({"named": {"a": {"rat": 0.1}}}, "The fields of [named.a] are rate."),
        ({"self": 1}, "`self` is not a field."),
    ],
)
def test_an_unknown_name_is_refused_with_the_closest_one(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        Example.of(None, changes)
    assert words in str(caught.value)


def test_changes_apply_to_the_given_options() -> None:
    given = Example(positive=3, rate=0.25)
    assert Example.of(given, {}) == given
    assert Example.of(given, {"rate": 0.5}) == Example(positive=3, rate=0.5)
    assert Example.of(None, {}) == Example()


def test_options_of_a_subclass_give_the_fields_of_the_class() -> None:
    found = Example.of(Wider(positive=3, more=9), {"weight": 2})
    assert type(found) is Example
    assert found == Example(positive=3, weight=2.0)


@pytest.mark.parametrize("given", [Inner(), {"positive": 2}, 3])
def test_options_of_another_class_are_refused(given: Any) -> None:
    with pytest.raises(InputError, match="`options` must be Example") as caught:
        Example.of(given, {})
    assert caught.value.code == "invalid-argument"


def test_options_are_frozen() -> None:
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        Example().positive = 2


def test_notes_are_those_below_the_fields_on_one_line() -> None:
    assert Example.notes() == {
        "positive": "a count, over two lines",
        "not_negative": "another count",
    }
    assert Wider.notes() == Example.notes()

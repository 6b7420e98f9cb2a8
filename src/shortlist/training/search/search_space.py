"""The space of a search, and the recipe of a trial."""

from __future__ import annotations

import types
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import pydantic

from shortlist.errors import InputError, did_you_mean
from shortlist.recipe import Recipe, build_recipe
from shortlist.recipe.search import SearchSection

SEARCHED = ("retrieval", "ranker", "training")
"""Sections whose fields can be searched."""


class Dimension(NamedTuple):
    """One field that a search varies."""

    name: str
    search: SearchSection
    is_integer: bool
    """Whether the values of a range are integers."""

    def ends(self) -> list[Any]:
        """The ends of a range, or all choices."""
        if self.search.choices is not None:
            return self.search.choices
        ends = [self.search.low, self.search.last()]
        return (
            ends if self.is_integer else [float(end) for end in ends if end is not None]
        )


def space_of(recipe: Recipe) -> list[Dimension]:
    """The space that a recipe declares, checked field by field.

    Raises:
        InputError: `tune-space`: it is empty, has an unknown field, or has values that
            are invalid for a field.
    """
    fields: dict[str, Any] = {}
    for section in SEARCHED:
        fields |= _fields(getattr(recipe, section), f"{section}.")
    if not recipe.tune.space:
        raise _refused(
            "A search needs fields to vary, in [tune.space] of the recipe, such as"
            ' "retrieval.learning_rate" = { low = 1e-4, high = 1e-2, log = true }.'
            " Received: none."
        )
    space = []
    for name, search in recipe.tune.space.items():
        if name not in fields:
            raise _refused(
                "A searched field must be in [retrieval], [ranker] or"
                f" [training]. Received: {name!r}.{did_you_mean(name, fields)}"
            )
        kinds = _leaves(fields[name].annotation)
        dimension = Dimension(name, search, int in kinds and float not in kinds)
        for value in dimension.ends():
            _check(recipe, name, value)
        space.append(dimension)
    return space


def recipe_with(recipe: Recipe, values: dict[str, Any]) -> Recipe:
    """The recipe with other values, by dotted name.

    Raises:
        RecipeError: values that are incompatible.
    """
    return build_recipe(_changed(recipe, values))


def _changed(recipe: Recipe, values: dict[str, Any]) -> dict[str, Any]:
    raw = recipe.to_builtins()
    for name, value in values.items():
        *sections, field = name.split(".")
        inner = raw
        for section in sections:
            inner = inner[section]
        inner[field] = value
    return raw


def _check(recipe: Recipe, name: str, value: Any) -> None:
    """Checks that a value is valid for a field, regardless of other fields."""
    path = tuple(name.split("."))
    try:
        Recipe.model_validate(_changed(recipe, {name: value}))
    except pydantic.ValidationError as error:
        for problem in error.errors():
            if problem["loc"][: len(path)] == path:
                rule = problem["msg"].removeprefix("Value error, ")
                raise _refused(
                    f"The values of {name!r} must be valid for the field. {rule}."
                    f" Received: {value!r}."
                ) from error


def _fields(section: pydantic.BaseModel, prefix: str) -> dict[str, Any]:
    """All fields of a section and its subsections, by dotted name."""
    found: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        inner = value if isinstance(value, dict) else {"": value}
        if inner and all(isinstance(v, pydantic.BaseModel) for v in inner.values()):
            for key, part in inner.items():
                found |= _fields(part, f"{prefix}{name}.{key}{'.' if key else ''}")
        else:
            found[prefix + name] = field
    return found


def _leaves(annotation: Any) -> set[Any]:
    """The types that an annotation is made of."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _leaves(inner[0])
    if origin in (Union, types.UnionType):
        return set().union(*map(_leaves, inner))
    return {annotation}


def _refused(message: str) -> InputError:
    return InputError("tune-space", message)

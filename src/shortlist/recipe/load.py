"""Reads recipe files; says what is wrong with one."""

from __future__ import annotations

import datetime as dt
import tomllib
from pathlib import Path
from typing import Any

import pydantic

from shortlist.errors import RecipeError
from shortlist.options import problems
from shortlist.reading import read_errors
from shortlist.recipe.log import LogSection
from shortlist.recipe.recipe import Recipe
from shortlist.recipe.secrets import redacted


def load_recipe(path: str | Path, settings: list[str] | None = None) -> Recipe:
    """Reads a recipe file.

    Args:
        path: the file.
        settings: overrides of the form `section.field=value`, values in TOML.

    Raises:
        RecipeError: no such file, no TOML, or a field that cannot be used.
    """
    path = Path(path)
    with read_errors(path):
        return _load_recipe(path, settings)


def _load_recipe(path: Path, settings: list[str] | None) -> Recipe:
    if not path.is_file():
        raise RecipeError(
            "recipe-missing",
            f"A recipe must be at {str(path)!r}. There is no such file. Write one with"
            " `shortlist init LOG`, or name it with --recipe.",
            file=path,
        )
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(
            "recipe-syntax",
            f"A recipe must be valid TOML in UTF-8. Reading it failed: {error}.",
            file=path,
        ) from error
    for setting in settings or []:
        _apply(raw, setting)
    return build_recipe(raw, file=path)


def load_reading(settings: list[str]) -> LogSection:
    """The settings of reading, `log.field=value` each, for a log without a recipe.

    Raises:
        RecipeError: a setting of another section, or one that cannot be used.
    """
    raw: dict[str, Any] = {"log": {"events": "log"}}
    for setting in settings:
        if not setting.startswith("log."):
            raise RecipeError(
                "setting-invalid",
                f"Before there is a recipe --set takes log.field=value. Received:"
                f" {setting!r}. Change other fields in the recipe.",
            )
        _apply(raw, setting)
    raw["columns"] = {"user_id": "user_id", "item_id": "item_id"}
    return build_recipe(raw).log


def build_recipe(raw: dict[str, Any], *, file: object = None) -> Recipe:
    """Validates plain values as a recipe; raises `RecipeError`."""
    version = raw.get("version", 1)
    if isinstance(version, int) and version > 1:
        raise RecipeError(
            "recipe-newer",
            f"The version of a recipe must be at most 1. Received: {version}. Update"
            " shortlist, or write the recipe with this version's `shortlist init`.",
            file=file,
        )
    try:
        return Recipe.model_validate(raw)
    except pydantic.ValidationError as error:
        raise RecipeError(
            "recipe-invalid",
            f"The recipe cannot be used: "
            f"{redacted(problems(error, Recipe, 'a recipe'))}",
            file=file,
        ) from error


def _apply(raw: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise RecipeError(
            "setting-invalid",
            f"--set takes section.field=value. Received: {redacted(setting)!r}.",
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    if isinstance(value, dt.date | dt.time):
        value = text.strip()  # and so is a moment: no field takes a TOML date
    *sections, name = key.strip().split(".")
    for section in sections:
        raw = raw.setdefault(section, {})
        if not isinstance(raw, dict):
            raise RecipeError(
                "setting-invalid",
                f"--set takes section.field=value. {section!r} in {setting!r} is a"
                " field, not a section.",
            )
    raw[name] = value

"""Reads recipe files; says what is wrong with one."""

from __future__ import annotations

import datetime as dt
import re
import tomllib
from pathlib import Path
from typing import Any

import pydantic

from shortlist.errors import RecipeError, did_you_mean
from shortlist.reading import read_errors
from shortlist.recipe.log import LogSection
from shortlist.recipe.ranker import HeadSection
from shortlist.recipe.recipe import Recipe
from shortlist.recipe.search import SearchSection
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
        problems = redacted("; ".join(_problem(e) for e in error.errors()))
        raise RecipeError(
            "recipe-invalid",
            f"The recipe cannot be used: {problems.rstrip('.')}"
            f"{'' if problems.endswith('?') else '.'}",
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


def _problem(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "recipe"
    message = str(error["msg"]).removeprefix("Value error, ")
    received = error.get("input")
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _known_fields(error["loc"])
        section = ".".join(str(part) for part in error["loc"][:-1])
        of = f"[{section}]" if section else "a recipe"
        return (
            f"`{where}` is not a field.{did_you_mean(error['loc'][-1], known)}"
            f" The fields of {of} are {', '.join(known)}"
        )
    if error["type"] == "literal_error":
        message += f", received {received!r}"
        close = did_you_mean(
            received, re.findall(r"'([^']*)'", error["ctx"]["expected"])
        )
        return f"`{where}`: {message}{close and '.' + close}"
    shown = f", received {received!r}" if not isinstance(received, dict) else ""
    rule, mark, close = message.partition(" Did you mean")
    end = "." if mark else ""
    return f"`{where}`: {rule.rstrip('.')}{shown}{end}{mark}{close}"


def _known_fields(location: tuple[Any, ...]) -> list[str]:
    fields: dict[str, Any] = Recipe.model_fields
    if location[:2] == ("ranker", "heads"):
        return list(HeadSection.model_fields)
    if location[:2] == ("tune", "space"):
        return list(SearchSection.model_fields)
    for name in location[:-1]:
        section = getattr(fields.get(name), "annotation", None)
        fields = getattr(section, "model_fields", None) or getattr(
            section, "__dataclass_fields__", {}
        )
    return list(fields)

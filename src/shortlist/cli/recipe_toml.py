"""A whole recipe as a TOML file: every field that is set, defaults too."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shortlist.recipe import Recipe

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def recipe_toml(recipe: Recipe, header: Iterable[str] = ()) -> str:
    """The text of a file that reads as this recipe, but for passwords and keys.

    A field that is `None` is left out: TOML has no null, so a file that was read
    holds none but where it is the default.

    Args:
        recipe: what is written.
        header: lines of a comment above it.
    """
    lines = [f"# {comment(line)}" for line in header]
    lines += _table(recipe.to_record(), ())
    return "\n".join(lines) + "\n"


def _table(values: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    """A table: its own values, then the tables inside it."""
    held = {name: value for name, value in values.items() if value is not None}
    inner = {name: v for name, v in held.items() if isinstance(v, Mapping) and v}
    lines = ["", f"[{'.'.join(map(_key, path))}]"] if path else []
    lines += [f"{_key(n)} = {toml_value(v)}" for n, v in held.items() if n not in inner]
    for name, value in inner.items():
        lines += _table(value, (*path, name))
    return lines


def toml_value(value: Any) -> str:
    """A value as TOML writes it on one line."""
    if isinstance(value, Mapping):
        held = (
            f"{_key(n)} = {toml_value(v)}" for n, v in value.items() if v is not None
        )
        return f"{{ {', '.join(held)} }}" if value else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    # JSON's scalars are TOML's too, except that TOML escapes U+007F.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def comment(text: str) -> str:
    """Text on one line, without the control characters that TOML refuses."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else toml_value(name)

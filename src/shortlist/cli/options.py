"""Options that several commands share."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shortlist.packages import need_package

if TYPE_CHECKING:
    from shortlist.recipe import Recipe

RECIPE_FILE = "shortlist.toml"
_C1 = re.compile("[\x7f-\x9f]")

RecipeOption = Annotated[
    Path, typer.Option("--recipe", "-r", help="The recipe file.", show_default=True)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a field: section.field=value; repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace an earlier output of Shortlist.")
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", help="Also write the report as one HTML file.")
]
PlotsOption = Annotated[
    Path | None,
    typer.Option("--plots", help="Also write the plots as PNG files to this folder."),
]
BundleOption = Annotated[
    Path | None,
    typer.Option("--bundle", "-b", help="Bundle directory; default: the recipe's."),
]
KOption = Annotated[int, typer.Option("-k", help="Number of items, 1 to 1000.")]


def open_recipe(path: Path, settings: list[str] | None) -> Recipe:
    """Loads a recipe and applies the overrides."""
    from shortlist.recipe import load_recipe

    return load_recipe(path, settings)


def beside(recipe_path: Path, name: str) -> Path:
    """A path in a recipe, relative to the folder of the recipe file."""
    return recipe_path.parent / name


def bundle_path(bundle: Path | None, recipe_path: Path) -> Path:
    """The given bundle, or that of the recipe, or `bundle`."""
    if bundle is not None:
        return bundle
    if recipe_path.is_file():
        return beside(recipe_path, open_recipe(recipe_path, None).output.bundle)
    return Path("bundle")


def need_backend() -> None:
    """Raises `ResourceError` unless Keras and one of its backends are installed."""
    from shortlist.backend import BACKENDS

    need_package("keras", "jax")
    if not any(importlib.util.find_spec(name) for name in BACKENDS):
        need_package("jax", "jax")


def print_result(result: dict[str, Any], text: str, as_json: bool) -> None:
    """Prints the result once: as JSON, or as text for people."""
    if as_json:
        text = json.dumps(result, ensure_ascii=False)
        # JSON lets these pass; some terminals obey them.
        text = _C1.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    typer.echo(text)

"""Checks before any work that the outputs of a recipe overlap with nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from shortlist.outputs import check_place, refused_place

if TYPE_CHECKING:
    from shortlist.recipe import Recipe


def check_outputs(
    recipe: Recipe, path: Path, more: Mapping[str, Path] | None = None
) -> None:
    """Checks that no output of a recipe contains an input or another output.

    With `--overwrite` an output is replaced as a whole.

    Args:
        recipe: the recipe.
        path: file of the recipe.
        more: further folders that are replaced, by their name in messages.

    Raises:
        InputError: an output is the folder of the recipe, contains an input or another
            output, or cannot be an output (`output-place`).
    """
    outputs = {
        f"[output] {name}": path.parent / getattr(recipe.output, name)
        for name in ("dataset", "run", "bundle")
    }
    outputs |= more or {}
    for out in outputs.values():
        check_place(out)
    for out in outputs.values():
        for what, inside in (*_inputs(recipe, path), *_kept(recipe, path)):
            if _contains(out, inside):
                raise refused_place(out, f"it contains {what}, {str(inside)!r}")
    for (one, first), (other, second) in combinations(outputs.items(), 2):
        if _contains(first, second) or _contains(second, first):
            reason = f"as {one} it overlaps with {other}, {str(second)!r}"
            raise refused_place(first, reason)


def _inputs(recipe: Recipe, path: Path) -> Iterator[tuple[str, Path]]:
    """The recipe itself and the files that it reads."""
    yield "the recipe", path
    log = recipe.log
    for name in ("events", "test_events", "validation_events", "users", "items"):
        given = getattr(log, name) or []
        for file in [given] if isinstance(given, str) else given:
            yield f"an input ([log] {name})", path.parent / file


def _kept(recipe: Recipe, path: Path) -> Iterator[tuple[str, Path]]:
    """Folders and files that are only added to, never replaced."""
    yield "the searches ([tune] folder)", path.parent / recipe.tune.folder
    if recipe.tracking.store is not None:
        yield "the run store ([tracking] store)", path.parent / recipe.tracking.store
    uri = recipe.tracking.mlflow
    if uri is not None and ("://" not in uri or uri.startswith("sqlite:///")):
        file = path.parent / uri.removeprefix("sqlite:///")
        yield "a database ([tracking] mlflow)", file


def _contains(out: Path, inside: Path) -> bool:
    """Whether a path, or the target of a link, is `out` or is inside it."""
    folder = Path(os.path.realpath(out))
    named = Path(os.path.realpath(inside.parent)) / inside.name
    return any(
        place.is_relative_to(folder)
        for place in (named, Path(os.path.realpath(inside)))
    )

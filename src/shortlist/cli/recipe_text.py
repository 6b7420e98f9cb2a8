"""Writes a commented recipe file from what was guessed about a log."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortlist.atomic import atomic_file, check_file
from shortlist.cli.recipe_toml import comment, toml_value
from shortlist.data.split import KINDS
from shortlist.options import Options
from shortlist.recipe import (
    EvaluationSection,
    OutputSection,
    RankerSection,
    RetrievalSection,
    ServingSection,
)

if TYPE_CHECKING:
    from shortlist.data.guess.schema import Guess
    from shortlist.data.read.file_format import FileFormat
    from shortlist.data.schema import Feature

_FILES = {"log": "log", "users": "users file", "items": "items file"}

Override = dict[str, dict[str, Any]]


def write_recipe(
    path: Path,
    guess: Guess,
    *,
    log: Path | Sequence[Path],
    users: Path | None,
    items: Path | None,
    overrides: Override | None = None,
    overwrite: bool = False,
) -> None:
    """Writes the recipe file.

    Args:
        path: the file to write.
        guess: the guessed columns and settings, and the reasons.
        log: the interaction log, one file or several.
        users: the user attribute file.
        items: the item attribute file.
        overrides: values other than the defaults, by section and field.
        overwrite: replace an existing file.
    """
    logs = [log] if isinstance(log, Path) else list(log)
    check_file(
        path,
        lambda _: _is_recipe(path),
        overwrite=overwrite,
        name="a recipe",
        inputs=[*logs, *(file for file in (users, items) if file is not None)],
    )
    named = (("users", users), ("items", items))
    files = {name: _from(path, file) for name, file in named if file}
    blocks = [
        *_head((overrides or {}).get("recipe", {})),
        *_log(guess, [_from(path, file) for file in logs], files),
        *_columns(guess),
        "\n[split]",
        *_split(guess),
        *_sections(guess, overrides or {}),
    ]
    with atomic_file(path) as temporary:
        temporary.write_text("\n".join(blocks) + "\n", encoding="utf-8")


def _head(changed: Mapping[str, Any]) -> list[str]:
    return [
        "# Written by `shortlist init` from the log: check the guesses, then run",
        "#   shortlist prepare && shortlist train && shortlist evaluate",
        "#   shortlist export && shortlist serve",
        "version = 1",
        _line("name", changed.get("name", "recommender")),
        _line("seed", changed.get("seed", 0)),
    ]


def _log(guess: Guess, events: list[str], files: Mapping[str, str]) -> list[str]:
    """`[log]`: the files, their id columns and the settings of reading."""
    ids = {"users_id": guess.users_id, "items_id": guess.items_id}
    return [
        "\n[log]  # paths from the folder of this file",
        _line("events", events[0] if len(events) == 1 else events),
        *(_line(name, file) for name, file in files.items()),
        *(
            _line(name, column)
            for name, column in ids.items()
            if column is not None and name.removesuffix("_id") in files
        ),
        *_reading(guess),
    ]


def _sections(guess: Guess, overrides: Override) -> list[str]:
    """The sections that are the same for every log, but for what was guessed."""
    explicit = guess.schema.label_kind == "explicit"
    guessed: Override = {
        "ranker": {"objective": "explicit" if explicit else "binary"},
        "evaluation": {"repeats": True} if guess.repeats else {},
        "serving": {"repeats": True} if guess.repeats else {},
    }
    sections: dict[str, type[Options]] = {
        "retrieval": RetrievalSection,
        "ranker": RankerSection,
        "evaluation": EvaluationSection,
        "serving": ServingSection,
        "output": OutputSection,
    }
    lines = []
    for name, section in sections.items():
        note = "  # folders beside this file" if name == "output" else ""
        lines.append(f"\n[{name}]{note}")
        changed = {**guessed.get(name, {}), **overrides.get(name, {})}
        lines += _section(section, changed)
    return lines


def _reading(guess: Guess) -> list[str]:
    """The settings of reading; those of the attribute files are separate tables."""
    why = guess.format_reasons
    lines = [_line("layout", guess.layout, why.get("layout"))]
    lines += _format_lines(guess.format, why, "")
    if "on_error" in why:
        lines.append(_line("on_error", "skip", why["on_error"]))
    for name, given in (("users", guess.users_format), ("items", guess.items_format)):
        found = _format_lines(given, why, f"{name}.")
        lines += [f"\n[log.{name}_format]", *found] if found else []
    return lines


def _format_lines(given: FileFormat, why: Mapping[str, str], prefix: str) -> list[str]:
    return [
        _line(field.name, value, why.get(prefix + field.name))
        for field in dataclasses.fields(given)
        if (value := getattr(given, field.name)) != field.default
        and (prefix or field.name != "layout")
    ]


def _is_recipe(path: Path) -> bool:
    """Whether a file may be a recipe, perhaps one with a mistake in it."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return path.suffix == ".toml"
    return not values or not values.keys().isdisjoint(("log", "columns"))


def _columns(guess: Guess) -> list[str]:
    schema, why = guess.schema, guess.reasons
    lines = ["\n[columns]"]
    for name in ("user_id", "item_id", "timestamp", "label"):
        if (value := getattr(schema, name)) is not None:
            lines.append(_line(name, value, why.get(name)))
    if schema.title is not None:
        file = "log" if schema.title_from_log else "items"
        note = guess.columns.get(file, {}).get(schema.title)
        lines.append(_line("title", schema.title, note))
    if schema.title_from_log:
        lines.append(_line("title_from_log", True, "a column of the log"))
    lines.append(_line("label_kind", schema.label_kind, why.get("label_kind")))
    note = why.get("positive_from")
    lines.append(_line("positive_from", schema.positive_from, note))
    for name in ("label_min", "label_max"):
        if (value := getattr(schema, name)) is not None:
            lines.append(_line(name, value))
    if schema.weight != "none":
        note = "more is surer: or linear, or none"
        lines.append(_line("weight", schema.weight, note))
    for feature in schema.features:
        lines += _feature(feature, guess)
    return [*lines, *_left_out(guess)]


def _feature(feature: Feature, guess: Guess) -> list[str]:
    file = "log" if feature.from_log else f"{feature.owner}s"
    reason = guess.columns.get(file, {}).get(feature.name)
    lines = [
        "\n[[columns.features]]",
        _line("name", feature.name, reason),
        _line("owner", feature.owner),
        _line("kind", feature.kind),
    ]
    if feature.from_log:
        note = f"the newest value of each {feature.owner} in the log"
        lines.append(_line("from_log", True, note))
    if feature.vocabulary:
        lines.append(_line("vocabulary", feature.vocabulary))
    if feature.kind == "multi_valued":
        lines.append(_line("separator", feature.separator))
    return lines


def _left_out(guess: Guess) -> list[str]:
    """The columns of each file that are not used, and why, as comments."""
    lines: list[str] = []
    for file, reasons in guess.columns.items():
        unused = [name for name in reasons if not _is_used(name, file, guess)]
        if unused:
            lines += ["", f"# Columns of the {_FILES[file]} left out:"]
            lines += [f"# {comment(f'{name}: {reasons[name]}')}" for name in unused]
    return lines


def _is_used(name: str, file: str, guess: Guess) -> bool:
    schema, from_log = guess.schema, file == "log"
    of_file = schema.log_attributes if from_log else schema.file_attributes
    owners = ("user", "item") if from_log else (file.removesuffix("s"),)
    features = {f.name for f in of_file.features if f.owner in owners}
    return name in features or (file != "users" and name == of_file.title)


def _split(guess: Guess) -> list[str]:
    split = guess.split
    kinds = [kind for kind in KINDS if kind != split.kind]
    held_out = {
        "last_n": "each user's newest event",
        "last_fraction": "each user's newest share",
        "random": "a share of all events",
    }[split.kind]
    note = f"or {', '.join(kinds)}"
    if guess.order:
        note = f"the order of the rows is not that of time; {note}"
    return [
        _line("kind", split.kind, note),
        _line("test", split.test, f"{held_out}, never trained or tuned on"),
        _line("validation", split.validation, "of the rest: stops training early"),
    ]


def _section(section: type[Options], changed: Mapping[str, Any]) -> list[str]:
    """The fields of a section, each with its value and its note."""
    notes = section.notes()
    return [
        _line(name, changed.get(name, field.default), notes.get(name))
        for name, field in section.model_fields.items()
        if not isinstance(field.default, Options | dict)  # tables inside the section
        and changed.get(name, field.default) is not None  # TOML has no null
    ]


def _line(name: str, value: Any, note: str | None = None) -> str:
    line = f"{name} = {toml_value(value)}"
    return f"{line}  # {comment(note)}" if note else line


def _from(recipe: Path, file: Path) -> str:
    """The file as the recipe names it: relative when it lies below the recipe."""
    folder, file = recipe.resolve().parent, file.resolve()
    below = file.is_relative_to(folder)
    return os.path.relpath(file, folder) if below else str(file)

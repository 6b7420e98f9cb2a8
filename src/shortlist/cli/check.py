"""`shortlist check`: the data report of a log, without writing a dataset."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shortlist.cli.options import (
    RECIPE_FILE,
    HtmlOption,
    JsonOption,
    OverwriteOption,
    SetOption,
    open_recipe,
    print_result,
)
from shortlist.cli.pages import check_page
from shortlist.errors import InputError

if TYPE_CHECKING:
    from shortlist.data.check.report import LogReport
    from shortlist.data.preparation.attributes import AttributeFiles
    from shortlist.data.preparation.sorted_log import SortedLog
    from shortlist.data.read.file_format import FileFormat
    from shortlist.data.read.inputs import LogFiles
    from shortlist.data.schema import Schema
    from shortlist.data.split import Split

FOUND_PROBLEMS = 1
_SHOWN_FILES = 5
_ROLES = ("user_id", "item_id", "timestamp", "label")


def check(
    logs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="LOG...", help="Files of the log; default: those of the recipe."
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            "-r",
            help="Recipe with columns and split; default: shortlist.toml.",
        ),
    ] = None,
    html: HtmlOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if there is a problem.")
    ] = False,
    set_: SetOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Report on a log and the problems in it, without writing a dataset."""
    if recipe is None and not logs and Path(RECIPE_FILE).is_file():
        recipe = Path(RECIPE_FILE)
    if recipe is None and (set_ or not logs):
        raise InputError(
            "usage",
            f"A check needs a LOG or a recipe (--recipe, or {RECIPE_FILE} in this"
            " folder); --set needs a recipe. Received neither. Run: shortlist check LOG"
            " ",
        )
    check_page(html, overwrite)
    given = _from_recipe(logs, recipe, set_) if recipe else _guessed(logs or [])

    import msgspec

    from shortlist.cli.check_text import report_text
    from shortlist.data.check.log_check import check_log

    report = check_log(
        given.read(), given.schema, given.split, given.sources, repeats=given.repeats
    )
    if html is not None:
        _write_html(report, html, given)
    result = {
        "files": [str(file) for file in given.files],
        "columns": _columns(given.schema),
        "split": given.split.kind,
        "guesses": given.guesses,
        "other_columns": given.other_columns,
        **msgspec.to_builtins(report),
    }
    problems = {found.code for found in report.findings if found.severity == "problem"}
    then = given.next if problems <= given.solved_by_next else ""
    text = "" if json else report_text(report, given.lines(), then, html)
    print_result(result, text, json)
    if strict and any(found.severity == "problem" for found in report.findings):
        raise typer.Exit(FOUND_PROBLEMS)


class _Given:
    """The files, columns and split to check, guessed or from a recipe."""

    def __init__(self, log: LogFiles, schema: Schema, split: Split) -> None:
        from shortlist.data.read.inputs import paths_of

        self.log, self.schema, self.split = log, schema, split
        self.files = paths_of(log.events)
        self.repeats = False
        self.guesses: dict[str, str] = {}
        self.other_columns: dict[str, dict[str, str]] = {}
        self.guess_lines: list[str] = []
        self.format: str | FileFormat | None = None
        self.sources: AttributeFiles | None = None
        self.next = ""
        self.solved_by_next: set[str] = set()

    def read(self) -> SortedLog:
        from shortlist.data.preparation.sorted_log import read_sorted_log
        from shortlist.data.read.inputs import ReadOptions

        options = ReadOptions(format=self.format, on_error="skip")
        return read_sorted_log(self.log, self.schema, self.split, options)

    def lines(self) -> list[str]:
        """The files and columns that were checked, one line each."""
        files = _listed(self.files)
        if self.guesses:
            lines = [f"  {line}" for line in self.guess_lines]
            return [f"log {files}; guessed, please check:", *lines]
        columns = _columns(self.schema).items()
        return [f"log {files}", *(f"  {role}: {name!r}" for role, name in columns)]


def _listed(files: list[Path]) -> str:
    """The first files by name, and the number of the others."""
    rest = len(files) - _SHOWN_FILES
    shown = ", ".join(str(file) for file in files[:_SHOWN_FILES])
    return f"{shown} and {rest} more" if rest > 0 else shown


def _from_recipe(
    logs: list[Path] | None, path: Path, settings: list[str] | None
) -> _Given:
    recipe = open_recipe(path, settings)

    from shortlist.cli.stages import log_files, read_options
    from shortlist.data.preparation.attributes import attribute_files

    files, options = log_files(recipe, path), read_options(recipe.log)
    if logs:
        files = dataclasses.replace(files, events=logs)
    given = _Given(files, recipe.columns, recipe.split)
    given.repeats = recipe.evaluation.repeats
    named = "" if path == Path(RECIPE_FILE) else f" --recipe {shlex.quote(str(path))}"
    given.next = f"shortlist prepare{named}"
    given.format = options.format
    given.sources = attribute_files(files, recipe.columns, options)
    return given


def _guessed(logs: list[Path]) -> _Given:
    from shortlist.cli.guess_text import guess_lines
    from shortlist.data.guess.schema import guess_schema
    from shortlist.data.read.inputs import LogFiles

    guess = guess_schema(logs)
    # Show the order of the file as it is.
    split = dataclasses.replace(guess, order="").split
    given = _Given(LogFiles(logs), guess.schema, split)
    given.format = guess.format
    amounts = f"test {split.test:g}, validation {split.validation:g}"
    sets = f"sets {guess.split.kind} here" if guess.order else "sets it"
    line = f"{split.kind}, {amounts}; `shortlist init` {sets}."
    warnings = {f"warning {n}": text for n, text in enumerate(guess.warnings, start=1)}
    given.guesses = {**guess.reasons, "split": line, **warnings}
    given.other_columns = guess.columns
    given.guess_lines = [
        *guess_lines(guess),
        f"split: {line}",
        *(f"warning: {text}" for text in guess.warnings),
    ]
    given.next = f"shortlist init {shlex.join(map(str, logs))}"
    given.solved_by_next = {"order-not-time", "only-repeats"}
    return given


def _columns(schema: Schema) -> dict[str, str]:
    named = {role: getattr(schema, role) for role in _ROLES}
    return {role: name for role, name in named.items() if name is not None}


def _write_html(report: LogReport, path: Path, given: _Given) -> None:
    from shortlist.data.check.html_page import write_html

    details = {
        "files": _listed(given.files),
        "columns": ", ".join(
            f"{role} {n!r}" for role, n in _columns(given.schema).items()
        ),
        "split": given.split.kind,
    }
    rest = len(given.files) - 1
    more = f" and {rest} more" if rest > 0 else ""
    title = f"Data report of {given.files[0].name}{more}"
    write_html(report, path, title=title, details=details)

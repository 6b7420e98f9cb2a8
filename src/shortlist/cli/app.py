"""The `shortlist` command: one file per subcommand, in the order of the data flow.

Exit codes: 0 success; 1 a bug in Shortlist, or a problem that `check --strict` found;
2 invalid input; 3 a dataset, run or bundle that cannot be used; 4 the machine (disk,
network, port, missing package); 130 interrupted; 143 terminated.
"""

from __future__ import annotations

import json
import re
from typing import Any

import typer
from typer.exceptions import Abort, Exit, TyperException

import shortlist
from shortlist import interrupts
from shortlist.cli import (
    check,
    compare,
    convert,
    cross_validate,
    demo,
    doctor,
    evaluate,
    export,
    init,
    predict,
    prepare,
    recommend,
    runs,
    serve,
    similar,
    train,
    tune,
)
from shortlist.cli.printable import printable
from shortlist.errors import ResourceError, ShortlistError
from shortlist.reading import denied_by, not_readable

EXIT_INTERNAL = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
# Typer's message for a file argument that may not be read.
_UNREADABLE = re.compile(r"path '(.*)' is not readable")

app = typer.Typer(
    name="shortlist",
    help="Turns an interaction log into a served recommender.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (
    init,
    check,
    prepare,
    train,
    tune,
    evaluate,
    compare,
    cross_validate,
    runs,
    export,
    recommend,
    similar,
    predict,
    serve,
    convert,
    demo,
    doctor,
):
    name = module.__name__.rpartition(".")[2]
    app.command(name.replace("_", "-"))(getattr(module, name))


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"shortlist {shortlist.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False,
        "--version",
        callback=_show_version,
        is_eager=True,
        help="Show the version.",
    ),
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks of errors."),
) -> None:
    """Turns an interaction log into a served recommender.

    Exit codes: 0 success, 1 a bug in Shortlist (or a problem that check --strict
    found), 2 invalid input, 3 a dataset, run or bundle that cannot be used, 4 a problem
    of the machine (disk, network, port, missing package), 130 interrupted, 143
    terminated.
    """


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit code."""
    # The flag may be before or after the command.
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        result = app(arguments, standalone_mode=False, prog_name="shortlist")
        code = result if isinstance(result, int) else 0
    except Exit as done:
        code = done.exit_code
    except Abort:
        code = EXIT_INTERRUPTED
    except TyperException as error:
        if unread := _UNREADABLE.search(error.format_message()):
            return _report_error(not_readable(unread[1]), arguments)
        text = f"{error.format_message()}{_id_hint(error, arguments)}"
        text += " See: shortlist --help"
        return _report({"code": "usage", "message": text}, text, EXIT_USAGE, arguments)
    except ShortlistError as error:
        if debug:
            raise
        return _report_error(_as_permission(error), arguments)
    except BaseException as error:
        # A panic of Polars is not an Exception.
        is_fault = isinstance(error, Exception) or _is_panic(error)
        if debug or not is_fault:
            raise
        if denied_by(error) is not None:
            return _report_error(_as_permission(error), arguments)
        text = f"{type(error).__name__}: {error}. This is a bug in Shortlist: run the"
        text += " command with --debug and report what it prints."
        values = {"code": "internal", "message": text}
        return _report(values, text, EXIT_INTERNAL, arguments)
    if code == EXIT_INTERRUPTED:
        typer.echo("interrupted", err=True)
    return code


def _is_panic(error: BaseException) -> bool:
    """Whether the Rust core of Polars panicked; checked without importing it."""
    return type(error).__name__ == "PanicException"


def _as_permission(error: BaseException) -> ShortlistError:
    """A permission error if that is the cause of an error about a damaged file."""
    denied = denied_by(error)
    if isinstance(error, ShortlistError):
        if denied is None or isinstance(error, ResourceError):
            return error
        return not_readable(denied.filename or error.file or "a file")
    assert denied is not None
    return not_readable(denied.filename or "a file")


def _report_error(error: ShortlistError, arguments: list[str]) -> int:
    return _report(error.to_dict(), str(error), error.exit_code, arguments)


def _id_hint(error: TyperException, arguments: list[str]) -> str:
    """A hint for an id that was parsed as an option."""
    option = getattr(error, "option_name", None)
    command = next((a for a in arguments if not a.startswith("-")), "")
    if option is None or command not in ("recommend", "similar"):
        return ""
    given = next((a for a in arguments if a.startswith(option)), option)
    return f". If it is an id, write -- before it: shortlist {command} -- {given}."


def _report(
    values: dict[str, Any], text: str, exit_code: int, arguments: list[str]
) -> int:
    if interrupts.received() is not None:
        return exit_code  # errors after an interruption are its consequence
    if "--json" in arguments:
        typer.echo(json.dumps({"error": values}))
    lines = map(printable, text.split("\n"))
    typer.echo(f"error[{values['code']}]: {chr(10).join(lines)}", err=True)
    return exit_code

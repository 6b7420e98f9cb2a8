"""The `shortlist` command: one file per subcommand, in the order of the data flow.

Exit codes: 0 done; 1 a fault of Shortlist, or a problem that `check --strict` found;
2 the user's mistake; 3 a dataset, run or bundle that cannot be used; 4 the machine
(disk, network, port, missing package); 130 interrupted; 143 terminated.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import typer
from typer.exceptions import Abort, Exit, TyperException

import shortlist
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
from shortlist.errors import ShortlistError

EXIT_INTERNAL = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

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
        False, "--version", callback=_show_version, is_eager=True, help="Show it."
    ),
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks of errors."),
) -> None:
    """Turns an interaction log into a served recommender.

    Exit codes: 0 done, 1 a fault of Shortlist (or a problem that check --strict found),
    2 a mistake in what was given, 3 a dataset, run or bundle that cannot be used, 4 the
    machine, 130 interrupted.
    """


def main() -> None:
    """Runs the command line and exits with a documented code."""
    # Before any backend is loaded: TensorFlow's start-up messages are not ours.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(run(sys.argv[1:]))


def _terminated(number: int, _: object) -> None:
    """Ends the process through every `finally`, so that nothing half-written stays."""
    raise SystemExit(128 + number)


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit code."""
    # The flag may stand before or after the command.
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
        text = f"{error.format_message()}{_id_hint(error, arguments)}"
        text += " See: shortlist --help"
        return _report({"code": "usage", "message": text}, text, EXIT_USAGE, arguments)
    except ShortlistError as error:
        if debug:
            raise
        return _report(error.to_dict(), str(error), error.exit_code, arguments)
    except Exception as error:
        if debug:
            raise
        text = f"{type(error).__name__}: {error}. This is a fault of Shortlist: run"
        text += " the command with --debug and report what it prints."
        values = {"code": "internal", "message": text}
        return _report(values, text, EXIT_INTERNAL, arguments)
    if code == EXIT_INTERRUPTED:
        typer.echo("interrupted", err=True)
    return code


def _id_hint(error: TyperException, arguments: list[str]) -> str:
    """What helps if an id was read as an option."""
    option = getattr(error, "option_name", None)
    command = next((a for a in arguments if not a.startswith("-")), "")
    if option is None or command not in ("recommend", "similar"):
        return ""
    given = next((a for a in arguments if a.startswith(option)), option)
    return f". If it is an id, write -- before it: shortlist {command} -- {given}."


def _report(
    values: dict[str, Any], text: str, exit_code: int, arguments: list[str]
) -> int:
    if "--json" in arguments:
        typer.echo(json.dumps({"error": values}))
    typer.echo(f"error[{values['code']}]: {text}", err=True)
    return exit_code

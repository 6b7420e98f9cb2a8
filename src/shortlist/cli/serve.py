"""`shortlist serve`: BUNDLE -> ANSWERS over REST."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shortlist.cli.options import (
    RECIPE_FILE,
    BundleOption,
    JsonOption,
    RecipeOption,
    bundle_path,
)
from shortlist.packages import need_package

if TYPE_CHECKING:
    from shortlist.serving.server import RunningServer


def serve(
    bundle: BundleOption = None,
    recipe: RecipeOption = Path(RECIPE_FILE),
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port; the next free one if it is taken.")
    ] = 8000,
    strict_port: Annotated[
        bool, typer.Option("--strict-port", help="Fail if the port is taken.")
    ] = False,
    events: Annotated[
        Path | None,
        typer.Option(help="SQLite file for posted events; one server a file."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Answer over HTTP until Ctrl-C."""
    need_package("granian", "serve")

    from shortlist.cli.warnings import warn_of_bundle
    from shortlist.serving.server import serve as serve_bundle

    path = bundle_path(bundle, recipe)

    def on_ready(running: RunningServer) -> None:
        ready = {"url": running.url, "model_version": running.model_version}
        text = f"serving {path} (version {running.model_version}) at {running.url}"
        typer.echo(json_module.dumps(ready) if json else text)
        if not json:
            typer.echo("Ctrl-C ends it")
        warn_of_bundle(path)

    serve_bundle(
        path,
        host,
        port,
        events_path=events,
        port_search=not strict_port,
        on_ready=on_ready,
    )

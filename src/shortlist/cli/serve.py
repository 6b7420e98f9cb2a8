"""`shortlist serve`: BUNDLE -> ANSWERS over REST."""

from __future__ import annotations

import json as json_module
import logging
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
    from shortlist.serving.http.server import RunningServer


_NOT_KEPT = (
    "posted events are held in memory and end with this server;"
    " --events FILE keeps them"
)


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
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="Further name that requests may ask for, as of a proxy."),
    ] = None,
    drain_seconds: Annotated[
        float,
        typer.Option(help="After SIGTERM /readyz answers 503 so long.", min=0),
    ] = 2.0,
    max_connections: Annotated[
        int, typer.Option(help="Open connections.", min=16)
    ] = 4096,
    max_connections_per_client: Annotated[
        int, typer.Option(help="Open connections from one address.", min=1)
    ] = 2048,
    max_users: Annotated[
        int, typer.Option(help="Users with posted events.", min=1)
    ] = 1_000_000,
    max_state_mb: Annotated[
        int, typer.Option(help="Memory for posted events.", min=1)
    ] = 512,
    max_events_mb: Annotated[
        int, typer.Option(help="Size of the events file.", min=1)
    ] = 2048,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="Log a line for each request.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Answer over HTTP until Ctrl-C."""
    need_package("granian", "serve")

    from shortlist.cli.warnings import warn_of_bundle
    from shortlist.serving.http.limits import (
        ConnectionLimits,
        ServerSettings,
        StateLimits,
    )
    from shortlist.serving.http.middleware import header_value
    from shortlist.serving.http.server import serve as serve_bundle

    path = bundle_path(bundle, recipe)
    _log_to_stderr()

    def on_ready(running: RunningServer) -> None:
        version = header_value(running.model_version)
        ready = {
            "url": running.url,
            "model_version": running.model_version,
            "events": None if events is None else str(events),
        }
        text = f"serving {path} (version {version}) at {running.url}"
        if json:
            typer.echo(json_module.dumps(ready))
        else:
            typer.echo(text)
            if events is None:
                typer.echo(_NOT_KEPT)
            typer.echo("Ctrl-C ends it")
        warn_of_bundle(path)

    serve_bundle(
        path,
        host,
        port,
        events_path=events,
        settings=ServerSettings(
            connections=ConnectionLimits(
                in_all=max_connections, per_client=max_connections_per_client
            ),
            state=StateLimits(max_users=max_users, max_bytes=max_state_mb * 2**20),
            max_events_bytes=max_events_mb * 2**20,
            allowed_hosts=tuple(allowed_host or ()),
            drain_seconds=drain_seconds,
            access_log=access_log,
        ),
        port_search=not strict_port,
        on_ready=on_ready,
    )


def _log_to_stderr() -> None:
    logger = logging.getLogger("shortlist")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)

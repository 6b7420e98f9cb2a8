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
    "posted events are kept in memory and lost when the server stops;"
    " --events FILE stores them"
)


def serve(
    bundle: BundleOption = None,
    recipe: RecipeOption = Path(RECIPE_FILE),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port; the next free one if it is taken.")
    ] = 8000,
    strict_port: Annotated[
        bool, typer.Option("--strict-port", help="Fail if the port is taken.")
    ] = False,
    events: Annotated[
        Path | None,
        typer.Option(
            help="SQLite file for posted events; used by one server at a time."
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Additional accepted Host header, such as a proxy's name; repeatable."
        ),
    ] = None,
    drain_seconds: Annotated[
        float,
        typer.Option(
            help="Seconds of 503 from /readyz after SIGTERM, before the end.",
            min=0,
        ),
    ] = 2.0,
    max_connections: Annotated[
        int, typer.Option(help="Maximum number of open connections.", min=16)
    ] = 4096,
    max_connections_per_client: Annotated[
        int,
        typer.Option(help="Maximum number of open connections per address.", min=1),
    ] = 2048,
    max_users: Annotated[
        int,
        typer.Option(
            help="Maximum number of users with posted events in memory.", min=1
        ),
    ] = 1_000_000,
    max_state_mb: Annotated[
        int, typer.Option(help="Maximum memory for posted events, MB.", min=1)
    ] = 512,
    max_events_mb: Annotated[
        int, typer.Option(help="Maximum size of the events file, MB.", min=1)
    ] = 2048,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="Log a line for each request.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Serve a bundle over HTTP until Ctrl-C."""
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
            typer.echo("Press Ctrl-C to stop.")
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

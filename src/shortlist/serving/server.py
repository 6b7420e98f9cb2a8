"""Runs the REST application on Granian, in this process.

Granian's embedded server is used, not its usual parent with spawned workers: nothing
is imported twice, nothing is forked after ONNX Runtime has started, and one process
gets the signals. Knows addresses, ports and signals; knows no routes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.util
import ipaddress
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shortlist.errors import InputError, ResourceError
from shortlist.serving.events import SqliteEventStore
from shortlist.serving.payloads import BODY_LIMIT_BYTES
from shortlist.serving.recommender import Recommender

if TYPE_CHECKING:
    from granian.server.embed import Server
    from starlette.types import ASGIApp

    from shortlist.serving.rest import ServingState

_PACKAGES = ("granian", "onnxruntime", "starlette")
_PORTS_TO_TRY = 100
_BACKLOG = 1024
_GRACE_SECONDS = 10.0
_THREADS_END_SECONDS = 0.1


@dataclass(frozen=True)
class RunningServer:
    """A server that answers.

    Args:
        url: where, without a final slash.
        model_version: version of the bundle it serves.
        stop: ends it, from any thread.
    """

    url: str
    model_version: str
    stop: Callable[[], None]


def serve(
    bundle_path: str | Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    events_path: str | Path | None = None,
    body_limit_bytes: int = BODY_LIMIT_BYTES,
    port_search: bool = False,
    allow_remote: bool = False,
    on_ready: Callable[[RunningServer], None] | None = None,
) -> None:
    """Serves a bundle until SIGINT, SIGTERM or `RunningServer.stop`.

    The port is open, and `/healthz` answers, while the bundle is still being read;
    `/readyz` answers 503 until it is.

    Args:
        bundle_path: directory of the bundle.
        host: address to listen at.
        port: port to listen at; 0 takes a free one.
        events_path: SQLite file for posted events; in memory by default.
        body_limit_bytes: longest request body.
        port_search: take the next free port if `port` is taken.
        allow_remote: allow an address that other machines can reach.
        on_ready: called in a thread of its own once the bundle is loaded. What it
            raises stops the server and is raised here.

    Raises:
        InputError: an address beyond this machine (`remote-bind-refused`), or none
            at all (`invalid-host`, `invalid-port`).
        ResourceError: the port is taken (`port-taken`) or Granian is not installed
            (`package-missing`).
        ArtifactError: the bundle or the event store cannot be used.
    """
    _check_packages()
    address = _resolve(host, allow_remote=allow_remote)
    with claimed_port(address, port, search=port_search) as claimed:
        options = _Options(
            bundle_path, address, claimed, events_path, body_limit_bytes, on_ready
        )
        asyncio.run(_serve(options))


def free_port(address: str, port: int, *, search: bool = False) -> int:
    """Returns `port` if it is free on `address`, or with `search` the next free one.

    Raises:
        InputError: `invalid-port`.
        ResourceError: `port-taken`, or `bind-failed` for an address of another machine.
    """
    if not 0 <= port <= 65535:
        raise InputError(
            "invalid-port",
            f"A port must be a number from 0 to 65535. Received: {port}. 0 takes a"
            " free one.",
        )
    last = min(65535, port + _PORTS_TO_TRY - 1) if search and port else port
    for candidate in range(port, last + 1):
        if found := _bound_port(address, candidate):
            return found
    tried = f"port {port}" if last == port else f"ports {port} to {last}"
    raise ResourceError(
        "port-taken",
        f"The server needs a free port. On {address}, {tried} cannot be used."
        " Stop what listens there, or choose another with --port.",
    )


def _check_packages() -> None:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ResourceError(
            "package-missing",
            f"The server needs the packages {', '.join(_PACKAGES)}. Not installed:"
            f" {', '.join(missing)}. Run: pip install 'shortlist[serve]'",
        )


@contextlib.contextmanager
def claimed_port(address: str, port: int, *, search: bool) -> Iterator[int]:
    """A free port that no other server of ours takes while this one runs.

    Granian lets sockets share a port, so that two servers started at one moment would
    both find it free and then get half of the requests each. On Linux the claim is a
    name in the abstract namespace, which goes away with the process; elsewhere there
    is none.
    """
    while True:
        found = free_port(address, port, search=search)
        claim = socket.socket(socket.AF_UNIX)
        try:
            if sys.platform == "linux":
                claim.bind(f"\0shortlist-serve-{address}-{found}")
        except OSError as error:
            claim.close()
            if not search or found >= 65535:
                raise ResourceError(
                    "port-taken",
                    f"The server needs a free port. Another server takes {found} on"
                    f" {address}. Choose another with --port.",
                ) from error
            port = found + 1
            continue
        with claim:
            yield found
        return


@dataclass(frozen=True)
class _Options:
    bundle_path: str | Path
    address: str
    port: int
    events_path: str | Path | None
    body_limit_bytes: int
    on_ready: Callable[[RunningServer], None] | None

    @property
    def url(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}"


async def _serve(options: _Options) -> None:
    from shortlist.serving.rest import ServingState, create_app

    state, stopping = ServingState(), asyncio.Event()
    app = create_app(state, body_limit_bytes=options.body_limit_bytes)
    server = _granian(app, options)
    loop = asyncio.get_running_loop()
    with _signals(loop, stopping):
        serving = loop.create_task(server.serve())
        working = loop.create_task(_work(options, state, stopping))
        asked = loop.create_task(stopping.wait())
        try:
            await asyncio.wait(
                [serving, working, asked], return_when=asyncio.FIRST_COMPLETED
            )
            if serving.done():
                _raise_bind_failure(serving, options)
        finally:
            state.is_draining = True
            server.stop()  # type: ignore[no-untyped-call]
            await asyncio.wait([serving], timeout=_GRACE_SECONDS)
            asked.cancel()
            if not working.done():
                working.cancel()
            # Granian's threads end on their own, and one that wakes up after the
            # interpreter has gone panics; it gives no handle to wait for.
            await asyncio.sleep(_THREADS_END_SECONDS)
            if state.recommender is not None:
                state.recommender.close()
    if working.done() and not working.cancelled():
        working.result()


async def _work(
    options: _Options, state: ServingState, stopping: asyncio.Event
) -> None:
    """Loads the bundle, tells `on_ready`, and stays until the server is to stop."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended already
            loop.call_soon_threadsafe(stopping.set)

    recommender = await asyncio.to_thread(_load, options)
    state.recommender = recommender
    await _until_listening(options)
    if options.on_ready is not None:
        running = RunningServer(
            options.url,
            recommender.model_version,
            stop,
        )
        await asyncio.to_thread(options.on_ready, running)
    await stopping.wait()


def _load(options: _Options) -> Recommender:
    if options.events_path is None:
        return Recommender.load(options.bundle_path)
    events = SqliteEventStore(options.events_path)
    try:
        return Recommender.load(options.bundle_path, events=events)
    except BaseException:
        events.close()
        raise


async def _until_listening(options: _Options) -> None:
    # If it never does, the task of the server has failed and ends this one.
    while True:
        try:
            _, writer = await asyncio.open_connection(options.address, options.port)
        except OSError:
            await asyncio.sleep(0.005)
            continue
        writer.close()
        return


def _granian(app: ASGIApp, options: _Options) -> Server:
    from granian.constants import HTTPModes, Interfaces
    from granian.server.embed import Server

    return Server(
        app,
        address=options.address,
        port=options.port,
        interface=Interfaces.ASGINL,  # without lifespan events, which the app has not
        http=HTTPModes.http1,
        websockets=False,
        backlog=_BACKLOG,
        log_enabled=False,  # its lines would carry paths, and so ids
    )


def _raise_bind_failure(serving: asyncio.Task[None], options: _Options) -> None:
    error = serving.exception()
    if error is not None:
        reason = str(error).splitlines()[0]
        raise ResourceError(
            "bind-failed",
            f"The server must be able to listen at {options.url}. The system said:"
            f" {reason}. Choose another --host or --port.",
        ) from error


@contextlib.contextmanager
def _signals(
    loop: asyncio.AbstractEventLoop, stopping: asyncio.Event
) -> Iterator[None]:
    """SIGINT and SIGTERM ask the server to stop; the second one ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may take signals; whoever runs this has it
        return

    def on_signal(number: signal.Signals) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        stopping.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _resolve(host: str, *, allow_remote: bool) -> str:
    try:
        address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]
        is_loopback = ipaddress.ip_address(address).is_loopback
    except (OSError, ValueError) as error:
        raise InputError(
            "invalid-host",
            f"The host must be an address of this machine. Received: {host!r}."
            " Use 127.0.0.1.",
        ) from error
    if not (is_loopback or allow_remote):
        raise InputError(
            "remote-bind-refused",
            "The server must listen on this machine only, because it has no"
            f" authentication yet. Received host: {host!r}. Use 127.0.0.1 with a proxy"
            " that checks who asks in front of it.",
        )
    return str(address)


def _bound_port(address: str, port: int) -> int | None:
    """The port, a free one for 0, or `None` if it cannot be had."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Granian's own sockets share a port (SO_REUSEPORT): a second server would
        # silently get half of the first one's requests. This one does not share.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen()
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return None
            raise ResourceError(
                "bind-failed",
                f"The server must be able to listen at {address}. The system said:"
                f" {error.strerror}. Choose another --host.",
            ) from error
        found: int = probe.getsockname()[1]
        return found

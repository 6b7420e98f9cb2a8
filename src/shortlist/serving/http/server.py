"""Runs the REST application on Granian, in this process.

Granian's embedded server is used, not a parent process with spawned workers: nothing is
imported twice, nothing is forked after ONNX Runtime has started, and one process gets
the signals.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from shortlist.errors import ResourceError
from shortlist.packages import need_package
from shortlist.serving.event_store.events import SqliteEventStore
from shortlist.serving.http.addresses import claimed_port, resolve
from shortlist.serving.http.connections import ConnectionGuard, raise_file_limit
from shortlist.serving.http.limits import ServerSettings
from shortlist.serving.recommender import Recommender

if TYPE_CHECKING:
    from granian.server.embed import Server
    from starlette.types import ASGIApp

    from shortlist.serving.http.rest import ServingState

T = TypeVar("T")

_logger = logging.getLogger("shortlist.serving")

_BACKLOG = 1024
_GRACE_SECONDS = 10.0
_THREADS_END_SECONDS = 0.1
_LOADING_ENDS_SECONDS = 0.2
_LOOK_SECONDS = 0.25
_CHECK_FILE_SECONDS = 1.0
_AFTER_FAILURE_SECONDS = 60.0
_LOADING = "shortlist-loading"
_HEAD_BYTES = 2**17  # buffer for the head of a request and the start of its body


@dataclass(frozen=True)
class RunningServer:
    """A server that is ready.

    Args:
        url: its address, without a final slash.
        model_version: version of the bundle it serves.
        stop: stops it; may be called from any thread.
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
    settings: ServerSettings | None = None,
    port_search: bool = False,
    on_ready: Callable[[RunningServer], None] | None = None,
) -> None:
    """Serves a bundle until SIGINT, SIGTERM or `RunningServer.stop`.

    The port is open, and `/healthz` answers, while the bundle is still being read;
    `/readyz` answers 503 until it is.

    Args:
        bundle_path: directory of the bundle.
        host: address to listen on.
        port: port to listen on; 0 chooses a free one.
        events_path: SQLite file for posted events; in memory by default.
        settings: limits of the server.
        port_search: take the next free port if `port` is taken.
        on_ready: called in its own thread when the bundle is loaded. An exception in
            it stops the server and is raised here.

    Raises:
        InputError: an address that other machines can reach (`remote-bind-refused`),
            or an invalid one (`invalid-host`, `invalid-port`).
        ResourceError: the port is taken (`port-taken`) or Granian is not installed
            (`package-missing`).
        ArtifactError: the bundle or the event store cannot be used.
    """
    for package in ("granian", "onnxruntime", "starlette"):
        need_package(package, "serve")
    settings = settings or ServerSettings()
    address = resolve(host, allow_remote=settings.allow_remote)
    fitting = raise_file_limit(settings.connections)
    settings = replace(
        settings,
        connections=replace(settings.connections, in_all=fitting),
        allowed_hosts=(*settings.allowed_hosts, host),
    )
    with claimed_port(address, port, search=port_search) as claimed:
        options = _Options(
            bundle_path, address, claimed, events_path, settings, on_ready
        )
        asyncio.run(_serve(options))


@dataclass(frozen=True)
class _Options:
    bundle_path: str | Path
    address: str
    port: int
    events_path: str | Path | None
    settings: ServerSettings
    on_ready: Callable[[RunningServer], None] | None

    @property
    def url(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}"


async def _serve(options: _Options) -> None:
    from shortlist.serving.http.rest import ServingState

    state, stopping = ServingState(), _Stopping()
    server = _granian(_app(options, state), options)
    guard = ConnectionGuard(options.port, options.settings.connections)
    loop = asyncio.get_running_loop()
    with _signals(loop, stopping):
        serving = loop.create_task(server.serve())
        working = loop.create_task(_work(options, state, stopping))
        asked = loop.create_task(stopping.asked.wait())
        looks = [
            loop.create_task(_repeat(guard.look, _LOOK_SECONDS)),
            loop.create_task(
                _repeat(lambda: _check_events_file(state), _CHECK_FILE_SECONDS)
            ),
        ]
        try:
            await asyncio.wait(
                [serving, working, asked], return_when=asyncio.FIRST_COMPLETED
            )
            if serving.done():
                _raise_bind_failure(serving, options)
            state.is_draining = True
            if stopping.is_drained and state.recommender is not None:
                await asyncio.sleep(options.settings.drain_seconds)
        finally:
            state.is_draining = True
            server.stop()  # type: ignore[no-untyped-call]
            await asyncio.wait([serving], timeout=_GRACE_SECONDS)
            asked.cancel()
            for look in looks:
                look.cancel()
            if not working.done():
                working.cancel()
            # Granian gives no handle to wait for its threads, and one that wakes up
            # after the interpreter has ended would panic.
            await asyncio.sleep(_THREADS_END_SECONDS)
            if state.recommender is not None:
                state.recommender.close()
    if working.done() and not working.cancelled():
        working.result()
    if state.recommender is None:
        await _end_loading(is_urgent=stopping.by_signal)


@dataclass
class _Stopping:
    """A request to stop the server.

    Args:
        asked: set when the server has to stop.
        by_signal: the request came from a signal.
        is_drained: `/readyz` answers 503 for some time first.
    """

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    by_signal: bool = False
    is_drained: bool = False


async def _repeat(look: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Calls `look` until cancelled; failures are logged."""
    while True:
        try:
            await look()
        except Exception:
            _logger.exception("a periodic check of the server failed")
            await asyncio.sleep(_AFTER_FAILURE_SECONDS)
        await asyncio.sleep(seconds)


async def _check_events_file(state: ServingState) -> None:
    if state.recommender is not None:
        await asyncio.to_thread(state.recommender.check_events_file)


async def _end_loading(*, is_urgent: bool) -> None:
    """Waits for a bundle that is still being read, or ends the process.

    Loading cannot be cancelled, and ending the process is safe: files are only read,
    and SQLite rolls back what was not committed.
    """
    for thread in threading.enumerate():
        if thread.name == _LOADING:
            waited = _LOADING_ENDS_SECONDS if is_urgent else None
            await asyncio.to_thread(thread.join, waited)
            if thread.is_alive():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(0)


def _app(options: _Options, state: ServingState) -> ASGIApp:
    from shortlist.serving.http.hosts import AllowedHosts
    from shortlist.serving.http.rest import create_app

    settings = options.settings
    is_loopback = ipaddress.ip_address(options.address).is_loopback
    return create_app(
        state,
        body_limit_bytes=settings.body_limit_bytes,
        body_timeout_seconds=settings.connections.body_seconds,
        hosts=AllowedHosts(settings.allowed_hosts, any_address=not is_loopback),
        access_log=settings.access_log,
    )


async def _work(options: _Options, state: ServingState, stopping: _Stopping) -> None:
    """Loads the bundle, calls `on_ready` and waits until the server has to stop."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended already
            loop.call_soon_threadsafe(stopping.asked.set)

    recommender = await _in_thread(_load, options)
    state.recommender = recommender
    await _until_listening(options)
    if options.on_ready is not None:
        running = RunningServer(
            options.url,
            recommender.model_version,
            stop,
        )
        await asyncio.to_thread(options.on_ready, running)
    await stopping.asked.wait()


async def _in_thread(load: Callable[[_Options], T], options: _Options) -> T:
    """Calls `load` in a daemon thread, which does not delay the end of the process."""
    loop = asyncio.get_running_loop()
    loaded: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = load(options)
        except BaseException as error:
            report(loaded.set_exception, error)
        else:
            report(loaded.set_result, result)

    def report(how: Callable[[Any], None], what: object) -> None:
        def if_awaited() -> None:
            if not loaded.done():
                how(what)

        with contextlib.suppress(RuntimeError):  # the loop has ended already
            loop.call_soon_threadsafe(if_awaited)

    threading.Thread(target=run, name=_LOADING, daemon=True).start()
    return await loaded


def _load(options: _Options) -> Recommender:
    settings = options.settings
    if options.events_path is None:
        return Recommender.load(options.bundle_path, limits=settings.state)
    events = SqliteEventStore(options.events_path, max_bytes=settings.max_events_bytes)
    try:
        return Recommender.load(
            options.bundle_path, events=events, limits=settings.state
        )
    except BaseException:
        events.close()
        raise


async def _until_listening(options: _Options) -> None:
    # If it never does, the server task has failed and cancels this one.
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
    from granian.http import HTTP1Settings
    from granian.server.embed import Server

    limits = options.settings.connections
    return Server(
        app,
        address=options.address,
        port=options.port,
        interface=Interfaces.ASGINL,  # the app has no lifespan events
        http=HTTPModes.http1,
        websockets=False,
        backlog=_BACKLOG,
        backpressure=limits.accepted,
        http1_settings=HTTP1Settings(
            header_read_timeout=int(1000 * limits.header_seconds),
            max_buffer_size=_HEAD_BYTES,
        ),
        log_enabled=False,  # its lines would contain paths, and so ids
    )


def _raise_bind_failure(serving: asyncio.Task[None], options: _Options) -> None:
    error = serving.exception()
    if error is not None:
        reason = str(error).splitlines()[0]
        raise ResourceError(
            "bind-failed",
            f"Cannot listen on {options.url}: {reason}. Choose another --host or"
            " --port.",
        ) from error


@contextlib.contextmanager
def _signals(loop: asyncio.AbstractEventLoop, stopping: _Stopping) -> Iterator[None]:
    """SIGINT and SIGTERM stop the server; the second one ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return

    def on_signal(number: signal.Signals) -> None:
        if stopping.asked.is_set():
            os._exit(128 + number)
        stopping.by_signal = True
        # Ctrl-C comes from a user who waits, SIGTERM from a process manager.
        stopping.is_drained = number == signal.SIGTERM
        stopping.asked.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)

"""What every request passes through: headers of the answer, logs, and the body limit.

Plain ASGI callables around the application; they know no routes.
"""

from __future__ import annotations

import functools
import logging
import re
import time
import uuid
from typing import Protocol
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shortlist.errors import InputError, ResourceError
from shortlist.serving.http.limits import HELD_LIMIT_BYTES
from shortlist.serving.http.problems import internal_error

REQUEST_ID = "x-request-id"
MODEL_VERSION = "x-model-version"

_logger = logging.getLogger("shortlist.serving")
_access = logging.getLogger("shortlist.access")

# Anything else could split a log line, so it is replaced by a new id.
_REQUEST_ID_RULE = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_HEADER_LETTERS = "!#$&'()*+,/:;=?@[]~"


class Served(Protocol):
    """What the answers say of the server."""

    is_draining: bool

    def model_version(self) -> str:
        """Version of the bundle; "none" before one is loaded."""
        ...


class Answers:
    """Adds the request id and the model version to every answer, and logs failures.

    An internal error is logged with its traceback and request id, and answered
    with 500. The answers of a stopping server close their connection.

    Args:
        app: application to wrap.
        served: asked per answer.
        access_log: log a line for each request: address, method, name of the route,
            status, milliseconds and request id.
    """

    def __init__(
        self, app: ASGIApp, served: Served, *, access_log: bool = False
    ) -> None:
        self.app = app
        self.served = served
        self.access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if _REQUEST_ID_RULE.fullmatch(given) else uuid.uuid4().hex
        status, began = 0, time.perf_counter()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                headers[MODEL_VERSION] = header_value(self.served.model_version())
                if self.served.is_draining:
                    headers["connection"] = "close"
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception:
            _logger.exception("request %s (%s) failed", request_id, _route(scope))
            if not status:
                await internal_error()(scope, receive, send_with_headers)
        if self.access_log:
            address = (scope.get("client") or ("-",))[0]
            spent_ms = 1000 * (time.perf_counter() - began)
            _access.info(
                "%s %s %s %d %.1f ms %s",
                *(address, scope["method"], _route(scope), status, spent_ms),
                request_id,
            )


@functools.lru_cache(maxsize=16)
def header_value(text: str) -> str:
    """The text as a header may carry it: other letters percent-encoded, cut at 200."""
    return quote(text, safe=_HEADER_LETTERS, errors="replace")[:200]


def _route(scope: Scope) -> str:
    """Name of the route, for a path may hold ids."""
    name: str = getattr(scope.get("endpoint"), "__name__", "no route")
    return name


class BodyLimit:
    """Cuts a body off at the limit.

    A declared length over the limit is refused before a byte is read; a body without
    one is counted while it comes in. No more than the limit is ever held. The refusal
    is raised out of `receive`, so it reaches the handler that wanted the body.

    Args:
        app: application to wrap.
        limit_bytes: longest body allowed.
        held_limit_bytes: most bytes of all bodies that are being received.
    """

    def __init__(
        self,
        app: ASGIApp,
        limit_bytes: int,
        held_limit_bytes: int = HELD_LIMIT_BYTES,
    ) -> None:
        self.app = app
        self.limit_bytes = limit_bytes
        self.held_limit_bytes = held_limit_bytes
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # The server has refused a length that is no number.
        declared = int(Headers(scope=scope).get("content-length", "0"))
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            self._check("Its declared length is", declared)
            message = await receive()
            size = len(message.get("body", b""))
            received += size
            self._held += size
            self._check("It was cut off after", received)
            if self._held > self.held_limit_bytes:
                raise ResourceError(
                    "overloaded",
                    f"The bodies of all open requests may have {self.held_limit_bytes}"
                    " bytes together. They have more. Send the request again later.",
                )
            return message

        try:
            await self.app(scope, receive_counted, send)
        finally:
            self._held -= received

    def _check(self, found: str, length_bytes: int) -> None:
        if length_bytes > self.limit_bytes:
            raise InputError(
                "body-too-large",
                f"A request body must have at most {self.limit_bytes} bytes. {found}"
                f" {length_bytes} bytes. Split the request.",
            )

"""What every request passes through: headers of the answer, and the body limit.

Plain ASGI callables around the application; they know no routes.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shortlist.errors import InputError

REQUEST_ID = "x-request-id"
MODEL_VERSION = "x-model-version"

# Anything else could split a log line, so a new id takes its place.
_REQUEST_ID_RULE = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class AnswerHeaders:
    """Adds the request id and the model version to every answer.

    Args:
        app: application to wrap.
        model_version: called per answer; "none" before a bundle is loaded.
    """

    def __init__(self, app: ASGIApp, model_version: Callable[[], str]) -> None:
        self.app = app
        self.model_version = model_version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if _REQUEST_ID_RULE.fullmatch(given) else uuid.uuid4().hex

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                headers[MODEL_VERSION] = self.model_version()
            await send(message)

        await self.app(scope, receive, send_with_headers)


class BodyLimit:
    """Cuts a body off at the limit.

    A declared length over the limit is refused before a byte is read; a body without
    one is counted while it comes in. No more than the limit is ever held. The refusal
    is raised out of `receive`, so it reaches the handler that wanted the body.

    Args:
        app: application to wrap.
        limit_bytes: longest body allowed.
    """

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self.app = app
        self.limit_bytes = limit_bytes

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
            received += len(message.get("body", b""))
            self._check("It was cut off after", received)
            return message

        await self.app(scope, receive_counted, send)

    def _check(self, found: str, length_bytes: int) -> None:
        if length_bytes > self.limit_bytes:
            raise InputError(
                "body-too-large",
                f"A request body must have at most {self.limit_bytes} bytes. {found}"
                f" {length_bytes} bytes. Split the request.",
            )

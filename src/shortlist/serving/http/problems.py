"""Errors as HTTP answers (RFC 9457 problem details), and their statuses."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from shortlist.errors import InputError, ResourceError, ShortlistError
from shortlist.serving.http.payloads import Problem, RowProblem

_logger = logging.getLogger("shortlist.serving")

# HTTP status of each error code. Other codes: 422 for an InputError, 503 for a
# ResourceError, otherwise 500.
STATUS_OF_CODE = {
    "malformed-json": 400,
    "body-incomplete": 400,
    "unknown-item": 404,
    "not-found": 404,
    "method-not-allowed": 405,
    "body-timeout": 408,
    "event-id-reused": 409,
    "body-too-large": 413,
    "unsupported-media-type": 415,
    "host-not-allowed": 421,
    "invalid-request": 422,
    "invalid-k": 422,
    "invalid-id": 422,
    "invalid-timestamp": 422,
    "future-timestamp": 422,
    "invalid-label": 422,
    "invalid-event-id": 422,
    "events-rejected": 422,
    "internal-error": 500,
    "not-ready": 503,
    "events-not-stored": 503,
    "events-unreadable": 503,
    "events-file-lost": 503,
    "overloaded": 503,
    "events-full": 507,
}

# Already logged by the store, or transient.
_LOGGED_OR_PASSING = ("not-ready", "overloaded", "events-file-lost")


def problem(
    code: str,
    detail: str,
    *,
    status: int | None = None,
    errors: list[RowProblem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer for an error code; `status` overrides the table."""
    status = STATUS_OF_CODE.get(code, 500) if status is None else status
    body = Problem(
        type=f"urn:shortlist:error:{code}",
        title=title_of(status),
        status=status,
        detail=detail,
        errors=errors or [],
    )
    return Response(
        msgspec.json.encode(body),
        status_code=status,
        media_type="application/problem+json",
        headers=headers,
    )


def title_of(status: int) -> str:
    """The reason phrase of a status."""
    # The phrases of 413 and 422 differ between Python versions.
    words = {413: "Content Too Large", 422: "Unprocessable Content"}
    return words.get(status) or HTTPStatus(status).phrase


def on_shortlist_error(request: Request, error: Exception) -> Response:
    """Answers for a `ShortlistError`."""
    assert isinstance(error, ShortlistError)
    status = STATUS_OF_CODE.get(error.code)
    if status is None and isinstance(error, InputError):
        status = 422
    if status is None and isinstance(error, ResourceError):
        status = 503
    if status is None or status == 500:
        raise error
    if status == 503 and error.code not in _LOGGED_OR_PASSING:
        _logger.warning("answered with 503: %s", error)
    # Clients should not learn the names of files.
    detail = str(error) if status < 500 else error.message
    return problem(error.code, detail, status=status)


def on_http_exception(request: Request, error: Exception) -> Response:
    """Answers for an unknown path or a wrong method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        detail = (
            "This path does not have this method. The header Allow lists its methods."
        )
        return problem("method-not-allowed", detail, headers=error.headers)
    detail = "There is no such path. /openapi.json lists all paths."
    return problem("not-found", detail)


def on_exception(request: Request, error: Exception) -> Response:
    """Answers for an internal error; `Answers` in the middleware logs it."""
    # The exception may name files.
    return internal_error()


def internal_error() -> Response:
    """The answer for an internal error."""
    return problem(
        "internal-error",
        "Internal error. The server's log has details under the id in x-request-id.",
    )

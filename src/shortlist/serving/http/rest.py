"""REST: decodes a request, calls the recommender, encodes the answer.

Recommender calls run in the handlers: they take well below a millisecond, less than
passing them to a thread would. Only storing events, which waits for the disk, runs in a
thread. Neither ids of users and items nor bodies are logged.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from shortlist.errors import InputError, ResourceError, ShortlistError
from shortlist.serving.catalogue import shortened
from shortlist.serving.event_store.checks import check_event_id
from shortlist.serving.event_store.events import Event, now_ms
from shortlist.serving.http.hosts import AllowedHosts, HostCheck
from shortlist.serving.http.limits import BODY_LIMIT_BYTES
from shortlist.serving.http.middleware import Answers, BodyLimit
from shortlist.serving.http.openapi import Operation, openapi_document
from shortlist.serving.http.payloads import (
    EventRequest,
    EventsAccepted,
    EventsRequest,
    Health,
    RankRequest,
    Readiness,
    RecommendRequest,
    RowProblem,
)
from shortlist.serving.http.problems import (
    STATUS_OF_CODE,
    on_exception,
    on_http_exception,
    on_shortlist_error,
    problem,
    title_of,
)
from shortlist.serving.recommender import MAX_K, Recommender
from shortlist.serving.results import Ranking, Recommendations, SimilarItems

BODY_TIMEOUT_SECONDS = 30.0

IDEMPOTENCY_KEY = "idempotency-key"
_LONGEST_KEY = 200  # the number of a row is appended

BODY_ERRORS = (400, 408, 413, 415, 422, 503)

T = TypeVar("T")


@dataclass
class ServingState:
    """What is served right now.

    Args:
        recommender: `None` until a bundle is loaded.
        is_draining: the server is shutting down.
    """

    recommender: Recommender | None = None
    is_draining: bool = False

    def model_version(self) -> str:
        """The version in the header of an answer."""
        return "none" if self.recommender is None else self.recommender.model_version


def create_app(
    state: ServingState,
    *,
    body_limit_bytes: int = BODY_LIMIT_BYTES,
    body_timeout_seconds: float = BODY_TIMEOUT_SECONDS,
    hosts: AllowedHosts | None = None,
    access_log: bool = False,
) -> ASGIApp:
    """The REST application, as an ASGI callable.

    Args:
        state: holds the recommender, now or later.
        body_limit_bytes: longest request body.
        body_timeout_seconds: longest wait for a whole request body.
        hosts: accepted Host headers; any by default.
        access_log: log a line for each request.
    """
    api = _Api(state, body_timeout_seconds)
    app = Starlette(
        routes=[
            Route(
                operation.path.replace("{id}", "{id:external_id}"),
                operation.endpoint,
                methods=[operation.method],
            )
            for operation in api.operations
        ],
        exception_handlers={
            ShortlistError: on_shortlist_error,
            HTTPException: on_http_exception,
            Exception: on_exception,
        },
    )
    # A redirect would be built from the Host header, which the client chooses.
    app.router.redirect_slashes = False
    guarded: ASGIApp = BodyLimit(app, body_limit_bytes)
    if hosts is not None:
        guarded = HostCheck(guarded, hosts)
    return Answers(guarded, state, access_log=access_log)


class _ExternalIdConvertor(Convertor[str]):
    """Any text, slashes and line breaks included."""

    regex = "(?s:.+)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("external_id", _ExternalIdConvertor())


class _Api:
    def __init__(self, state: ServingState, body_timeout_seconds: float) -> None:
        self.state = state
        self.body_timeout_seconds = body_timeout_seconds

    @property
    def recommender(self) -> Recommender:
        if self.state.recommender is None:
            raise ResourceError(
                "not-ready",
                "The bundle is still being loaded. Retry when /readyz answers 200.",
            )
        return self.state.recommender

    async def recommend(self, request: Request) -> Response:
        body = await self.decode(request, RecommendRequest)
        seen = body.exclude_seen
        return _json(
            self.recommender.recommend(
                body.user_id,
                k=body.k,
                history=body.history,
                exclude_ids=body.exclude_ids,
                exclude_seen=None if seen is msgspec.UNSET else seen,
            )
        )

    async def rank(self, request: Request) -> Response:
        body = await self.decode(request, RankRequest)
        return _json(self.recommender.rank(body.user_id, body.item_ids))

    async def similar(self, request: Request) -> Response:
        text = request.query_params.get("k", "10")
        # Other text is passed on and refused by the recommender.
        k: Any = int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text
        return _json(self.recommender.similar(request.path_params["id"], k))

    async def events(self, request: Request) -> Response:
        raw = await self.decode(request, msgspec.Raw)
        is_list = _parse(raw, _Envelope).events is not msgspec.UNSET
        rows = (
            _parse(raw, EventsRequest).events
            if is_list
            else [_parse(raw, EventRequest)]
        )
        events = _events(rows, request.headers.get(IDEMPOTENCY_KEY))
        if is_list and (wrong := self.recommender.check_events(events)):
            return _rejected(wrong, len(events))
        new = await run_in_threadpool(self.recommender.add_events, events)
        accepted = EventsAccepted(len(events), duplicates=len(events) - new)
        return _json(accepted, status=202)

    async def healthz(self, request: Request) -> Response:
        return _json(Health())

    async def readyz(self, request: Request) -> Response:
        if self.state.is_draining:
            raise ResourceError(
                "not-ready",
                "The server is shutting down. Retry on another instance.",
            )
        manifest = self.recommender.manifest
        ready = Readiness(
            name=manifest.name,
            model_version=manifest.version,
            num_items=len(self.recommender.catalogue),
        )
        return _json(ready)

    async def openapi(self, request: Request) -> Response:
        return Response(self._document, media_type="application/json")

    async def decode(self, request: Request, struct: type[T]) -> T:
        media_type = request.headers.get("content-type", "").split(";")[0].strip()
        if media_type.lower() != "application/json":
            raise InputError(
                "unsupported-media-type",
                "A body must have Content-Type application/json. Received:"
                f" {shortened(media_type)}. With curl: -H 'Content-Type:"
                " application/json'.",
            )
        try:
            # The web server limits the time for headers only.
            async with asyncio.timeout(self.body_timeout_seconds):
                body = await request.body()
        except TimeoutError as error:
            raise InputError(
                "body-timeout",
                f"The body did not arrive within {self.body_timeout_seconds:g} seconds."
                " Send it again.",
            ) from error
        except ClientDisconnect as error:
            raise InputError(
                "body-incomplete", "The client closed the connection within the body."
            ) from error
        return _parse(body, struct)

    @cached_property
    def _document(self) -> bytes:
        titles = {status: title_of(status) for status in {*STATUS_OF_CODE.values()}}
        return msgspec.json.encode(openapi_document(self.operations, titles))

    @cached_property
    def operations(self) -> list[Operation]:
        """Every route, served and described from these lists."""
        return [*self._api_operations(), *self._status_operations()]

    def _api_operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/api/v1/recommend",
                endpoint=self.recommend,
                summary="What should this user see next?",
                body=(RecommendRequest,),
                answer=Recommendations,
                errors=BODY_ERRORS,
            ),
            Operation(
                method="POST",
                path="/api/v1/rank",
                endpoint=self.rank,
                summary="In which order would this user like these items?",
                body=(RankRequest,),
                answer=Ranking,
                errors=BODY_ERRORS,
            ),
            Operation(
                method="GET",
                path="/api/v1/items/{id}/similar",
                endpoint=self.similar,
                summary="Which items are like this one?",
                answer=SimilarItems,
                query={
                    "k": {"type": "integer", "minimum": 1, "maximum": MAX_K}
                    | {"default": 10}
                },
                errors=(404, 422, 503),
            ),
            Operation(
                method="POST",
                path="/api/v1/events",
                endpoint=self.events,
                summary="Store what users did; their next answers use it.",
                body=(EventRequest, EventsRequest),
                answer=EventsAccepted,
                status=202,
                errors=(*BODY_ERRORS, 404, 409, 507),
                headers={
                    "Idempotency-Key": "Repeated by a retry of the whole request, so"
                    " that its events are stored once."
                },
            ),
        ]

    def _status_operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/healthz",
                endpoint=self.healthz,
                summary="Does the process answer?",
                answer=Health,
            ),
            Operation(
                method="GET",
                path="/readyz",
                endpoint=self.readyz,
                summary="Is a bundle loaded?",
                answer=Readiness,
                errors=(503,),
            ),
            Operation(
                method="GET",
                path="/openapi.json",
                endpoint=self.openapi,
                summary="This description.",
                answer=dict,
            ),
        ]


def _events(rows: list[EventRequest], key: str | None) -> list[Event]:
    """The events of a request; those without an id get one from the key."""
    if key is not None:
        check_event_id("Idempotency-Key", key, longest=_LONGEST_KEY)
    arrival_ms = now_ms()
    return [
        Event(
            user_id=row.user_id,
            item_id=row.item_id,
            timestamp_ms=arrival_ms if row.timestamp_ms is None else row.timestamp_ms,
            label=row.label,
            event_id=(
                f"{key}#{number}"
                if row.event_id is None and key is not None
                else row.event_id
            ),
        )
        for number, row in enumerate(rows)
    ]


class _Envelope(msgspec.Struct):
    events: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def _parse(body: bytes | msgspec.Raw, struct: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=struct)
    except msgspec.ValidationError as error:
        raise InputError(
            "invalid-request",
            f"The body must match /openapi.json: {error}. Correct that field.",
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            "malformed-json",
            f"The body must be JSON in UTF-8. Decoding failed: {error}. Check how it"
            " was encoded.",
        ) from error


def _json(answer: msgspec.Struct, status: int = 200) -> Response:
    return Response(
        msgspec.json.encode(answer), status_code=status, media_type="application/json"
    )


def _rejected(wrong: list[tuple[int, InputError]], total: int) -> Response:
    return problem(
        "events-rejected",
        f"All {total} events must be valid; {len(wrong)} are not, and none was stored."
        " Correct or remove the rows in `errors`.",
        errors=[RowProblem(row, error.code, str(error)) for row, error in wrong],
    )

"""The OpenAPI 3.1 description, made from the routes and structs that serve."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

import shortlist
from shortlist.serving.http.middleware import MODEL_VERSION, REQUEST_ID
from shortlist.serving.http.payloads import Problem

_REFERENCE = "#/components/schemas/{name}"


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One route, as it is served and as it is described.

    Args:
        method: `GET` or `POST`.
        path: path with `{parameters}`.
        endpoint: coroutine that answers.
        summary: one line for people.
        answer: struct of the answer, or `dict` for any JSON object.
        body: structs of the request body; several mean one of them.
        status: status of the answer.
        errors: statuses of the errors.
        query: query parameters and their JSON schemas.
        headers: headers of the request that are looked at, and what they mean.
    """

    method: str
    path: str
    endpoint: Callable[[Request], Awaitable[Response]]
    summary: str
    answer: type
    body: tuple[type, ...] = ()
    status: int = 200
    errors: tuple[int, ...] = ()
    query: Mapping[str, Mapping[str, Any]] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def openapi_document(
    operations: Sequence[Operation], titles: Mapping[int, str]
) -> dict[str, Any]:
    """The description of `operations`; `titles` gives each error status its words."""
    structs = {Problem: None} | {
        struct: None
        for operation in operations
        for struct in (*operation.body, operation.answer)
        if struct is not dict
    }
    references, components = msgspec.json.schema_components(
        list(structs), ref_template=_REFERENCE
    )
    schemas = dict(zip(structs, references, strict=True))
    paths: dict[str, Any] = {}
    for operation in operations:
        described = _describe(operation, schemas, titles)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Shortlist",
            "version": shortlist.__version__,
            "description": "What should this person see next. Ids are strings or"
            " integers; errors are problem details (RFC 9457).",
        },
        "paths": paths,
        "components": {"schemas": components},
    }


def _describe(
    operation: Operation,
    schemas: Mapping[type, dict[str, Any]],
    titles: Mapping[int, str],
) -> dict[str, Any]:
    answer = schemas.get(operation.answer, {"type": "object"})
    responses = {
        str(operation.status): _response("The answer.", "application/json", answer)
    } | {
        str(status): _response(
            titles[status], "application/problem+json", schemas[Problem]
        )
        for status in (*operation.errors, 421, 500)
    }
    described: dict[str, Any] = {
        "operationId": operation.endpoint.__name__,
        "summary": operation.summary,
        "responses": responses,
    }
    if parameters := _parameters(operation):
        described["parameters"] = parameters
    if operation.body:
        bodies = [schemas[struct] for struct in operation.body]
        schema = bodies[0] if len(bodies) == 1 else {"oneOf": bodies}
        content = {"application/json": {"schema": schema}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    in_path = [part.split("}")[0] for part in operation.path.split("{")[1:]]
    text = {"type": "string"}
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": "Percent-encoded; any characters.",
            "schema": text,
        }
        for name in in_path
    ] + [
        *(
            {"name": name, "in": "query", "required": False, "schema": dict(schema)}
            for name, schema in (operation.query or {}).items()
        ),
        *(
            {"name": name, "in": "header", "required": False, "schema": text}
            | {"description": meaning}
            for name, meaning in operation.headers.items()
        ),
    ]


def _response(
    description: str, media_type: str, schema: Mapping[str, Any]
) -> dict[str, Any]:
    text = {"schema": {"type": "string"}}
    return {
        "description": description,
        "headers": {REQUEST_ID: text, MODEL_VERSION: text},
        "content": {media_type: {"schema": schema}},
    }

"""The description lists every route and is true of the answers."""

import json
import re

import pytest
from jsonschema import Draft202012Validator
from starlette.applications import Starlette
from starlette.testclient import TestClient

from shortlist.serving.http.rest import ServingState, create_app

RECOMMEND, RANK = "/api/v1/recommend", "/api/v1/rank"
SIMILAR, EVENTS = "/api/v1/items/{id}/similar", "/api/v1/events"
ROUTES = {
    (RECOMMEND, "post"),
    (RANK, "post"),
    (SIMILAR, "get"),
    (EVENTS, "post"),
    ("/healthz", "get"),
    ("/readyz", "get"),
    ("/openapi.json", "get"),
}
GOOD_BODIES = {
    RECOMMEND: {"user_id": "ann", "k": 5, "history": ["heat"], "exclude_ids": [1]},
    RANK: {"user_id": 7, "item_ids": ["heat", "nowhere"]},
    EVENTS: {"user_id": "ann", "item_id": "heat", "timestamp_ms": 10**12, "label": 3},
}


@pytest.fixture
def client(recommender):
    return TestClient(create_app(ServingState(recommender)))


@pytest.fixture
def document(client):
    return client.get("/openapi.json").json()


def validator(document, schema):
    return Draft202012Validator({**schema, "components": document["components"]})


def body_schema(document, path):
    body = document["paths"][path]["post"]["requestBody"]
    assert body["required"] is True
    return body["content"]["application/json"]["schema"]


def assert_described(document, path, method, response):
    """Asserts that an answer is one the document promises."""
    operation = document["paths"][path][method]
    promised = operation["responses"][str(response.status_code)]
    media_type = response.headers["content-type"]
    schema = promised["content"][media_type]["schema"]
    validator(document, schema).validate(response.json())
    assert set(promised["headers"]) <= set(response.headers)


def served_routes(app):
    """What the application really routes, read from inside its middleware."""
    while not isinstance(app, Starlette):
        app = app.app
    for route in app.routes:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
        for method in route.methods - {"HEAD"}:
            yield path, method.lower()


def test_every_route_is_described_and_no_other(document, recommender):
    described = {
        (path, method)
        for path, methods in document["paths"].items()
        for method in methods
    }
    assert described == ROUTES
    assert set(served_routes(create_app(ServingState(recommender)))) == ROUTES


def test_the_document_is_openapi_3_1_and_its_schemas_are_schemas(document):
    assert document["openapi"] == "3.1.0"
    assert document["info"]["title"] == "Shortlist"
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    names = [o["operationId"] for m in document["paths"].values() for o in m.values()]
    assert len(set(names)) == len(names)


def test_every_reference_leads_somewhere(document):
    names = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert names == set(document["components"]["schemas"])


def test_every_operation_describes_its_errors_as_problems(document):
    for path, methods in document["paths"].items():
        for operation in methods.values():
            errors = {s for s in operation["responses"] if int(s) >= 400}
            assert "500" in errors
            if "requestBody" in operation:
                assert {"400", "408", "413", "415", "422", "503"} <= errors, path
            for status in errors:
                content = operation["responses"][status]["content"]
                schema = content["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}


@pytest.mark.parametrize("path", GOOD_BODIES)
def test_good_bodies_fit_the_description_and_answers_do_too(client, document, path):
    body = GOOD_BODIES[path]
    validator(document, body_schema(document, path)).validate(body)
    response = client.post(path, json=body)
    assert response.status_code in (200, 202)
    assert_described(document, path, "post", response)


def test_several_events_fit_the_description(document):
    schema = validator(document, body_schema(document, EVENTS))
    schema.validate({"events": [GOOD_BODIES[EVENTS]]})
    assert not schema.is_valid({"events": []})
    assert not schema.is_valid({"events": [GOOD_BODIES[EVENTS]], "user_id": 1})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (RECOMMEND, {"k": 0}),
        (RECOMMEND, {"k": 1001}),
        (RECOMMEND, {"k": "5"}),
        (RECOMMEND, {"user_id": 1.5}),
        (RECOMMEND, {"unknown": 1}),
        (RANK, {"user_id": "ann"}),
        (RANK, {"user_id": "ann", "item_ids": []}),
        (EVENTS, {"user_id": "ann"}),
    ],
)
def test_bodies_that_do_not_fit_are_refused_as_described(client, document, path, body):
    assert not validator(document, body_schema(document, path)).is_valid(body)
    response = client.post(path, json=body)
    assert response.status_code == 422
    assert_described(document, path, "post", response)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json"])
def test_plain_gets_answer_as_described(client, document, path):
    response = client.get(path)
    assert response.status_code == 200
    assert_described(document, path, "get", response)


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("/api/v1/items/heat/similar?k=2", 200),
        ("/api/v1/items/nowhere/similar", 404),
        ("/api/v1/items/heat/similar?k=0", 422),
    ],
)
def test_similar_answers_as_described(client, document, url, status):
    response = client.get(url)
    assert response.status_code == status
    assert_described(document, SIMILAR, "get", response)
    names = {
        (p["name"], p["in"]) for p in document["paths"][SIMILAR]["get"]["parameters"]
    }
    assert names == {("id", "path"), ("k", "query")}


def test_before_a_bundle_is_loaded_answers_are_as_described(document):
    client = TestClient(create_app(ServingState()))
    assert_described(document, "/readyz", "get", client.get("/readyz"))
    response = client.post(RECOMMEND, json={})
    assert response.status_code == 503
    assert_described(document, RECOMMEND, "post", response)


def test_the_wrong_rows_of_events_are_as_described(client, document):
    rows = [GOOD_BODIES[EVENTS] | {"item_id": "nowhere"}]
    response = client.post(EVENTS, json={"events": rows})
    assert response.json()["errors"][0]["row"] == 0
    assert_described(document, EVENTS, "post", response)

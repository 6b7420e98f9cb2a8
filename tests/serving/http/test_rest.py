"""The REST interface in process: right answers, and every kind of bad request."""

import asyncio
import json
import logging
import math
from urllib.parse import quote

import msgspec
import pytest
from starlette.testclient import TestClient

from shortlist.bundle.bundle import write_bundle
from shortlist.errors import ArtifactError, ResourceError
from shortlist.serving.event_store.events import SqliteEventStore
from shortlist.serving.http.limits import BODY_LIMIT_BYTES, StateLimits
from shortlist.serving.http.middleware import BodyLimit
from shortlist.serving.http.rest import ServingState, create_app
from shortlist.serving.recommender import Recommender
from tiny_bundle import ITEM_IDS, expected_list, make_contents

RECOMMEND, RANK = "/api/v1/recommend", "/api/v1/rank"
EVENTS = "/api/v1/events"
POSTS = (RECOMMEND, RANK, EVENTS)


@pytest.fixture
def client(recommender):
    return TestClient(create_app(ServingState(recommender)), follow_redirects=False)


def problem(response, status, code):
    """Asserts a problem and returns its detail."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["type"] == f"urn:shortlist:error:{code}"
    assert body["status"] == status
    assert body["title"] and body["detail"]
    assert set(body) <= {"type", "title", "status", "detail", "errors"}
    assert response.headers["x-request-id"] and response.headers["x-model-version"]
    return body["detail"]


def post_raw(client, path, body, content_type="application/json"):
    return client.post(path, content=body, headers={"content-type": content_type})


def ids_of(response):
    assert response.status_code == 200, response.text
    return [item["item_id"] for item in response.json()["items"]]


def test_recommend_answers_with_the_recommenders_list(client, recommender):
    response = client.post(RECOMMEND, json={"user_id": "ann", "k": 3})
    expected = expected_list(1, [1, 2], k=3)
    assert ids_of(response) == [item_id for item_id, _ in expected]
    body = response.json()
    for item, (_, score) in zip(body["items"], expected, strict=True):
        assert math.isclose(item["score"], score, rel_tol=1e-4)
    assert body["items"][0]["title"] == "C"
    assert body["source"] == "model"
    assert body["cold_start"] is body["degraded"] is False
    assert body["model_version"] == recommender.model_version


def test_recommend_without_anything_is_the_popular_list_of_ten(client):
    response = client.post(RECOMMEND, json={})
    assert ids_of(response)[:2] == ["toy story", 'say "hi"']
    assert response.json()["cold_start"] is True


def test_all_fields_of_recommend_reach_the_recommender(client, recommender):
    fields = {
        "k": 2,
        "history": ["heat"],
        "exclude_ids": ["a/b"],
        "exclude_seen": False,
    }
    response = client.post(RECOMMEND, json={"user_id": "bob", **fields})
    expected = recommender.recommend("bob", **fields)
    assert ids_of(response) == [item.item_id for item in expected.items]


def test_a_request_decides_about_seen_items_else_the_bundle(tmp_path):
    write_bundle(tmp_path / "b", make_contents(repeats=True))
    recommender = Recommender.load(tmp_path / "b")
    with TestClient(create_app(ServingState(recommender))) as client:
        listed = {
            seen: len(ids_of(client.post(RECOMMEND, json={"user_id": "ann", **how})))
            for seen, how in (
                ("bundle", {}),
                ("without", {"exclude_seen": True}),
                ("with", {"exclude_seen": False}),
            )
        }
    assert listed == {"bundle": 7, "without": 5, "with": 7}


def test_rank_orders_and_reports_unknown_items(client):
    asked = {"user_id": "bob", "item_ids": ["heat", "nowhere", 5, "a/b"]}
    response = client.post(RANK, json=asked)
    assert sorted(ids_of(response)) == ["a/b", "heat"]
    assert response.json()["unknown_items"] == ["nowhere", 5]


@pytest.mark.parametrize("item_id", ITEM_IDS)
def test_any_id_fits_into_a_path(client, recommender, item_id):
    response = client.get(f"/api/v1/items/{quote(item_id, safe='')}/similar?k=3")
    expected = recommender.similar(item_id, 3)
    assert ids_of(response) == [item.item_id for item in expected.items]
    assert response.json()["item_id"] == item_id


def test_similar_lists_ten_by_default(client):
    assert len(ids_of(client.get("/api/v1/items/heat/similar"))) == 6


@pytest.mark.parametrize(
    "item_id",
    ["nowhere", "heat/similar", "a\nb\n", "\x00", "/", "é", "...", "%", "heat\n"],
)
def test_an_unknown_item_is_404(client, item_id):
    response = client.get(f"/api/v1/items/{quote(item_id, safe='')}/similar")
    assert "must be one the model was trained with" in problem(
        response, 404, "unknown-item"
    )


def test_an_unknown_user_is_a_cold_start_and_no_error(client):
    for user_id in ("zoe", 12345, "💥", "a\u0000b", "x" * 1024):
        response = client.post(RECOMMEND, json={"user_id": user_id})
        assert len(ids_of(response)) == 7
        assert response.json()["cold_start"] is True
        response = client.post(RANK, json={"user_id": user_id, "item_ids": ["heat"]})
        assert response.json()["cold_start"] is True


@pytest.mark.parametrize("user_id", ["ann", "somebody new"])
def test_a_posted_event_changes_the_next_answer(client, user_id):
    before = client.post(RECOMMEND, json={"user_id": user_id}).json()
    best = before["items"][0]["item_id"]
    response = client.post(EVENTS, json={"user_id": user_id, "item_id": best})
    assert (response.status_code, response.json()) == (202, {"accepted": 1})
    after = client.post(RECOMMEND, json={"user_id": user_id}).json()
    assert best not in [item["item_id"] for item in after["items"]]
    assert after["source"] == ("model" if user_id == "ann" else "history")


def test_several_events_are_kept_together(client):
    rows = [
        {"user_id": "new", "item_id": "heat", "timestamp_ms": 10**12, "label": 4.5},
        {"user_id": "new", "item_id": "a/b"},
    ]
    response = client.post(EVENTS, json={"events": rows})
    assert (response.status_code, response.json()) == (202, {"accepted": 2})
    answer = client.post(RECOMMEND, json={"user_id": "new"})
    assert ids_of(answer) == [i for i, _ in expected_list(0, [1, 3])]


def test_one_wrong_event_refuses_all_and_each_row_is_told(client):
    good = {"user_id": "new", "item_id": "heat"}
    rows = [
        good,
        good | {"item_id": "nowhere"},
        good | {"timestamp_ms": 10**15},
        good | {"label": 9},
        good | {"user_id": ""},
    ]
    response = client.post(EVENTS, json={"events": rows})
    detail = problem(response, 422, "events-rejected")
    assert "All 5 events must be valid; 4 are not, and none was stored" in detail
    errors = response.json()["errors"]
    assert [(e["row"], e["code"]) for e in errors] == [
        (1, "unknown-item"),
        (2, "future-timestamp"),
        (3, "invalid-label"),
        (4, "invalid-id"),
    ]
    answer = client.post(RECOMMEND, json={"user_id": "new"}).json()
    assert answer["source"] == "popular"


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"item_id": "nowhere"}, 404, "unknown-item"),
        ({"timestamp_ms": 10**15}, 422, "future-timestamp"),
        ({"timestamp_ms": -1}, 422, "invalid-timestamp"),
        ({"label": 0.5}, 422, "invalid-label"),
        ({"user_id": 10**30}, 422, "invalid-id"),
        ({"item_id": -(2**63) - 1}, 422, "invalid-id"),
        ({"event_id": ""}, 422, "invalid-event-id"),
        ({"event_id": "a b"}, 422, "invalid-event-id"),
        ({"event_id": "é"}, 422, "invalid-event-id"),
        ({"event_id": "x" * 257}, 422, "invalid-event-id"),
    ],
)
def test_a_wrong_event_is_refused_by_its_own_code(client, change, status, code):
    event = {"user_id": "new", "item_id": "heat"} | change
    problem(client.post(EVENTS, json=event), status, code)
    assert client.post(RECOMMEND, json={"user_id": "new"}).json()["source"] == "popular"


@pytest.mark.parametrize(
    ("timestamp_ms", "code", "words"),
    [
        (1_700_000_000, "invalid-timestamp", "looks like seconds: multiply it by 1000"),
        (700_000_000, "invalid-timestamp", "looks like seconds"),
        (0, "invalid-timestamp", "not before 1990"),
        (4018, "invalid-timestamp", "not before 1990"),
        (631_151_999_999, "invalid-timestamp", "not before 1990"),
        (1_700_000_000_000_000, "future-timestamp", "unit is milliseconds"),
        (1_700_000_000_000.5, "invalid-request", "Expected `int | null`, got `float`"),
        ("1700000000000", "invalid-request", "Expected `int | null`, got `str`"),
        ("2024-01-31", "invalid-request", "Expected `int | null`, got `str`"),
        (True, "invalid-request", "Expected `int | null`, got `bool`"),
        ([1_700_000_000_000], "invalid-request", "got `array`"),
    ],
)
def test_a_time_that_is_no_milliseconds_is_refused(client, timestamp_ms, code, words):
    event = {"user_id": "new", "item_id": "heat", "timestamp_ms": timestamp_ms}
    assert words in problem(client.post(EVENTS, json=event), 422, code)
    several = client.post(EVENTS, json={"events": [event]})
    assert several.status_code == 422
    if code != "invalid-request":
        assert several.json()["errors"][0]["code"] == code
    assert client.post(RECOMMEND, json={"user_id": "new"}).json()["source"] == "popular"


@pytest.mark.parametrize("timestamp_ms", [631_152_000_000, 1_700_000_000_000])
def test_times_since_1990_are_accepted(client, timestamp_ms):
    event = {"user_id": "new", "item_id": "heat", "timestamp_ms": timestamp_ms}
    assert client.post(EVENTS, json=event).status_code == 202


def test_a_number_beyond_64_bits_is_an_id_as_text(client):
    for number in (2**63, 10**20, -(2**63) - 1):
        detail = problem(client.post(RECOMMEND, json={"user_id": number}), 422, CODE)
        assert "larger numbers and numbers with a point as text" in detail
        event = {"user_id": str(number), "item_id": "heat"}
        assert client.post(EVENTS, json=event).status_code == 202
        answer = client.post(RECOMMEND, json={"user_id": str(number)}).json()
        assert answer["source"] == "history"


CODE = "invalid-id"
EVENT = {"user_id": "new", "item_id": "heat"}


@pytest.fixture
def stored(bundle_path, tmp_path):
    """A client of a server with an events file, and the number of events in it."""
    store = SqliteEventStore(tmp_path / "e")
    recommender = Recommender.load(bundle_path, events=store)
    client = TestClient(create_app(ServingState(recommender)))
    yield client, lambda: len(list(store.read()))
    recommender.close()


def test_a_retry_of_an_event_with_an_id_is_kept_once(stored):
    client, count = stored
    event = EVENT | {"event_id": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
    assert client.post(EVENTS, json=event).json() == {"accepted": 1}
    again = client.post(EVENTS, json=event)
    assert again.status_code == 202
    assert again.json() == {"accepted": 1, "duplicates": 1}
    assert count() == 1
    mixed = {"events": [event, EVENT, event | {"event_id": "other"}]}
    assert client.post(EVENTS, json=mixed).json() == {"accepted": 3, "duplicates": 1}
    assert count() == 3


@pytest.mark.parametrize("body", [EVENT, {"events": [EVENT, EVENT]}])
def test_a_retry_of_a_request_with_a_key_is_kept_once(stored, body):
    client, count = stored
    size = len(body.get("events", [1]))
    headers = {"Idempotency-Key": '"k-1"'}
    first = client.post(EVENTS, json=body, headers=headers)
    assert first.json() == {"accepted": size}
    again = client.post(EVENTS, json=body, headers=headers)
    assert again.json() == {"accepted": size, "duplicates": size}
    other = client.post(EVENTS, json=body, headers={"Idempotency-Key": '"k-2"'})
    assert other.json() == {"accepted": size}
    assert count() == 2 * size


def test_a_key_for_another_request_is_409_and_keeps_nothing(stored):
    client, count = stored
    headers = {"Idempotency-Key": "k"}
    assert client.post(EVENTS, json=EVENT, headers=headers).status_code == 202
    other = EVENT | {"item_id": "a/b"}
    response = client.post(EVENTS, json=other, headers=headers)
    assert "must belong to one event" in problem(response, 409, "event-id-reused")
    assert count() == 1


@pytest.mark.parametrize("key", ["", "a b", "x" * 201])
def test_a_key_that_cannot_be_kept_is_422(stored, key):
    client, count = stored
    response = client.post(EVENTS, json=EVENT, headers={"Idempotency-Key": key})
    assert "`Idempotency-Key` must be" in problem(response, 422, "invalid-event-id")
    assert count() == 0


def test_a_retry_changes_no_answer(client):
    event = EVENT | {"event_id": "a"}
    for _ in range(3):
        assert client.post(EVENTS, json=event).status_code == 202
    answer = client.post(RECOMMEND, json={"user_id": "new"})
    assert ids_of(answer) == [i for i, _ in expected_list(0, [1])]


def test_an_events_file_that_was_replaced_is_503(stored, tmp_path):
    client, _ = stored
    (tmp_path / "e").rename(tmp_path / "before")
    (tmp_path / "e").write_text("something else")
    response = client.post(EVENTS, json=EVENT)
    detail = problem(response, 503, "events-file-lost")
    assert str(tmp_path) not in detail
    assert client.post(RECOMMEND, json={"user_id": "ann"}).status_code == 200
    # The events of the bundle itself are answered as ever.
    assert client.get("/readyz").status_code == 200


def test_no_more_users_than_allowed_is_507(bundle_path):
    limits = StateLimits(max_users=2)
    recommender = Recommender.load(bundle_path, limits=limits)
    client = TestClient(create_app(ServingState(recommender)))
    for user in ("zoe", "yan", "zoe"):
        event = {"user_id": user, "item_id": "heat"}
        assert client.post(EVENTS, json=event).status_code == 202
    response = client.post(EVENTS, json=EVENT)
    assert "at most 2 users" in problem(response, 507, "events-full")
    assert client.post(RECOMMEND, json={"user_id": "new"}).json()["source"] == "popular"
    recommender.close()


def test_events_that_cannot_be_stored_are_not_acknowledged(bundle_path, caplog):
    class FullDisk:
        def blocks(self):
            return iter(())

        def append(self, events):
            raise ResourceError("events-not-stored", "No space.", file="/srv/events")

        def close(self):
            pass

    recommender = Recommender.load(bundle_path, events=FullDisk())
    client = TestClient(create_app(ServingState(recommender)))
    response = client.post(EVENTS, json={"user_id": "new", "item_id": "heat"})
    assert problem(response, 503, "events-not-stored") == "No space."
    assert "No space. (file /srv/events)" in caplog.text
    answer = client.post(RECOMMEND, json={"user_id": "new"}).json()
    assert answer["source"] == "popular"


MALFORMED = {
    "empty": b"",
    "cut off": b'{"user_id": "ann"',
    "two values": b"{} {}",
    "a word": b"hello",
    "NaN": b'{"user_id": NaN}',
    "Infinity": b'{"k": Infinity}',
    "invalid UTF-8": b'{"user_id": "\xff"}',
    "UTF-16": '{"user_id": "ann"}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "lone surrogate": b'{"user_id": "\\ud800"}',
    "comment": b"{} // all",
    "single quotes": b"{'user_id': 'ann'}",
    "raw NUL": b'{"user_id": "a\x00"}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
@pytest.mark.parametrize("path", [RECOMMEND, EVENTS])
def test_malformed_json_is_400(client, path, body):
    detail = problem(post_raw(client, path, body), 400, "malformed-json")
    assert "must be JSON in UTF-8" in detail


WRONG = {
    "a list": b"[]",
    "null": b"null",
    "deep list": b"[" * 100_000,
    "deep value": b'{"user_id": ' + b"[" * 100_000,
    "deep unknown field": b'{"x": ' + b'{"x": ' * 50_000,
    "many keys": b"{" + b",".join(b'"k%d": 1' % i for i in range(60_000)) + b"}",
    "boolean id": b'{"user_id": true, "item_ids": ["heat"], "item_id": "heat"}',
    "float id": b'{"user_id": 1.5, "item_ids": ["heat"], "item_id": "heat"}',
    "object id": b'{"user_id": {}, "item_ids": ["heat"], "item_id": "heat"}',
    "unknown field": b'{"user_id": "ann", "kk": 5}',
    "5,000 digits": b'{"user_id": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("path", POSTS)
def test_wrong_types_are_never_a_failure_of_ours(client, path, body):
    response = post_raw(client, path, body)
    assert response.status_code in (400, 422), response.text
    code = "malformed-json" if response.status_code == 400 else "invalid-request"
    assert len(problem(response, response.status_code, code)) < 400


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (RECOMMEND, {"k": "5"}, "Expected `int`, got `str` - at `$.k`"),
        (RECOMMEND, {"k": None}, "Expected `int`, got `null` - at `$.k`"),
        (RECOMMEND, {"k": 2.5}, "Expected `int`, got `float` - at `$.k`"),
        (RECOMMEND, {"history": "heat"}, "Expected `array | null`, got `str`"),
        (RECOMMEND, {"history": ["x"] * 1001}, "length <= 1000"),
        (RECOMMEND, {"exclude_ids": [None]}, "at `$.exclude_ids[0]`"),
        (RECOMMEND, {"exclude_ids": ["x"] * 10_001}, "length <= 10000"),
        (RECOMMEND, {"exclude_seen": 1}, "Expected `bool`, got `int`"),
        (RANK, {"item_ids": ["heat"]}, "missing required field `user_id`"),
        (RANK, {"user_id": "ann"}, "missing required field `item_ids`"),
        (RANK, {"user_id": "ann", "item_ids": []}, "length >= 1"),
        (RANK, {"user_id": "ann", "item_ids": ["x"] * 1001}, "length <= 1000"),
        (EVENTS, {"user_id": "ann"}, "missing required field `item_id`"),
        (EVENTS, {"events": []}, "length >= 1"),
        (EVENTS, {"events": {}}, "Expected `array`, got `object`"),
        (EVENTS, {"events": [{}]}, "missing required field `user_id`"),
        (EVENTS, {"events": [], "user_id": "ann"}, "length >= 1"),
        (EVENTS, {"events": [{"user_id": 1, "item_id": 1}] * 1001}, "length <= 1000"),
    ],
)
def test_a_body_that_does_not_fit_names_the_field(client, path, body, words):
    assert words in problem(client.post(path, json=body), 422, "invalid-request")


def test_a_label_out_of_range_of_floats_is_refused(client):
    body = b'{"user_id": "new", "item_id": "heat", "label": 1e400}'
    problem(post_raw(client, EVENTS, body), 422, "invalid-request")


@pytest.mark.parametrize("k", [0, -1, 1001, 10**9, 10**25])
def test_a_wrong_k_is_422_on_both_routes(client, k):
    words = "must be a whole number from 1 to 1000"
    response = client.post(RECOMMEND, json={"user_id": "ann", "k": k})
    assert words in problem(response, 422, "invalid-k")
    response = client.get(f"/api/v1/items/heat/similar?k={k}")
    assert words in problem(response, 422, "invalid-k")


@pytest.mark.parametrize(
    "k", ["", "ten", "1.0", "1e2", "0x5", "%F0%9F%98%80", "%D9%A3"]
)
def test_a_k_that_is_no_number_is_422(client, k):
    problem(client.get(f"/api/v1/items/heat/similar?k={k}"), 422, "invalid-k")


@pytest.mark.parametrize("user_id", ["", "x" * 1025, 2**63, 10**300])
def test_a_wrong_id_is_422(client, user_id):
    for path, more in ((RECOMMEND, {}), (RANK, {"item_ids": ["heat"]})):
        response = client.post(path, json={"user_id": user_id, **more})
        assert "`user_id` must be" in problem(response, 422, "invalid-id")


def test_a_body_over_the_limit_is_refused_before_it_is_read(client):
    read = []

    def chunks():
        read.append(1)
        yield b" " * 10

    headers = {"content-type": "application/json", "content-length": "1048577"}
    response = client.post(RECOMMEND, content=chunks(), headers=headers)
    detail = problem(response, 413, "body-too-large")
    assert "at most 1048576 bytes. Its declared length is 1048577" in detail


def test_a_body_at_the_limit_is_read(client):
    body = b'{"user_id": "ann"}'
    padded = body + b" " * (BODY_LIMIT_BYTES - len(body))
    assert len(ids_of(post_raw(client, RECOMMEND, padded))) == 5
    problem(post_raw(client, RECOMMEND, padded + b" "), 413, "body-too-large")


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"],
)
@pytest.mark.parametrize("path", POSTS)
def test_another_content_type_is_415(client, path, content_type):
    detail = problem(
        post_raw(client, path, b"{}", content_type), 415, "unsupported-media-type"
    )
    assert "must have Content-Type application/json" in detail


def test_a_charset_after_the_content_type_is_fine(client):
    response = post_raw(client, RECOMMEND, b"{}", "Application/JSON; charset=utf-8")
    assert response.status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/", "/api", "/api/v1/recommend/", "/api/v1/items", "/api/v1/items//similar"]
    + ["/api/v1/items/heat", "/API/V1/RECOMMEND", "/healthz/", "/%2e%2e/etc/passwd"],
)
def test_an_unknown_path_is_404(client, path):
    assert "no such path" in problem(client.get(path), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", path) for path in POSTS]
    + [("DELETE", RECOMMEND), ("POST", "/healthz"), ("PUT", "/openapi.json")]
    + [("POST", "/api/v1/items/heat/similar"), ("OPTIONS", RECOMMEND)],
)
def test_another_method_is_405_and_says_which_are_allowed(client, method, path):
    response = client.request(method, path)
    problem(response, 405, "method-not-allowed")
    assert response.headers["allow"].split(", ")[-1] in {"POST", "GET", "HEAD"}


def test_health_and_readiness(client, recommender):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {
        "status": "ready",
        "name": "tiny",
        "model_version": recommender.model_version,
        "num_items": 7,
    }


def test_before_a_bundle_is_loaded_only_health_is_fine(recommender):
    state = ServingState()
    client = TestClient(create_app(state))
    assert client.get("/healthz").status_code == 200
    response = client.get("/readyz")
    problem(response, 503, "not-ready")
    assert response.headers["x-model-version"] == "none"
    for path in POSTS:
        body = {"user_id": "ann", "item_ids": ["heat"], "item_id": "heat"}
        known = {RECOMMEND: ["user_id"], RANK: ["user_id", "item_ids"]}
        body = {key: body[key] for key in known.get(path, ["user_id", "item_id"])}
        problem(client.post(path, json=body), 503, "not-ready")
    state.recommender = recommender
    assert client.get("/readyz").status_code == 200


def test_a_stopping_server_is_not_ready_but_answers(recommender):
    client = TestClient(create_app(ServingState(recommender, is_draining=True)))
    problem(client.get("/readyz"), 503, "not-ready")
    response = client.post(RECOMMEND, json={})
    assert response.status_code == 200
    assert response.headers["connection"] == "close"


@pytest.mark.parametrize("path", ["recommend", "rank", "add_events", "similar"])
def test_a_failure_of_ours_is_logged_and_tells_the_client_nothing(
    recommender, monkeypatch, caplog, path
):
    def fail(*arguments, **options):
        raise RuntimeError("secret path /srv")

    monkeypatch.setattr(recommender, path, fail)
    client = TestClient(create_app(ServingState(recommender)))
    headers = {"x-request-id": "req-17"}
    asked = {
        "recommend": lambda: client.post(RECOMMEND, json={}, headers=headers),
        "rank": lambda: client.post(
            RANK, json={"user_id": 1, "item_ids": [1]}, headers=headers
        ),
        "add_events": lambda: client.post(EVENTS, json=EVENT, headers=headers),
        "similar": lambda: client.get("/api/v1/items/heat/similar", headers=headers),
    }
    response = asked[path]()
    assert "secret" not in problem(response, 500, "internal-error")
    assert response.headers["x-request-id"] == "req-17"
    (record,) = caplog.records
    assert "request req-17" in record.getMessage()
    assert "RuntimeError: secret path /srv" in caplog.text  # and its traceback
    assert "in fail" in caplog.text


def test_a_failure_outside_the_routes_is_logged_and_answered_too(recommender, caplog):
    headers = {"content-length": "many", "x-request-id": "req-18"}
    scope = http_scope([(k.encode(), v.encode()) for k, v in headers.items()])
    status, body = asgi_post(
        create_app(ServingState(recommender)), receive=None, scope=scope
    )
    assert (status, body["type"]) == (500, "urn:shortlist:error:internal-error")
    assert "request req-18" in caplog.text and "ValueError" in caplog.text


def test_an_error_of_an_artifact_is_logged_and_tells_nothing(
    recommender, monkeypatch, caplog
):
    def fail(*arguments, **options):
        raise ArtifactError("bundle-graph", "The graph /srv/x is broken.")

    monkeypatch.setattr(recommender, "similar", fail)
    client = TestClient(create_app(ServingState(recommender)))
    response = client.get("/api/v1/items/heat/similar")
    assert "/srv" not in problem(response, 500, "internal-error")
    assert "The graph /srv/x is broken" in caplog.text


@pytest.mark.parametrize(
    ("version", "header"),
    [
        ("1.2-beta_3", "1.2-beta_3"),
        ("a\r\nx-evil: 1", "a%0D%0Ax-evil:%201"),
        ("a\0b", "a%00b"),
        ("модель", "%D0%BC%D0%BE%D0%B4%D0%B5%D0%BB%D1%8C"),
        ("é 🎬", "%C3%A9%20%F0%9F%8E%AC"),
        ("\udc80", "?"),
        ("", ""),
        ("v" * 5000, "v" * 200),
    ],
)
def test_any_version_of_a_bundle_fits_a_header(recommender, version, header):
    recommender.manifest = msgspec.structs.replace(
        recommender.manifest, version=version
    )
    client = TestClient(create_app(ServingState(recommender)))
    response = client.get("/healthz")
    assert response.status_code == 200
    assert response.headers["x-model-version"] == header
    assert "x-evil" not in response.headers


def test_the_access_log_has_a_line_for_each_request_and_no_ids(recommender, caplog):
    client = TestClient(create_app(ServingState(recommender), access_log=True))
    with caplog.at_level(logging.INFO, "shortlist.access"):
        client.get("/api/v1/items/heat/similar", headers={"x-request-id": "r1"})
        client.post(RECOMMEND, json={"user_id": ""})
        client.get("/nowhere")
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split()[1:4] for line in lines] == [
        ["GET", "similar", "200"],
        ["POST", "recommend", "422"],
        ["GET", "no", "route"],
    ]
    assert lines[0].endswith(" ms r1") and "heat" not in lines[0]


def test_without_an_access_log_a_good_request_is_not_logged(client, caplog):
    with caplog.at_level(logging.DEBUG, "shortlist"):
        client.get("/healthz")
    assert caplog.records == []


def test_a_request_id_comes_back_or_is_made(client):
    given = "Req-1.2_3:4"
    response = client.get("/healthz", headers={"x-request-id": given})
    assert response.headers["x-request-id"] == given
    for bad in ("a b", "x" * 129, "a\tb", ""):
        response = client.get("/healthz", headers={"x-request-id": bad})
        assert len(response.headers["x-request-id"]) == 32
    first, second = (client.get("/healthz").headers["x-request-id"] for _ in "12")
    assert first != second


def test_every_answer_names_the_model(client, recommender):
    for response in (client.get("/healthz"), client.get("/nowhere")):
        assert response.headers["x-model-version"] == recommender.model_version


def http_scope(headers):
    return {"type": "http", "method": "POST", "headers": headers}


async def run_limited(messages, headers, limit):
    """What an application behind the limit gets to read."""
    got, waiting = [], iter(messages)

    async def app(scope, receive, send):
        while True:
            message = await receive()
            got.append(len(message["body"]))
            if not message["more_body"]:
                return

    async def receive():
        return next(waiting)

    error = None
    try:
        await BodyLimit(app, limit)(http_scope(headers), receive, None)
    except Exception as raised:
        error = raised
    return got, error, len(list(waiting))


def chunk(size, more=True):
    return {"type": "http.request", "body": b" " * size, "more_body": more}


def test_a_body_without_a_length_is_cut_off_at_the_limit():
    endless = [chunk(40)] * 100
    got, error, left = asyncio.run(run_limited(endless, [], 100))
    assert got == [40, 40]  # the third chunk went over, and 97 were never asked for
    assert (error.code, left) == ("body-too-large", 97)
    assert "It was cut off after 120 bytes" in str(error)


def test_a_declared_length_over_the_limit_is_refused_unread():
    headers = [(b"content-length", b"101")]
    got, error, left = asyncio.run(run_limited([chunk(101, more=False)], headers, 100))
    assert (got, error.code, left) == ([], "body-too-large", 1)


def test_a_length_that_lies_helps_nobody():
    headers = [(b"content-length", b"10")]
    got, error, left = asyncio.run(run_limited([chunk(60), chunk(60)], headers, 100))
    assert (got, error.code, left) == ([60], "body-too-large", 0)


def test_bodies_of_all_requests_together_are_limited():
    async def app(scope, receive, send):
        while (await receive())["more_body"]:
            pass

    limited = BodyLimit(app, limit_bytes=100, held_limit_bytes=150)
    released = asyncio.Event()

    async def one(sizes):
        async def receive():
            if not sizes:
                await released.wait()
                return chunk(0, more=False)
            return chunk(sizes.pop(0))

        try:
            await limited(http_scope([]), receive, None)
        except ResourceError as error:
            return error.code
        return "read"

    async def several():
        first = asyncio.ensure_future(one([60, 40]))
        await asyncio.sleep(0)
        second = await one([40, 20])  # 160 bytes with the first's
        third = asyncio.ensure_future(one([40]))
        await asyncio.sleep(0)
        released.set()
        return second, await first, await third, await one([100])

    # What a refused or finished request held is free again.
    assert asyncio.run(several()) == ("overloaded", "read", "read", "read")


def asgi_post(app, receive, scope=None):
    """Sends one request with a body of its own pace; returns the messages sent."""
    sent = []

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = (scope or http_scope(headers)) | {
        "path": RECOMMEND,
        "query_string": b"",
        "root_path": "",
        "http_version": "1.1",
    }
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


def test_a_body_that_never_comes_is_408(recommender):
    app = create_app(ServingState(recommender), body_timeout_seconds=0.01)
    status, body = asgi_post(app, lambda: asyncio.get_running_loop().create_future())
    assert (status, body["type"]) == (408, "urn:shortlist:error:body-timeout")


def test_a_client_that_hangs_up_is_no_failure_of_ours(recommender):
    async def receive():
        return {"type": "http.disconnect"}

    status, body = asgi_post(create_app(ServingState(recommender)), receive)
    assert (status, body["type"]) == (400, "urn:shortlist:error:body-incomplete")

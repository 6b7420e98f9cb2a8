"""Which names a request may ask for: no page of another site reaches a local server."""

import pytest
from starlette.testclient import TestClient

from shortlist.serving.http.hosts import AllowedHosts
from shortlist.serving.http.rest import ServingState, create_app

LOCAL = ["localhost", "LOCALHOST:8000", "localhost.", "127.0.0.1", "127.0.0.1:8000"]
LOCAL += ["127.8.9.10:1", "[::1]", "[::1]:8000", "[0:0:0:0:0:0:0:1]:80"]
FOREIGN = ["evil.example", "evil.example:8000", "localhost.evil.example", "1.2.3.4:80"]
FOREIGN += ["127.0.0.1.evil.example", "[2001:db8::1]", "", ":8000", "127.0.0.1:x"]
FOREIGN += ["0.0.0.0", "127.1", "0x7f000001", "localhost@evil.example", "[::1"]
FOREIGN += ["localhost, evil.example", "notlocalhost", "\u0660", "[::1]evil"]


@pytest.mark.parametrize("host", LOCAL)
def test_this_machine_may_be_asked_for(host):
    assert AllowedHosts().allows(host)


@pytest.mark.parametrize("host", FOREIGN)
def test_another_name_may_not(host):
    assert not AllowedHosts().allows(host)


def test_further_names_are_allowed_as_they_are_and_nothing_below_them():
    hosts = AllowedHosts(["Shop.example", "10.0.0.5"])
    assert hosts.allows("shop.example:443") and hosts.allows("10.0.0.5")
    assert not hosts.allows("www.shop.example") and not hosts.allows("10.0.0.6")
    assert AllowedHosts(["*"]).allows("anything.example")


def test_a_server_that_others_reach_may_be_asked_for_by_any_address():
    hosts = AllowedHosts(any_address=True)
    assert hosts.allows("192.0.2.7:8000") and hosts.allows("[2001:db8::1]:8000")
    assert not hosts.allows("evil.example")


@pytest.fixture
def client(recommender):
    app = create_app(ServingState(recommender), hosts=AllowedHosts(["shop.example"]))
    return TestClient(app)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/nowhere"])
def test_every_route_refuses_another_name(client, path):
    response = client.get(path, headers={"host": "evil.example"})
    assert response.status_code == 421
    assert response.json()["type"] == "urn:shortlist:error:host-not-allowed"
    assert response.headers["x-request-id"]
    good = client.get(path, headers={"host": "shop.example"})
    assert good.status_code == (404 if path == "/nowhere" else 200)


def test_a_refused_request_changes_nothing(client):
    event = {"user_id": "new", "item_id": "heat"}
    evil = {"host": "evil.example"}
    assert client.post("/api/v1/events", json=event, headers=evil).status_code == 421
    good = {"host": "127.0.0.1"}
    answer = client.post("/api/v1/recommend", json={"user_id": "new"}, headers=good)
    assert answer.json()["source"] == "popular"


def test_two_hosts_are_one_too_many(client):
    headers = [("host", "localhost"), ("host", "evil.example")]
    assert client.get("/healthz", headers=headers).status_code == 421

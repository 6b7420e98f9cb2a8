"""A real server on loopback: start, ports, signals, hostile bytes, a clean end."""

import contextlib
import http.client
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from urllib.parse import quote

import pytest

from shortlist.errors import ArtifactError, InputError, ResourceError
from shortlist.serving.event_store.events import Event, SqliteEventStore
from shortlist.serving.http.addresses import claimed_port, free_port
from shortlist.serving.http.server import serve
from tiny_bundle import expected_list

SCRIPT = """
import sys
from shortlist.serving.http.limits import ConnectionLimits, ServerSettings
from shortlist.serving.event_store.events import Event, SqliteEventStore
from shortlist.serving.http.server import serve
connections = ConnectionLimits(in_all=int(sys.argv[4]), header_seconds=60)
settings = ServerSettings(drain_seconds=float(sys.argv[3]), connections=connections)
serve(sys.argv[1], port=0, events_path=sys.argv[2], settings=settings,
      on_ready=lambda server: print(server.url, flush=True))
heavy = {"keras", "keras_rs", "jax", "tensorflow", "torch"}
print("loaded", sorted(heavy & set(sys.modules)), flush=True)
"""


class ServerProcess:
    """`serve` in a process of its own."""

    def __init__(self, bundle_path, events_path, *, drain_seconds=0, in_all=4096):
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, bundle_path, events_path]
            + [str(drain_seconds), str(in_all)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        url = self.process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), self.process.communicate()
        self.port = int(url.rsplit(":", 1)[1])

    def ask(self, method, path, body=None, headers=()):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = dict(headers)
        if body is not None:
            headers["content-type"] = "application/json"
        raw = None if body is None else json.dumps(body)
        connection.request(method, path, raw, headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        return response.status, answer

    def send_raw(self, raw):
        """Sends bytes as they are; returns the status and the body of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as sock:
            sock.sendall(raw)
            response = http.client.HTTPResponse(sock)
            response.begin()
            return response.status, response.read()

    def end(self, number):
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


@pytest.fixture
def start(bundle_path, tmp_path):
    servers = []

    def start_server(**settings):
        events_path = tmp_path / "events.sqlite"
        servers.append(ServerProcess(bundle_path, events_path, **settings))
        return servers[-1]

    yield start_server
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.communicate()


@pytest.fixture(scope="module")
def server(bundle_path, tmp_path_factory):
    running = ServerProcess(bundle_path, tmp_path_factory.mktemp("e") / "events")
    yield running
    running.end(signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_and_events_outlive_it(start, number):
    first = start()
    event = {"user_id": "zoe", "item_id": "heat"}
    assert first.ask("POST", "/api/v1/events", event) == (202, {"accepted": 1})
    code, out, err = first.end(number)
    assert (code, out, err) == (0, "loaded []\n", "")
    status, answer = start().ask("POST", "/api/v1/recommend", {"user_id": "zoe"})
    assert status == 200
    ids = [item["item_id"] for item in answer["items"]]
    assert ids == [item_id for item_id, _ in expected_list(0, [1])]
    assert answer["source"] == "history"


def test_an_open_connection_does_not_hold_it_up(start):
    running = start()
    with socket.create_connection(("127.0.0.1", running.port)) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nhost: [::1]\r\n\r\n")
        sock.recv(100)
        code, _, err = running.end(signal.SIGINT)
    assert (code, err) == (0, "")


@pytest.mark.parametrize("item_id", ["a/b", "c:\\d", "it's 🎬", 'say "hi"', "100%?&#"])
def test_any_id_gets_through_http(server, item_id):
    path = f"/api/v1/items/{quote(item_id, safe='')}/similar?k=1"
    status, answer = server.ask("GET", path)
    assert (status, answer["item_id"]) == (200, item_id)


HEAD = (
    b"POST /api/v1/recommend HTTP/1.1\r\nhost: [::1]\r\n"
    b"content-type: application/json\r\n"
)


def test_a_declared_body_over_the_limit_is_answered_before_it_is_sent(server):
    status, body = server.send_raw(HEAD + b"content-length: 1048577\r\n\r\n")
    assert status == 413
    assert json.loads(body)["type"] == "urn:shortlist:error:body-too-large"


def test_an_endless_chunked_body_is_cut_off(server):
    answered = threading.Event()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        sock.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n")

        def send_for_ever():
            with contextlib.suppress(OSError):  # the server closes the connection
                while not answered.is_set():
                    sock.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")

        sender = threading.Thread(target=send_for_ever)
        sender.start()
        response = http.client.HTTPResponse(sock)
        response.begin()
        answered.set()
        assert response.status == 413
        with contextlib.suppress(OSError):  # the server may have been faster
            sock.shutdown(socket.SHUT_RDWR)
        sender.join(timeout=20)
    assert not sender.is_alive()


@pytest.mark.parametrize(
    ("raw", "statuses"),
    [
        (HEAD + b"content-length: abc\r\n\r\n", {400}),
        (HEAD + b"content-length: -1\r\n\r\n", {400}),
        (HEAD + b"content-length: " + b"9" * 5000 + b"\r\n\r\n", {400}),
        (HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}", {400}),
        (
            b"GET /api/v1/items/%FF%00/similar HTTP/1.1\r\nhost: [::1]\r\n\r\n",
            {404},
        ),
        (b"GET /%2e%2e%2fetc HTTP/1.1\r\nhost: [::1]\r\n\r\n", {404}),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: [::1]\r\n\r\n", {414}),
        (b"BREW /healthz HTTP/1.1\r\nhost: [::1]\r\n\r\n", {405}),
        (b"GET /healthz HTTP/1.1\r\nhost: [::1]\r\nx: \xff\x00\r\n\r\n", {400}),
        (b"\x16\x03\x01\x02\x00 not http\r\n\r\n", {400}),
    ],
)
def test_hostile_bytes_are_refused_and_the_server_lives_on(server, raw, statuses):
    status, _ = server.send_raw(raw)
    assert status in statuses
    assert server.ask("GET", "/healthz") == (200, {"status": "ok"})


def test_serve_runs_in_a_thread_and_ends_when_told(bundle_path):
    answers = []

    def on_ready(running):
        port = int(running.url.rsplit(":", 1)[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/readyz")
        answers.append(json.loads(connection.getresponse().read()))
        connection.close()
        answers.append(running)
        running.stop()

    thread = threading.Thread(
        target=serve, args=(bundle_path,), kwargs={"port": 0, "on_ready": on_ready}
    )
    thread.start()
    thread.join(timeout=60)
    ready, running = answers
    assert ready["model_version"] == running.model_version
    running.stop()  # once more does no harm


def test_what_on_ready_raises_ends_the_server_and_is_raised(bundle_path):
    def on_ready(running):
        raise RuntimeError("no answer")

    with pytest.raises(RuntimeError, match="no answer"):
        serve(bundle_path, port=0, on_ready=on_ready)


def test_a_bundle_that_cannot_be_read_ends_the_server(tmp_path):
    with pytest.raises(ArtifactError) as caught:
        serve(tmp_path, port=0)
    assert caught.value.code == "bundle-missing"


@pytest.fixture
def taken():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


def test_a_taken_port_is_an_error_that_names_it(bundle_path, taken):
    with pytest.raises(ResourceError, match=f"port {taken} cannot be used") as caught:
        serve(bundle_path, port=taken)
    assert caught.value.code == "port-taken"
    assert caught.value.exit_code == 4


def test_the_next_free_port_is_found(taken):
    assert taken < free_port("127.0.0.1", taken, search=True) < taken + 100


def test_the_port_of_a_running_server_counts_as_taken(server):
    with pytest.raises(ResourceError):
        free_port("127.0.0.1", server.port)


@pytest.mark.parametrize("port", [-1, 65536, 10**9])
def test_a_port_out_of_range_is_refused(port):
    with pytest.raises(InputError, match="from 0 to 65535") as caught:
        free_port("127.0.0.1", port)
    assert caught.value.code == "invalid-port"


def test_an_address_of_another_machine_cannot_be_had():
    with pytest.raises(ResourceError, match="Cannot listen on 192") as caught:
        free_port("192.0.2.1", 0)
    assert caught.value.code == "bind-failed"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_an_address_others_can_reach_is_refused(bundle_path, host):
    with pytest.raises(InputError, match="no authentication") as caught:
        serve(bundle_path, host, port=0)
    assert caught.value.code == "remote-bind-refused"


def test_a_host_that_is_none_is_refused(bundle_path):
    with pytest.raises(InputError, match="must be an address of this ma") as caught:
        serve(bundle_path, "not a host", port=0)
    assert caught.value.code == "invalid-host"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2"])
def test_names_of_this_machine_are_fine(bundle_path, host):
    urls = []

    def on_ready(running):
        urls.append(running.url)
        running.stop()

    serve(bundle_path, host, port=0, on_ready=on_ready)
    assert urls[0].startswith("http://")


def test_a_missing_package_is_said_in_one_line(bundle_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ResourceError, match=r"pip install 'shortlist\[serve\]'") as c:
        serve(bundle_path, port=0)
    assert c.value.code == "package-missing"


def test_a_second_signal_ends_it_at_once(start):
    running = start()
    # A request whose body never ends keeps the server from draining.
    with socket.create_connection(("127.0.0.1", running.port)) as sock:
        sock.sendall(HEAD + b"content-length: 10\r\n\r\n{")
        running.process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 20
        while listens(running.port):
            assert time.monotonic() < deadline
        code, _, err = running.end(signal.SIGINT)
    assert (code, err) == (130, "")


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_events_survive_a_file_that_is_deleted_under_the_server(start, tmp_path):
    first = start()
    for user in ("zoe", "yan"):
        event = {"user_id": user, "item_id": "heat"}
        assert first.ask("POST", "/api/v1/events", event) == (202, {"accepted": 1})
        for file in tmp_path.glob("events.sqlite*"):
            file.unlink()
    code, _, err = first.end(signal.SIGTERM)
    assert code == 0
    assert "was deleted or moved away while serving: written again" in err
    second = start()
    for user in ("zoe", "yan"):
        status, answer = second.ask("POST", "/api/v1/recommend", {"user_id": user})
        assert (status, answer["source"]) == (200, "history")


def test_a_second_server_does_not_get_the_events_file(start, bundle_path, tmp_path):
    start()
    with pytest.raises(ResourceError, match="uses this events file") as caught:
        serve(bundle_path, port=0, events_path=tmp_path / "events.sqlite")
    assert caught.value.code == "events-in-use"


def test_a_row_that_is_no_event_stops_neither_start_nor_answers(
    start, bundle_path, tmp_path
):
    store = SqliteEventStore(tmp_path / "events.sqlite")
    store.append([Event(user_id="zoe", item_id="heat", timestamp_ms=5)])
    store.close()
    with sqlite3.connect(tmp_path / "events.sqlite") as connection:
        connection.execute("INSERT INTO events VALUES ('zoe', 'a/b', 'noon', NULL)")
    connection.close()
    running = start()
    status, answer = running.ask("POST", "/api/v1/recommend", {"user_id": "zoe"})
    assert (status, answer["source"]) == (200, "history")
    _, _, err = running.end(signal.SIGINT)
    assert "1 rows of" in err and "are not events" in err


def test_sigterm_is_seen_at_readyz_before_the_port_closes(start):
    running = start(drain_seconds=60)
    assert running.ask("GET", "/readyz")[0] == 200
    running.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 20
    while running.ask("GET", "/readyz")[0] == 200:
        assert time.monotonic() < deadline
    status, answer = running.ask("GET", "/readyz")
    assert (status, answer["type"]) == (503, "urn:shortlist:error:not-ready")
    assert running.ask("POST", "/api/v1/recommend", {})[0] == 200
    code, _, err = running.end(signal.SIGTERM)  # the second one ends it at once
    assert (code, err) == (143, "")


def test_sigterm_ends_a_server_that_is_still_starting(bundle_path, tmp_path):
    path = tmp_path / "events.sqlite"
    SqliteEventStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
            " WHERE i < 700000) INSERT INTO events SELECT 'u' || i, 'heat', i, NULL"
            " FROM n"
        )
    connection.close()
    port = free_port("127.0.0.1", 0)
    script = SCRIPT.replace("port=0", f"port={port}")
    command = [sys.executable, "-c", script, bundle_path, path, "60", "4096"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not listens(port):
            assert time.monotonic() < deadline and process.poll() is None
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    # It never became ready, and did not wait for its sixty seconds of draining.
    assert (process.returncode, out) == (0, "")
    SqliteEventStore(path).close()  # whole, and free again


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "10.0.0.1"])
def test_a_request_for_another_host_is_refused(server, host):
    status, answer = server.ask("GET", "/healthz", headers={"host": host})
    assert (status, answer["type"]) == (421, "urn:shortlist:error:host-not-allowed")


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nhost: localh"])
def test_idle_and_half_open_connections_keep_nobody_out(start, sent):
    running = start(in_all=64)
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            sock = socket.create_connection(("127.0.0.1", running.port), timeout=20)
            stack.enter_context(sock)
            if sent:
                sock.sendall(sent)
        for _ in range(3):
            assert running.ask("GET", "/healthz") == (200, {"status": "ok"})
            assert running.ask("POST", "/api/v1/recommend", {})[0] == 200
    code, _, err = running.end(signal.SIGINT)
    assert code == 0 and err.count("too many") == 1


def test_hundreds_of_connections_are_no_crowd(server):
    with contextlib.ExitStack() as stack:
        for _ in range(400):
            sock = socket.create_connection(("127.0.0.1", server.port), timeout=20)
            stack.enter_context(sock)
        assert server.ask("GET", "/healthz") == (200, {"status": "ok"})


def test_two_servers_of_one_moment_do_not_share_a_port():
    port = free_port("127.0.0.1", 0)
    with claimed_port("127.0.0.1", port, search=False) as first:
        # The first one does not listen yet: the port itself is still free.
        with claimed_port("127.0.0.1", port, search=True) as second:
            assert (first, second > port) == (port, True)
        with pytest.raises(ResourceError, match="Another server uses port") as taken:
            with claimed_port("127.0.0.1", port, search=False):
                pass
        assert taken.value.code == "port-taken"
    with claimed_port("127.0.0.1", port, search=False) as again:
        assert again == port

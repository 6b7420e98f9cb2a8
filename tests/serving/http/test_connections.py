"""Limits on connections, with real sockets of this process on loopback."""

import contextlib
import resource
import select
import socket

import pytest

from shortlist.serving.http.connections import (
    ConnectionGuard,
    _idle_ms,
    raise_file_limit,
)
from shortlist.serving.http.limits import ConnectionLimits


class Listener:
    """A listening socket and both ends of its connections."""

    def __init__(self, stack):
        self.stack = stack
        self.socket = stack.enter_context(socket.socket())
        self.socket.bind(("0.0.0.0", 0))
        self.socket.listen(100)
        self.port = self.socket.getsockname()[1]

    def connect(self, source="127.0.0.1"):
        client = socket.create_connection(
            ("127.0.0.1", self.port), 20, source_address=(source, 0)
        )
        server, _ = self.socket.accept()
        for end in (client, server):
            self.stack.enter_context(end)
        return client, server


@pytest.fixture
def listener():
    with contextlib.ExitStack() as stack:
        yield Listener(stack)


def is_open(server):
    """Whether the end of the server was left alone."""
    readable, _, _ = select.select([server], [], [], 0)
    return not readable


def guard_of(listener, **limits):
    return ConnectionGuard(listener.port, ConnectionLimits(**limits))


def test_connections_within_the_limits_are_left_alone(listener):
    pairs = [listener.connect() for _ in range(5)]
    assert guard_of(listener, in_all=5, per_client=5).close_excess() == 0
    assert all(is_open(server) for _, server in pairs)


def test_those_idle_longest_are_closed(listener):
    pairs = [listener.connect() for _ in range(6)]
    # Idle times count in milliseconds: wait until the kernel tells them apart.
    guard = guard_of(listener, in_all=3, per_client=6)
    busy = (1, 3, 5)
    wait_ms(pairs[0][1], 20)
    for number in busy:
        pairs[number][0].sendall(b"x")
        assert pairs[number][1].recv(1) == b"x"
    assert guard.close_excess() == 3
    assert [n for n, (_, server) in enumerate(pairs) if is_open(server)] == [1, 3, 5]
    for number in (0, 2, 4):
        with contextlib.suppress(ConnectionResetError):
            assert pairs[number][1].recv(1) == b""


def wait_ms(server, milliseconds):
    while _idle_ms(server) < milliseconds:
        select.select([], [], [], 0.001)


def test_one_client_cannot_take_the_place_of_others(listener):
    many = [listener.connect("127.0.0.2")[1] for _ in range(10)]
    few = [listener.connect("127.0.0.3")[1] for _ in range(3)]
    assert guard_of(listener, in_all=100, per_client=4).close_excess() == 6
    assert sum(map(is_open, many)) == 4
    assert all(map(is_open, few))


def test_other_sockets_and_files_are_left_alone(listener, tmp_path):
    with contextlib.ExitStack() as stack:
        other = Listener(stack)
        _, server = other.connect()
        client, _ = listener.connect()
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        file = stack.enter_context(open(tmp_path / "f", "w"))
        guard_of(listener, in_all=0, per_client=0).close_excess()
        assert is_open(server)
        assert client.fileno() >= 0 and unix.fileno() >= 0
        file.write("still open")
        assert listener.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_a_crowd_is_told_once(listener, caplog):
    guard = guard_of(listener, in_all=2, per_client=9)
    for _ in range(3):
        for _ in range(3):
            listener.connect()
        guard.close_excess()
    assert caplog.text.count("too many") == 1


def test_a_client_that_does_not_read_is_dropped_by_the_kernel(listener):
    guard_of(listener, write_seconds=0.2).limit_writing()
    _, server = listener.connect()  # inherits it from the listening socket
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    server.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            server.send(b"x" * 65536)
    poll = select.poll()
    poll.register(server, 0)  # errors alone
    assert poll.poll(20_000), "the connection is still open"
    assert server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


@pytest.mark.parametrize(
    ("soft", "hard", "in_all", "raised", "fitting"),
    [
        (1024, 20_000, 4096, 20_000, 4096),
        (1024, 1024, 4096, 1024, 716),
        (1024, 10**6, 4096, 65_536, 4096),
        (20_000, 20_000, 50, 20_000, 50),
        (100, 100, 4096, 100, 16),
    ],
)
def test_the_limit_of_files_is_raised(monkeypatch, soft, hard, in_all, raised, fitting):
    limits = {resource.RLIMIT_NOFILE: (soft, hard)}
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    monkeypatch.setattr(resource, "setrlimit", limits.__setitem__)
    assert raise_file_limit(ConnectionLimits(in_all=in_all)) == fitting
    assert limits[resource.RLIMIT_NOFILE] == (raised, hard)


def test_the_web_server_accepts_some_more_than_are_kept():
    assert ConnectionLimits(in_all=16).accepted == 32
    assert ConnectionLimits(in_all=4096).accepted == 5120

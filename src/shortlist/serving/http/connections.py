"""Limits on the connections of a server: how many, from whom, and for how long.

The web server waits for headers no longer than told, and stops accepting at a number of
connections. What it lacks is done here on the sockets themselves: a client that does
not read its answer is dropped by the kernel, and when there are too many connections
those that have been idle longest are closed, so that there is always room for the next.
Knows sockets of this process; knows no HTTP.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
import struct
import sys
import time
from collections import defaultdict
from collections.abc import Iterator

from shortlist.serving.http.limits import ConnectionLimits

_logger = logging.getLogger("shortlist.serving")

_OTHER_FILES = 128  # descriptors for everything that is no connection
_MOST_FILES = 65_536
_TELL_SECONDS = 60.0
# Fields of `struct tcp_info` in <linux/tcp.h>: milliseconds since data was last sent,
# and since data was last received.
_LAST_SENT, _LAST_RECEIVED = 44, 52
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def raise_file_limit(limits: ConnectionLimits) -> int:
    """Allows this process as many files as the system lets it have.

    Returns:
        How many connections fit, at most `limits.in_all`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    if soft == resource.RLIM_INFINITY:
        return limits.in_all
    return max(16, min(limits.in_all, (soft - _OTHER_FILES) * 4 // 5))


class ConnectionGuard:
    """Looks at the connections to one port of this process when it is told to.

    Works on Linux; elsewhere the web server's own limits are all there is.

    Args:
        port: port the server listens at.
        limits: how many connections may stay open.
    """

    def __init__(self, port: int, limits: ConnectionLimits) -> None:
        self.port = port
        self.limits = limits
        self._told_seconds = -_TELL_SECONDS

    async def look(self) -> None:
        """Applies the limits once."""
        if sys.platform == "linux":
            self.limit_writing()
            self.close_excess()

    def limit_writing(self) -> None:
        """Has the kernel drop clients that do not read: connections inherit it."""
        milliseconds = int(1000 * self.limits.write_seconds)
        for sock in self._sockets():
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                sock.setsockopt(
                    socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds
                )

    def close_excess(self) -> int:
        """Closes the connections over the limits, those idle longest first.

        Returns:
            How many were closed.
        """
        clients: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for sock in self._sockets():
            with contextlib.suppress(OSError):  # closed by its client meanwhile
                client = sock.getpeername()[0]
                clients[client].append((_idle_ms(sock), sock.fileno()))
        excess: list[tuple[int, int]] = []
        kept: list[tuple[int, int]] = []
        for connections in clients.values():
            connections.sort()
            kept += connections[: self.limits.per_client]
            excess += connections[self.limits.per_client :]
        kept.sort()
        excess += kept[self.limits.in_all :]
        for _, descriptor in excess:
            self._close(descriptor)
        self._tell(sum(map(len, clients.values())), len(excess))
        return len(excess)

    def _tell(self, num_open: int, num_closed: int) -> None:
        """Says that it is crowded, at most once a minute."""
        now = time.monotonic()
        if num_closed and now - self._told_seconds >= _TELL_SECONDS:
            self._told_seconds = now
            _logger.warning(
                "%d open connections are too many (at most %d, and %d of one client):"
                " those idle longest are closed",
                num_open,
                self.limits.in_all,
                self.limits.per_client,
            )

    def _sockets(self) -> Iterator[socket.socket]:
        """Sockets of this process at the port; not to be closed, they are not ours.

        The descriptors are used as they are. A duplicate of one that meanwhile became
        another file would, when closed, release the locks of that file.
        """
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                    continue
                with _borrowed(int(name)) as sock:
                    if self._is_ours(sock):
                        yield sock

    def _is_ours(self, sock: socket.socket) -> bool:
        return (
            sock.family in (socket.AF_INET, socket.AF_INET6)
            and sock.type == socket.SOCK_STREAM
            and sock.getsockname()[1] == self.port
        )

    def _close(self, descriptor: int) -> None:
        with contextlib.suppress(OSError), _borrowed(descriptor) as sock:
            if self._is_ours(sock) and sock.getpeername():
                # A reset frees what the kernel still holds for the client.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    sock = socket.socket(fileno=descriptor)
    try:
        yield sock
    finally:
        sock.detach()


def _idle_ms(sock: socket.socket) -> int:
    """Milliseconds since anything came in or went out."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    sent, received = (
        struct.unpack_from("I", info, offset)[0]
        for offset in (_LAST_SENT, _LAST_RECEIVED)
    )
    return int(min(sent, received))

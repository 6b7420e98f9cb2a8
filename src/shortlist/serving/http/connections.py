"""Limits on the connections of a server: how many, from whom, and for how long.

The web server itself limits the wait for headers and the number of connections. The
other limits are set on the sockets: the kernel drops a client that does not read its
answer, and when there are too many connections, those that have been idle longest are
closed, so that there is always room for the next.
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

_OTHER_FILES = 128  # descriptors that are not connections
_MOST_FILES = 65_536
_WARN_SECONDS = 60.0
# Fields of `struct tcp_info` in <linux/tcp.h>: milliseconds since data was last sent,
# and since data was last received.
_LAST_SENT, _LAST_RECEIVED = 44, 52
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def raise_file_limit(limits: ConnectionLimits) -> int:
    """Raises the limit of open files as far as the system allows.

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
    """Applies the limits to the connections of one port of this process.

    Works on Linux only; elsewhere only the web server's own limits apply.

    Args:
        port: port the server listens on.
        limits: how many connections may stay open.
    """

    def __init__(self, port: int, limits: ConnectionLimits) -> None:
        self.port = port
        self.limits = limits
        self._warned_seconds = -_WARN_SECONDS

    async def look(self) -> None:
        """Applies the limits once."""
        if sys.platform == "linux":
            self.limit_writing()
            self.close_excess()

    def limit_writing(self) -> None:
        """Makes the kernel drop clients that do not read; connections inherit it."""
        milliseconds = int(1000 * self.limits.write_seconds)
        for sock in self._sockets():
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                sock.setsockopt(
                    socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds
                )

    def close_excess(self) -> int:
        """Closes connections over the limits, those idle longest first.

        Returns:
            How many were closed.
        """
        clients: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for sock in self._sockets():
            with contextlib.suppress(OSError):  # closed by its client
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
        self._warn(sum(map(len, clients.values())), len(excess))
        return len(excess)

    def _warn(self, num_open: int, num_closed: int) -> None:
        """Logs that connections were closed, at most once a minute."""
        now = time.monotonic()
        if num_closed and now - self._warned_seconds >= _WARN_SECONDS:
            self._warned_seconds = now
            _logger.warning(
                "%d open connections are too many (limits: %d, and %d per client):"
                " closing those that have been idle longest",
                num_open,
                self.limits.in_all,
                self.limits.per_client,
            )

    def _sockets(self) -> Iterator[socket.socket]:
        """Sockets of this process at the port; the caller must not close them.

        The descriptors are not duplicated: if one became another file in the meantime,
        closing a duplicate would release the locks of that file.
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
                # A reset frees what the kernel has buffered for the client.
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
    """Milliseconds since data was last sent or received."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    sent, received = (
        struct.unpack_from("I", info, offset)[0]
        for offset in (_LAST_SENT, _LAST_RECEIVED)
    )
    return int(min(sent, received))

"""The limits of a server: connections, posted state, bodies."""

from __future__ import annotations

from dataclasses import dataclass, field

BODY_LIMIT_BYTES = 2**20
HELD_LIMIT_BYTES = 64 * 2**20
"""Total size of the request bodies that are being received."""


@dataclass(frozen=True)
class ConnectionLimits:
    """How many connections, and time limits for each step.

    Args:
        in_all: open connections; fewer where the system allows fewer files.
        per_client: open connections from one address, such as that of a proxy.
        header_seconds: longest wait for the headers of a request, and between two
            requests of a connection.
        body_seconds: longest wait for a whole body.
        write_seconds: longest wait for a client that does not read its answer.
    """

    in_all: int = 4096
    per_client: int = 2048
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    write_seconds: float = 20.0

    @property
    def accepted(self) -> int:
        """Connections that the web server accepts: some more than stay open."""
        return self.in_all + max(16, self.in_all // 4)


@dataclass(frozen=True)
class StateLimits:
    """How much posted state is kept in memory.

    Args:
        max_users: users with posted events.
        max_bytes: approximate total size.
    """

    max_users: int = 1_000_000
    max_bytes: int = 512 * 2**20


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """What a server allows.

    Args:
        body_limit_bytes: longest request body.
        connections: limits on connections.
        state: how much posted state may be held in memory.
        max_events_bytes: largest size of the events file.
        allowed_hosts: accepted Host headers, besides localhost, loopback addresses
            and the host the server listens on.
        allow_remote: allow to listen on an address that other machines can reach.
        drain_seconds: how long `/readyz` answers 503 after SIGTERM before the port
            closes, so that load balancers notice.
        access_log: log a line for each request.
    """

    body_limit_bytes: int = BODY_LIMIT_BYTES
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
    state: StateLimits = field(default_factory=StateLimits)
    max_events_bytes: int = 2 * 2**30
    allowed_hosts: tuple[str, ...] = ()
    allow_remote: bool = False
    drain_seconds: float = 2.0
    access_log: bool = False

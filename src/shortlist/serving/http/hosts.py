"""Allowed values of the header Host, so that no web page can reach a local server.

A page of another site can make its own name point to 127.0.0.1 (DNS rebinding) and
then read the answers of a server on this machine. Its Host header shows that name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from shortlist.serving.http.problems import problem


class AllowedHosts:
    """Names and addresses that the header `Host` may have.

    Args:
        names: allowed besides localhost and loopback addresses; "*" allows any.
        any_address: allow every IP address, for a server that other machines can
            reach.
    """

    def __init__(self, names: Iterable[str] = (), *, any_address: bool = False) -> None:
        self._names = {"localhost", *(_plain(name) for name in names)}
        self._any_address = any_address

    def allows(self, host: str) -> bool:
        """Whether a request may ask for `host`, with or without a port."""
        name = _plain(_without_port(host))
        if "*" in self._names or name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._any_address or address.is_loopback


class HostCheck:
    """Refuses requests that ask for a host that is not allowed.

    Args:
        app: application to wrap.
        hosts: the hosts that are allowed.
    """

    def __init__(self, app: ASGIApp, hosts: AllowedHosts) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_allowed(scope):
            await self.app(scope, receive, send)
            return
        refusal = problem(
            "host-not-allowed",
            "The header Host must name this server. It names another host. Use"
            " 127.0.0.1, or start the server with --allowed-host NAME.",
        )
        await refusal(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"host"]
        if not given:  # browsers always send it
            return bool(scope["http_version"] == "1.0")
        return len(given) == 1 and self.hosts.allows(given[0].decode("latin-1"))


def _without_port(host: str) -> str:
    if host.startswith("["):
        address, end, port = host[1:].partition("]")
        return address if end and (not port or port.startswith(":")) else host
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() and ":" not in name else host


def _plain(name: str) -> str:
    return name.strip().lower().rstrip(".")

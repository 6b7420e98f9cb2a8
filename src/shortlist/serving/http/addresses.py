"""Addresses and ports that a server may listen on."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import sys
from collections.abc import Iterator

from shortlist.errors import InputError, ResourceError

_PORTS_TO_TRY = 100


def resolve(host: str, *, allow_remote: bool) -> str:
    """The address of a host, which must be loopback unless `allow_remote`.

    Raises:
        InputError: `invalid-host` or `remote-bind-refused`.
    """
    try:
        address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]
        is_loopback = ipaddress.ip_address(address).is_loopback
    except (OSError, ValueError) as error:
        raise InputError(
            "invalid-host",
            f"The host must be an address of this machine. Received: {host!r}."
            " Use 127.0.0.1.",
        ) from error
    if not (is_loopback or allow_remote):
        raise InputError(
            "remote-bind-refused",
            "The host must be a loopback address, because the server has no"
            f" authentication. Received: {host!r}. Use 127.0.0.1 behind a proxy that"
            " authenticates clients.",
        )
    return str(address)


def free_port(address: str, port: int, *, search: bool = False) -> int:
    """Returns `port` if it is free on `address`, or with `search` the next free one.

    Raises:
        InputError: `invalid-port`.
        ResourceError: `port-taken`, or `bind-failed` for an address of another machine.
    """
    if not 0 <= port <= 65535:
        raise InputError(
            "invalid-port",
            f"A port must be a number from 0 to 65535. Received: {port}. 0 chooses a"
            " free one.",
        )
    last = min(65535, port + _PORTS_TO_TRY - 1) if search and port else port
    for candidate in range(port, last + 1):
        if found := _bound_port(address, candidate):
            return found
    tried = f"port {port}" if last == port else f"ports {port} to {last}"
    raise ResourceError(
        "port-taken",
        f"On {address}, {tried} cannot be used. Stop the program that listens there,"
        " or choose another port with --port.",
    )


@contextlib.contextmanager
def claimed_port(address: str, port: int, *, search: bool) -> Iterator[int]:
    """A free port, claimed against other Shortlist servers while this one runs.

    Granian lets sockets share a port, so two servers that start at the same moment
    would both find it free and then get half of the requests each. On Linux the claim
    is a name in the abstract socket namespace, which disappears with the process; other
    systems have no claim.
    """
    while True:
        found = free_port(address, port, search=search)
        claim = socket.socket(socket.AF_UNIX)
        try:
            if sys.platform == "linux":
                claim.bind(f"\0shortlist-serve-{address}-{found}")
        except OSError as error:
            claim.close()
            if not search or found >= 65535:
                raise ResourceError(
                    "port-taken",
                    f"Another server uses port {found} on {address}. Choose another"
                    " port with --port.",
                ) from error
            port = found + 1
            continue
        with claim:
            yield found
        return


def _bound_port(address: str, port: int) -> int | None:
    """The port, a free one for 0, or `None` if it cannot be used."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Granian's sockets share a port (SO_REUSEPORT): a second server would silently
        # get half of the requests of the first. This socket does not share.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen()
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return None
            raise ResourceError(
                "bind-failed",
                f"Cannot listen on {address}: {error.strerror}. Choose another --host.",
            ) from error
        found: int = probe.getsockname()[1]
        return found

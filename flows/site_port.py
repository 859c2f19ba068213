"""Keeps a site's port while its server restarts: whoever else listened there would get the worker's password, and give it work.

`up` binds the port and never listens; the server binds it, too, and listens. The kernel lets two sockets have one
address where both ask for it (SO_REUSEPORT) and are of one user.
"""

import socket
from errno import EADDRNOTAVAIL
from socket import (
    AF_INET6,
    IPPROTO_IPV6,
    IPV6_V6ONLY,
    SO_REUSEADDR,
    SO_REUSEPORT,
    SOCK_STREAM,
    SOL_SOCKET,
)


def keep_port(host: str, port: int) -> list[socket.socket]:
    """Bound sockets that never listen: until they are closed, no other user can listen there. Raises OSError."""
    try:
        return _bind(host, port, among_past=False)
    except OSError:
        # Connections of another program that ended less than a minute ago. Until the next start, another user's socket
        # that allows them as well gets in when the server dies.
        return _bind(host, port, among_past=True)


def server_sockets(host: str, port: int) -> list[socket.socket]:
    """Bound sockets for a server, also where a former one has just ended. Raises OSError."""
    return _bind(host, port, among_past=True)


def _bind(host: str, port: int, *, among_past: bool) -> list[socket.socket]:
    bound: list[socket.socket] = []
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=SOCK_STREAM):
        try:
            one = socket.socket(family, kind, protocol)
        except OSError:  # localhost is ::1, too, which not every machine has
            continue
        bound.append(one)
        one.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
        one.setsockopt(SOL_SOCKET, SO_REUSEADDR, int(among_past))
        if family == AF_INET6:  # :: is every address of this machine, those of IPv4 among them
            one.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, int(host != "::"))
        try:
            one.bind(address)
        except OSError as error:
            bound.pop().close()
            if error.errno != EADDRNOTAVAIL:
                close(bound)
                raise
    if not bound:
        raise OSError(EADDRNOTAVAIL, f"{host} is no address of this machine")
    return bound


def close(sockets: list[socket.socket]) -> None:
    """Close them all."""
    for one in sockets:
        one.close()

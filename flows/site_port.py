"""Keeps a site's port while its server restarts: whoever else listened there would get the worker's password, and give it work.

`up` binds the port and never listens; the server binds it, too, and listens. The kernel lets two sockets have one
address where both ask for it (SO_REUSEPORT) and are of one user.
"""

import socket


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
    bound = []
    stream = socket.SOCK_STREAM
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=stream):
        one = socket.socket(family, kind, protocol)
        bound.append(one)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(among_past))
        if (
            family == socket.AF_INET6
        ):  # :: is every address of this machine, the old ones among them
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        one.bind(address)
    return bound

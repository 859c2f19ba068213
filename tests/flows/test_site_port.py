"""A site's port: kept by `up`, listened on by the server, and free once both have let it go."""

import socket
from contextlib import closing

import pytest

from flows.site_port import close, keep_port, server_sockets

from .site_process import free_port


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def is_answered(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("0.0.0.0", ["127.0.0.1", "127.0.0.2"]),
        ("localhost", ["127.0.0.1"]),
        ("::1", ["::1"]),
        ("::", ["::1", "127.0.0.1"]),
    ],
)
def test_servers_come_and_go_while_the_port_is_kept(host: str, addresses: list[str]) -> None:
    """Connections reach the server alone, also the next one; without one they are refused, not left waiting."""
    if ":" in host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    port = free_port()
    kept = keep_port(host, port)
    for _ in range(3):
        assert not any(is_answered(address, port) for address in addresses)
        server = server_sockets(host, port)
        for one in server:
            one.listen()
        for address in addresses:
            for _ in range(5):
                with closing(socket.create_connection((address, port), timeout=5)) as client:
                    client.sendall(b"x")
        close(server)
    family = socket.AF_INET6 if ":" in addresses[0] else socket.AF_INET
    with socket.socket(family) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind((addresses[0], port))
    close(kept)
    close(server_sockets(host, port))


def test_address_of_another_machine() -> None:
    """It is said, not served by none."""
    with pytest.raises(OSError, match="no address of this machine"):
        keep_port("192.0.2.1", free_port())

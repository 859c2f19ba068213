"""Who is answered by a site: its own names and pages; nothing that a foreign page, or a name that leads here, sends."""

import asyncio
import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.site_guard import Door, Guard
from flows.site_secret import ENTER_PATH

LOCAL = Door("127.0.0.1")
OPEN = Door("0.0.0.0", ["https://mill.example.org"])


async def inner(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers everything, as Prefect does."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"inner"})


def ask(
    door: Door,
    *headers: tuple[str, str],
    path: str = "/api/flows/",
    kind: str = "http",
    method: str = "POST",
    body: bytes = b"",
) -> list[Any]:
    """What the guard sends for a request with these headers."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": f"{kind}.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": kind, "path": path, "method": method, "headers": encoded}
    asyncio.run(Guard(inner, door, "me:secret", "/v2/dashboard")(scope, receive, send))
    return sent


def is_answered(door: Door, *headers: tuple[str, str], **more: Any) -> bool:
    """By the application, over HTTP and by a websocket alike."""
    answers = ask(door, *headers, **more)
    by_http = (answers[0]["status"], answers[-1]["body"]) == (200, b"inner")
    by_socket = ask(door, *headers, kind="websocket", **more) == [{"type": "websocket.accept"}]
    assert by_http == by_socket
    if not by_http:
        assert answers[0]["status"] == 403
    return by_http


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:4200", "127.0.0.1", "localhost:4200", "LOCALHOST", "[::1]:4200", "localhost:5000"],
)
def test_own_names(host: str) -> None:
    """With any port: `ssh -L` and containers have others. Programs send no Origin, pages their own."""
    assert is_answered(LOCAL, ("host", host))
    assert is_answered(LOCAL, ("host", host), ("origin", f"http://{host}"))
    assert is_answered(LOCAL, ("host", host), ("origin", f"http://{host.lower()}"))


@pytest.mark.parametrize(
    "hosts",
    [
        [], [""], ["evil.example"], ["evil.example:4200"], ["localhost.evil.example"],
        ["127.0.0.1.evil.example"], ["localhost@evil.example"], ["evil.example/localhost"],
        ["localhost:4200:80"], ["localhost."], ["10.1.2.3"], ["0.0.0.0:4200"], ["[::1"], ["::1"],
        ["localhost", "evil.example"], ["localhost", "localhost"], ["localhost\t"], ["localhost:"],
        ["local\xadhost"], ["127.1"], ["2130706433"], ["0x7f.1"], ["[::ffff:127.0.0.1]"],
    ],
)  # fmt: skip
def test_other_names(hosts: list[str]) -> None:
    """None, several, a name that an attacker made lead here, and ways to write an address that readers differ in."""
    assert not is_answered(LOCAL, *(("host", host) for host in hosts))


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "https://127.0.0.1:4200", "http://127.0.0.1:8000", "http://127.0.0.1",
     "http://localhost:4200", "null", "", "file://", "http://127.0.0.1:4200.evil.example"],
)  # fmt: skip
def test_other_pages(origin: str) -> None:
    """Also those of another port or scheme of this machine: another user may have made them."""
    host = ("host", "127.0.0.1:4200")
    assert not is_answered(LOCAL, host, ("origin", origin))
    assert not is_answered(LOCAL, host, ("origin", "http://127.0.0.1:4200"), ("origin", origin))


def test_open_address_and_named_origins() -> None:
    """A site for other machines is known by any address, which no page of another name can send, and by given names."""
    for host in ("192.0.2.7:4200", "[2001:db8::1]:4200", "localhost", "mill.example.org"):
        assert is_answered(OPEN, ("host", host))
    assert is_answered(OPEN, ("host", "mill.example.org"), ("origin", "https://mill.example.org"))
    assert not is_answered(OPEN, ("host", "evil.example"))
    assert not is_answered(OPEN, ("host", "192.0.2.7"), ("origin", "http://192.0.2.8"))
    assert is_answered(Door("mill.lan"), ("host", "mill.lan:4200"))


@given(st.text(st.characters(max_codepoint=255), max_size=24))
def test_any_host_of_a_local_site(text: str) -> None:
    """Whatever it is, it is one of three names or refused."""
    name = text.lower().rpartition(":")[0] if text.rpartition(":")[2].isdigit() else text.lower()
    if LOCAL.is_own(text):
        assert name in ("localhost", "127.0.0.1", "[::1]")


@given(st.ip_addresses())
def test_any_address_of_an_open_site(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """As a browser writes it."""
    assert OPEN.is_own(f"[{address}]:4200" if address.version == 6 else f"{address}:4200")


def test_answers_keep_pages_at_home() -> None:
    """Nothing from elsewhere is loaded or asked, nobody frames a page; refusals, too."""
    for host in ("localhost", "evil.example"):
        headers = dict(ask(LOCAL, ("host", host))[0]["headers"])
        policy = headers[b"content-security-policy"].decode()
        assert "default-src 'none'" in policy and "connect-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy and "://" not in policy and "*" not in policy
        assert headers[b"x-content-type-options"] == b"nosniff"
        assert b"access-control-allow-origin" not in headers


@pytest.mark.parametrize("body", [b"", b"auth=", b"auth=me%3Asecret2", b"auth=\xff", b"x" * 9000])
def test_entering_asks_for_the_password(body: bytes) -> None:
    """A wrong one, half a form, far too much: refused, and the right one is not in the answer."""
    answers = ask(LOCAL, ("host", "localhost"), ("origin", "null"), path=ENTER_PATH, body=body)
    assert answers[0]["status"] == 403
    assert b"bWU6c2VjcmV0" not in answers[-1]["body"]


def test_entering_with_the_password() -> None:
    """From a file on the disk, whose Origin is null; not from a foreign page, and not by an address."""
    right = {"path": ENTER_PATH, "body": b"auth=me%3Asecret"}
    host = ("host", "localhost:4200")
    for origin in ("null", "http://localhost:4200"):
        [start, answer] = ask(LOCAL, host, ("origin", origin), **right)
        assert start["status"] == 200 and b"bWU6c2VjcmV0" in answer["body"]  # base64
        assert dict(start["headers"])[b"cache-control"] == b"no-store"
    assert ask(LOCAL, host, ("origin", "http://evil.example"), **right)[0]["status"] == 403
    assert ask(LOCAL, ("host", "evil.example"), **right)[0]["status"] == 403
    assert ask(LOCAL, host, method="GET", **right)[0]["status"] == 403

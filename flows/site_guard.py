"""The guard before a site's Prefect server: who may ask at all, and what a page of it may load.

Prefect asks for the authentication string by itself. The guard refuses what a browser sends for a page that is not the
site's own: another Origin, or a Host by which nobody calls this site (an attacker's name that leads here, DNS
rebinding). It also sends the headers that keep a page from loading anything from elsewhere and from being framed.
"""

import base64
import hmac
import ipaddress
import json
import re
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from flows.site_secret import ENTER_PATH

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
"""ASGI 3, https://asgi.readthedocs.io/en/latest/specs/main.html"""

LOOPBACK = ("127.0.0.1", "localhost", "::1")

MAX_FORM_BYTES = 4096

# Prefect's UI compiles shaders and form checks (eval), and draws with inline styles, data: images (the cards' SVG) and
# workers of its own making. It asks an analytics host for settings even where analytics is off: connect-src ends that.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)

_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-dns-prefetch-control": "off",
}


class Door:
    """By which names and from which pages a site may be asked."""

    def __init__(self, host: str, origins: Iterable[str] = ()) -> None:
        """`host` the server listens on; `origins` of further pages, whose names are names of the site, too."""
        self.origins = frozenset(origin.lower() for origin in origins)
        names = {host.lower(), *LOOPBACK, *(urlsplit(origin).hostname for origin in self.origins)}
        # A page of another name can reach an address only by that name, so any address is safe as a Host.
        self.any_address = not is_loopback(host)
        if self.any_address:
            names.add(socket.gethostname().lower())
        self.names = names

    def refusal(self, hosts: list[str], origins: list[str], path: str = "") -> str:
        """Why a request with these headers is not answered; empty if it is."""
        if len(hosts) != 1 or not self.is_own(hosts[0]):
            return (
                f"Host {', '.join(hosts)!r}: expected a name of this site; "
                "'gristmill up --origin http://NAME:PORT' allows another one"
            )
        allowed = {f"http://{hosts[0].lower()}", *self.origins}
        if path == ENTER_PATH:  # a page on the disk has no other
            allowed.add("null")
        if not {origin.lower() for origin in origins} <= allowed:
            return (
                f"Origin {', '.join(origins)!r}: expected a page of this site; "
                "'gristmill up --origin ...' allows another one"
            )
        return ""

    def is_own(self, host: str) -> bool:
        """Whether a Host header names this site; the port does not count: `ssh -L` gives it any."""
        parts = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]@/\s]+))(?::[0-9]{1,5})?", host.lower())
        if parts is None:
            return False
        name = parts[1] or parts[2]
        return name in self.names or (self.any_address and _is_address(name))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """An ASGI application before another one."""

    def __init__(self, app: App, door: Door, auth: str, entered: str) -> None:
        """`auth` is what `ENTER_PATH` asks for; a browser that gave it goes to the path `entered`."""
        self.app, self.door, self.auth, self.entered = app, door, auth, entered

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer, refuse or pass on one connection."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        hosts, origins = _values(scope, b"host"), _values(scope, b"origin")
        refusal = self.door.refusal(hosts, origins, scope["path"])
        if scope["type"] == "websocket":
            if not refusal:
                return await self.app(scope, receive, send)
            await receive()  # closed before it is accepted, the handshake is answered with 403
            return await send({"type": "websocket.close", "code": 1008})
        if refusal:
            return await _answer(send, 403, f"{refusal}\n")
        if scope["path"] == ENTER_PATH:
            return await self._enter(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_encoded(_HEADERS)]
            await send(message)

        return await self.app(scope, receive, send_with_headers)

    async def _enter(self, scope: Message, receive: Receive, send: Send) -> None:
        """Leave the string where Prefect's UI looks for it, if that is what was sent."""
        form = await _body(receive) if scope["method"] == "POST" else b""
        given = parse_qs(form.decode("latin-1")).get("auth", [""])[0]
        if not hmac.compare_digest(given.encode(), self.auth.encode()):
            return await _answer(
                send,
                403,
                "expected this site's authentication string; open the site's open.html again\n",
            )
        held = base64.b64encode(self.auth.encode()).decode()
        script = (
            f"localStorage.setItem('prefect-password', '{held}');"
            f"location.replace({json.dumps(self.entered)})"
        )
        nonce = secrets.token_urlsafe(16)
        page = f'<!doctype html><title>gristmill</title><script nonce="{nonce}">{script}</script>'
        policy = f"default-src 'none'; script-src 'nonce-{nonce}'; frame-ancestors 'none'"
        headers = {
            "content-type": "text/html",
            "content-security-policy": policy,
            "cache-control": "no-store",
        }
        return await _answer(send, 200, page, headers)


def _values(scope: Message, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more and len(body) <= MAX_FORM_BYTES:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body[:MAX_FORM_BYTES]


async def _answer(
    send: Send, status: int, text: str, headers: dict[str, str] | None = None
) -> None:
    content = text.encode()
    length = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(content))}
    sent = _encoded(_HEADERS | length | (headers or {}))
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": content})

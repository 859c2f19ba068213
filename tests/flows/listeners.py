"""A real HTTP listener and a real, small mail server on 127.0.0.1, to see what notifications arrive."""

import asyncio
import base64
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def web_listener() -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """Yields a URL and the list of (headers, body) that are posted there."""
    got: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class MailServer:
    """What it got: mails, their receivers, logins, and every line in the clear."""

    def __init__(self, tls: ssl.SSLContext | None, *, from_the_start: bool) -> None:
        self.tls, self.from_the_start = tls, from_the_start
        self.mails: list[EmailMessage] = []
        self.receivers: list[str] = []
        self.logins: list[tuple[str, str]] = []
        self.in_the_clear: list[bytes] = []
        self.port = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_safe = self.from_the_start
        writer.write(b"220 here\r\n")
        while line := await reader.readline():
            if not is_safe:
                self.in_the_clear.append(line)
            word = line.split()[0].upper()
            if word == b"EHLO":
                offer = b"" if is_safe or self.tls is None else b"250-STARTTLS\r\n"
                writer.write(b"250-here\r\n" + offer + b"250-AUTH PLAIN\r\n250 SIZE\r\n")
            elif word == b"STARTTLS" and self.tls is not None:
                writer.write(b"220 go on\r\n")
                await writer.start_tls(self.tls)
                is_safe = True
            elif word == b"AUTH":
                _, user, password = base64.b64decode(line.split()[2]).decode().split("\0")
                self.logins.append((user, password))
                writer.write(b"235 welcome\r\n" if password != "wrong" else b"535 who?\r\n")
            elif word == b"RCPT":
                self.receivers.append(line.decode().partition("<")[2].partition(">")[0])
                is_known = not self.receivers[-1].startswith("nobody")
                writer.write(b"250 ok\r\n" if is_known else b"550 nobody here\r\n")
            elif word == b"DATA":
                writer.write(b"354 go on\r\n")
                mail = await reader.readuntil(b"\r\n.\r\n")
                parsed = message_from_bytes(mail[:-5], policy=policy.default)
                assert isinstance(parsed, EmailMessage)
                self.mails.append(parsed)
                writer.write(b"250 taken\r\n")
            else:
                writer.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
        writer.close()


@contextmanager
def mail_server(
    tls: ssl.SSLContext | None = None, *, from_the_start: bool = False
) -> Iterator[MailServer]:
    """A server that offers STARTTLS if it has a certificate, or speaks TLS `from_the_start`."""
    server = MailServer(tls, from_the_start=from_the_start)
    loop = asyncio.new_event_loop()
    context = tls if from_the_start else None
    listening = loop.run_until_complete(
        asyncio.start_server(server.talk, "127.0.0.1", 0, ssl=context)
    )
    server.port = listening.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        listening.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

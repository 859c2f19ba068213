"""A Prefect server is used when it answers, and asked for in words when it has to be there."""

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flows.output import Output
from flows.server import prefect_answers, use_prefect
from storage.errors import ConfigError


class Health(BaseHTTPRequestHandler):
    """Answers /api/health once it may."""

    may_answer = threading.Event()
    may_answer.set()

    def do_GET(self) -> None:
        self.may_answer.wait()
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def api_url() -> Iterator[str]:
    """A server whose health answers at once."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    server.server_close()


def test_health_decides(api_url: str) -> None:
    """Only a 200 of /health counts; a wrong path, a closed port and no address at all do not."""
    assert prefect_answers(api_url, 60.0)
    assert not prefect_answers(api_url.removesuffix("/api"), 60.0)
    for other in ("http://127.0.0.1:9/api", "http://[", "file:///etc/passwd", ""):
        assert not prefect_answers(other)


def test_slow_server_is_not_waited_for(api_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that comes after the question was given up is none."""
    may_answer = threading.Event()
    monkeypatch.setattr(Health, "may_answer", may_answer)
    assert not prefect_answers(api_url)
    may_answer.set()


def test_without_being_asked_prefect_is_used_only_where_it_answers(
    api_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No PREFECT_API_URL: no. One that is dead: no, and a note. One that answers: yes. --no-flow: never."""
    assert not use_prefect(Output(), None)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert not use_prefect(Output(), None)
    assert (
        "no Prefect server answers at PREFECT_API_URL=http://127.0.0.1:9/api"
        in capsys.readouterr().err
    )
    monkeypatch.setenv("PREFECT_API_URL", api_url)
    assert not use_prefect(Output(), False)
    assert use_prefect(Output(), True)
    assert os.environ["PREFECT_API_URL"] == api_url


def test_flow_without_a_server_says_what_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect's own embedded server is never relied on."""
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(
        ConfigError, match=r"127.0.0.1:9/api; start one with 'prefect server start'"
    ):
        use_prefect(Output(), True)

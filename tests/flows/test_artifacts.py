"""Cards on a real Prefect server: one artifact a flow run, a history over runs, no trouble without a server."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .prefect_api import ask

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(900)]

IN_FLOWS = """
import sys
from prefect import flow, task
from flows.artifacts import publish_card
from storage.lake import Lake

lake = Lake.open(sys.argv[1])

@flow
def night(number):
    publish_card(lake, "corpus-card-tiny", f"night {number}", "begun", "runs/a/card.md", is_refresh=True)
    task(publish_card)(lake, "corpus-card-tiny", f"night {number}, later", "done", "runs/a/card.md")

night(1)
night(2)
"""

OUTSIDE = """
import sys
from flows.artifacts import publish_card
from storage.lake import Lake

publish_card(Lake.open(sys.argv[1]), "corpus-card-tiny", "text", "", "card.md", is_refresh=sys.argv[2] == "refresh")
"""


def python(script: str, *arguments: object, **environment: str) -> str:
    """Run a script in a process of its own; gives what it wrote to stderr."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_flow_run_has_one_artifact_and_the_key_a_history(
    prefect_environment: dict[str, str], tmp_path: Path
) -> None:
    """A refresh changes the artifact in place, also from a task, and leaves no event with the text in the database."""
    python(IN_FLOWS, tmp_path, **prefect_environment)
    question = {"artifacts": {"key": {"any_": ["corpus-card-tiny"]}}, "sort": "CREATED_DESC"}
    found = [
        one
        for one in ask(prefect_environment, "artifacts/filter", question)
        if "night" in one["data"]
    ]
    assert [one["data"] for one in found] == ["night 2, later", "night 1, later"]
    assert {one["description"] for one in found} == {"done"}
    assert len({one["flow_run_id"] for one in found} - {None}) == 2
    assert ask(prefect_environment, "artifacts/corpus-card-tiny/latest")["data"] == "night 2, later"
    assert (tmp_path / "runs/a/card.md").read_text() == "night 2, later"
    updates = {"filter": {"event": {"name": ["prefect.artifact.updated"]}}}
    assert ask(prefect_environment, "events/filter", updates)["events"] == []


@contextmanager
def server_that_starts(answers: list[int]) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives these codes one after the other; yields its API's address and the bodies it was sent."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(answers[min(len(bodies), len(answers)) - 1])
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/api", bodies
    finally:
        server.shutdown()
        server.server_close()


QUIET = {
    "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
}


def test_a_last_card_waits_for_the_server(tmp_path: Path) -> None:
    """Refused twice for want of a database, taken the third time; nothing to complain of."""
    with server_that_starts([503, 503, 201]) as (url, bodies):
        said = python(OUTSIDE, tmp_path, "last", PREFECT_API_URL=url, **QUIET)
    assert len(bodies) == 3
    assert json.loads(bodies[-1]) | {"description": ""} == {
        "type": "markdown", "key": "corpus-card-tiny", "data": "text", "description": "",
    }  # fmt: skip
    assert "did not take" not in said


def test_a_refresh_asks_once_and_goes_on(tmp_path: Path) -> None:
    with server_that_starts([503]) as (url, bodies):
        said = python(OUTSIDE, tmp_path, "refresh", PREFECT_API_URL=url, **QUIET)
    assert len(bodies) == 1
    assert "the Prefect server did not take the card" in said
    assert (tmp_path / "card.md").read_text() == "text"


def test_a_refusal_is_not_asked_again(tmp_path: Path) -> None:
    with server_that_starts([422]) as (url, bodies):
        python(OUTSIDE, tmp_path, "last", PREFECT_API_URL=url, **QUIET)
    assert len(bodies) == 1


@settings(deadline=None)  # the first example imports prefect
@given(st.text(min_size=1))
def test_keys_are_what_prefect_takes(corpus: str) -> None:
    from flows.artifacts import card_key  # late: prefect, which only marked files may load

    assert re.fullmatch(r"training-card-[a-z0-9-]*", card_key("training-card", corpus))


@settings(deadline=None)
@given(st.lists(st.floats(0, 600), min_size=1, max_size=300), st.sampled_from([10.0, 30.0]))
def test_refreshes_lie_apart_by_the_least_time_and_two_percent(
    gaps: list[float], least_s: float
) -> None:
    from flows.artifacts import Throttle  # late: prefect, which only marked files may load

    now = 0.0
    throttle = Throttle(least_s, lambda: now)
    due = [0.0] if throttle.is_due() else []
    for gap in gaps:
        now += gap
        if throttle.is_due():
            due.append(now)
    assert due[0] == 0
    assert all(b - a >= max(least_s, 0.02 * a) - 1e-6 for a, b in pairwise(due))


@pytest.mark.parametrize("least_s", [10.0, 30.0])
def test_a_night_costs_a_few_hundred_refreshes(least_s: float) -> None:
    from flows.artifacts import Throttle  # late: prefect, which only marked files may load

    seconds = iter(range(8 * 3600))
    throttle = Throttle(least_s, lambda: next(seconds))
    assert sum(throttle.is_due() for _ in range(8 * 3600 - 1)) < 400

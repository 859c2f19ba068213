"""Both flows on a real Prefect server, started once: same snapshot as without it, stages, event, card, clean stops."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.server import prefect_answers
from pipeline.build import STAGES

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(300)]

Command = Callable[..., Any]


@pytest.fixture(scope="session")
def prefect_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A server of our own on a free port; yields the environment that leads to it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = tmp_path_factory.mktemp("prefect")
    environment = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    try:
        end = time.monotonic() + 180  # migrations of an empty database take 10 to 30 s
        while not prefect_answers(environment["PREFECT_API_URL"], 1.0):
            assert server.poll() is None and time.monotonic() < end, (
                home / "server.log"
            ).read_text()
            time.sleep(0.2)
        yield environment
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def ask(environment: dict[str, str], path: str, question: dict[str, Any]) -> Any:
    """One POST to the server's API."""
    request = urllib.request.Request(
        f"{environment['PREFECT_API_URL']}/{path}",
        json.dumps(question).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def events(environment: dict[str, str], least: int) -> list[dict[str, Any]]:
    """Our events, waited for a while: the server stores them in the background."""
    question = {"filter": {"event": {"prefix": ["gristmill."]}}, "limit": 50}
    found: list[dict[str, Any]] = []
    for _ in range(50):
        found = ask(environment, "events/filter", question)["events"]
        if len(found) >= least:
            break
        time.sleep(0.2)
    return found


def test_build_through_prefect_equals_the_direct_one(
    prefect_environment: dict[str, str],
    gristmill: Command,
    gristmill_process: Command,
    tiny_recipe: Path,
    tmp_path: Path,
) -> None:
    """A task for each stage, one event, one card; and nothing of it a second time."""
    lake = tmp_path / "lake"
    arguments = ("build", tiny_recipe, "--lake", lake, "--workers", 1, "--json")
    # Not asked for by --flow: the server answers, so it is used.
    built = gristmill_process(*arguments, **prefect_environment)
    assert built.code == 0, built.err
    direct = gristmill(
        "build", tiny_recipe, "--lake", tmp_path / "direct", "--workers", 1, "--json"
    )
    assert {**built.json, "seconds": 0} == {**direct.json, "seconds": 0}

    [flow_run] = ask(prefect_environment, "flow_runs/filter", {})
    assert flow_run["state_type"] == "COMPLETED"
    tasks = ask(prefect_environment, "task_runs/filter", {"sort": "EXPECTED_START_TIME_ASC"})
    assert sorted(task["name"] for task in tasks) == sorted(stage.title for stage in STAGES)
    assert {task["state_type"] for task in tasks} == {"COMPLETED"}

    [event] = events(prefect_environment, 1)
    assert event["event"] == "gristmill.snapshot.promoted"
    assert event["resource"]["prefect.resource.id"] == "gristmill.snapshot.tiny"
    assert event["payload"]["snapshot"] == "tiny@1"
    assert event["payload"]["hash"] == built.json["hash"]

    [card] = ask(prefect_environment, "artifacts/filter", {})
    assert (card["key"], card["type"]) == ("corpus-card-tiny", "markdown")
    assert "48** of 49 documents kept" in card["data"]

    again = gristmill_process(*arguments, "--flow", **prefect_environment)
    assert again.json["status"] == "unchanged"
    assert len(events(prefect_environment, 1)) == 1
    assert len(ask(prefect_environment, "artifacts/filter", {})) == 1


def test_error_in_a_flow_keeps_its_exit_code(
    prefect_environment: dict[str, str],
    gristmill_process: Command,
    tiny_recipe: Path,
    tmp_path: Path,
) -> None:
    """A source that matches nothing: exit code 2 and one message; the flow run is FAILED with it."""
    arguments = (
        "build",
        tiny_recipe,
        "--lake",
        tmp_path / "lake",
        "--set",
        "sources.0.path=no/*.txt",
    )
    answer = gristmill_process(*arguments, "--flow", **prefect_environment)
    assert answer.code == 2
    assert answer.err.splitlines()[-1].startswith("gristmill: ")
    runs = ask(prefect_environment, "flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})
    assert runs[0]["state_type"] == "FAILED"
    assert "no/*.txt" in runs[0]["state"]["message"]


def test_flow_without_server_is_refused(gristmill_process: Command, tiny_recipe: Path) -> None:
    """The message says what to start."""
    answer = gristmill_process(
        "build", tiny_recipe, "--flow", PREFECT_API_URL="http://127.0.0.1:9/api"
    )
    assert answer.code == 2
    assert "prefect server start" in answer.err

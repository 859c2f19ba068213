"""Both flows on a real Prefect server, started once: same snapshot as without it, stages, event, card, clean stops."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.build import STAGES
from storage.errors import BusyError, GristmillError

from .conftest import TINY_MODEL
from .prefect_api import ask, events, wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(300)]

Command = Callable[..., Any]


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
    # Not always the last line: Prefect may say after it that it still sends events.
    assert any(line.startswith("gristmill: source") for line in answer.err.splitlines())
    assert "Traceback" not in answer.err
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


def children_of(pid: int) -> list[int]:
    """Training processes that were told to die with this one, and run."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            arguments = (process / "cmdline").read_text().split("\0")
            is_zombie = (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (OSError, IndexError):  # no process, or gone meanwhile
            continue
        if "--die-with" in arguments and str(pid) in arguments and not is_zombie:
            found.append(int(process.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_training_through_prefect_stops_dies_and_goes_on(
    prefect_environment: dict[str, str],
    gristmill: Command,
    gristmill_process: Command,
    tiny_recipe: Path,
    tmp_path: Path,
) -> None:
    """SIGTERM leaves a checkpoint and exit code 75, kill -9 leaves no process, the same command ends the run."""
    lake = tmp_path / "lake"
    assert gristmill("build", tiny_recipe, "--lake", lake, "--workers", 1).code == 0
    longer = ("train.steps=400", "train.eval_every=400", "train.checkpoint_every=20")
    settings = [item for setting in longer for item in ("--set", setting)]
    options = ("--lake", lake, *TINY_MODEL, *settings, "--run", "watched", "--workers", 1)
    arguments = [str(argument) for argument in ("train", tiny_recipe, *options, "--flow")]

    def newest() -> int:
        states = (lake / "runs/watched/checkpoints").glob("step-*/state.json")
        return max((int(path.parent.name.removeprefix("step-")) for path in states), default=0)

    def interrupt(number: signal.Signals, from_step: int) -> tuple[int, str]:
        flow = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **prefect_environment},
        )
        try:
            wait_until(lambda: newest() > from_step or flow.poll() is not None, 90)
            assert flow.poll() is None, flow.communicate()[1]
            children = children_of(flow.pid)
            flow.send_signal(number)
            _, err = flow.communicate(timeout=60)
        finally:
            flow.kill()
        assert len(children) == 1
        wait_until(lambda: not children_of(flow.pid), 10)
        return flow.returncode, err

    code, err = interrupt(signal.SIGTERM, 0)
    assert code == 75, err
    assert "the same command goes on" in err
    stopped = newest()
    assert interrupt(signal.SIGKILL, stopped)[0] == -signal.SIGKILL
    killed = newest()
    assert 0 < stopped < killed < 400

    done = gristmill_process(*arguments, "--json", **prefect_environment)
    assert done.code == 0, done.err
    assert done.json["resumed_from"] >= killed
    assert f"resumed from step {done.json['resumed_from']}" in done.err
    direct = gristmill(*arguments[:-1], "--no-flow", "--json").json
    assert direct["was_finished"]
    assert direct["hash"] == done.json["hash"]


def test_errors_keep_their_class_through_the_subprocess() -> None:
    """What the training process says it ended with is raised in the flow; anything else is our base class."""
    from flows.training import _error_class  # late: prefect, which only this marked file may load

    assert _error_class("BusyError") is BusyError
    for other in ("ZeroDivisionError", "ClassVar", ""):
        assert _error_class(other) is GristmillError

"""What a build shows while it runs, on a real server: ranges of shards, log lines, repeated attempts."""

import errno
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.errors import BusyError, CorruptError, InputError, LakeError

from .conftest import write_corpus
from .prefect_api import ask, newest_run, newest_runs, wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(900)]

Environment = dict[str, str]


def run_python(code: str, *arguments: object, **environment: str) -> str:
    """Run a script to its end; returns all that it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def tasks_of(environment: Environment, run: dict[str, Any]) -> list[dict[str, Any]]:
    """Task runs of a flow run, once the server has stored the last of them."""
    question = {"flow_runs": {"id": {"any_": [run["id"]]}}, "sort": "EXPECTED_START_TIME_ASC"}

    def are_over() -> list[dict[str, Any]]:
        tasks = ask(environment, "task_runs/filter", question)
        return tasks if all(task["end_time"] for task in tasks) else []

    return wait_until(are_over, 20, "the end of all task runs")


def logs_of(environment: Environment, run: dict[str, Any], least: int) -> list[dict[str, Any]]:
    """Log lines of a flow run and its tasks, once there are as many; they come in the background."""
    question = {
        "logs": {"flow_run_id": {"any_": [run["id"]]}},
        "sort": "TIMESTAMP_ASC",
        "limit": 200,
    }
    wait_until(lambda: len(ask(environment, "logs/filter", question)) >= least, 20, "the log")
    return ask(environment, "logs/filter", question)


@pytest.mark.parametrize(("files", "ranges"), [(6, 1), (99, 16)])
def test_ranges_of_shards_are_task_runs(
    prefect_environment: Environment,
    gristmill_process: Callable[..., Any],
    tmp_path: Path,
    files: int,
    ranges: int,
) -> None:
    """Next to each other, from the first to the last; few shards stand in the name of their stage."""
    recipe = write_corpus(tmp_path / "corpus", documents=files)
    arguments = ("--lake", tmp_path / "lake", "--workers", 2, "--flow")
    settings = ("--set", "shards.input_bytes=1")  # a group a file
    answer = gristmill_process("build", recipe, *arguments, *settings, **prefect_environment)
    assert answer.code == 0, answer.err
    tasks = tasks_of(prefect_environment, newest_run(prefect_environment))
    assert {task["state_type"] for task in tasks} == {"COMPLETED"}
    names = [task["name"] for task in tasks]
    total = files + 1  # and talk.jsonl
    for title, unit in (("Read and normalise", "input groups"), ("MinHash signatures", "shards")):
        mine = [name for name in names if name.startswith(f"{title}, {unit} ")]
        spans = [name.rpartition(f"{unit} ")[2].removesuffix(f" of {total}") for name in mine]
        borders = sorted(tuple(map(int, span.split("-"))) for span in spans)
        assert len(borders) == ranges
        assert borders[0][0] == 1
        assert borders[-1][1] == total
        assert all(a[1] + 1 == b[0] for a, b in itertools.pairwise(borders))
    assert len(tasks) <= 200


def test_log_of_the_packages_is_in_the_ui_and_nowhere_else(
    prefect_environment: Environment,
    gristmill_process: Callable[..., Any],
    tiny_recipe: Path,
    tmp_path: Path,
) -> None:
    """What was read and written, a warning of what cannot be used and where; details only on request."""
    plain = gristmill_process("build", tiny_recipe, "--lake", tmp_path / "plain", "--workers", 2)
    assert "cannot be used" not in plain.err
    assert "published" not in plain.err
    quiet = gristmill_process("build", tiny_recipe, "--lake", tmp_path / "quiet", "-q")
    assert quiet.err == ""

    script = """
import sys
from flows.corpus import build_corpus
from flows.parameters import Corpus, Effort
build_corpus(Corpus(recipe=sys.argv[1], lake=sys.argv[2]), Effort(workers=2, log=sys.argv[3]))
"""
    seen = {}
    for detail in ("normal", "detailed"):
        run_python(
            script,
            tiny_recipe,
            tmp_path / detail,
            detail,
            **prefect_environment,
            PREFECT_LOGGING_EXTRA_LOGGERS="storage,pipeline,model",
        )
        seen[detail] = logs_of(prefect_environment, newest_run(prefect_environment), 20)
    lines = [line["message"] for line in seen["normal"]]
    assert "Read and normalise: 48 documents, 1 quarantined" in lines
    assert any(line.startswith("published tiny@1 (promoted)") for line in lines)
    [warning] = [line for line in seen["normal"] if line["level"] == 30]
    assert "1 records cannot be used: 1 by bad_json (talk.jsonl:25" in warning["message"]
    assert min(line["level"] for line in seen["normal"]) == 20
    assert min(line["level"] for line in seen["detailed"]) == 10


def test_stage_is_run_again_only_after_what_may_pass(
    prefect_environment: Environment, tmp_path: Path
) -> None:
    """A full disk is emptied in the meantime; wrong input stays wrong. No task run is left open in either case."""
    out = run_python(
        """
import sys
from prefect import flow
from flows.watch import BuildWatch
from pipeline.build import Stage, STAGES
from storage.errors import GristmillError, InputError, LakeError
from storage.lake import Lake

def work(watch, errors):
    done = [0]
    def run():
        for number in range(done[0], 21):
            if number == 10 and errors:
                raise errors.pop()
            done[0] = number
            watch.progress("read", number, 20, "shards")
        return {"documents": 20}
    return run

@flow
def build(errors):
    watch = BuildWatch(Lake.open(sys.argv[1]), "tiny", retry_delays_s=(0.1, 0.1))
    try:
        print("gave", watch.run_stage(STAGES[0], work(watch, errors)))
    except GristmillError as error:
        print("raised", error)

build([LakeError("full"), LakeError("full")])
build([InputError("wrong")])
build([LakeError("still full"), LakeError("full"), LakeError("full")])
""",
        tmp_path / "lake",
        **prefect_environment,
    )
    ends = [line for line in out.splitlines() if line.startswith(("gave", "raised"))]
    assert ends == ["gave {'documents': 20}", "raised wrong", "raised still full"]
    exhausted, wrong, passed = newest_runs(prefect_environment, 3)
    attempts = {}
    for name, run in (("passed", passed), ("wrong", wrong), ("exhausted", exhausted)):
        tasks = tasks_of(prefect_environment, run)
        [stage] = [task for task in tasks if task["name"] == "Read and normalise"]
        attempts[name] = (stage["run_count"], stage["state_name"])
        stopped = [task for task in tasks if task["state_name"] == "Stopped"]
        assert len(stopped) == {"passed": 2, "wrong": 1, "exhausted": 3}[name]
    assert attempts == {
        "passed": (3, "Completed"),
        "wrong": (1, "Failed"),
        "exhausted": (3, "Failed"),
    }


def test_what_may_pass_by_itself() -> None:
    """Network and disk, unless it is a matter of rights; never input, damage, or somebody else's lock."""
    from flows.steps import is_transient  # late: prefect, which only a marked test may load

    def lake_error(number: int) -> LakeError:
        error = LakeError("cannot write it")
        error.__cause__ = OSError(number, os.strerror(number))
        return error

    for error in (lake_error(errno.ENOSPC), LakeError("no good answer"), ConnectionResetError()):
        assert is_transient(error)
    for error in (
        lake_error(errno.EACCES),
        PermissionError(errno.EACCES, "no"),
        InputError("wrong"),
        CorruptError("damaged"),
        BusyError("already"),
        ValueError("a bug"),
        None,
    ):
        assert not is_transient(error)

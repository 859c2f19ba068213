"""A limit of hours ends the work whatever the work is: Python, worker processes, or native code that hears nothing."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.deadline import deadline

from .conftest import write_corpus
from .prefect_api import newest_run, wait_until

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

HOURS = 0.5 / 3600


def start(code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Python in a process group of its own, as a Prefect worker starts a flow."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
        env={**os.environ, **environment},
    )


def running_in(group: int) -> list[int]:
    """Processes of a group that are alive."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, _, number = (process / "stat").read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):  # gone meanwhile
            continue
        if int(number) == group and state != "Z":
            found.append(int(process.name))
    return found


def test_no_limit_is_none() -> None:
    """None and 0 leave the signal to whoever had it."""
    before = signal.getsignal(signal.SIGALRM)
    for hours in (None, 0):
        with deadline(hours, "waiting"):
            assert signal.getsignal(signal.SIGALRM) is before


def test_work_that_survives_exceptions_does_not_survive_the_limit() -> None:
    """One message says what was stopped, when, and what becomes of it; afterwards nothing of the limit is left."""
    process = start(
        f"""
import signal, time
from flows.deadline import deadline
from storage.errors import OutOfTime
def work():
    while True:
        try:
            time.sleep(60)
        except Exception:
            pass
try:
    with deadline({HOURS}, "building 'x'"):
        work()
except OutOfTime as error:
    print(error)
with deadline(1, "the next"):
    pass
assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
"""
    )
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    assert out == (
        "building 'x': stopped after 0.5 s, the limit that it was given; finished work is kept, and the next run goes "
        "on\n"
    )
    assert running_in(process.pid) == []


def test_worker_processes_are_killed_at_the_limit(tmp_path: Path) -> None:
    """A pool does not wait for its shards, and what comes out is the limit, not the pool that broke by it."""
    (tmp_path / "work.py").write_text("import time\ndef shard(n): time.sleep(600)\n")
    process = start(
        """
import sys
sys.path.insert(0, sys.argv[1])
from flows.deadline import deadline
from pipeline.executor import Executor
from storage.errors import OutOfTime
from work import shard
if __name__ == "__main__":
    try:
        with deadline(1, "building 'x'"):
            list(Executor(workers=2).map(shard, [1, 2, 3]))
    except OutOfTime as error:
        print(error)
""",
        tmp_path,
    )
    wait_until(lambda: len(running_in(process.pid)) >= 5, 20, "two workers and their server")
    os.kill(process.pid, signal.SIGALRM)  # what the clock sends at the limit
    out, _ = process.communicate(timeout=300)
    assert out.startswith("building 'x': stopped after 1 h 00 min"), out
    wait_until(lambda: not running_in(process.pid), 10, "the end of all")


@pytest.mark.parametrize(
    "stuck",
    [
        "collections.deque(itertools.repeat(0), maxlen=0)",
        "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)",
    ],
    ids=["holding the interpreter's lock", "without it"],
)
def test_stuck_native_code_is_killed_with_its_group(stuck: str) -> None:
    """After the grace time: the process that hears no signal, and the child that it started."""
    process = start(
        f"""
import collections, hashlib, itertools, subprocess
from flows.deadline import deadline
with deadline({HOURS}, "building 'x'", grace_s=1):
    subprocess.Popen(["sleep", "600"])
    print("stuck", flush=True)
    {stuck}
"""
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "stuck\n"
    assert len(running_in(process.pid)) >= 2
    assert process.wait(timeout=300) == -signal.SIGKILL
    wait_until(lambda: not running_in(process.pid), 10, "the end of all")


def test_watchdog_dies_with_a_killed_process() -> None:
    """Nothing is left to shoot at whoever gets the process's number next."""
    process = start(
        "import time\nfrom flows.deadline import deadline\n"
        "with deadline(1, 'waiting'):\n    print('on', flush=True)\n    time.sleep(600)\n"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "on\n"
    assert len(running_in(process.pid)) == 2
    process.kill()
    process.wait()
    wait_until(lambda: not running_in(process.pid), 10, "the end of the watchdog")


@pytest.mark.prefect
@pytest.mark.slow
def test_build_at_its_limit_is_timed_out_and_goes_on(
    prefect_environment: dict[str, str], gristmill: Callable[..., Any], tmp_path: Path
) -> None:
    """State TimedOut without a traceback; the next build takes over what was done, to the same snapshot."""
    recipe, lake = write_corpus(tmp_path / "corpus", documents=1500), tmp_path / "lake"
    # A group of inputs a file, so that the build takes its time and leaves shards behind.
    recipe.write_text(recipe.read_text() + "\n[shards]\ninput_bytes = 1\n")
    process = start(
        """
import sys
from flows.corpus import build_corpus
from flows.parameters import Corpus, Effort
from storage.errors import OutOfTime
try:
    build_corpus(Corpus(recipe=sys.argv[1], lake=sys.argv[2]), Effort(workers=1, timeout_hours=1))
except OutOfTime:
    sys.exit(75)
""",
        recipe,
        lake,
        **prefect_environment,
    )
    work = lake / "corpora/tiny/work"
    wait_until(lambda: list(work.rglob("*.json")), 60, "the first shards")
    os.kill(process.pid, signal.SIGALRM)  # what the clock sends at the limit
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 75, out
    assert "Traceback" not in out
    run = newest_run(prefect_environment)
    assert (run["state_type"], run["state_name"]) == ("FAILED", "TimedOut")
    assert "building 'tiny': stopped after 1 h 00 min" in run["state"]["message"]
    assert run["name"].endswith(" out of time")
    assert list(work.rglob("*.json"))

    assert gristmill("build", recipe, "--lake", lake, "--workers", 1).code == 0
    again = gristmill("build", recipe, "--lake", lake, "--workers", 1, "--json").json
    untouched = tmp_path / "untouched"
    assert gristmill("build", recipe, "--lake", untouched, "--workers", 1).code == 0
    direct = gristmill("build", recipe, "--lake", untouched, "--workers", 1, "--json").json
    assert again["hash"] == direct["hash"]

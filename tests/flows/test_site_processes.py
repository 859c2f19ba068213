"""Processes of a site are found and ended by the lake alone, whoever started them; nothing else is ever touched."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import site_processes
from flows.deadline import deadline
from flows.executors import chosen_executor
from flows.process import run_child
from flows.site_processes import SITE_VARIABLE, end_processes, founding, lock_file
from storage.holders import held_by, hold
from storage.lake import Lake

from .prefect_api import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

PROCESS = """
import os, signal, sys, time
from flows.site_processes import join
def stop(*_):
    with open(sys.argv[2], "a") as file:
        file.write(sys.argv[1] + "\\n")
    if "stubborn" not in sys.argv:
        os._exit(0)
signal.signal(signal.SIGTERM, stop)
join(sys.argv[1])
print("on", flush=True)
while True:
    time.sleep(60)
"""

Command = Callable[..., Any]


class Site:
    """Processes with the roles of a site, and what they wrote when they were asked to end."""

    def __init__(self, lake: Path) -> None:
        self.lake, self.locks, self.asked = lake, Lake.open(lake).locks, lake.parent / "asked"
        self.started: list[subprocess.Popen[str]] = []

    def start(self, role: str, *more: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, role, str(self.asked), *more],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, SITE_VARIABLE: str(self.locks)},
            start_new_session=True,
        )
        self.started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "on\n"
        return process

    def in_order(self) -> list[str]:
        return self.asked.read_text().split()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site of which nothing runs yet."""
    (tmp_path / "lake").mkdir()
    site = Site(tmp_path / "lake")
    yield site
    for process in site.started:
        process.kill()
        process.communicate()


def test_down_ends_what_a_killed_up_has_left(site: Site, gristmill: Command) -> None:
    """`status` names each, `down` ends runs first and the server last, and afterwards both say that there is none."""
    roles = ["server", "work", "worker", "run"]
    pids = {site.start(role).pid: role for role in roles}
    found = gristmill("status", "--lake", site.lake, "--json").json
    assert found["state"] == "left over"
    assert {row["pid"]: row["role"] for row in found["processes"]} == pids
    assert all(row["since"].endswith("Z") for row in found["processes"])
    shown = gristmill("status", "--lake", site.lake).out
    assert all(str(pid) in shown for pid in pids)
    down = gristmill("down", "--lake", site.lake)
    assert (down.code, down.out.count("nothing is left running")) == (0, 1)
    assert site.in_order() == ["run", "work", "worker", "server"]
    assert all(process.wait(30) == 0 for process in site.started)
    for command in ("status", "down"):
        answer = gristmill(command, "--lake", site.lake)
        assert answer.code == 2 and "expected a running site, found none" in answer.err


def test_what_ignores_sigterm_is_killed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time, and that is told."""
    monkeypatch.setattr(site_processes, "STOP_S", {"run": 0.2, "worker": 30.0})
    monkeypatch.setattr(site_processes, "UNHEARD_S", 0.2)
    stubborn, worker = site.start("run", "stubborn"), site.start("worker")
    told: list[str] = []
    assert end_processes(site.locks, told.append) == []
    assert stubborn.wait(30) == -signal.SIGKILL
    assert worker.wait(30) == 0
    assert any("killed" in line and str(stubborn.pid) in line for line in told)


def test_a_stopped_process_is_ended_too(site: Site) -> None:
    """SIGSTOP (Ctrl-Z, a debugger): it is woken to end in order."""
    stopped = site.start("run")
    stopped.send_signal(signal.SIGSTOP)
    assert end_processes(site.locks, print) == []
    assert stopped.wait(30) == 0


def test_nothing_but_the_site_is_touched(site: Site, tmp_path: Path, gristmill: Command) -> None:
    """Another lake's site, a training by hand in this lake, a backup that reads the locks."""
    mine = site.start("run")
    other = Site(tmp_path / "other/lake")
    other.lake.mkdir(parents=True)
    theirs = other.start("run")
    by_hand = "import sys; from storage.lake import Lake\nwith Lake.open(sys.argv[1]).lock('run-x', doing='training x'): print('on', flush=True); sys.stdin.read()"
    backup = "import sys; file = open(sys.argv[1]); print('on', flush=True); sys.stdin.read()"
    file = lock_file(site.locks, "run")
    outsiders = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(argument)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for code, argument in ((by_hand, site.lake), (backup, file))
    ]  # fmt: skip
    try:
        for process in outsiders:
            assert process.stdout is not None and process.stdout.readline() == "on\n"
        status = gristmill("status", "--lake", site.lake, "--json").json
        assert [row["pid"] for row in status["processes"]] == [mine.pid]
        assert len(status["work"]) == 1 and "training x" in status["work"][0]
        assert gristmill("down", "--lake", site.lake).code == 0
        assert mine.wait(30) == 0
        assert theirs.poll() is None
        assert [process.poll() for process in outsiders] == [None, None]
    finally:
        for process in outsiders:
            process.communicate()
        theirs.kill()
        theirs.communicate()


def test_two_downs_ask_once(site: Site, gristmill_process: Command) -> None:
    """A second SIGTERM would mean "at once"; so the second `down` waits for the first."""
    process = site.start("run", "stubborn")
    answers: list[Any] = []

    def down() -> None:
        answers.append(gristmill_process("down", "--lake", site.lake))

    downs = [threading.Thread(target=down) for _ in range(2)]
    for thread in downs:
        thread.start()
    wait_until(lambda: site.asked.exists(), 60, "the first to ask")
    wait_until(lambda: process.poll() is not None, 60, "its end")
    for thread in downs:
        thread.join()
    assert site.in_order() == ["run"]
    # The second may have begun only when nothing was left.
    assert sorted(answer.code for answer in answers) in ([0, 0], [0, 2])


def test_a_holder_that_is_not_shown_is_no_nothing(
    site: Site, gristmill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's process or another container's: `down` does not say that nothing is left."""
    site.start("run")
    monkeypatch.setattr("storage.holders._PROC", site.lake)  # where no process is shown
    down = gristmill("down", "--lake", site.lake)
    assert down.code == 1
    assert "not everything has ended: flow run" in down.err and "not shown here" in down.err
    assert "nothing is left" not in down.out + down.err


def test_outside_of_a_site_nothing_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build or a training by hand belongs to no site."""
    monkeypatch.delenv(SITE_VARIABLE, raising=False)
    assert site_processes.join("work") is None
    assert site_processes.inherited() == ()
    assert chosen_executor(2).held is None


def _held(file: Path) -> list[Path]:
    return held_by(os.getpid(), [file])


def test_all_that_a_run_starts_is_known(tmp_path: Path) -> None:
    """Its training, its clock and its workers, each from its first instant, and none after."""
    code = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from storage.holders import holders\n"
        "print(json.dumps(list(holders([Path(sys.argv[1])]))))\n"
    )
    with founding(tmp_path):
        file = lock_file(tmp_path, "work")
        with deadline(1, "waiting"):
            _, out = run_child([sys.executable, "-c", code, str(file)], print)
            assert len(json.loads(out)) == 3  # we, the clock, the child
        executor = chosen_executor(2)
        assert executor.held == file
        assert list(executor.map(_held, [file, file])) == [[file], [file]]
    assert SITE_VARIABLE not in os.environ


def test_up_ends_when_its_folder_of_locks_is_left(tmp_path: Path) -> None:
    """`founding` lets go: a process that ran `up` and goes on is none of the site."""
    with founding(tmp_path):
        assert [process.role for process in site_processes.site_processes(tmp_path)] == ["up"]
    assert [p for p in site_processes.site_processes(tmp_path) if p.role == "up"] == []
    os.close(hold(lock_file(tmp_path, "up")))

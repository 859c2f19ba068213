"""Work on several processes: the results of one, and nothing left running whatever ends the process that started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.executor import Executor
from storage.errors import ConfigError, GristmillError


def square(number: int) -> int:
    return number * number


def crash(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_processes_give_what_one_gives() -> None:
    """In whatever order they finish."""
    numbers = list(range(20))
    assert sorted(Executor(workers=2).map(square, numbers)) == list(
        Executor(workers=1).map(square, numbers)
    )


def test_dead_worker_ends_the_work_in_words() -> None:
    """As the kernel does when memory runs out."""
    with pytest.raises(GristmillError, match="use fewer --workers"):
        list(Executor(workers=2).map(crash, [1, 2]))


def test_no_workers_are_refused() -> None:
    """Before anything runs."""
    with pytest.raises(ConfigError, match="--workers: expected at least 1, got 0"):
        Executor(workers=0)


def tell_and_wait(folder: str) -> None:
    Path(folder, str(os.getpid())).touch()
    time.sleep(600)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_process_with_the_pool(tmp_path: Path, number: int) -> None:
    """Neither a worker in the middle of its work nor the server that forks them."""
    script = (
        "from pipeline.executor import Executor\n"
        "from tests.pipeline.test_executor import tell_and_wait\n"
        f"list(Executor(workers=2).map(tell_and_wait, [{str(tmp_path)!r}] * 2))\n"
    )
    root = Path(__file__).parents[2]
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=root, start_new_session=True)
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    parent.send_signal(number)
    parent.wait()
    wait_until(lambda: not processes_of_session(parent.pid))


def processes_of_session(session: int) -> list[int]:
    """Those that still run, zombies aside."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, _, rest = status.read_text().partition(" (")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, _, _, its_session = rest.rpartition(") ")[2].split()[:4]
        if int(its_session) == session and state != "Z":
            found.append(int(pid))
    return found


def wait_until(is_true, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def blocked_signals(process: str) -> int:
    """Mask of the signals that a process has blocked."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("SigBlk")), 16)


def blocked_in_worker_and_its_parent(_: int) -> list[int]:
    return [blocked_signals(str(process)) for process in (os.getpid(), os.getppid())]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_ctrl_c_reaches_no_worker() -> None:
    """A terminal sends it to all processes; only this one answers, or an import would print its traceback."""
    before = blocked_signals("self")
    interrupt = 1 << (signal.SIGINT - 1)
    masks = list(Executor(workers=2).map(blocked_in_worker_and_its_parent, range(2)))
    assert all(mask & interrupt for pair in masks for mask in pair)
    assert blocked_signals("self") == before

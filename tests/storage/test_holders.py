"""Who holds a file is what the kernel says: neither a name, a number nor an open file is enough."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from storage.holders import held_by, hold, holders, is_held

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

HOLD = "import sys; from pathlib import Path; from storage.holders import hold; hold(Path(sys.argv[1]))\n"
WAIT = "print('on', flush=True); sys.stdin.read()\n"

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start Python code that says when it is on and then waits for the end of its stdin."""
    with ExitStack() as stack:

        def start(code: str, *arguments: object) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-c", code, *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)  # closes stdin and waits
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "on\n"
            return process

        yield start


def test_a_holder_is_known_until_it_dies(start: Start, tmp_path: Path) -> None:
    """By kill -9 too; and the file stays."""
    file, other = tmp_path / "locks/one.lock", tmp_path / "locks/two.lock"
    assert not is_held(file)
    assert not file.exists()
    process = start(HOLD + WAIT, file)
    assert holders([other, file]) == {process.pid: [file]}
    assert is_held(file)
    process.kill()
    process.wait()
    assert not is_held(file)
    assert holders([file]) == {}


def test_a_reader_is_no_holder(start: Start, tmp_path: Path) -> None:
    """A backup has the file open, and another program may lock it for itself; both are left alone."""
    file = tmp_path / "one.lock"
    file.touch()
    reader = start("import sys; file = open(sys.argv[1])\n" + WAIT, file)
    alone = "import fcntl, sys; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX)\n"
    locker = start(alone + WAIT, file)
    assert not held_by(reader.pid, [file]) and not held_by(locker.pid, [file])


def test_same_name_elsewhere_is_another_file(start: Start, tmp_path: Path) -> None:
    """Two lakes on a machine have locks of the same names."""
    mine, other = tmp_path / "mine/one.lock", tmp_path / "other/one.lock"
    process = start(HOLD + WAIT, other)
    hold_mine = start(HOLD + WAIT, mine)
    assert holders([mine]) == {hold_mine.pid: [mine]}
    assert holders([other]) == {process.pid: [other]}


def test_a_lake_by_another_path_is_the_same(start: Start, tmp_path: Path) -> None:
    """The file counts, not how it is spelt."""
    file = tmp_path / "lake/one.lock"
    process = start(HOLD + WAIT, file)
    (tmp_path / "link").symlink_to(tmp_path / "lake")
    assert list(holders([tmp_path / "link/one.lock"])) == [process.pid]


def test_what_inherits_the_descriptor_holds_too(start: Start, tmp_path: Path) -> None:
    """A fork, or a child that is given it: found although whoever took the lock is dead."""
    file, told = tmp_path / "one.lock", tmp_path / "pid"
    fork = (
        "import os\n"
        "if (child := os.fork()) == 0:\n"
        "    import time; os.close(0); os.close(1); time.sleep(600)\n"
        "open(sys.argv[2], 'w').write(str(child))\n"
    )
    process = start(HOLD + fork + WAIT, file, told)
    child = int(told.read_text())
    process.kill()
    process.wait()
    try:
        assert list(holders([file])) == [child]
    finally:
        os.kill(child, signal.SIGKILL)


def test_held_by_this_process(tmp_path: Path) -> None:
    """Of several files in the order asked for; let go by closing."""
    first, second = tmp_path / "1.lock", tmp_path / "2.lock"
    descriptors = [hold(second), hold(first)]
    assert held_by(os.getpid(), [first, second]) == [first, second]
    for descriptor in descriptors:
        os.close(descriptor)
    assert not is_held(first)

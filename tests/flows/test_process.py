"""A child process never outlives its parent, and ends in order when nobody waits for it any more."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.process import error_class, run_child, run_json
from storage.errors import BusyError, GateError, GristmillError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")

CHILD = """
import os, sys, time
from flows.process import die_with
die_with(int(sys.argv[1]))
open(sys.argv[2], "w").write(str(os.getpid()))
time.sleep(60)
"""

PARENT = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid()), sys.argv[2]], start_new_session=True)
time.sleep(60)
"""


def wait_until(is_true, seconds: float = 100.0) -> None:
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    """kill -9 of the parent leaves nothing running, not even in a session of its own."""
    told = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD, str(told)])
    wait_until(lambda: told.exists() and told.read_text())
    child = int(told.read_text())
    assert is_running(child)
    parent.kill()
    parent.wait()
    wait_until(lambda: not is_running(child))


def test_child_of_a_parent_that_is_gone_does_nothing(tmp_path: Path) -> None:
    """A parent that died before the child could tie itself to it is noticed."""
    told = tmp_path / "pid"
    arguments = [sys.executable, "-c", CHILD, "1", str(told)]  # our parent, but not the child's
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 1
    assert "which is gone" in done.stderr
    assert not told.exists()


def test_run_child_gives_code_output_and_lines() -> None:
    """stdout comes back whole, stderr line by line, and the exit code as it is."""
    lines: list[str] = []
    script = "import sys; print('one\\ntwo'); print('a\\nb', file=sys.stderr); sys.exit(3)"
    assert run_child([sys.executable, "-c", script], lines.append) == (3, "one\ntwo\n")
    assert lines == ["a", "b"]


ROWS = """
import json, sys
fd = int(sys.argv[-1].removeprefix("--events="))
with open(fd, "w", buffering=1) as pipe:
    for step in range(5000):
        pipe.write(json.dumps({"step": step, "text": "\\u00e9\\n"}) + "\\n")
print("done")
"""


def test_rows_come_whole_and_in_order() -> None:
    """More than the pipe holds; the command is told where to write them."""
    rows: list[dict[str, object]] = []
    code, out = run_child([sys.executable, "-c", ROWS], print, rows.append)
    assert (code, out) == (0, "done\n")
    assert [row["step"] for row in rows] == list(range(5000))
    assert {row["text"] for row in rows} == {"\u00e9\n"}


def test_last_line_without_an_end_is_told() -> None:
    """What a process wrote just before it died is often that."""
    lines: list[str] = []
    run_child([sys.executable, "-c", "import os; os.write(2, b'one\\ntwo')"], lines.append)
    assert lines == ["one", "two"]


def test_a_helper_that_holds_the_pipes_holds_up_nothing() -> None:
    """The command is done when its process is, whatever it left behind; that is killed."""
    seen: list[str] = []
    script = (
        "import subprocess, sys; other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        "print(other.pid, file=sys.stderr, flush=True)"
    )
    assert run_child([sys.executable, "-c", script], seen.append) == (0, "")
    wait_until(lambda: not is_running(int(seen[0])))


def test_errors_keep_their_class_through_the_process() -> None:
    """What `gristmill --json` says it ended with is raised here; anything else is our base class."""
    assert error_class("BusyError") is BusyError
    for other in ("ZeroDivisionError", "ClassVar", ""):
        assert error_class(other) is GristmillError
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(GristmillError, match=r"killed by SIGKILL.*out of memory.*start it again"):
        run_json([sys.executable, "-c", killed], print)
    refused = """print('{"error": "no", "kind": "GateError"}'); raise SystemExit(3)"""
    with pytest.raises(GateError, match="no"):
        run_json([sys.executable, "-c", refused], print)


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("checkpoint", file=sys.stderr, flush=True), sys.exit(75)))
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(other.pid, file=sys.stderr, flush=True)
time.sleep(600)
"""


def test_child_and_its_children_end_when_waiting_is_broken_off() -> None:
    """An exception while waiting (a cancelled flow): SIGTERM for the child, SIGKILL for what it leaves behind."""
    seen: list[int] = []

    def stop(line: str) -> None:
        seen.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_child([sys.executable, "-c", STUBBORN], stop)
    wait_until(lambda: not is_running(seen[0]))


def test_a_program_of_a_site_dies_with_its_parent(tmp_path: Path) -> None:
    """Also one that was started in a folder with packages of the same names as ours."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows/__init__.py").write_text("raise SystemExit('somebody else\\'s flows')")
    script = (
        "import os, subprocess, sys, time\n"
        "from pathlib import Path\n"
        "from flows.site import Program\n"
        "os.chdir(sys.argv[1])\n"
        "program = Program('server', ['http.server', '--bind', '127.0.0.1', '0'], Path(sys.argv[1]))\n"
        "program.start()\n"
        "while 'Serving' not in program.log.path.read_text() and program.is_running:\n"
        "    time.sleep(0.05)\n"
        "print(program.process.pid if program.is_running else program.how_it_ended(), flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-u", "-c", script, str(tmp_path)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        said = parent.stdout.readline().strip()
        parent.kill()
    assert said.isdigit(), said
    end = time.monotonic() + 60
    while Path(f"/proc/{said}").exists():
        assert time.monotonic() < end, "the program outlived its parent"
        time.sleep(0.05)

"""Why a program of a site ended: its own lines, of shortly before, those that say it."""

from pathlib import Path

import pytest

from flows.program_log import ProgramLog, how_it_ended

OLD = "sqlite3.OperationalError: database is locked\n"


def write(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


@pytest.fixture
def log(tmp_path: Path) -> ProgramLog:
    """The log of a program that starts now; an earlier one has written to the file."""
    path = tmp_path / "server.log"
    write(path, OLD)
    log = ProgramLog(path)
    log.begin()
    return log


def test_lines_of_an_earlier_program_are_no_cause(log: ProgramLog) -> None:
    """Whatever stands in the file already."""
    assert how_it_ended(1, log) == f"exit code 1, without a word in {log.path}"
    write(log.path, "OSError: [Errno 98] address already in use\n")
    assert how_it_ended(1, log).endswith("says why:\n  OSError: [Errno 98] address already in use")


def test_old_lines_of_its_own_are_no_cause(tmp_path: Path) -> None:
    """What it wrote an hour ago it has survived."""
    moments = iter([0.0, 3600.0, 3612.0, 3612.5])
    log = ProgramLog(tmp_path / "server.log", lambda: next(moments))
    log.begin()
    write(log.path, OLD)
    log.look()
    log.look()
    write(log.path, "MemoryError\n")
    log.look()
    assert log.recent() == ["MemoryError"]


def test_a_kill_leaves_no_words(log: ProgramLog) -> None:
    """The last line before SIGKILL says nothing about it; a crash in native code may have told something."""
    write(log.path, OLD)
    killed = how_it_ended(-9, log)
    assert "killed by SIGKILL" in killed and "database is locked" not in killed
    assert "killed by SIGSEGV" in how_it_ended(-11, log)


TRACEBACK = """Traceback (most recent call last):
  File "server.py", line 3, in <module>
    run()
RuntimeError: the first
INFO: trying again
Traceback (most recent call last):
  File "server.py", line 3, in <module>
    run()
prefect.exceptions.SomeError: the cause
INFO: Application shutdown complete.
"""


def test_the_line_that_says_why_is_picked(log: ProgramLog) -> None:
    """The last exception, not its page of calls; else the last trouble; else the last lines."""
    write(log.path, TRACEBACK)
    assert how_it_ended(1, log).split("says why:\n  ")[1].splitlines()[0] == (
        "prefect.exceptions.SomeError: the cause"
    )
    log.begin()
    write(log.path, "start\nERROR: port is taken\nstopping\n")
    assert "why:\n  ERROR: port is taken\n  stopping" in how_it_ended(1, log)
    log.begin()
    write(log.path, "".join(f"line {number}\n" for number in range(20)))
    assert how_it_ended(1, log).splitlines()[1:] == [f"  line {number}" for number in range(12, 20)]


def test_a_log_that_was_emptied_is_read_from_its_beginning(log: ProgramLog) -> None:
    """Or removed: then there is nothing to read."""
    log.path.write_text("new\n")
    assert log.recent() == ["new"]
    log.path.unlink()
    assert log.recent() == []
    log.look()

"""The frame of every command: quick help, exit codes, one message an error, clean stops."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.cli import app
from flows.output import command
from storage import errors
from storage.errors import GristmillError

COMMANDS = [
    "run",
    "build",
    "dedup",
    "train",
    "evaluate",
    "sample",
    "inspect",
    "dump",
    "forget",
    "why",
    "hash",
    "verify",
    "gc",
    "up",
    "down",
    "status",
    "doctor",
]

# Not pydantic: some versions of typer load it by themselves.
HEAVY = """
torch prefect pyarrow numba numpy datasets jinja2 scipy pandas httpx sqlalchemy fastapi sentencepiece datasketch obstore
resiliparse fastwarc ftfy py3langid orjson polars safetensors
"""

LOADED = """
import contextlib, io, json, sys
from flows.cli import app
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        with contextlib.suppress(SystemExit):
            app(arguments)
    print(json.dumps(arguments), *{name.partition(".")[0] for name in sys.modules})
"""


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    """Help, refusals and a question for a site load none of the libraries that take seconds: so they come at once."""
    light = [[], ["--help"], ["buld"], ["build"], *([name, "--help"] for name in COMMANDS)]
    light += [[name, "--lake", str(tmp_path / "lake")] for name in ("status", "down")]
    done = subprocess.run(
        [sys.executable, "-c", LOADED, json.dumps(light)],
        capture_output=True,
        text=True,
        check=True,
    )
    told = done.stdout.splitlines()
    assert len(told) == len(light)
    for line in told:  # of all up to this one, so the first that fails is to blame
        assert not set(HEAVY.split()) & set(line.split()), line.partition("]")[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(name: str, gristmill: Callable[..., Any]) -> None:
    """Each command explains itself."""
    answer = gristmill(name, "--help")
    assert answer.code == 0
    assert f"Example: gristmill {name}" in " ".join(answer.out.split())


def test_commands_are_complete() -> None:
    """No command is without its help test."""
    names = [
        info.name or (info.callback.__name__ if info.callback else "")
        for info in app.registered_commands
    ]
    assert sorted(names) == sorted(COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["buld"], "Did you mean 'build'"),
        (["build"], "Missing argument"),
        (["build", "quickstart", "--wrokers", "2"], "--workers"),
        (["build", "quickstart", "--workers", "0"], "--workers"),
        (["inspect", "-v", "-q"], "contradict"),
        (["inspect", "--report", "x.html"], "expected a snapshot"),
        (["build", "no-such-recipe"], "no recipe 'no-such-recipe'"),
        (["build", "quickstart", "--set", "dedup.treshold=1"], "did you mean 'dedup.threshold'?"),
        (["inspect", "corpus", "--lake", "ftp://x"], "--lake ftp://x: expected"),
        (["hash", "nothing", "--lake", "/nonexistent"], "nothing"),
        (["dump", "nothing@x", "--lake", "/nonexistent"], "expected a snapshot as name"),
        (["sample", "nothing", "--lake", "/nonexistent"], "nothing"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    arguments: list[str], message: str, gristmill: Callable[..., Any]
) -> None:
    """Wrong usage and bad input are told in one message, without a traceback."""
    answer = gristmill(*arguments)
    assert answer.code == 2
    assert message in " ".join(answer.err.split())
    assert "Traceback" not in answer.err
    assert answer.out == ""


@pytest.mark.parametrize(
    "kind",
    [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, GristmillError)],
)
def test_each_error_ends_in_its_exit_code(
    kind: type[GristmillError], capsys: pytest.CaptureFixture[str]
) -> None:
    """The numbers of the error tree are those of the command line; with --json the error is a document."""
    with pytest.raises(SystemExit) as ended, command(as_json=True):
        raise kind("expected this, got that")
    assert ended.value.code == kind.exit_code
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "error": "expected this, got that",
        "kind": kind.__name__,
        "exit_code": kind.exit_code,
    }
    assert "gristmill: expected this, got that" in err
    assert "Traceback" not in err


def test_traceback_only_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Our own bugs are one message too; -v shows where."""
    for verbose in (False, True):
        with pytest.raises(SystemExit) as ended, command(verbose=verbose):
            raise ZeroDivisionError("oops")
        assert ended.value.code == 1
        err = capsys.readouterr().err
        assert "unexpected ZeroDivisionError: oops" in err
        assert ("Traceback" in err) is verbose


def test_error_after_the_result_is_no_second_document(capsys: pytest.CaptureFixture[str]) -> None:
    """A quarantined build prints its result and then fails: stdout stays one document."""

    def refused_build() -> None:
        with command(as_json=True) as output:
            output.result({"status": "quarantined"}, lambda console: None)
            raise errors.GateError("refused")

    with pytest.raises(SystemExit) as ended:
        refused_build()
    assert ended.value.code == 3
    assert json.loads(capsys.readouterr().out) == {"status": "quarantined"}


WORK = """
import sys, time
from flows.output import command
with command(as_json=True):
    try:
        try:
            print("begun", file=sys.stderr, flush=True)  # here, or a quick signal would miss the cleanup
            time.sleep(30)
        except Exception:
            pass  # code that survives bad input must not survive a stop
    finally:
        {cleanup}
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("cleanup", ["pass", "raise OSError('a worker died of the same signal')"])
def test_signals_stop_cleanly(number: signal.Signals, cleanup: str) -> None:
    """Exit code 75, whatever the stop breaks, and the command to go on with."""
    work = subprocess.Popen(
        [sys.executable, "-c", WORK.format(cleanup=cleanup)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert work.stderr is not None
    assert work.stderr.readline() == "begun\n"
    work.send_signal(number)
    out, err = work.communicate(timeout=200)
    assert work.returncode == 75
    assert "the same command goes on" in err
    assert "Traceback" not in err
    assert json.loads(out)["exit_code"] == 75


def test_second_signal_stops_at_once() -> None:
    """A stop that takes too long can be cut short."""
    script = WORK.format(cleanup="print('cleaning', file=sys.stderr, flush=True); time.sleep(30)")
    work = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    assert work.stderr is not None
    assert work.stderr.readline() == "begun\n"
    work.send_signal(signal.SIGINT)
    while work.stderr.readline() != "cleaning\n":
        pass
    work.send_signal(signal.SIGINT)
    assert work.wait(timeout=100) == 75
    work.stderr.close()


def test_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """`gristmill ... | head -1` prints no complaint."""
    script = """
from flows.output import command
with command() as output:
    for number in range(100_000):
        output.write(b"line")
"""
    reader, writer = os.pipe()
    work = subprocess.Popen(
        [sys.executable, "-c", script], stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert os.read(reader, 4) == b"line"
    os.close(reader)
    _, err = work.communicate(timeout=200)
    assert err == ""
    assert work.returncode == 0

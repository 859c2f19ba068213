"""Whatever becomes of stdout and stderr, a command ends with the right code and at most one message."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest

from flows.output import Output, command
from flows.progress import show_progress
from storage.errors import GristmillError, NotFoundError


def shell(line: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `gristmill` in a line of bash, with `pipefail`; "$@" are the arguments."""
    script = f"set -o pipefail; gristmill() {{ '{sys.executable}' -m flows.cli \"$@\"; }}; {line}"
    command = ["bash", "-c", script, "bash", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("flags", ["", "--json"])
@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("gristmill inspect {flags} --lake '{lake}' >&-", 0, ""),
        ("gristmill inspect {flags} --lake '{lake}' 2>&-", 0, ""),
        ("gristmill inspect {flags} --lake '{lake}' 2>/dev/full", 0, ""),
        ("gristmill inspect {flags} --lake '{lake}' | true", 0, ""),
        ("gristmill inspect {flags} --lake '{lake}' >/dev/full", 1, "No space left on device"),
    ],
)
def test_streams_that_nobody_reads(
    line: str, code: int, message: str, flags: str, tmp_path: Path
) -> None:
    """Closed by the caller, at the other end of a pipe, or full."""
    done = shell(line.format(flags=flags, lake=tmp_path))
    assert done.returncode == code, done.stderr
    if message:
        [said] = done.stderr.splitlines()
        assert said.startswith("gristmill: stdout: cannot be written")
        assert message in said
    else:
        assert done.stderr == ""


def test_work_goes_on_when_the_reader_of_stderr_has_gone(tiny_recipe: Path, tmp_path: Path) -> None:
    """`gristmill build ... 2>&1 >result | head -1`."""
    result = tmp_path / "result"
    line = f"gristmill build \"$@\" --json 2>&1 >'{result}' | head -1"
    done = shell(line, tiny_recipe, "--lake", tmp_path / "lake", "--workers", 1)
    assert done.returncode == 0
    assert json.loads(result.read_text())["status"] == "promoted"


def test_text_for_a_terminal_of_few_characters(tmp_path: Path) -> None:
    """What its encoding lacks is replaced, not an error."""
    folder = tmp_path / "lake \N{SNOWMAN}"
    done = shell('PYTHONIOENCODING=ascii gristmill inspect --lake "$1"', folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "lake ?" in done.stdout


def test_json_holds_nothing_that_a_terminal_obeys(capfd: pytest.CaptureFixture[str]) -> None:
    """Marks that turn the direction of writing, and controls, are escaped; the values are the same."""
    document = {"text": "gpj.\u202e\x9b31m\u200b, caf\u00e9"}
    with command(as_json=True) as output:
        output.result(document, lambda _: None)
    out = capfd.readouterr().out
    assert not set(out) & set("\u202e\x9b\u200b")
    assert "caf\u00e9" in out
    assert json.loads(out) == document


HOSTILE = "a\x1b[31m\x9b1m\u202eb\u2066\u200b\ufeffc\x07\u2028 caf\u00e9 \u0915\u094d\u200d\u0937"
SPEAK = """
from rich.table import Table
from rich.text import Text
from flows.output import command
hostile = {hostile!a}
def show(console):
    console.print(hostile)
    table = Table(hostile)
    table.add_row(Text(hostile, style="bold"))
    console.print(table)
with command() as output:
    output.note(hostile)
    output.write_json(b'"' + hostile.replace("\\x1b", "").replace("\\x07", "").encode() + b'"')
    output.result({{}}, {show})
    raise RuntimeError(hostile)
"""
OBEYED = re.compile("[\x07\x9b\u202e\u2066\u200b\ufeff\u2028]")
STYLES = re.compile("\x1b\\[[0-9;]*m")


def on_terminal(code: str) -> str:
    """What a program prints on a terminal, its colours left out."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
    with subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs):
        os.close(theirs)
        printed = b""
        with suppress(OSError):  # what reading from a terminal ends with
            while piece := os.read(ours, 65536):
                printed += piece
    os.close(ours)
    return STYLES.sub("", printed.decode())


@pytest.mark.parametrize("show", ["show", "hostile"])
def test_a_terminal_obeys_nothing(show: str) -> None:
    """Notes, lines, tables, texts, JSON and errors: escapes, C1, bidirectional and invisible marks are shown instead."""
    printed = on_terminal(SPEAK.format(hostile=HOSTILE, show=show))
    assert not OBEYED.search(printed)
    assert "\x1b" not in printed.replace("\x1b[?25", "")
    assert printed.count("[U+202E]") >= 3
    assert "\\u202e" in printed  # JSON
    assert printed.count("caf\u00e9 \u0915\u094d\u200d\u0937") >= 3  # joiners carry meaning


def test_a_pipe_gets_texts_as_they_are() -> None:
    """`gristmill dump`, `gristmill sample`."""
    code = SPEAK.format(hostile=HOSTILE, show="hostile")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert HOSTILE.encode() + b"\n" in done.stdout
    assert HOSTILE.replace("\x1b", "").replace("\x07", "").encode() in done.stdout
    assert not OBEYED.search(done.stderr.decode())


def test_signal_that_python_swallows_still_stops(capfd: pytest.CaptureFixture[str]) -> None:
    """An exception raised in a callback is printed and dropped; the next progress raises it again."""

    def work(output: Output) -> None:
        with suppress(KeyboardInterrupt):  # as Python does in a callback
            signal.raise_signal(signal.SIGTERM)
        with show_progress(output) as progress:
            progress("read", 1, 2, "files")
        raise AssertionError("went on")

    with pytest.raises(SystemExit) as ended, command(as_json=True, quiet=True) as output:
        work(output)
    assert ended.value.code == 75
    assert json.loads(capfd.readouterr().out)["kind"] == "Interrupted"


@pytest.mark.parametrize(
    ("error", "code"), [(NotFoundError("no such"), 2), (GristmillError("broke"), 1)]
)
def test_error_document(
    error: GristmillError, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """With --json, one document on stdout, and the message on stderr."""
    with pytest.raises(SystemExit) as ended, command(as_json=True):
        raise error
    out, err = capfd.readouterr()
    assert ended.value.code == code
    assert json.loads(out) == {
        "error": str(error),
        "kind": type(error).__name__,
        "exit_code": code,
    }
    assert err == f"gristmill: {error}\n"


def test_broken_pipe_of_the_work_itself_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    """Only stdout may lose its reader; a command that could not do its work never ends with 0."""
    with pytest.raises(SystemExit) as ended, command():
        raise BrokenPipeError("a child has gone")
    assert ended.value.code == 1
    assert "a child has gone" in capfd.readouterr().err

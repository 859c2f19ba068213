"""What a command says, and where: results on stdout, everything else on stderr, every error as one message.

`command(...)` is the frame around each command: it turns errors into exit codes, Ctrl-C and SIGTERM into a clean stop.
"""

import io
import json
import logging
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from pipeline.display import INVISIBLE, visible
from storage import published
from storage.errors import GristmillError, Interrupted
from storage.redaction import without_secrets

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 120
"""Columns of a table that goes to a file or a pipe; rich would assume 80 and cut cells."""


@dataclass
class Output:
    """Where a command writes, and what became of that."""

    as_json: bool = False
    """One JSON document on stdout instead of text."""
    verbose: bool = False
    """Details on stderr, tracebacks included."""
    quiet: bool = False
    """Nothing on stderr but errors."""
    has_result: bool = field(default=False, init=False)
    """The command's JSON document is out; an error after it must not print a second one."""
    must_stop: bool = field(default=False, init=False)
    """A signal asked for the stop. Progress looks at it too, because Python drops an exception that a signal happens to
    raise in a callback or in __del__."""
    stop_notice: str = field(default="", init=False)
    """What to tell of that at once, for bars to show: a line of its own in their midst would print them twice."""
    has_bars: bool = field(default=False, init=False)
    """Bars are on the terminal, and show `stop_notice`."""

    def note(self, text: str) -> None:
        """Tell the user something beside the result."""
        if not self.quiet:
            say(text, sys.stderr)

    def detail(self, text: str) -> None:
        """Tell it only with -v."""
        if self.verbose:
            say(text, sys.stderr)

    def result(self, document: dict[str, Any], show: Callable[["Console"], None] | str) -> None:
        """Print the command's result: the document with --json, else what `show` prints, or the text that it is.

        A text goes to a file or a pipe as it is; a terminal shows what it would obey.
        """
        if self.as_json:
            self.write(_json_lines(document))
        elif isinstance(show, str):
            shown = visible(show) if sys.stdout.isatty() else show
            self.write(f"{shown}\n".encode(sys.stdout.encoding, errors="replace"))
        else:
            self.write(_as_shown(show))
        self.flush()
        self.has_result = True

    def write_json(self, data: bytes) -> None:
        """Write a piece of JSON to stdout as it is; on a terminal with escapes for what it would obey."""
        self.write(_escaped(data.decode()).encode() if sys.stdout.isatty() else data)

    def write(self, data: bytes) -> None:
        """Write to stdout. Raises GristmillError if that fails, unless its reader has gone: that ends the command well."""
        with _stdout_in_plain_words():
            sys.stdout.buffer.write(data)

    def flush(self) -> None:
        """Make sure that what was written is out; raises what `write` does."""
        with _stdout_in_plain_words():
            sys.stdout.flush()


def say(text: str, stream: TextIO) -> None:
    """Print a line on stderr, without credentials; if it cannot be written any more, the work goes on unheard.

    Names of files, of fields, a server's answers: what a terminal would obey is shown, here for all of them.
    """
    with suppress(OSError):
        print(visible(without_secrets(text)), file=stream, flush=True)


def _json_lines(document: dict[str, Any]) -> bytes:
    return _escaped(json.dumps(document, ensure_ascii=False, indent=2) + "\n").encode()


def _escaped(text: str) -> str:
    """JSON of the same values in which nothing is left that a terminal obeys, or that does not show."""
    return INVISIBLE.sub(lambda mark: json.dumps(mark[0])[1:-1], text)


def _as_shown(show: Callable[["Console"], None]) -> bytes:
    """What `show` prints."""
    from flows.console import PlainConsole  # late: 40 ms that --json and notes need not wait for

    shown, is_terminal = io.StringIO(), sys.stdout.isatty()
    width = None if is_terminal else PIPE_WIDTH
    show(PlainConsole(shown, force_terminal=is_terminal, width=width))
    return shown.getvalue().encode(sys.stdout.encoding, errors="replace")


class _NobodyReads(Exception):
    """The reader of stdout has gone (`gristmill dump ... | head`)."""


@contextmanager
def _stdout_in_plain_words() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _forget_stdout()
        if isinstance(error, BrokenPipeError):
            raise _NobodyReads from None
        raise GristmillError(
            f"stdout: cannot be written: {error.strerror}; the command's work is done, only its answer is lost"
        ) from error


_STOPPED = "stopped, nothing is lost; the same command goes on"


@contextmanager
def command(
    *, as_json: bool = False, verbose: bool = False, quiet: bool = False
) -> Iterator[Output]:
    """Run a command's body; always ends in SystemExit unless the body ended well.

    Exit codes are those of `storage.errors`; 75 whenever a signal asked for the stop, whatever the stop broke on its
    way out (a worker process that got the same SIGTERM, say). A reader of stdout that went away is no error.
    """
    _replace_closed_streams()
    if verbose and quiet:
        print("gristmill: -v and -q contradict each other; give one of them", file=sys.stderr)
        raise SystemExit(2)
    output = Output(as_json=as_json, verbose=verbose, quiet=quiet)
    try:
        with _stop_on_signal(output), _troubles_on_stderr():
            yield output
    except _NobodyReads:
        raise SystemExit(0) from None
    except (KeyboardInterrupt, Exception) as error:
        if output.must_stop and not isinstance(error, Interrupted):
            error = Interrupted(_STOPPED).with_traceback(error.__traceback__)
        raise SystemExit(_report(output, error)) from None


class _OnStderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(f"note: {record.getMessage()}", sys.stderr)


@contextmanager
def _troubles_on_stderr() -> Iterator[None]:
    """Print what went wrong after a result was published, with -q too: it is an error, only not the command's."""
    handler = _OnStderr(logging.WARNING)
    published.logger.addHandler(handler)
    try:
        yield
    finally:
        published.logger.removeHandler(handler)


@contextmanager
def _stop_on_signal(output: Output) -> Iterator[None]:
    """The first SIGINT, SIGTERM or SIGHUP raises KeyboardInterrupt in the main thread; the second ends the process at once.

    KeyboardInterrupt, because code that survives bad input by `except Exception` must not survive this.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if output.must_stop:
            os._exit(
                Interrupted.exit_code
            )  # every file operation is crash-safe, so this loses nothing
        output.must_stop = True
        name = signal.Signals(number).name
        output.stop_notice = f"{name}: stopping cleanly (again: at once) ..."
        if not output.has_bars:
            with suppress(OSError):  # nobody reads stderr any more
                # os.write: the signal may have come in the middle of a print, which must not be entered twice
                os.write(2, f"\n{output.stop_notice}\n".encode())
        raise KeyboardInterrupt

    numbers = [signal.SIGINT, signal.SIGTERM]
    if (
        signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    ):  # the terminal was closed, and no nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _report(output: Output, error: BaseException) -> int:
    """Print an error as one message; return the exit code."""
    if output.verbose:
        say("".join(traceback.format_exception(error)).rstrip("\n"), sys.stderr)
    if isinstance(error, (KeyboardInterrupt, Interrupted)):
        code = Interrupted.exit_code
        again = shlex.join(["gristmill", *sys.argv[1:]])
        message = f"{str(error) or _STOPPED}:\n  {again}"
    elif isinstance(error, GristmillError):
        code, message = error.exit_code, str(error)
    else:
        # A bug of ours, or of a library: not promised in words, but still no wall of text.
        code = 1
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        message = (
            f"unexpected {what}\n  (run again with -v for the traceback; finished work is kept)"
        )
    say(f"gristmill: {message}", sys.stderr)
    if output.as_json and not output.has_result:
        kind = type(error).__name__
        said = without_secrets(str(error) or message)
        document = {"error": said, "kind": kind, "exit_code": code}
        with suppress(_NobodyReads, GristmillError):
            output.write(_json_lines(document))
            output.flush()
    return code


def _forget_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not complain of the closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _replace_closed_streams() -> None:
    """Open /dev/null for a standard stream that the caller closed: the next file would get its number, and the output."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 (open as long as the process)

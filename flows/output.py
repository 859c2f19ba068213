"""What a command says, and where: results on stdout, everything else on stderr, every error as one message.

`command(...)` is the frame around each command: it turns errors into exit codes, Ctrl-C and SIGTERM into a clean stop.
"""

import json
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any

from storage.errors import GristmillError, Interrupted

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 120
"""Columns of a table that goes to a file or a pipe; rich would assume 80 and cut cells."""


@dataclass
class Output:
    """Where a command writes; the only state is whether its result was printed already."""

    as_json: bool = False
    """One JSON document on stdout instead of text."""
    verbose: bool = False
    """Details on stderr, tracebacks included."""
    quiet: bool = False
    """Nothing on stderr but errors."""
    has_result: bool = field(default=False, init=False)
    """The command's JSON document is out; an error after it must not print a second one."""

    def note(self, text: str) -> None:
        """Tell the user something beside the result."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def detail(self, text: str) -> None:
        """Tell it only with -v."""
        if self.verbose:
            print(text, file=sys.stderr, flush=True)

    def result(self, document: dict[str, Any], show: Callable[["Console"], None]) -> None:
        """Print the command's result: the document with --json, else whatever `show` prints."""
        if self.as_json:
            print(json.dumps(document, ensure_ascii=False, indent=2), flush=True)
        else:
            show(stdout_console())
            sys.stdout.flush()
        self.has_result = True


def stdout_console() -> "Console":
    """A rich console that prints text as it is: what stands in a corpus is never markup."""
    from rich.console import Console  # late: 40 ms that --json and notes need not wait for

    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(file=sys.stdout, width=width, markup=False, highlight=False, emoji=False)


_STOPPED = "stopped, nothing is lost; the same command goes on"


@contextmanager
def command(
    *, as_json: bool = False, verbose: bool = False, quiet: bool = False
) -> Iterator[Output]:
    """Run a command's body; always ends in SystemExit unless the body ended well.

    Exit codes are those of `storage.errors`; 75 whenever a signal asked for the stop, whatever the stop broke on its
    way out (a worker process that got the same SIGTERM, say). A reader of stdout that went away is no error.
    """
    if verbose and quiet:
        print("gristmill: -v and -q contradict each other; give one of them", file=sys.stderr)
        raise SystemExit(2)
    output = Output(as_json=as_json, verbose=verbose, quiet=quiet)
    stop: list[str] = []
    try:
        with _stop_on_signal(stop):
            yield output
            sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
        raise SystemExit(0) from None
    except (KeyboardInterrupt, Exception) as error:
        if stop and not isinstance(error, Interrupted):
            error = Interrupted(_STOPPED).with_traceback(error.__traceback__)
        raise SystemExit(_report(output, error)) from None


@contextmanager
def _stop_on_signal(stop: list[str]) -> Iterator[None]:
    """The first SIGINT or SIGTERM raises KeyboardInterrupt in the main thread; the second ends the process at once.

    KeyboardInterrupt, because code that survives bad input by `except Exception` must not survive this.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if stop:
            os._exit(
                Interrupted.exit_code
            )  # every file operation is crash-safe, so this loses nothing
        stop.append(signal.Signals(number).name)
        # os.write: the signal may have come in the middle of a print, which must not be entered twice
        os.write(2, f"\n{stop[0]}: stopping cleanly (again: at once) ...\n".encode())
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _report(output: Output, error: BaseException) -> int:
    """Print an error as one message; return the exit code."""
    if output.verbose:
        traceback.print_exception(error)
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
    print(f"gristmill: {message}", file=sys.stderr, flush=True)
    if output.as_json and not output.has_result:
        kind = type(error).__name__
        document = {"error": str(error) or message, "kind": kind, "exit_code": code}
        try:
            print(json.dumps(document, ensure_ascii=False, indent=2), flush=True)
        except BrokenPipeError:
            _forget_stdout()
    return code


def _forget_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not complain of the closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

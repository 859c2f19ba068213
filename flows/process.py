"""One child process that never outlives its parent, and whose own children never outlive it.

Training runs in one: a stuck native thread, a leak or a crash of it cannot take the flow along, and a cancelled flow can
end it for certain.
"""

import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from flows import site_processes
from storage import errors
from storage.errors import GristmillError

STOP_GRACE_S = 60.0
"""Time for a last checkpoint between SIGTERM and SIGKILL."""


def die_with(parent: int) -> None:
    """Make this process die (SIGKILL) with the process `parent` that started it; called first thing in the child.

    In the child and not in a `preexec_fn`: Python code between fork and exec may hang if the parent has threads.
    Other systems than Linux have no such call; there a child of a killed parent runs to its end.
    """
    if sys.platform != "linux":
        return
    pr_set_pdeathsig = 1  # linux/prctl.h
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call above, which is silent about that
        raise GristmillError(f"started by process {parent}, which is gone; nothing to do")


def run_child(
    command: Sequence[str],
    on_line: Callable[[str], None],
    on_row: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[int, str]:
    """Run a command in a process group of its own; return its exit code and its stdout.

    Lines of its stderr go to `on_line` as they come. With `on_row` the command gets `--events FD`, and each JSON object
    that it writes there as a line goes to it. Both are called in this thread and should be quick: the child waits once
    64 kB are unread. If waiting is broken off by any exception (a cancelled flow, Ctrl-C), the child gets SIGTERM, and
    what is left of its group after `STOP_GRACE_S` gets SIGKILL.
    """
    printed: list[bytes] = []
    with selectors.DefaultSelector() as waiting:
        events, inherited = _events_pipe(waiting, on_row)
        try:
            child = subprocess.Popen(
                [*command, *(f"--events={fd}" for fd in inherited)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                pass_fds=(*inherited, *site_processes.inherited()),
            )
        finally:
            for fd in inherited:
                os.close(fd)
        assert child.stdout is not None and child.stderr is not None
        waiting.register(child.stdout, selectors.EVENT_READ, printed.append)
        tell = _Lines(lambda line: on_line(line.decode(errors="replace")))
        waiting.register(child.stderr, selectors.EVENT_READ, tell)
        try:
            _read_all(waiting, child)
            tell.end()
        finally:
            _end_group(child)
            for fd in events:
                os.close(fd)
            child.stdout.close()
            child.stderr.close()
    return child.returncode, b"".join(printed).decode(errors="replace")


def run_json(
    command: Sequence[str],
    on_line: Callable[[str], None],
    on_row: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Run a `gristmill ... --json` and return its document; raises what it ended with, as if it had happened here."""
    code, printed = run_child(command, on_line, on_row)
    try:
        document = json.loads(printed)
    except ValueError:
        document = {}
    if code == 0:
        return document
    message = document.get("error") or _abrupt_end(command, code)
    raise error_class(document.get("kind", ""))(message)


def _abrupt_end(command: Sequence[str], code: int) -> str:
    """A process that left no message: the kernel's out-of-memory killer ends it by SIGKILL, native code by SIGSEGV."""
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    hint = "; out of memory, perhaps" if code == -signal.SIGKILL else ""
    return f"{' '.join(command[:6])} ... {how} and left no message{hint}; start it again, finished work is kept"


def error_class(kind: str) -> type[GristmillError]:
    """The class of that name in our error tree, so that the caller gives the same exit code."""
    found = getattr(errors, kind, GristmillError)
    is_ours = isinstance(found, type) and issubclass(found, GristmillError)
    return found if is_ours else GristmillError


def _events_pipe(
    waiting: selectors.BaseSelector, on_row: Callable[[dict[str, Any]], None] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The two ends of a pipe of rows, none if nobody wants them."""
    if on_row is None:
        return (), ()
    reading, writing = os.pipe()
    waiting.register(reading, selectors.EVENT_READ, _Lines(lambda line: on_row(json.loads(line))))
    return (reading,), (writing,)


def _read_all(waiting: selectors.BaseSelector, child: "subprocess.Popen[bytes]") -> None:
    """Hand on what the child writes until it has ended, whoever else still holds its pipes by then."""
    while waiting.get_map():
        ready = waiting.select(timeout=1.0)
        if not ready and child.poll() is not None:
            break
        for key, _ in ready:
            data = os.read(key.fd, 1 << 16)
            if data:
                key.data(data)
            else:
                waiting.unregister(key.fileobj)
    child.wait()


class _Lines:
    """Hands on whole lines of what comes in pieces."""

    def __init__(self, on_line: Callable[[bytes], None]) -> None:
        self._on_line, self._rest = on_line, b""

    def __call__(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._on_line(line)

    def end(self) -> None:
        """Hand on what came after the last end of a line."""
        if self._rest:
            self._on_line(self._rest)


def _end_group(child: "subprocess.Popen[bytes]") -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)  # to it alone: it stops its own workers in order
        with _patiently(), suppress(subprocess.TimeoutExpired):
            child.wait(STOP_GRACE_S)
    with suppress(ProcessLookupError, PermissionError):  # already empty, usually
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


@contextmanager
def _patiently() -> Iterator[None]:
    """Ignore a second SIGTERM within a site: worker and `down` may both ask, and the last checkpoint is worth the wait."""
    in_site = site_processes.role_file("run") is not None
    if not in_site or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

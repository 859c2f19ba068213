"""One child process that never outlives its parent, and whose own children never outlive it.

Training runs in one: a stuck native thread, a leak or a crash of it cannot take the flow along, and a cancelled flow can
end it for certain.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Thread

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


def run_child(command: Sequence[str], on_line: Callable[[str], None]) -> tuple[int, str]:
    """Run a command in a process group of its own; return its exit code and its stdout.

    Lines of its stderr go to `on_line` as they come. If waiting is broken off by any exception (a cancelled flow,
    Ctrl-C), the child gets SIGTERM, and what is left of its group after `STOP_GRACE_S` gets SIGKILL.
    """
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
        errors="replace",
    )
    assert child.stdout is not None and child.stderr is not None
    printed: list[str] = []
    reader = Thread(
        target=lambda out: printed.append(out.read()), args=(child.stdout,), daemon=True
    )
    reader.start()
    try:
        for line in child.stderr:
            on_line(line.rstrip("\n"))
        child.wait()
    finally:
        _end_group(child)
        reader.join()
        child.stdout.close()
        child.stderr.close()
    return child.returncode, "".join(printed)


def _end_group(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)  # to it alone: it stops its own workers in order
        with suppress(subprocess.TimeoutExpired):
            child.wait(STOP_GRACE_S)
    with suppress(ProcessLookupError, PermissionError):  # already empty, usually
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()

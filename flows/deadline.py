"""A limit of hours that really ends the work: first by an exception, then, if that does not help, by SIGKILL.

Prefect's own timeouts wait for native code as long as it likes. Here a small process of its own watches the clock, because
no thread runs while native code holds the interpreter's lock.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from flows.process import STOP_GRACE_S
from flows.site_processes import inherited
from pipeline.display import duration
from storage.errors import OutOfTime

GRACE_S = STOP_GRACE_S + 30.0
"""Seconds to unwind in, from the limit to SIGKILL; a training process has its own grace within it."""


class TimeIsUp(BaseException):
    """Raised in the main thread at the limit. No Exception, so that code which survives bad input does not survive it."""


@contextmanager
def deadline(hours: float | None, what: str, *, grace_s: float = GRACE_S) -> Iterator[None]:
    """End the block after so many hours (None or 0: never) with OutOfTime; for the main thread only.

    `what` ("building 'x'") is what the message says was stopped. At the limit worker processes are killed and TimeIsUp is
    raised where the main thread is. Has the block not ended `grace_s` seconds later, this process is killed: with
    its group if it leads one, as every process of a Prefect worker does. Then nobody is left to name the state, and
    the worker reports a crash.
    """
    if not hours:
        yield
        return
    is_up = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal is_up
        is_up = True
        for worker in multiprocessing.active_children():  # or the pool would wait for their shards
            worker.kill()
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, interrupt)
    watchdog = subprocess.Popen(
        [sys.executable, "-S", "-c", _WATCHDOG, str(os.getpid()), str(hours * 3600), str(grace_s)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=inherited(),
    )
    try:
        yield
    except BaseException:
        # Whatever the interruption broke on its way out (a pool without workers, say), this is why.
        if is_up:
            raise OutOfTime(
                f"{what}: stopped after {duration(hours * 3600)}, the limit that it was given; finished work is kept, "
                "and the next run goes on"
            ) from None
        raise
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        watchdog.kill()
        watchdog.communicate()
        signal.signal(signal.SIGALRM, before)


# Stdin is a pipe that the watched process holds open: its end, however it came, ends the watchdog.
_WATCHDOG = """
import os, select, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
pid, limit_s, grace_s = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
if not select.select([0], [], [], limit_s)[0]:
    os.kill(pid, signal.SIGALRM)
    if not select.select([0], [], [], grace_s)[0]:
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
"""

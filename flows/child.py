"""`python -m flows.child ROLE MODULE ARGUMENT...`: run a module as a process of the site, which ends with its parent.

`gristmill up` starts the server and the worker so, and the worker each flow run. If `up` is killed, server and worker
are killed with it, and a flow run stops in order: its training still writes a checkpoint.
"""

import os
import runpy
import signal
import sys
import threading
import time

from flows.process import STOP_GRACE_S, die_with
from flows.site_processes import PARENT_VARIABLE, join
from storage.errors import GristmillError

LAST_WORDS_S = 30.0
"""Time for a flow run without a parent to tell the server how it ended, after its work has; the server may be gone."""


def main() -> None:
    """Become known as a process of the site, be bound to its parent, then become the module."""
    role, module = sys.argv[1], sys.argv[2]
    parent = int(os.environ.get(PARENT_VARIABLE) or os.getppid())
    if role == "run":
        os.setsid()  # Prefect starts it in the worker's group
        join(role)
        _end_with(parent)
    else:
        die_with(parent)
        join(role)
    os.environ[PARENT_VARIABLE] = str(os.getpid())
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with(parent: int) -> None:
    if os.getppid() != parent:
        raise GristmillError(f"started by process {parent}, which is gone; nothing to do")

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP_GRACE_S + LAST_WORDS_S)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


if __name__ == "__main__":
    main()

"""Run one function over many items, here or in several processes, with the same results.

The unit of work is a shard (seconds to minutes), so that neither start-up nor pickling matters.
"""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TypeVar

from storage.errors import ConfigError, GristmillError

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Executor:
    """Serial with one worker, processes with more. Results come as they finish, so callers order them by name."""

    workers: int = 1
    """Processes; 1 runs everything in this one."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"--workers: expected at least 1, got {self.workers}")

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Yield `function(item)` for each item, in order of completion. The first exception ends the whole.

        Raises GristmillError if a worker dies (killed for memory, say); finished work is on disk by then.
        """
        if self.workers == 1 or len(items) < 2:
            yield from map(function, items)
            return
        # forkserver: a fork of a process with threads (Arrow's, OpenMP's) may hang in the child.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["pipeline.build"])  # imported once, not by every worker
        with ProcessPoolExecutor(
            min(self.workers, len(items)), mp_context=context, initializer=_start_worker
        ) as pool:
            futures = [pool.submit(function, item) for item in items]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BrokenProcessPool as error:
                logger.warning("a worker process died; %d items were to do", len(items))
                raise GristmillError(
                    f"a worker process ended before its work was done ({error}); usually the machine ran out of "
                    "memory: use fewer --workers and run the same command again, finished shards are kept"
                ) from error
            finally:
                for future in futures:
                    future.cancel()


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and die with it: a kill -9 of the parent must leave nothing running."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()


def _end_with_parent() -> None:
    # Not PR_SET_PDEATHSIG: it watches the fork server, which lives on as long as any of its workers. The sentinel is a
    # pipe that the process with the pool holds open.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


def default_workers() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""Run one function over many items, here, in several processes or on a cluster, with the same results.

The unit of work is a shard (seconds to minutes), so that neither start-up nor pickling matters. Where it ran is no part
of what a snapshot is: it enters neither the recipe nor a fingerprint.
"""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

from pipeline.clusters import (
    NO_WORKERS_S,
    Cluster,
    check_machines,
    connect,
    pack_task,
    read_outcome,
)
from storage.errors import ConfigError, GristmillError
from storage.holders import hold
from storage.lake import Lake

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


KINDS = ("serial", "processes", "ray", "dask")
"""Where work can run."""

TASKS_PER_SLOT = 2
"""Tasks in flight for each that a cluster does at a time: the next one is there when one ends, and no more is pickled."""

POLL_S = 1.0
"""How often a wait looks whether the cluster is still there."""


@dataclass(frozen=True, kw_only=True)
class Executor:
    """Where and how wide work runs. Results come as they finish, so callers order them by name."""

    kind: str = "processes"
    """serial: in this process; processes: of this machine; ray, dask: on a cluster."""
    workers: int | None = None
    """Tasks at a time; 1 with `processes` runs everything in this one. None: one here, and all that a cluster has."""
    address: str = ""
    """Of a running cluster (Ray: HOST:PORT, auto or ray://HOST:PORT; Dask: tcp://HOST:PORT); empty: start one here."""
    held: Path | None = field(default=None, repr=False, compare=False)
    """File that each worker process of this machine holds (`storage.holders`), so that others can find it."""
    cluster: Cluster | None = field(default=None, repr=False, compare=False)
    """The cluster that `ready` has connected to; without one, each `map` connects anew."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"--executor: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"--workers: expected at least 1, got {self.workers}")
        if self.kind == "serial" and (self.workers or 1) > 1:
            raise ConfigError(
                f"--executor serial: expected one worker, got {self.workers}; leave --workers out, or use processes"
            )
        if self.address and not self._is_cluster:
            raise ConfigError(
                f"--address {self.address}: '{self.kind}' has none; add --executor ray or --executor dask"
            )

    @property
    def _is_cluster(self) -> bool:
        return self.kind in ("ray", "dask")

    @property
    def is_here(self) -> bool:
        """Whether everything runs in this process."""
        return not self._is_cluster and (self.workers or 1) == 1

    @property
    def is_local(self) -> bool:
        """Whether everything runs on this machine, and so reads the files that this process writes anywhere."""
        return not self.address

    @contextmanager
    def ready(self, lake: Lake | None = None, *folders: Path) -> Iterator["Executor"]:
        """An executor whose `map`s share one connection to the cluster, until the block ends.

        Raises ConfigError before any work if the cluster is not to be had, if its machines have other versions, or if
        they do not see the lake and the folders. Without a cluster there is nothing to do, and it is the same executor.
        """
        if not self._is_cluster or self.cluster is not None:
            yield self
            return
        with connect(self.kind, self.workers or default_workers(), self.address) as cluster:
            check_machines(cluster, lake, folders)
            yield replace(self, cluster=cluster)

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Yield `function(item)` for each item, in order of completion. The first exception ends the whole.

        `function` must be importable, and items and results picklable. Raises GristmillError if a worker dies (killed
        for memory, say); finished work is on disk by then.
        """
        if len(items) < 2 or self.is_here:
            yield from map(function, items)
        elif self._is_cluster:
            with self.ready() as executor:
                assert executor.cluster is not None
                yield from _map_on_cluster(executor.cluster, self._at_a_time, function, items)
        else:
            yield from _map_in_processes(self.workers or 1, self.held, function, items)

    @property
    def _at_a_time(self) -> int | None:
        """Limit on tasks in flight, beside the one that the cluster's size sets."""
        return self.workers if self.address else None


def _map_on_cluster(
    cluster: Cluster,
    at_a_time: int | None,
    function: Callable[[Item], Result],
    items: Sequence[Item],
) -> Iterator[Result]:
    todo, left, pending = iter(items), len(items), set()
    last_seen = time.monotonic()
    try:
        while True:
            slots = cluster.slots()
            limit = min(TASKS_PER_SLOT * slots, at_a_time or len(items))
            for item in islice(todo, max(limit - len(pending), 0)):
                pending.add(cluster.submit(pack_task(function, item)))
                left -= 1
            if not pending and not left:
                return
            finished = cluster.finished(pending, POLL_S) if pending else []
            for future in finished:
                pending.remove(future)
                yield read_outcome(cluster.outcome(future))
            if slots or finished:
                last_seen = time.monotonic()
            elif time.monotonic() - last_seen > NO_WORKERS_S:
                raise GristmillError(
                    f"{cluster.name} has had no worker for {NO_WORKERS_S:.0f} s; start some, and run the same command "
                    "again: finished shards are kept"
                )
            elif not pending:
                time.sleep(POLL_S)
    finally:
        cluster.cancel(pending)


def _map_in_processes(
    workers: int,
    held: Path | None,
    function: Callable[[Item], Result],
    items: Sequence[Item],
) -> Iterator[Result]:
    # forkserver: a fork of a process with threads (Arrow's, OpenMP's) may hang in the child.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.build"])  # imported once, not by every worker
    with ProcessPoolExecutor(
        min(workers, len(items)),
        mp_context=context,
        initializer=_start_worker,
        initargs=(held,),
    ) as pool:
        futures: list[Future[Result]] = []
        try:
            with _interrupts_held():
                futures += [pool.submit(function, item) for item in items]
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


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes that are started in the block never see Ctrl-C, not even while they import; this one does, after it.

    A terminal sends it to all of them, and the fork server would answer with the traceback of an import.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(held: Path | None) -> None:
    """Be known to others, leave Ctrl-C to the parent, and die with it: a kill -9 of the parent must leave nothing running."""
    if held is not None:
        hold(held)
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

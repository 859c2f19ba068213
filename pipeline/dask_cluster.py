"""Dask behind the interface of `pipeline.clusters`. Importing this module needs no Dask, using it does."""

import logging
import signal
import warnings
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from pipeline.clusters import Cluster, died, do_task, first_line, lost, missing, run_task, unable
from storage.errors import ConfigError

_DASK_OURS = {
    "distributed.scheduler.allowed-failures": 0,  # a deadly shard kills one worker
    "distributed.scheduler.worker-ttl": None,  # a shard may keep the interpreter's lock for minutes
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


@contextmanager
def join(workers: int, address: str) -> Iterator[Cluster]:
    """Connect to the cluster at the address, or start one; both end with the block. Raises ConfigError."""
    dask, distributed = _import_dask()
    name = f"the Dask cluster at {address}" if address else "our Dask cluster"
    with ExitStack() as stack:
        where: Any = address
        # What it says of lost workers and connections we say ourselves, in an exception.
        for logger in ("distributed", "distributed.client"):
            logging.getLogger(logger).setLevel(logging.CRITICAL)
        if not address:
            with dask.config.set(_DASK_OURS):
                where = stack.enter_context(
                    distributed.LocalCluster(
                        n_workers=workers,
                        threads_per_worker=1,
                        host="127.0.0.1",
                        security=True,  # TLS with keys of its own
                        dashboard_address=None,
                        scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
                        memory_limit=0,
                        silence_logs=logging.CRITICAL,
                        preload=[__name__],
                    )
                )
        try:
            with warnings.catch_warnings():
                # Versions of msgpack and the like: those that matter to us we compare ourselves.
                warnings.simplefilter("ignore")
                client = distributed.Client(where, set_as_default=False, name="gristmill")
        except (OSError, ValueError, ImportError) as error:
            raise ConfigError(
                f"--executor dask: {name} cannot be used: {first_line(error)}"
            ) from error
        yield DaskCluster(name, not address, stack.enter_context(client), distributed)


def dask_setup(worker: Any) -> None:
    """Called by Dask in each worker that we start: Ctrl-C is the parent's, who ends them in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True)
class DaskCluster:
    """A Dask cluster that this process is connected to."""

    name: str
    is_ours: bool
    client: Any
    distributed: Any
    """The module `distributed`."""

    def slots(self) -> int:
        """Worker processes, whatever threads they have: `run_task` lets one run at a time."""
        with self._connected():
            return len(self.client.nthreads())

    def submit(self, task: bytes) -> Any:
        """Queue the task."""
        with self._connected():
            return self.client.submit(run_task, task, pure=False)

    def finished(self, futures: Collection[Any], timeout_s: float) -> list[Any]:
        """All that are done."""
        with self._connected(), self.client.as_current(), suppress(TimeoutError):
            first = "FIRST_COMPLETED"
            return list(self.distributed.wait(list(futures), timeout_s, first).done)
        return []

    def outcome(self, future: Any) -> bytes:
        """Fetch it."""
        with self._connected():
            return future.result()

    def cancel(self, futures: Collection[Any]) -> None:
        """Drop them. Dask cannot stop what runs: on a cluster of others' it runs to its end, and does no harm."""
        with suppress(Exception):  # on the way out, perhaps because there is no connection
            self.client.cancel(list(futures))

    def on_each_machine(self, task: bytes) -> list[bytes]:
        """On each worker, in the thread that talks to the scheduler: it must not wait for the task that runs."""
        try:
            return list(self.client.run(do_task, task).values())
        except Exception as error:  # whatever came of importing our packages there
            raise unable(self.name, error) from error

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """`run_task` raises nothing, so whatever comes through here is the cluster's."""
        try:
            yield
        except self.distributed.KilledWorker as error:
            raise died(self.name, f"at {error.last_worker.address}") from error
        except Exception as error:
            raise lost(self.name, error) from error


def _import_dask() -> tuple[Any, Any]:
    try:
        import cryptography  # noqa: F401  # late, as the next two: an extra; for TLS
        import dask  # pyright: ignore[reportMissingImports]
        import distributed  # pyright: ignore[reportMissingImports]

        return dask, distributed
    except ImportError as error:
        raise missing("dask", error) from error

"""Ray behind the interface of `pipeline.clusters`. Importing this module needs no Ray, using it does."""

import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.clusters import (
    NO_WORKERS_S,
    Cluster,
    died,
    first_line,
    missing,
    run_task,
    unable,
)
from storage.errors import ConfigError

CONNECT_S = 10.0
"""How long a cluster's head may take to accept a connection."""

_RAY_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` Ray would upload the working directory
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or it warns of what it will do one day
    # What Ray says of dead workers would go to stdout, which holds the result alone: skip whatever matches.
    "RAY_DEDUP_LOGS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",
}
_RAY_OURS = {
    "RAY_AUTH_MODE": "token",
    # Named for other systems, on which Ray has no clusters: everything is bound to 127.0.0.1.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
_RAY_STORE_BYTES = 80_000_000  # the least that Ray takes; our tasks and outcomes are kilobytes


@contextmanager
def join(workers: int, address: str) -> Iterator[Cluster]:
    """Connect to the cluster at the address, or start one; both end with the block. Raises ConfigError."""
    name = f"the Ray cluster at {address}" if address else "our Ray cluster"
    with ExitStack() as stack:
        token = {} if address else {**_RAY_OURS, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        stack.enter_context(_environment({**_RAY_QUIET, **token}))
        ray = _import_ray()
        if ray.is_initialized():
            raise ConfigError(
                "--executor ray: this process is connected to Ray already; one at a time is all that Ray does"
            )
        options: dict[str, Any] = {"address": address}
        if address:
            _check_listening(address)
        else:
            folder = _short_folder()
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            options = {
                "address": "local",
                "num_cpus": workers,
                "include_dashboard": False,
                "object_store_memory": _RAY_STORE_BYTES,
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": folder,
            }
        stack.callback(ray.shutdown)
        with _own_signals():
            try:
                ray.init(**options, log_to_driver=False, logging_level=logging.CRITICAL)
            except SystemExit:  # Ray's handler of SIGTERM, which is in force during init
                raise KeyboardInterrupt from None
            except Exception as error:  # ConnectionError, ValueError, RuntimeError, gRPC's own
                raise ConfigError(
                    f"--executor ray: {name} cannot be used: {first_line(error)}"
                ) from error
        yield RayCluster(name, not address, ray, ray.remote(num_cpus=1, max_retries=0)(run_task))


@dataclass(frozen=True)
class RayCluster:
    """A Ray cluster that this process is connected to."""

    name: str
    is_ours: bool
    ray: Any
    """The module `ray`."""
    run: Any
    """`run_task` as a remote function: one core, and not tried again, so that a deadly shard kills one worker."""

    def slots(self) -> int:
        """Cores of the machines that are there."""
        return int(self.ray.cluster_resources().get("CPU", 0))

    def submit(self, task: bytes) -> Any:
        """Queue the task."""
        return self.run.remote(task)

    def finished(self, futures: Collection[Any], timeout_s: float) -> list[Any]:
        """The first one, if there is any."""
        return self.ray.wait(list(futures), num_returns=1, timeout=timeout_s)[0]

    def outcome(self, future: Any) -> bytes:
        """Fetch it."""
        try:
            return self.ray.get(future)
        except self.ray.exceptions.RayError as error:
            raise died(self.name, type(error).__name__) from error

    def cancel(self, futures: Collection[Any]) -> None:
        """Nothing: they are few, and Ray ends what is left of them when this process disconnects.

        Not `ray.cancel`: should a task end just then, Ray 2.60 finds its own state inconsistent and aborts this process.
        """

    def on_each_machine(self, task: bytes) -> list[bytes]:
        """One task a machine that has cores, beside whatever else it does."""
        from ray.util.scheduling_strategies import (  # pyright: ignore[reportMissingImports]
            NodeAffinitySchedulingStrategy,  # late, as `ray` is
        )

        nodes = [node for node in self.ray.nodes() if node["Alive"]]
        futures = [
            self.run.options(
                num_cpus=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], False),
            ).remote(task)
            for node in nodes
            if node["Resources"].get("CPU")
        ]
        try:
            return self.ray.get(futures, timeout=NO_WORKERS_S)
        except self.ray.exceptions.RayError as error:
            raise unable(self.name, error) from error


def _check_listening(address: str) -> None:
    """Ask whether anybody is there at all: Ray itself would try for minutes, and then end the process."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:  # "auto" and the like
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise ConfigError(f"--address {address}: no Ray cluster answers there ({error})") from error


def _import_ray() -> Any:
    try:
        import ray  # pyright: ignore[reportMissingImports]  # late: an extra
        import ray.exceptions  # pyright: ignore[reportMissingImports]

        return ray
    except ImportError as error:
        raise missing("ray", error) from error


def _short_folder() -> str:
    """A new folder for Ray's sockets, whose paths must be shorter than 108 bytes."""
    usual = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="gristmill-ray-", dir=usual if len(usual) < 24 else "/tmp")


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables for Ray, which has no other way; afterwards all is as before."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handlers of SIGINT and SIGTERM: `ray.init` puts its own in their place."""
    if threading.current_thread() is not threading.main_thread():
        yield  # neither Ray nor we may set handlers there
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""What the executor needs of a cluster, whichever it is: a task goes out as bytes, its outcome comes back as bytes.

`pipeline.executor` drives it; Ray and Dask stand in modules of their own, imported when somebody asks for them. A cluster
that we start is this machine's alone: it listens on 127.0.0.1, lets in only who knows its secret, has no dashboard,
reports to nobody, and ends with this process. One that was given by its address is left as it was found.
"""

import logging
import os
import pickle
import platform
import secrets
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, requires
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from packaging.requirements import Requirement

from storage.errors import ConfigError, GristmillError
from storage.lake import Lake

logger = logging.getLogger(__name__)

NO_WORKERS_S = 60.0
"""How long a cluster may be without any worker: as long as a cloud takes to start a machine, roughly."""


class Cluster(Protocol):
    """What the executor needs of a cluster. A future is whatever `submit` gives; it can be hashed."""

    @property
    def name(self) -> str:
        """For messages: "the Ray cluster at HOST:PORT", say."""
        ...

    @property
    def is_ours(self) -> bool:
        """Started by us, on this machine."""
        ...

    def slots(self) -> int:
        """Tasks that it does at a time, as of now; clusters grow and shrink."""
        ...

    def submit(self, task: bytes) -> Any:
        """Have `run_task(task)` done by a worker."""
        ...

    def finished(self, futures: Collection[Any], timeout_s: float) -> list[Any]:
        """Those that are done, none if that takes longer than `timeout_s`. Raises GristmillError without connection."""
        ...

    def outcome(self, future: Any) -> bytes:
        """What `run_task` returned. Raises GristmillError if its worker died."""
        ...

    def cancel(self, futures: Collection[Any]) -> None:
        """Drop them; those that run may run to their end."""
        ...

    def on_each_machine(self, task: bytes) -> list[bytes]:
        """What `do_task(task)` returns on each machine (or worker), however busy. Raises ConfigError if one cannot run it."""
        ...


# --- on a worker -------------------------------------------------------------------------------

_one_at_a_time = (
    threading.Lock()
)  # a Dask worker may have several threads; a stage has its process to itself


def pack_task(function: Callable[[Any], Any], item: Any) -> bytes:
    """What `run_task` takes: `function(item)`, to be run by the same versions as here."""
    return pickle.dumps((_versions(), pickle.dumps((function, item))))


def run_task(task: bytes) -> bytes:
    """Do a task on a worker, and return its outcome: a result, or the exception that came of it."""
    with _one_at_a_time:
        return do_task(task)


def do_task(task: bytes) -> bytes:
    """What `run_task` does, beside another task: for a moment's look at a worker, not for work."""
    try:
        versions, call = pickle.loads(task)
        _check_versions(versions)
        function, item = pickle.loads(call)
        return pickle.dumps((function(item), None))
    except Exception as error:
        where = f"{socket.gethostname()}, process {os.getpid()}"
        error.add_note(f"on {where}:\n{traceback.format_exc()}")
        return _pack_error(error)


def read_outcome(outcome: bytes) -> Any:
    """The result of a task; an exception of the task is raised here as it was raised there."""
    result, error = pickle.loads(outcome)
    if error is not None:
        raise error
    return result


def _pack_error(error: Exception) -> bytes:
    try:
        outcome = pickle.dumps((None, error))
        pickle.loads(outcome)  # what __init__ demands may not be among the arguments that are kept
        return outcome
    except Exception:  # somebody's class, so whatever it likes
        plain = RuntimeError(f"{type(error).__name__}: {error}")
        for note in error.__notes__:
            plain.add_note(note)
        return pickle.dumps((None, plain))


def _versions() -> dict[str, str]:
    return {
        "gristmill": package_version("gristmill"),
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "pyarrow": pa.__version__,
    }


def _check_versions(driver: dict[str, str]) -> None:
    worker = _versions()
    for package, expected in driver.items():
        if worker[package] != expected:
            raise ConfigError(
                f"--executor: the worker on {socket.gethostname()} has {package} {worker[package]}, expected {expected} "
                "as here; other versions may give other bytes: install the same on all machines of the cluster"
            )


# --- before the work ---------------------------------------------------------------------------


def check_machines(cluster: Cluster, lake: Lake | None, folders: Sequence[Path] = ()) -> None:
    """Fail now, not after hours: each machine needs our versions, the lake, and the folders of the inputs.

    For the lake a file is written and each machine reads it. Raises ConfigError with what is missing, and where.
    """
    if lake is None or cluster.is_ours:
        for outcome in cluster.on_each_machine(pack_task(_look, (None, "", b"", []))):
            read_outcome(outcome)
        return
    secret = secrets.token_hex(8)
    path, data = f"locks/probe-{secret}", secret.encode()
    lake.write_bytes(path, data)
    try:
        task = pack_task(_look, (lake, path, data, [str(folder) for folder in folders]))
        for outcome in cluster.on_each_machine(task):
            host, problem = read_outcome(outcome)
            if problem:
                raise ConfigError(
                    f"--lake {lake}: {cluster.name} has a worker on {host} that {problem}; "
                    "lake and inputs need paths that lead all machines to the same files "
                    "(a network file system at one place, or for the lake s3://bucket/prefix)"
                )
    finally:
        lake.delete(path)


def _look(what: tuple[Lake | None, str, bytes, list[str]]) -> tuple[str, str]:
    """On a worker: its host's name, and what it does not see."""
    lake, path, data, folders = what
    host = socket.gethostname()
    if lake is not None:
        try:
            if lake.read_bytes(path) != data:
                return host, f"reads something else from {lake.where(path)}"
        except GristmillError as error:
            return host, f"cannot read what was just written to the lake ({error})"
    missing = [folder for folder in folders if not Path(folder).is_dir()]
    return host, f"does not see the folder {missing[0]}" if missing else ""


@contextmanager
def connect(kind: str, workers: int, address: str) -> Iterator[Cluster]:
    """Join the cluster at `address`, or start one with so many workers for the time of the block.

    Raises ConfigError if the package is not installed, or if nobody answers there.
    """
    if kind == "ray":
        from pipeline.ray_cluster import join  # late: an extra
    else:
        from pipeline.dask_cluster import join  # late: an extra
    start = time.monotonic()
    with join(workers, address) as cluster:
        while not cluster.slots():
            if time.monotonic() - start > NO_WORKERS_S:
                raise ConfigError(
                    f"--address {address}: expected workers, got none within {NO_WORKERS_S:.0f} s; start some"
                )
            time.sleep(0.2)
        logger.info("%s: %d tasks at a time", cluster.name, cluster.slots())
        yield cluster


# --- messages ----------------------------------------------------------------------------------


def missing(extra: str, error: ImportError) -> ConfigError:
    """A package of an extra is not there."""
    return ConfigError(
        f"--executor {extra}: the package is not installed for {sys.executable} ({error}); "
        f"install it with: {how_to_install(extra)}"
    )


def how_to_install(extra: str) -> str:
    """The command that installs an extra: by its packages, or within a clone.

    Never by our own name: no index has it, so there anybody could take it.
    """
    in_clone = f"pip install -e '.[{extra}]'"
    with suppress(PackageNotFoundError):
        wanted = [Requirement(text) for text in requires("gristmill") or []]
        needed = [one for one in wanted if one.marker and one.marker.evaluate({"extra": extra})]
        names = [f"'{str(one).partition(';')[0].strip()}'" for one in needed]
        return f"pip install {' '.join(names)} (in a clone of gristmill also: {in_clone})"
    return f"{in_clone} in the clone of gristmill"


def unable(name: str, error: BaseException) -> ConfigError:
    """A worker could not even begin with `run_task`."""
    return ConfigError(
        f"--executor: a worker of {name} cannot do our work: {_last_line(error)}; "
        "every machine of the cluster needs gristmill, in the environment that its workers run in"
    )


def died(name: str, how: str) -> GristmillError:
    """A worker ended while it had a task."""
    return GristmillError(
        f"{name}: a worker ended before its work was done ({how}); usually its machine ran out of memory: "
        "use fewer --workers and run the same command again, finished shards are kept"
    )


def lost(name: str, error: BaseException) -> GristmillError:
    """The connection ended."""
    return GristmillError(
        f"{name}: the connection was lost ({type(error).__name__}: {first_line(error)}); "
        "once it is there again, run the same command again: finished shards are kept"
    )


def first_line(error: BaseException) -> str:
    """Of its message, or its class if it has none."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__

"""Where a build or `dedup` runs: `--executor` and `--address`, or their environment variables, as an Executor.

It decides nothing about what is made, so it is no part of a recipe. A flow reads the variables of the process that it
runs in: those of a site reach its worker, and so every build that the site starts.
"""

import os

from flows.site_processes import role_file
from pipeline.executor import Executor, default_workers

EXECUTOR_VARIABLE = "GRISTMILL_EXECUTOR"
"""processes (the default), serial, ray or dask."""
ADDRESS_VARIABLE = "GRISTMILL_ADDRESS"
"""Of a running Ray or Dask cluster."""


def chosen_executor(workers: int | None, kind: str = "", address: str = "") -> Executor:
    """What the options say, or the environment where they are empty. Raises ConfigError on a contradiction.

    Without `workers`: the cores of this machine, or all that the cluster at the address has.
    """
    kind = kind or os.environ.get(EXECUTOR_VARIABLE, "") or "processes"
    address = address or os.environ.get(ADDRESS_VARIABLE, "")
    if workers is None and kind != "serial" and not address:
        workers = default_workers()
    return Executor(kind=kind, workers=workers, address=address, held=role_file("work"))


def remember(executor: Executor) -> None:
    """Have the flows of this process run there too."""
    os.environ[EXECUTOR_VARIABLE] = executor.kind
    os.environ[ADDRESS_VARIABLE] = executor.address

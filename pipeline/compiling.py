"""How loops are compiled by numba: once for one signature, kept on disk, by one process while the others wait."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
from numba import types


def compiled(*signature: types.Type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function for the one signature that it is called with, or load what an earlier process compiled."""

    def compile_function(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            dispatcher = numba.njit(nogil=True, cache=True)(function)
        except RuntimeError as error:
            if "cannot cache function" not in str(error):
                raise
            # Neither this folder nor the user's cache can be written: each process compiles, for some seconds.
            dispatcher = numba.njit(nogil=True)(function)
        with _one_at_a_time(dispatcher.stats.cache_path):
            dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher

    return compile_function


def read_only(dtype: types.Type) -> types.Array:
    """A flat array that the loop does not write; arrays that may be written can be given for it."""
    return types.Array(dtype, 1, "C", readonly=True)


@contextmanager
def _one_at_a_time(folder: str | None) -> Iterator[None]:
    """Let one process compile into the folder and the others wait for it: they find what it made."""
    if folder is None:
        yield
        return
    # Opened for reading, so that several users may share a folder.
    lock = os.open(Path(folder) / "gristmill-kernels.lock", os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)

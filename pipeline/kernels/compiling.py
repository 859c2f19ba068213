"""How loops are compiled by numba: once for one signature, kept on disk, by one process while the others wait."""

import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
from numba import types
from numba.core.caching import FunctionCache

# Numba's mathematics asks whether scipy's linear algebra can be imported, which takes a fifth of a second. No loop here
# uses it, so it is promised for that moment; a loop of another package finds the real one, by name.
_PROMISED = {"scipy.linalg", "scipy.linalg.cython_blas"} - sys.modules.keys()
sys.modules.update((name, ModuleType(name)) for name in _PROMISED)
import_module("numba.np.arraymath")
for name in _PROMISED:
    del sys.modules[name]


class _Cache(FunctionCache):
    """Numba's own, which looks at one file's age to tell whether what it kept is still right: loops use each other."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        stamp = _digest(Path(function.__code__.co_filename).parent)
        self._cache_file._source_stamp = stamp


@cache
def _digest(folder: Path) -> str:
    """Hash of all Python files of a folder."""
    digest = sha256()
    for file in sorted(folder.glob("*.py")):
        digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()


def compiled(*signature: types.Type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function for the one signature that it is called with, or load what an earlier process compiled.

    What was compiled is used again until a file of the function's folder changes.
    """

    def compile_function(function: Callable[..., Any]) -> Callable[..., Any]:
        dispatcher: Any = numba.njit(nogil=True)(function)
        try:
            dispatcher._cache = _Cache(function)
        except RuntimeError as error:
            if "cannot cache function" not in str(error):
                raise
            # Neither this folder nor the user's cache can be written: each process compiles, for some seconds.
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

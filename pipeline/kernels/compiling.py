"""How loops are compiled by numba: once for one signature, kept on disk, by one process while the others wait."""

import logging
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, cached_property
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import llvmlite
import numba
import numpy as np
from numba import types
from numba.core import compiler, registry, serialize
from numba.core.caching import NullCache

from pipeline.kernels import kept
from pipeline.kernels.kept import Found
from storage.errors import ConfigError

logger = logging.getLogger(__name__)

# Numba's mathematics asks whether scipy's linear algebra can be imported, which takes a fifth of a second. No loop here
# uses it, so it is promised for that moment; a loop of another package finds the real one, by name.
_PROMISED = {"scipy.linalg", "scipy.linalg.cython_blas"} - sys.modules.keys()
sys.modules.update((name, ModuleType(name)) for name in _PROMISED)
import_module("numba.np.arraymath")
for name in _PROMISED:
    del sys.modules[name]

if numba.config.DISABLE_JIT:
    raise ConfigError("NUMBA_DISABLE_JIT is set, and the loops are too slow uncompiled: unset it")


class Loop:
    """A function that is compiled for one signature, or loaded, when it is first called."""

    def __init__(self, function: FunctionType, signature: tuple[types.Type, ...]) -> None:
        self.function = function
        self.signature = signature
        self.num_compiled = 0
        """How often this process has compiled it: 1, or 0 if it was loaded."""

    def __call__(self, *arguments: Any) -> Any:
        return self._compiled(*arguments)

    def compile(self) -> None:
        """Compile or load it now. What cannot be kept is compiled by each process, in seconds."""
        _ = self._compiled

    @cached_property
    def _compiled(self) -> Any:
        dispatcher: Any = numba.njit(nogil=True)(self.function)
        dispatcher._cache = _Kept(self)
        found = self.look()
        is_kept = found is not None and not found.problem
        with nullcontext() if is_kept else kept.one_at_a_time(self.paths, self._source):
            dispatcher.compile(self.signature)
        dispatcher.disable_compile()
        return dispatcher

    def look(self) -> Found | None:
        """The file to load, or else one that lies there and cannot be used; None if there is neither."""
        found = [kept.look(path, self._stamp, self._source) for path in self.paths]
        usable = (file for file in found if file is not None and not file.problem)
        return next(usable, next(filter(None, found), None))

    def load(self) -> Any:
        """What numba made once, for its own use; None if there is nothing sound."""
        for path in self.paths:
            found = kept.look(path, self._stamp, self._source)
            if found is None:
                continue
            if found.problem:
                logger.info("%s %s: compiling the loop again", found.path, found.problem)
                continue
            try:
                context = registry.cpu_target.target_context
                return compiler.CompileResult._rebuild(context, *serialize.pickle.loads(found.data))
            except (
                Exception
            ) as error:  # whatever pickle and LLVM make of a build of theirs that is not the same
                logger.info("%s cannot be loaded (%s): compiling the loop again", path, error)
        return None

    def save(self, result: Any) -> None:
        """Keep what numba made, in the first folder that takes it."""
        self.num_compiled += 1
        data = serialize.dumps(result._reduce())
        for path in self.paths:
            try:
                kept.write(path, self._stamp, data)
                return
            except OSError as error:
                logger.info("%s: cannot be written: %s", path, error.strerror)

    @property
    def _source(self) -> Path:
        return Path(self.function.__code__.co_filename)

    @property
    def _stamp(self) -> bytes:
        return _digest(self._source.parent, self.function.__module__.partition(".")[0])

    @cached_property
    def paths(self) -> list[Path]:
        """Where it may lie, best first; the name holds all that the same source may be compiled for.

        None for a function without a source file, of which nothing tells whether it has changed.
        """
        if not self._source.is_file():
            return []
        versions = sys.version, numba.__version__, llvmlite.__version__, np.__version__
        processor = registry.cpu_target.target_context.codegen().magic_tuple()
        key = sha256(repr((versions, processor, self.signature)).encode()).hexdigest()[:16]
        name = f"{self._source.stem}.{self.function.__name__}-{key}.nbc"
        return [
            folder / name for folder in kept.folders_for(self._source, numba.config.CACHE_DIR or "")
        ]


class _Kept(NullCache):
    """What a dispatcher of numba asks before and after it compiles."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        target_context.refresh()
        return self._loop.load()

    def save_overload(self, sig: Any, cres: Any) -> None:
        self._loop.save(cres)


@cache
def _digest(folder: Path, package: str) -> bytes:
    """Hash of all Python files of a folder, since loops use each other, and of those of the package they import from."""
    files = {file: file.read_bytes() for file in sorted(folder.glob("*.py"))}
    imports = re.compile(rf"^from ({package}\.[\w.]+) import".encode(), re.MULTILINE)
    names = {name.decode() for source in files.values() for name in imports.findall(source)}
    specs = [find_spec(name) for name in sorted(names)]
    outside = {Path(spec.origin) for spec in specs if spec is not None and spec.origin} - set(files)
    digest = sha256()
    for source in (*files.values(), *(file.read_bytes() for file in sorted(outside))):
        digest.update(source + b"\0")
    return digest.digest()


def compiled(*signature: types.Type) -> Callable[[Callable[..., Any]], Loop]:
    """Compile a function for the one signature that it is called with, or load what an earlier process compiled.

    What was compiled is used again until a file of the function's folder, or one that they import from, changes.
    """
    return lambda function: Loop(function, signature)  # pyright: ignore[reportArgumentType]


def read_only(dtype: types.Type) -> types.Array:
    """A flat array that the loop does not write; arrays that may be written can be given for it."""
    return types.Array(dtype, 1, "C", readonly=True)

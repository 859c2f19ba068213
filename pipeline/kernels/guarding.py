"""`settle` once more, with the guard against templates: compiled only where somebody asks for it."""

from numba import types

from pipeline.kernels.compiling import compiled, read_only
from pipeline.kernels.settling import settle, signature

settle_guarded = compiled(*signature(read_only(types.uint64)))(settle.function)

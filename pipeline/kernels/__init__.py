"""The loops behind the pipeline, compiled by numba: Arrow's bytes and offsets in, hashes, signatures and verdicts out.

No Python object per document or word, and no lock of the interpreter while they run. A loop is compiled or loaded when
it is first called, `kernels.sign_texts(...)`; numba is imported when one is first named: that takes a third of a second,
and most commands do not need it.
What the loops compute is written where they are used; `tests/pipeline/` does the same slowly, with the same bits.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.kernels.compiling import Loop

_MODULES = {
    "squeeze": ["squeeze"],
    "unsettled": ["find_unsettled"],
    "measuring": ["measure_texts"],
    "shingles": ["shingle_texts"],
    "signatures": ["sign_texts", "sign", "band_keys"],
    "folding": ["fold_texts"],
    "sha1": ["sha1_starts"],
    "clusters": ["link_equal", "link_pairs", "find_roots", "copy_texts"],
    "owning": ["own_texts", "own_keys"],
    "settling": ["settle"],
    "guarding": ["settle_guarded"],
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
ALL = tuple(_MODULE_OF)
"""Names of all loops."""


def __getattr__(name: str) -> "Loop":
    """The loop of that name."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    loop = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = loop
    return loop

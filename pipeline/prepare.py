"""Compiles what a command will need before it needs it: once an installation, on all cores, with a word about it.

Without this, the first worker that comes to a loop compiles it while the others wait, and a first build seems to hang.
"""

import logging

from pipeline import kernels
from pipeline.dedup import DedupConfig
from pipeline.executor import Executor, default_workers
from pipeline.stage import Progress

logger = logging.getLogger(__name__)

_STAGE = "compiling, once"


def compile_loops(
    config: DedupConfig, executor: Executor, progress: Progress, *, filters: bool = True
) -> None:
    """Compile the loops of a build, or of a deduplication alone (no `filters`), that no earlier process has kept.

    Where all is kept, that is a look at a dozen files. Machines of a cluster elsewhere compile at their first use.
    """
    names = loops_of(config, filters=filters)
    missing = [name for name in names if not _is_kept(name)]
    if missing:
        logger.info("compiling %s", ", ".join(missing))
        workers = executor.workers or (1 if executor.is_here else default_workers())
        here = Executor(workers=min(workers, default_workers()))
        progress(_STAGE, 0, len(missing), "loops")
        for done, _ in enumerate(here.map(_compile, missing), 1):
            progress(_STAGE, done, len(missing), "loops")


def loops_of(config: DedupConfig, *, filters: bool = True) -> list[str]:
    """Names of the loops that such a build calls, those that take longest to compile first."""
    names = ["settle"]
    if config.template_share is not None:
        names.append("settle_guarded")
    if filters:
        names.append("measure_texts")
    names.append("shingle_texts")
    if config.hash == "sha1":
        names += ["sha1_starts", "copy_texts", "fold_texts", "sign"]
    else:
        names += ["copy_texts", "sign_texts"]
    if config.template_share is not None:
        names += ["own_texts", "own_keys"]
    return [*names, "squeeze", "band_keys", "link_equal", "link_pairs", "find_roots"]


def _is_kept(name: str) -> bool:
    found = getattr(kernels, name).look()
    return found is not None and not found.problem


def _compile(name: str) -> str:
    getattr(kernels, name).compile()
    return name

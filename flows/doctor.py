"""Is this installation sound? Versions, native parts, lake, processor, memory, disk, Prefect."""

import importlib
import os
import platform
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from packaging.requirements import Requirement

from flows.output import Output
from flows.server import DEFAULT_API_URL, prefect_answers
from pipeline.display import plural, size
from pipeline.recall_view import found_probability
from storage.errors import GristmillError
from storage.lake import Lake
from storage.redaction import without_secrets

if TYPE_CHECKING:
    from rich.console import Console

MIN_FREE_BYTES = 2 * 10**9
"""Disk that the quick start fits in many times over; a real corpus needs about four times its text."""

MIN_MEMORY_BYTES = 2 * 10**9
"""Peak of the quick start."""

NATIVE = (
    "pyarrow",
    "torch",
    "sentencepiece",
    "fastwarc.stream_io",
    "resiliparse.extract.html2text",
    "obstore",
    "orjson",
)
"""Parts in native code, which may be installed and still not load on an older system."""

PREFECT_PORT = 4200

SIMILARITIES = (0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""Where the recall curve of the bands is printed: it rises between the first and the last."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Literal["ok", "warning", "failed"]
    found: str
    advice: str = ""
    """What to do, if it is not ok."""


def report_health(output: Output, location: str) -> None:
    """Run all checks and print them; raises GristmillError (exit code 1) if one failed."""
    checks = list(run_checks(location))
    failed = [check for check in checks if check.status == "failed"]
    curve = None if failed else recall_curve()
    document = {
        "sound": not failed,
        "checks": [asdict(check) for check in checks],
        "near_duplicates": curve,
    }

    def show(console: "Console") -> None:
        from rich.table import Table  # late: --json does without
        from rich.text import Text

        table = Table(box=None, show_header=False)
        style = {"ok": "green", "warning": "yellow", "failed": "bold red"}
        for check in checks:
            advice = f"; {check.advice}" if check.advice else ""
            mark = Text(check.status, style=style[check.status])
            table.add_row(mark, Text(check.name), Text(check.found + advice))
        console.print(table)
        if curve is not None:
            _print_curve(console, curve)

    output.result(document, show)
    if failed:
        names = ", ".join(check.name for check in failed)
        raise GristmillError(f"doctor: {len(failed)} of {len(checks)} checks failed: {names}")


def recall_curve() -> dict[str, Any]:
    """How likely the default bands find a pair by its similarity; every pair found is then compared exactly."""
    from pipeline.dedup import DedupConfig  # late: if Arrow is broken, a check has to say so

    config = DedupConfig()
    bands, rows = config.bands, config.rows
    points = [
        {"similarity": s, "probability": round(found_probability(s, bands=bands, rows=rows), 6)}
        for s in SIMILARITIES
    ]
    return {"bands": bands, "rows": rows, "threshold": config.threshold, "curve": points}


def _print_curve(console: "Console", curve: dict[str, Any]) -> None:
    from rich.table import Table  # late, as above

    table = Table(box=None, pad_edge=False)
    for point in curve["curve"]:
        table.add_column(f"{point['similarity']:g}", justify="right")
    table.add_row(*(f"{point['probability']:.4f}" for point in curve["curve"]))
    console.print(
        f"\nNear-duplicates: how likely {curve['bands']} bands of {curve['rows']} find a pair, by its Jaccard similarity; "
        f"each found is compared exactly, the threshold is {curve['threshold']:g}"
    )
    console.print(table)


def run_checks(location: str) -> Iterator[Check]:
    """All checks, in the order they are shown."""
    yield _python()
    yield from _requirements()
    yield from (_loads(name) for name in NATIVE)
    yield _loops()
    yield _processor()
    yield _torch()
    yield _memory()
    yield _temporary_folder()
    yield from _lake(location)
    yield _prefect()


def _python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check("python", "ok", found)


def _requirements() -> Iterator[Check]:
    """Every dependency that the package itself declares; two of these pins decide whether Prefect works at all."""
    try:
        declared = [Requirement(text) for text in requires("gristmill") or []]
    except PackageNotFoundError:
        yield Check(
            "gristmill", "warning", "not installed, runs from its source", "pip install -e ."
        )
        return
    yield Check("gristmill", "ok", version("gristmill"))
    for requirement in declared:
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        wanted = f"{requirement.name}{requirement.specifier}"
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield Check(requirement.name, "failed", "not installed", f"pip install '{wanted}'")
            continue
        if requirement.specifier.contains(found, prereleases=True):
            yield Check(requirement.name, "ok", f"{found} ({requirement.specifier or 'any'})")
        else:
            yield Check(requirement.name, "failed", found, f"pip install '{wanted}'")


def _loads(name: str) -> Check:
    try:
        importlib.import_module(name)
    except Exception as error:  # whatever a broken native part may raise is the finding
        advice = "install it again"
        return Check(f"import {name}", "failed", f"{type(error).__name__}: {error}", advice)
    return Check(f"import {name}", "ok", "loads")


def _loops() -> Check:
    """Whether compiled loops are kept, and those that lie there can be used."""
    name = "compiled loops"
    try:
        from pipeline import kernels  # late, as torch below

        loops = [getattr(kernels, loop) for loop in kernels.ALL]
        files = [file for loop in loops if (file := loop.look()) is not None]
    except Exception as error:  # see _loads
        return Check(name, "failed", f"{type(error).__name__}: {error}", "install numba again")
    kept = [file for file in files if not file.problem]
    bad = [file for file in files if file.problem]
    folders = [path.parent for path in loops[0].paths]
    where = next((folder for folder in folders if _takes_files(folder)), None)
    if bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        advice = "not used; compiled again when next needed"
        return Check(name, "warning", f"{bad[0].path} {bad[0].problem}{more}", advice)
    if where is None and len(kept) < len(loops):
        tried = ", ".join(map(str, folders))
        advice = (
            "each process compiles again, half a minute: set NUMBA_CACHE_DIR to a folder of yours"
        )
        return Check(name, "warning", f"cannot be kept; tried {tried}", advice)
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen and not (where and where.is_relative_to(Path(chosen).absolute())):
        advice = "set NUMBA_CACHE_DIR to a folder of yours, or unset it"
        found = f"NUMBA_CACHE_DIR={chosen} cannot be written, {where} is used"
        return Check(name, "warning", found, advice)
    state = f"{len(kept)} of {len(loops)} kept" if kept else "compiled when first needed, once"
    return Check(name, "ok", f"{state}, in {kept[0].path.parent if kept else where}")


def _takes_files(folder: Path) -> bool:
    """Whether a file can be made in a folder, which is made if need be; nothing is left behind."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return True
    except OSError:
        return False


def _processor() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    flags = _cpu_flags()
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    present = ", ".join(flag for flag in wanted if flag in flags) or "no vector features known"
    found = f"{cores} cores; {present}"
    if flags and not {"avx512_bf16", "amx_bf16"} & flags:
        return Check("processor", "ok", f"{found}; no bf16, training uses fp32")
    return Check("processor", "ok", found)


def _cpu_flags() -> set[str]:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                return set(line.partition(":")[2].split())
    except OSError:  # not Linux
        pass
    return set()


def _torch() -> Check:
    try:
        import torch  # late: a broken installation of it must not hide the other checks

        cuda = torch.cuda.is_available()
        device = torch.cuda.get_device_name(0) if cuda else "no CUDA device"
        threads = torch.get_num_threads()
    except Exception as error:  # see _loads
        return Check(
            "torch device", "failed", f"{type(error).__name__}: {error}", "install torch again"
        )
    return Check("torch device", "ok", f"{device}; {plural(threads, 'thread')}")


def _memory() -> Check:
    free = _free_memory()
    if free is None:
        return Check("memory", "ok", "unknown")
    if free < MIN_MEMORY_BYTES:
        advice = (
            f"the quick start needs {size(MIN_MEMORY_BYTES)}: close something, or use --workers 1"
        )
        return Check("memory", "warning", f"{size(free)} free", advice)
    return Check("memory", "ok", f"{size(free)} free")


def _free_memory() -> int | None:
    """Bytes available, within the limit of a container; None if the system does not say."""
    figures = {}
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            figures[name] = int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    free = figures.get("MemAvailable")
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no limit ("max"), or no such file
        return free
    return min(limit - used, free) if free is not None else limit - used


def _temporary_folder() -> Check:
    folder = tempfile.gettempdir()
    return _free_disk("temporary folder", Path(folder), folder)


def _lake(location: str) -> Iterator[Check]:
    """Write, read and remove a file, the way every command does."""
    path = f"locks/doctor-{uuid.uuid4().hex}.txt"
    try:
        lake = Lake.open(location)
        existed = lake.root is None or lake.root.exists()
        lake.write_bytes(path, b"sound")
        sound = lake.read_bytes(path) == b"sound"
        lake.delete(path)
        if lake.root is not None and not existed:  # looking must not leave a lake behind
            with suppress(OSError):
                (lake.root / "locks").rmdir()
                lake.root.rmdir()
    except GristmillError as error:
        yield Check("lake", "failed", str(error), "choose another --lake")
        return
    if not sound:
        yield Check("lake", "failed", f"{lake.url}: reads back other bytes than written")
        return
    yield Check("lake", "ok", f"{lake.url}: writable{'' if existed else ', not made yet'}")
    if lake.root is not None:
        folder = next(parent for parent in (lake.root, *lake.root.parents) if parent.exists())
        yield _free_disk("lake's disk", folder, lake.url)


def _free_disk(name: str, folder: Path, where: str) -> Check:
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        return Check(name, "warning", f"{size(free)} free at {where}", "free some space")
    return Check(name, "ok", f"{size(free)} free at {where}")


def _prefect() -> Check:
    api_url = os.environ.get("PREFECT_API_URL") or DEFAULT_API_URL
    if prefect_answers(api_url):
        return Check("prefect server", "ok", f"answers at {without_secrets(api_url)}")
    if os.environ.get("PREFECT_API_URL"):
        return Check(
            "prefect server",
            "warning",
            f"no answer at PREFECT_API_URL={without_secrets(api_url)}",
            "start it, or unset PREFECT_API_URL; nothing but --flow needs it",
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PREFECT_PORT))
        except OSError:
            advice = "something else listens there: start Prefect with another --port"
            return Check("prefect server", "warning", f"port {PREFECT_PORT} is taken", advice)
    return Check(
        "prefect server", "ok", f"none runs, port {PREFECT_PORT} is free; 'gristmill up' starts one"
    )

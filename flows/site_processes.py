"""The processes of a site: each holds a file of the lake as long as it lives, so that anybody can find and end them.

Who started a process, and whether that one still lives, does not matter. The files lie in the lake's folder of locks,
one for each role; GRISTMILL_SITE names that folder in the environment of everything that a site starts.
"""

import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from pipeline.display import plural, visible
from storage.holders import held_by, hold, holders, is_held
from storage.times import utc

SITE_VARIABLE = "GRISTMILL_SITE"
"""Folder of locks of the lake whose site started this process; nothing else sets it."""

PARENT_VARIABLE = "GRISTMILL_PARENT"
"""Number of the process of a site that started this one."""

ROLES = {
    "up": "gristmill up",
    "run": "flow run",
    "work": "work of a flow run",
    "worker": "Prefect worker",
    "server": "Prefect server",
}
"""What a process of a site is, in words. One that holds two roles is of the first."""

STOP_S = {"run": 90.0, "work": 90.0, "worker": 10.0, "server": 15.0}
"""In which order a site ends, and how long each role has from SIGTERM to SIGKILL: a training writes a checkpoint."""

HAS_PROC = Path("/proc/self").exists()
"""Whether the system shows who holds a file. Elsewhere `up` ends its server and worker itself, and only it is found."""

UNHEARD_S = 15.0
"""Time of a flow run whose work has ended and whose server is gone: it would try for minutes to tell it so."""

KILLED_S = 10.0
"""Time for the kernel to end what was killed; one that waits for a disk may take it."""

COMMAND_CHARACTERS = 60

_LEFT_BY_READERS_S = 0.5
"""Who asks whether a file is held holds it for microseconds, too; so the answer "yes" is asked for again."""


@dataclass(frozen=True)
class SiteProcess:
    """A process of a site."""

    pid: int
    role: str
    since: str
    """UTC, as `storage.times.utc` writes it; empty where the system does not say."""
    command: str = ""
    """What it runs, in short."""

    def __str__(self) -> str:
        return f"{ROLES[self.role]} (pid {self.pid})"


# --- taking part -------------------------------------------------------------------------------


@contextmanager
def founding(folder: Path) -> Iterator[None]:
    """Be known as `gristmill up` during the block; what is started meanwhile finds the site in its environment."""
    descriptor = hold(lock_file(folder, "up"))
    os.environ[SITE_VARIABLE] = str(folder)
    try:
        yield
    finally:
        del os.environ[SITE_VARIABLE]
        os.close(descriptor)


def join(role: str) -> int | None:
    """Be known as a process of the site that started this one, until it ends; None without one."""
    file = role_file(role)
    return None if file is None else _hold_once(file)


def role_file(role: str) -> Path | None:
    """What processes of that role hold, of the site that started this one; None without one."""
    folder = os.environ.get(SITE_VARIABLE)
    return lock_file(Path(folder), role) if folder else None


def inherited() -> tuple[int, ...]:
    """Descriptors for a child process to inherit, so that it is known from its first instant."""
    descriptor = join("work")
    return () if descriptor is None else (descriptor,)


_hold_once = cache(hold)


def lock_file(folder: Path, role: str) -> Path:
    """What processes of a role hold."""
    return folder / f"site-{role}.lock"


# --- finding -----------------------------------------------------------------------------------


def site_processes(folder: Path) -> list[SiteProcess]:
    """Processes of the site whose locks lie there, those first that end first."""
    files = {lock_file(folder, role): role for role in ROLES}
    found = [
        SiteProcess(pid, files[held[0]], _started(pid), _command(pid))
        for pid, held in holders(list(files)).items()
    ]
    order = list(ROLES)
    return sorted(found, key=lambda process: (order.index(process.role), process.pid))


def held_roles(folder: Path) -> list[str]:
    """Roles that some process has, also one that is not shown to us: another user's, another container's."""
    end = time.monotonic() + _LEFT_BY_READERS_S
    held = [role for role in ROLES if is_held(lock_file(folder, role))]
    while held and not site_processes(folder) and time.monotonic() < end:
        time.sleep(0.02)
        held = [role for role in held if is_held(lock_file(folder, role))]
    return held


def _started(pid: int) -> str:
    """When a process began, by the kernel's clock ticks since the machine's start."""
    with suppress(OSError, IndexError, ValueError):
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        booted = Path("/proc/stat").read_text().partition("\nbtime ")[2].split()[0]
        seconds = int(booted) + int(ticks) / os.sysconf("SC_CLK_TCK")
        return utc(datetime.fromtimestamp(seconds, UTC))
    return ""


def _command(pid: int) -> str:
    """The command line without the interpreter and its options, and not too long."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        found = [word for word in words[1:] if word not in ("-P", "-S", "-m", "flows.child", "")]
        return visible(" ".join(found)[:COMMAND_CHARACTERS])
    return ""


# --- ending ------------------------------------------------------------------------------------


def end_processes(folder: Path, tell: Callable[[str], None]) -> list[SiteProcess]:
    """End a site in order, all but this process: flow runs, what works for them, the worker, the server.

    SIGTERM, and SIGKILL to what has not ended in time; then all is looked at again, because a worker may have started a
    last run. Returns the processes that are left all the same.
    """
    for _ in range(2):
        for process in _others(folder):  # one that was stopped (SIGSTOP) hears nothing else
            _send(folder, process, signal.SIGCONT)
        for role, seconds in STOP_S.items():
            _end_role(folder, role, seconds, tell)
        if not _others(folder):
            break
    return kill_processes(folder, ROLES)


def kill_processes(folder: Path, roles: Collection[str]) -> list[SiteProcess]:
    """SIGKILL to the processes of these roles, all but this one; returns those that are left all the same."""
    end = time.monotonic() + KILLED_S
    while (left := [p for p in _others(folder) if p.role in roles]) and time.monotonic() < end:
        for process in left:
            _send(folder, process, signal.SIGKILL)
        time.sleep(0.05)
    return left


def ask_to_end(folder: Path, process: SiteProcess) -> None:
    """SIGTERM, also to a process that was stopped."""
    _send(folder, process, signal.SIGTERM)
    _send(folder, process, signal.SIGCONT)


@contextmanager
def following(process: SiteProcess) -> Iterator[Callable[[float], bool]]:
    """Yields a function that waits so many seconds for this very process to end, and says whether it has."""
    if not HAS_PROC:
        yield lambda seconds: _is_gone(process.pid, seconds)
        return
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        yield lambda seconds: True
        return
    try:
        yield lambda seconds: bool(select.select([descriptor], [], [], max(seconds, 0.0))[0])
    finally:
        os.close(descriptor)


def _is_gone(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, PermissionError):  # or its number is another's by now
            return True
        time.sleep(0.1)
    return False


def _end_role(folder: Path, role: str, seconds: float, tell: Callable[[str], None]) -> None:
    asked: set[int] = set()
    start = time.monotonic()
    while True:
        others = _others(folder)
        left = [process for process in others if process.role == role]
        if not left:
            return
        if new := [process for process in left if process.pid not in asked]:
            if role == "run":
                tell(f"stopping {plural(len(new), 'run')}; the next 'up' resumes")
            for process in new:  # once: a second SIGTERM means "at once"
                ask_to_end(folder, process)
                asked.add(process.pid)
        is_unheard = role == "run" and not {"work", "server"} & {other.role for other in others}
        if time.monotonic() - start > (UNHEARD_S if is_unheard else seconds):
            names = ", ".join(map(str, left))
            tell(f"not ended in time and killed, finished work is kept: {names}")
            kill_processes(folder, [role])
            return
        time.sleep(0.1)


def _others(folder: Path) -> list[SiteProcess]:
    return [process for process in site_processes(folder) if process.pid != os.getpid()]


def _send(folder: Path, process: SiteProcess, number: signal.Signals) -> None:
    """Send a signal to that very process, never to another one that was given its number meanwhile."""
    with suppress(ProcessLookupError, PermissionError):
        if not HAS_PROC:
            os.kill(process.pid, number)
            return
        descriptor = os.pidfd_open(process.pid)
        try:
            if not held_by(process.pid, [lock_file(folder, process.role)]):
                return
            leads = process.role != "up" and os.getpgid(process.pid) == process.pid
            if leads and number == signal.SIGKILL:  # with helpers that would only notice later
                os.killpg(process.pid, number)
            signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)

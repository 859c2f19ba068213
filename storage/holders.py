"""Who holds a file: processes that belong together take a shared flock(2) on it, and the kernel knows which of them live.

A lock ends with its holder, however that dies, and a process number is never trusted: it counts only while the kernel
shows that this very process has the locked file open.
"""

import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")


def hold(file: Path) -> int:
    """Hold the file until this process ends; returns the descriptor. Child processes hold it too if they inherit that."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def is_held(file: Path) -> bool:
    """Whether any process holds the file, on this machine or on another one that shares the disk. Makes no file."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def holders(files: Sequence[Path]) -> dict[int, list[Path]]:
    """Process number -> which of the files it holds, in the order given; one pass over /proc.

    Processes of other users and of other containers are not shown to us, and without /proc none are: `is_held` still
    knows of them.
    """
    numbers = [int(process.name) for process in _PROC.glob("[0-9]*")]
    return {pid: held for pid in numbers if (held := held_by(pid, files))}


def held_by(pid: int, files: Sequence[Path]) -> list[Path]:
    """Which of the files a process holds: has open with a shared lock, not merely open (a backup reads them, too)."""
    names, locked = {file.name for file in files}, set()
    with suppress(OSError):  # another user's, or gone meanwhile
        for entry in os.scandir(_PROC / str(pid) / "fd"):
            with suppress(OSError):
                if (
                    Path(entry.path).readlink().name not in names
                ):  # cheap, and nearly always the end
                    continue
                told = (_PROC / str(pid) / "fdinfo" / entry.name).read_text()
                if "FLOCK  ADVISORY  READ" in told:
                    locked.add(_inode(Path(entry.path)))
    return [file for file in files if locked and _inode(file) in locked]


def _inode(file: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        found = file.stat()
        return found.st_dev, found.st_ino
    return None

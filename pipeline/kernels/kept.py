"""Compiled loops on disk: a file for each loop and kind of processor, used only if it is whole and from a trusted hand.

What is compiled is code, and loading it runs it. So a file counts only if its owner is this user, root or the owner of
the source (who decides what runs anyway), if others cannot write it, and if its checksum is right. Any other file is
passed over, and the loop is compiled again: an empty file after a power cut costs seconds, not the build.
"""

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path

MAGIC = b"gristmill kernel 1\n"
_HEAD = len(MAGIC) + 2 * 32
"""Magic, checksum of what follows, stamp of the source."""


@dataclass(frozen=True)
class Found:
    """What lies in a loop's place."""

    path: Path
    problem: str = ""
    """Why it is not used; empty for a file that can be."""
    data: bytes = b""
    """The compiled loop."""


def folders_for(source: Path, chosen: str = "") -> list[Path]:
    """Where compiled loops of a source file may lie, best first; they are read from any and written to one that can be.

    `chosen` is NUMBA_CACHE_DIR. Where that is unset, or no folder, they lie next to the source or in the user's cache;
    for users without a home, and where all else is read-only, in the system's temporary folder.
    """
    place = blake2b(os.fsencode(source.parent), digest_size=8).hexdigest()
    last = Path(tempfile.gettempdir(), f"gristmill-kernels-{os.getuid()}", place)
    if chosen:
        folder = Path(chosen).absolute() / place
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        if folder.is_dir():
            return [folder, last]
    folders = [source.parent / "__pycache__"]
    with suppress(RuntimeError):  # no HOME, and no entry in the system's list of users
        folders.append(Path.home() / ".cache" / "gristmill" / "kernels" / place)
    return [*folders, last]


def look(path: Path, stamp: bytes, source: Path) -> Found | None:
    """The file at `path`; None if there is none, or if it is of another state of the source."""
    try:
        # Not blocking: a pipe of that name would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return Found(path, f"cannot be read: {error.strerror}")
    try:
        with os.fdopen(descriptor, "rb") as file:
            distrust = _distrust(os.fstat(descriptor), source)
            if distrust:
                return Found(path, distrust)
            data = file.read()
    except OSError as error:
        return Found(path, f"cannot be read: {error.strerror}")
    body = data[len(MAGIC) + 32 :]
    if not data.startswith(MAGIC) or data[len(MAGIC) : len(MAGIC) + 32] != sha256(body).digest():
        return Found(path, "is damaged" if data else "is empty")
    return Found(path, data=data[_HEAD:]) if body.startswith(stamp) else None


def write(path: Path, stamp: bytes, data: bytes) -> None:
    """Write a compiled loop, whole or not at all, also if the power fails. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    body = stamp + data
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(MAGIC + sha256(body).digest() + body)
            file.flush()
            os.fchmod(descriptor, 0o644)  # whatever the umask: read by all, written by its owner
            os.fsync(descriptor)
        Path(temporary).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise


@contextmanager
def one_at_a_time(paths: Sequence[Path], source: Path) -> Iterator[None]:
    """Let one process make a file, at the first of the paths that has a folder, and others wait for it to find it.

    Where a lock cannot be had (a disk without, a folder of somebody else) each makes its own.
    """
    lock = next(filter(None, map(_open_lock, paths)), None)
    try:
        if lock is not None and not _distrust(os.fstat(lock), source):
            with suppress(OSError):  # ENOLCK on some network disks
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _open_lock(path: Path) -> int | None:
    path = path.with_suffix(".lock")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    # For writing, as network disks ask for an exclusive lock; for reading, where it is another user's.
    for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
        with suppress(OSError):
            return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW, 0o644)
    return None


def _distrust(status: os.stat_result, source: Path) -> str:
    """Why code from this file must not run; empty if it may."""
    if not stat.S_ISREG(status.st_mode):
        return "is not a file"
    trusted = {os.getuid(), 0}
    with suppress(OSError):
        trusted.add(source.stat().st_uid)
    if status.st_uid not in trusted:
        return f"belongs to another user (number {status.st_uid})"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be written by other users"
    return ""

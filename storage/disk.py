"""A lake's files on a local disk, written so that neither a crash nor a second writer leaves half a file behind.

Write under a temporary name, fsync the file, rename or link it into place, fsync the folder: in this order, a name that
is there after a power cut has all of its content.
"""

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from storage.errors import GristmillError, LakeError


@dataclass(frozen=True)
class Entry:
    """A file in a lake."""

    path: str
    """Relative to the lake, with slashes."""
    num_bytes: int
    """Size of the file."""
    modified: float
    """Seconds since 1970 at which it was last written."""


@dataclass(frozen=True)
class Disk:
    """The files below a folder. Paths are relative to it and already checked. What goes wrong is a LakeError.

    Reading changes nothing, so a folder that is mounted read-only will do for it.
    """

    root: Path
    """The folder; made when something is written."""
    before: Callable[[str, str], None]
    """Called with the name and path of each operation that a crash could separate from the next one."""

    def read(self, path: str) -> bytes:
        """Content of a file. Raises FileNotFoundError."""
        with in_plain_words(self.root / path, "read"):
            return (self.root / path).read_bytes()

    def stream(self, path: str) -> Iterator[bytes]:
        """Content of a file in pieces of 8 MiB. Raises FileNotFoundError."""
        with in_plain_words(self.root / path, "read"), (self.root / path).open("rb") as file:
            while piece := file.read(8 << 20):
                yield piece

    def local_path(self, path: str) -> Path:
        """The file itself. Raises FileNotFoundError."""
        if not self.exists(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self.root / path

    def exists(self, path: str) -> bool:
        """Whether there is a file, not a folder, of that name."""
        with in_plain_words(self.root / path, "read"):
            return (self.root / path).is_file()

    def list(self, folder: str, *, temporary: bool) -> Iterator[Entry]:
        """All files in a folder and below, in no order; with those that have a temporary name, if asked for."""
        with in_plain_words(self.root / folder, "list"):
            # Links to folders are followed: a corpus may have been moved to a larger disk.
            for parent, _, names in os.walk(self.root / folder, onerror=_fail, followlinks=True):
                for name in names:
                    if temporary or not is_temporary(name):
                        file = Path(parent, name)
                        with suppress(FileNotFoundError):  # removed since it was listed
                            status = file.stat()
                            path = file.relative_to(self.root).as_posix()
                            yield Entry(path, status.st_size, status.st_mtime)

    def folders(self, folder: str) -> "list[str]":
        """Names of the folders right below a folder, in no order."""
        with in_plain_words(self.root / folder, "list"):
            try:
                return [entry.name for entry in os.scandir(self.root / folder) if entry.is_dir()]
            except (FileNotFoundError, NotADirectoryError):
                return []

    @contextmanager
    def writer(self, path: str) -> Iterator[Path]:
        """Yield a temporary name to write to; when the block ends well, the file gets its own name in one step."""
        target = self.root / path
        with self.scratch(path) as temporary:
            yield temporary
            with in_plain_words(target, "write"):
                self._sync(temporary)
                self.before("rename", str(target))
                temporary.replace(target)
                self._sync_folder(target.parent)

    @contextmanager
    def scratch(self, path: str) -> Iterator[Path]:
        """Yield a temporary name beside `path`; the file is removed when the block ends."""
        target = self.root / path
        with in_plain_words(target, "write"):
            self._make_folder(target.parent)
        with self._temporary_for(target) as temporary, caller_in_plain_words(target):
            yield temporary

    def write(self, path: str, data: bytes) -> None:
        """Write a file in one step, in place of an older one."""
        with self.writer(path) as temporary, in_plain_words(self.root / path, "write"):
            temporary.write_bytes(data)

    def create(self, path: str, data: bytes) -> bool:
        """Write a file unless there is one of that name: link(2) does both in one step."""
        target = self.root / path
        with in_plain_words(target, "write"):
            self._make_folder(target.parent)
            with self._temporary_for(target) as temporary:
                temporary.write_bytes(data)
                self._sync(temporary)
                self.before("link", str(target))
                try:
                    target.hardlink_to(temporary)
                    created = True
                except FileExistsError:
                    created = False
                # Also when it existed: whoever made it may have died before this.
                self._sync_folder(target.parent)
        return created

    def sync_names(self, paths: Iterable[str]) -> None:
        """Make the names of files, and of the folders that they are in, survive a power cut."""
        folders = {folder for path in paths for folder in Path(path).parents}
        with in_plain_words(self.root, "sync"):
            for folder in sorted(folders, reverse=True):  # the deepest first
                with suppress(FileNotFoundError):  # still to be made, and synced then
                    self._sync_folder(self.root / folder)
            with suppress(FileNotFoundError, PermissionError):
                self._sync_folder(self.root.parent)

    def delete(self, paths: Sequence[str]) -> None:
        """Remove files; those that do not exist are no error. Not synced: one that comes back does no harm."""
        for path in paths:
            with in_plain_words(self.root / path, "remove"):
                self._unlink(self.root / path)

    def delete_folder(self, folder: str) -> None:
        """Remove a folder with all files below it; no error if there is none."""
        with in_plain_words(self.root / folder, "remove"):
            for parent, _, names in os.walk(self.root / folder, topdown=False, onerror=_fail):
                for name in names:
                    self._unlink(Path(parent, name))
                try:
                    Path(parent).rmdir()
                except OSError as error:  # somebody removed it, or writes into it: leave it to them
                    if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                        raise

    def _make_folder(self, folder: Path) -> None:
        """Make a folder and those above it; each new name is synced, or a crash could lose the whole branch."""
        if not folder.is_dir():
            self._make_folder(folder.parent)
            folder.mkdir(exist_ok=True)
            self._sync_folder(folder.parent)

    @contextmanager
    def _temporary_for(self, target: Path) -> Iterator[Path]:
        """A name in the target's folder, hence on its disk; if it is still there in the end, it is removed."""
        temporary = target.with_name(f".{target.name}.{os.urandom(6).hex()}.tmp")
        try:
            yield temporary
        finally:
            with suppress(OSError):  # left to gc; the error that brought us here says more
                if temporary.exists():
                    self._unlink(temporary)

    def _unlink(self, file: Path) -> None:
        self.before("unlink", str(file))
        with suppress(FileNotFoundError, NotADirectoryError):
            file.unlink()

    def _sync(self, path: Path) -> None:
        self.before("fsync", str(path))
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _sync_folder(self, folder: Path) -> None:
        try:
            self._sync(folder)
        except OSError as error:
            # A disk that cannot sync a folder (CIFS) says so; there is no other way then.
            if error.errno != errno.EINVAL:
                raise


def is_temporary(name: str) -> bool:
    """Whether a file's name, without its folder, is one that a writer uses before the file is complete."""
    return name.startswith(".") and name.endswith(".tmp")


def _fail(error: OSError) -> None:
    """What os.walk does on errors: a folder that is not there has no files, the rest is raised."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


# What the system says, in words that help

_OF_THE_MACHINE = {
    errno.EMFILE: "too many open files; raise 'ulimit -n' or use fewer --workers",
    errno.ENFILE: "too many open files on this machine; close other programs or raise fs.file-max",
    errno.ENOMEM: "out of memory; close other programs or use fewer --workers",
}
"""Errors that tell of this process or machine, and nothing of the file at which they came."""

_REMEDIES = _OF_THE_MACHINE | {
    errno.ENOSPC: "the disk is full; free some space ('gristmill gc' removes what no snapshot needs)",
    errno.EDQUOT: "the disk quota is used up; free some space ('gristmill gc' removes what no snapshot needs)",
    errno.EROFS: "the disk is mounted read-only; mount it for writing or choose another --lake",
    errno.EACCES: "permission denied; give this user the rights or choose another --lake",
    errno.EPERM: "not permitted; a lake needs a disk with hard links, and the rights to write there",
    errno.EOPNOTSUPP: "not supported by the disk; a lake needs one with hard links and locks",
    errno.EIO: "the disk reports an input/output error; check it (dmesg, smartctl) before you trust it",
    errno.ENOTDIR: "a part of the path is a file, not a folder; move it away or choose another --lake",
    errno.EISDIR: "a folder has this name; move it away or choose another --lake",
    errno.ENAMETOOLONG: "the name is too long for the disk; choose a shorter one",
    errno.ENOENT: "somebody removed its folder meanwhile",
}


@contextmanager
def in_plain_words(where: Path | str, doing: str) -> Iterator[None]:
    """Turn the system's errors into LakeError ("cannot read it: ..."); a missing file to "read" stays missing."""
    try:
        yield
    except OSError as error:
        if doing == "read" and isinstance(error, FileNotFoundError | NotADirectoryError):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(where)) from error
        raise _explained(error, where, doing) from error


@contextmanager
def caller_in_plain_words(where: Path | str) -> Iterator[None]:
    """The same around a caller's block that writes, where only trouble with the disk is ours to explain."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            raise
        raise _explained(error, where, "write") from error


def raise_for_machine(error: BaseException, where: Path | str) -> None:
    """Raise GristmillError if it is this process or machine that failed: a sound file must not be called damaged."""
    if isinstance(error, OSError) and (words := _OF_THE_MACHINE.get(error.errno or 0)):
        raise GristmillError(
            f"{where}: cannot open it: {words}; the file is not at fault: run the same command again then"
        ) from error


def _explained(error: OSError, where: Path | str, doing: str) -> LakeError:
    words = _REMEDIES.get(error.errno or 0, error.strerror or str(error))
    after = (
        "; nothing finished is lost, then run the same command again" if doing == "write" else ""
    )
    return LakeError(f"{where}: cannot {doing} it: {words}{after}")

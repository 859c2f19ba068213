"""A lake: one root, on a local disk or in an S3 bucket, that holds corpora and runs. All writing goes through here.

Whatever has its final name is complete: files are written under a temporary name, synced, then renamed or linked into
place, and the folder is synced after that. Reading never writes, so a read-only lake can be read.
"""

import errno
import fcntl
import hashlib
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from storage.errors import BusyError, ConfigError, ConflictError, LakeError, NotFoundError

if TYPE_CHECKING:
    from storage.bucket import Bucket

on_file_operation: Callable[[str, str], None] | None = None
"""Called before each `fsync`, `rename`, `link`, `unlink` or `put` (bucket) with its name and path.

Crash tests set it, in a child process, to a function that ends the process at the n-th call.
"""


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
class Lake:
    """A root for all files of gristmill; make one with `Lake.open`. A plain value: it may be pickled and compared.

    Paths are relative to the root, with slashes on every system; one that would leave the lake is refused. Every
    failure of disk or network is raised as LakeError in plain words.
    """

    url: str
    """Absolute path of a local lake, or s3://bucket/prefix."""
    root: Path | None
    """Folder of a local lake, None in a bucket."""
    cache: Path
    """Folder for downloads, uploads and locks of a lake in a bucket; not used by a local one."""

    @classmethod
    def open(cls, location: str | Path, *, cache: Path | None = None) -> "Lake":
        """Name a lake at a local path or at s3://bucket/prefix; nothing is created or contacted yet.

        Endpoint, region and credentials of a bucket come from the usual AWS_* variables, never from the lake, and are
        not kept in it. Raises ConfigError if the location can be neither.
        """
        cache = cache or Path.home() / ".cache" / "gristmill"
        text = str(location)
        if "://" not in text:
            root = Path(text).expanduser().absolute()
            if root.exists() and not root.is_dir():
                raise ConfigError(
                    f"--lake {text}: expected a folder or s3://bucket/prefix, got a file"
                )
            return cls(url=str(root), root=root, cache=cache)
        scheme, _, rest = text.partition("://")
        url = f"{scheme}://{rest.rstrip('/')}"
        if scheme != "s3" or not rest.strip("/") or rest.startswith("/"):
            raise ConfigError(f"--lake {text}: expected a local folder or s3://bucket/prefix")
        folder = cache / hashlib.blake2b(url.encode(), digest_size=8).hexdigest()
        return cls(url=url, root=None, cache=folder)

    @property
    def is_local(self) -> bool:
        """Whether the lake is a folder on this machine."""
        return self.root is not None

    def __str__(self) -> str:
        return self.url

    def where(self, path: str) -> str:
        """The full name of a file, for messages."""
        return f"{self.url}/{path}"

    # Reading

    def read_bytes(self, path: str) -> bytes:
        """Content of a file. Raises NotFoundError if the lake does not hold it."""
        try:
            if self.root is None:
                return self._bucket.read(_checked(path))
            with _in_plain_words(self.where(path), "read"):
                return self._local(path).read_bytes()
        except FileNotFoundError:
            raise self._missing(path) from None

    def digest(self, path: str) -> tuple[str, int]:
        """SHA-256 (hex) and size of a file, read in pieces. Raises NotFoundError."""
        digest, num_bytes = hashlib.sha256(), 0
        try:
            if self.root is None:
                for piece in self._bucket.stream(_checked(path)):
                    digest.update(piece)
                    num_bytes += len(piece)
            else:
                with (
                    _in_plain_words(self.where(path), "read"),
                    self._local(path).open("rb") as file,
                ):
                    digest = hashlib.file_digest(file, "sha256")
                    num_bytes = file.tell()
        except FileNotFoundError:
            raise self._missing(path) from None
        return digest.hexdigest(), num_bytes

    def local_path(self, path: str) -> Path:
        """A local file with the content: the file itself, or a download kept in the cache. Raises NotFoundError.

        The cache is keyed by what the bucket says of the object's content (its ETag), so it is never out of date.
        """
        if self.root is not None:
            if not self.exists(path):
                raise self._missing(path)
            return self._local(path)
        found = self._bucket.head(_checked(path))
        if found is None:
            raise self._missing(path)
        cached = self.cache / "files" / found.content / path
        with _in_plain_words(str(cached), "write"):
            if not (cached.is_file() and cached.stat().st_size == found.num_bytes):
                _make_folder(cached.parent)
                with _temporary_for(cached) as temporary:
                    with temporary.open("wb") as file:
                        for piece in self._bucket.stream(path):
                            file.write(piece)
                    _rename(temporary, cached)
        return cached

    def exists(self, path: str) -> bool:
        """Whether there is a file (not a folder) of that name."""
        if self.root is None:
            return self._bucket.head(_checked(path)) is not None
        try:
            with _in_plain_words(self.where(path), "read"):
                return self._local(path).is_file()
        except FileNotFoundError:
            return False

    def list(self, prefix: str = "", *, temporary: bool = False) -> "list[Entry]":
        """All files in the folder `prefix` and below, sorted by path; none if there is no such folder.

        Files under a temporary name (writers at work, or killed) are left out unless asked for.
        """
        if self.root is None:
            return sorted(self._bucket.list(_folder(prefix)), key=lambda entry: entry.path)
        entries = []
        with _in_plain_words(self.where(prefix), "list"):
            for folder, _, names in os.walk(
                self.root / _folder(prefix), onerror=_raise_if_real, followlinks=True
            ):
                for name in names:
                    file = Path(folder, name)
                    if is_temporary(name) and not temporary:
                        continue
                    with suppress(FileNotFoundError):  # removed since it was listed
                        status = file.stat()
                        path = file.relative_to(self.root).as_posix()
                        entries.append(Entry(path, status.st_size, status.st_mtime))
        return sorted(entries, key=lambda entry: entry.path)

    def list_folders(self, prefix: str) -> "list[str]":
        """Names of the folders right below the folder `prefix`, sorted."""
        if self.root is None:
            return sorted(self._bucket.folders(_folder(prefix)))
        with _in_plain_words(self.where(prefix), "list"):
            try:
                return sorted(
                    entry.name
                    for entry in os.scandir(self.root / _folder(prefix))
                    if entry.is_dir()
                )
            except (FileNotFoundError, NotADirectoryError):
                return []

    # Writing

    @contextmanager
    def writer(self, path: str) -> Iterator[Path]:
        """Yield a local file name to write to; when the block ends well, the file gets its final name in one step.

        An older file of that name is replaced. If the block fails, nothing of it stays.
        """
        if self.root is None:
            with self._upload(path) as temporary:
                yield temporary
                _operation("put", self.where(path))
                self._bucket.write(_checked(path), temporary)
            return
        target = self._local(path)
        with _in_plain_words(self.where(path), "write"):
            _make_folder(target.parent)
        with _temporary_for(target) as temporary:
            with _full_disk_in_plain_words(self.where(path)):
                yield temporary
            with _in_plain_words(self.where(path), "write"):
                _sync(temporary)
                _rename(temporary, target)
                _sync(target.parent)

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a file in one step: a reader sees the old content or the new one, also after a crash."""
        if self.root is None:
            _operation("put", self.where(path))
            self._bucket.write(_checked(path), data)
        else:
            with self.writer(path) as temporary:
                temporary.write_bytes(data)

    def create_bytes(self, path: str, data: bytes) -> bool:
        """Put if absent: write a file that must not exist yet. False, and nothing written, if it does.

        By link(2) on a local disk, by `If-None-Match: *` in a bucket. False may also mean that our own file got there
        but the answer was lost; `commit_bytes` tells the two apart.
        """
        if self.root is None:
            _operation("put", self.where(path))
            return self._bucket.create(_checked(path), data)
        target = self._local(path)
        with _in_plain_words(self.where(path), "write"):
            _make_folder(target.parent)
            with _temporary_for(target) as temporary:
                temporary.write_bytes(data)
                _sync(temporary)
                try:
                    _operation("link", str(target))
                    target.hardlink_to(temporary)
                    created = True
                except FileExistsError:
                    created = False
                # Also when it existed: whoever made it may have died before this.
                _sync(target.parent)
        return created

    def commit_bytes(self, path: str, data: bytes, commit_id: str) -> None:
        """Put if absent a JSON object whose `commit.id` is the unique `commit_id`.

        Raises ConflictError if somebody else's file has the name; finding our own there is success, because the answer
        to our put may have been lost on the way.
        """
        failure: LakeError | None = None
        try:
            if self.create_bytes(path, data):
                return
        except LakeError as error:  # the put may have been carried out all the same
            failure = error
        try:
            found = self.read_bytes(path)
        except LakeError as error:
            raise failure or error from error
        except NotFoundError as error:
            if failure:
                raise failure from None
            raise LakeError(
                f"{self.where(path)}: was there at the commit and is gone now; try again"
            ) from error
        if (other := _commit_of(found)).get("id") == commit_id:
            return
        raise ConflictError(
            f"{self.where(path)}: expected to be the first to write it, but pid {other.get('pid', '?')} on "
            f"{other.get('host', '?')} committed it at {other.get('created_at', '?')}; run the same command again"
        ) from failure

    def delete(self, path: str) -> None:
        """Remove a file; no error if there is none. Not synced: a file that comes back after a crash does no harm."""
        if self.root is None:
            _operation("unlink", self.where(path))
            self._bucket.delete([_checked(path)])
            return
        with (
            _in_plain_words(self.where(path), "remove"),
            suppress(FileNotFoundError, NotADirectoryError),
        ):
            _unlink(self._local(path))

    def delete_prefix(self, prefix: str) -> None:
        """Remove the folder `prefix` with all files below it, temporary ones too; no error if there is none."""
        if self.root is None:
            _operation("unlink", self.where(prefix))
            self._bucket.delete([entry.path for entry in self.list(prefix)])
            return
        with _in_plain_words(self.where(prefix), "remove"):
            for folder, _, names in os.walk(
                self.root / _folder(prefix), topdown=False, onerror=_raise_if_real
            ):
                for name in names:
                    with suppress(FileNotFoundError):
                        _unlink(Path(folder, name))
                try:
                    Path(folder).rmdir()
                except OSError as error:  # somebody removed it, or writes into it: leave it to them
                    if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                        raise

    @contextmanager
    def lock(self, name: str, doing: str) -> Iterator[None]:
        """Hold the lock `name` for the block; `doing` ("building 'x'") is what others are told meanwhile.

        The lock is flock(2), so it ends with its holder, however that dies; the text in the file only informs. For a
        lake in a bucket it holds among the processes of this machine, and commits are safe without it. Raises
        BusyError at once if somebody holds it.
        """
        base = self.root if self.root is not None else self.cache
        file = base / _checked(f"locks/{name}.lock")
        with _in_plain_words(str(file), "lock"):
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            with _in_plain_words(str(file), "lock"):
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    holder = os.pread(descriptor, 4096, 0).decode(errors="replace").strip()
                    raise BusyError(
                        f"already {holder or doing}; wait until it is done (lock: {file})"
                    ) from None
                since = time.strftime("%Y-%m-%d %H:%M:%S %z")
                holder = f"{doing} (pid {os.getpid()} on {socket.gethostname()}, since {since})"
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, holder.encode(), 0)
            yield
        finally:
            # The file stays: removing it would let two processes lock two files of the same name.
            os.close(descriptor)

    # Helpers

    @property
    def _bucket(self) -> "Bucket":
        from storage.bucket import open_bucket  # obstore is loaded only for lakes in buckets

        return open_bucket(self.url)

    def _local(self, path: str) -> Path:
        assert self.root is not None
        return self.root / _checked(path)

    def _missing(self, path: str) -> NotFoundError:
        return NotFoundError(f"{self.where(path)}: expected a file, found none")

    @contextmanager
    def _upload(self, path: str) -> Iterator[Path]:
        target = self.cache / "uploads" / _checked(path).rsplit("/", 1)[-1]
        with _in_plain_words(str(target), "write"):
            _make_folder(target.parent)
        with _temporary_for(target) as temporary, _full_disk_in_plain_words(str(target)):
            yield temporary


def _checked(path: str) -> str:
    """The path, if it stays inside the lake: manifests name files, and a damaged one could name any."""
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in path or "\0" in path:
        raise LakeError(
            f"{path!r}: expected a path inside the lake, without '..', '.' or empty parts"
        )
    return path


def _folder(prefix: str) -> str:
    """The folder's path without a slash at its end; "" is the lake itself."""
    prefix = prefix.removesuffix("/")
    return _checked(prefix) if prefix else ""


def _commit_of(data: bytes) -> dict[str, object]:
    try:
        return dict(json.loads(data)["commit"])
    except (
        ValueError,
        KeyError,
        TypeError,
    ):  # not one of ours, or damaged: somebody else's in any case
        return {}


# Each file operation that a crash could separate from the next one


def _operation(name: str, path: str) -> None:
    if on_file_operation is not None:
        on_file_operation(name, path)


def _sync(path: Path) -> None:
    """fsync a file or a folder."""
    _operation("fsync", str(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename(source: Path, target: Path) -> None:
    _operation("rename", str(target))
    source.replace(target)


def _unlink(path: Path) -> None:
    _operation("unlink", str(path))
    path.unlink()


def _make_folder(folder: Path) -> None:
    """Create a folder and those above it; each new name is synced, or a crash could lose the whole branch."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


@contextmanager
def _temporary_for(target: Path) -> Iterator[Path]:
    """A name in the target's folder, hence on its disk; whatever still has it in the end is removed."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        yield temporary
    finally:
        if temporary.exists():
            with suppress(OSError):  # left to gc; the error that brought us here says more
                _unlink(temporary)


def is_temporary(name: str) -> bool:
    """Whether a file's name (without folder) is one that a writer uses before the file is complete."""
    return name.startswith(".") and name.endswith(".tmp")


# What the system says, in words that help

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space ('gristmill gc' removes what no snapshot needs)",
    errno.EDQUOT: "the disk quota is used up; free some space ('gristmill gc' removes what no snapshot needs)",
    errno.EROFS: "the disk is mounted read-only; mount it for writing or choose another --lake",
    errno.EACCES: "permission denied; give this user the rights or choose another --lake",
    errno.EPERM: "the system does not allow it; a lake needs a disk with hard links, and the rights to write there",
    errno.EIO: "the disk reports an input/output error; check it (dmesg, smartctl) before you trust it again",
    errno.EMFILE: "this process has too many open files; raise 'ulimit -n'",
    errno.ENFILE: "the system has too many open files",
    errno.ENOTDIR: "a part of the path is a file, not a folder; move it away or choose another --lake",
    errno.EISDIR: "a folder has the name of the file; move it away",
    errno.ENAMETOOLONG: "the name is longer than the disk allows; choose a shorter one",
    errno.EFBIG: "the file is larger than the disk allows",
    errno.EOPNOTSUPP: "the disk does not support it; a lake needs hard links and locks",
}


@contextmanager
def _in_plain_words(where: str, doing: str) -> Iterator[None]:
    """Turn the system's errors into LakeError; a missing file stays FileNotFoundError for the caller."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        if doing == "read" and isinstance(error, NotADirectoryError):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), where) from error
        raise _explained(error, where, doing) from error


@contextmanager
def _full_disk_in_plain_words(where: str) -> Iterator[None]:
    """The same around a caller's block, where only trouble with the disk is ours to explain."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG):
            raise
        raise _explained(error, where, "write") from error


def _explained(error: OSError, where: str, doing: str) -> LakeError:
    words = _REMEDIES.get(error.errno or 0, f"{error.strerror or error}")
    return LakeError(
        f"{where}: cannot {doing} it: {words}. Nothing finished is lost; run the same command again then"
    )


def _raise_if_real(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error

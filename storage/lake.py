"""A lake: one root, on a local disk or in an S3 bucket, that holds corpora and runs. All writing goes through here.

Whatever has its name is complete, and reading never writes, so a read-only lake can be read. How that is done is told
in `storage/disk.py` and `storage/bucket.py`; here are the value that names a lake, commits and locks.
"""

import fcntl
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.disk import Disk, Entry, in_plain_words
from storage.errors import BusyError, ConfigError, ConflictError, LakeError, NotFoundError
from storage.published import warn
from storage.times import moment

if TYPE_CHECKING:
    from storage.bucket import Bucket

logger = logging.getLogger(__name__)

on_file_operation: Callable[[str, str], None] | None = None
"""Called before each `fsync`, `rename`, `link`, `unlink` and (bucket) `put`, with its name and the file's path.

Crash tests set it, in a child process, to a function that ends the process at the n-th call.
"""


@dataclass(frozen=True)
class Lake:
    """A root for all files of gristmill; make one with `Lake.open`. A plain value: it can be pickled and compared.

    Paths are relative to the root, with slashes on every system; one that leads out of the lake is refused. Whatever
    disk or network does wrong is raised as LakeError in plain words.
    """

    url: str
    """Absolute path of a local lake, or s3://bucket/prefix."""
    root: Path | None
    """Folder of a local lake, None in a bucket."""
    cache: Path
    """Folder on this machine for downloads, uploads and locks of a lake in a bucket; a local one does without."""

    @classmethod
    def open(cls, location: str | Path, *, cache: Path | None = None) -> "Lake":
        """Name a lake at a local path or at s3://bucket/prefix; nothing is made or contacted yet.

        Endpoint, region and credentials of a bucket are taken from the usual AWS_* variables by obstore and kept
        nowhere else. `cache` is ~/.cache/gristmill if not given. Raises ConfigError if it can be neither.
        """
        # A Path has lost one of the slashes.
        text = re.sub(r"^s3:/(?=[^/])", "s3://", str(location))
        cache = cache or Path.home() / ".cache" / "gristmill"
        if not text.strip():
            raise ConfigError("--lake: expected a folder or s3://bucket/prefix, got an empty text")
        if "://" not in text:
            root = Path(text).expanduser().absolute()
            found = next(path for path in (root, *root.parents) if path.exists())
            if not found.is_dir():
                raise ConfigError(
                    f"--lake {text}: expected a folder or s3://bucket/prefix, got a file ({found})"
                )
            return cls(url=str(root), root=root, cache=cache)
        url = text.rstrip("/")
        if not re.fullmatch(r"s3://[^/?#@:]+(/[^/?#]+)*", url):
            raise ConfigError(
                f"--lake {text}: expected a local folder or s3://bucket/prefix; endpoint, region and credentials belong "
                "in AWS_* variables"
            )
        folder = hashlib.blake2b(url.encode(), digest_size=8).hexdigest()
        return cls(url=url, root=None, cache=cache / folder)

    @property
    def is_local(self) -> bool:
        """Whether the lake is a folder on this machine."""
        return self.root is not None

    def __str__(self) -> str:
        return self.url

    def where(self, path: str) -> str:
        """The full name of a file, for messages."""
        return f"{self.url}/{path}"

    def read_bytes(self, path: str) -> bytes:
        """Content of a file. Raises NotFoundError."""
        with self._naming(path):
            return self._store.read(_inside(path))

    def digest(self, path: str) -> tuple[str, int]:
        """SHA-256 (64 hex digits) and size of a file, read in pieces. Raises NotFoundError."""
        digest, num_bytes = hashlib.sha256(), 0
        with self._naming(path):
            for piece in self._store.stream(_inside(path)):
                digest.update(piece)
                num_bytes += len(piece)
        return digest.hexdigest(), num_bytes

    def local_path(self, path: str) -> Path:
        """A file on this machine with the content: the file itself, or a download. Raises NotFoundError."""
        with self._naming(path):
            return self._store.local_path(_inside(path))

    def exists(self, path: str) -> bool:
        """Whether there is a file, not a folder, of that name."""
        return self._store.exists(_inside(path))

    def list(self, prefix: str = "", *, temporary: bool = False) -> "list[Entry]":
        """All files in the folder `prefix` and below, sorted by path; none if there is no such folder.

        Files under a temporary name, whose writer is at work or was killed, are left out unless asked for.
        """
        return sorted(
            self._store.list(_folder(prefix), temporary=temporary), key=lambda entry: entry.path
        )

    def list_folders(self, prefix: str) -> "list[str]":
        """Names of the folders right below the folder `prefix`, sorted."""
        return sorted(self._store.folders(_folder(prefix)))

    def writer(self, path: str) -> AbstractContextManager[Path]:
        """`with lake.writer(path) as file`: write to the local `file`; it gets its name when the block ends well.

        That happens in one step, in place of an older file of that name. If the block fails, nothing of it stays.
        """
        return self._store.writer(_inside(path))

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a file in one step: whoever reads it gets the old content or the new, also after a crash."""
        self._store.write(_inside(path), data)

    def publish_bytes(self, path: str, data: bytes) -> None:
        """`write_bytes` for the file that makes a result exist: once it is there, trouble is a warning, not an error."""
        try:
            self.write_bytes(path, data)
        except LakeError as error:
            try:
                is_there = self.read_bytes(path) == data
            except (LakeError, NotFoundError):
                raise error from None
            if not is_there:
                raise
            warn(f"{self.where(path)}: written, but may not survive a power cut: {error}")

    def create_bytes(self, path: str, data: bytes) -> bool:
        """Put if absent: write a file that must not exist yet. False, and nothing written, if it does.

        By link(2) on a disk, by `If-None-Match: *` in a bucket. False may also mean that our own put got there and
        its answer was lost: `commit_bytes` can tell.
        """
        return self._store.create(_inside(path), data)

    def commit_bytes(self, path: str, data: bytes, commit_id: str) -> None:
        """Put if absent a JSON object whose `commit.id` is `commit_id`, a name that nobody else uses.

        Finding our own file there is success, because the answer to our put may have been lost on its way. Raises
        ConflictError, saying whose it is, if it is somebody else's.
        """
        failure: LakeError | None = None
        try:
            if self.create_bytes(path, data):
                return
        except LakeError as error:  # it may have been carried out all the same
            failure = error
        try:
            found = _commit_of(self.read_bytes(path))
        except (LakeError, NotFoundError) as error:
            raise failure or error from None
        if found.get("id") != commit_id:
            raise ConflictError(
                f"{self.where(path)}: expected to be the first to write it, but pid {found.get('pid', '?')} on "
                f"{found.get('host', '?')} did at {moment(found.get('created_at', '?'), None)}; run the same command again"
            ) from failure
        self.sync_names([path])  # what failed may have been the sync that makes it stay there
        logger.info("%s: the answer to its put was lost, but it is there", self.where(path))

    def sync_names(self, paths: Iterable[str]) -> None:
        """Make sure that these files keep their names after a power cut, before something is built on them.

        Whoever finds a file needs it: its writer may have been killed between the rename and the fsync of the folder.
        """
        self._store.sync_names(map(_inside, paths))

    def delete(self, path: str) -> None:
        """Remove a file; no error if there is none."""
        self._store.delete([_inside(path)])

    def delete_prefix(self, prefix: str) -> None:
        """Remove the folder `prefix` with all files below it, temporary ones too; no error if there is none."""
        self._store.delete_folder(_inside(prefix.removesuffix("/")))

    def delete_downloads(self) -> None:
        """Remove what this machine has downloaded of a lake in a bucket; a local lake has no such thing."""
        if self.root is None:
            Disk(self.cache, _before).delete_folder("files")

    @contextmanager
    def lock(self, name: str, doing: str) -> Iterator[None]:
        """Hold the lock `name` during the block; `doing` ("building 'x'") is what others are told meanwhile.

        It is a flock(2), so it ends with its holder, however that dies; the text in the file only informs. For a lake
        in a bucket it holds among the processes of this machine; commits are safe without it. Raises BusyError at
        once if somebody has it.
        """
        file = self._lock_file(name)
        with in_plain_words(file, "lock"):
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            with in_plain_words(file, "lock"):
                if (other := _lock_alone(descriptor)) is not None:
                    raise BusyError(
                        f"already {other or doing}; wait for it, or stop it first ({file})"
                    )
                since = moment(time.time(), None)
                holder = f"{doing} (pid {os.getpid()} on {os.uname().nodename}, since {since})"
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, holder.encode(), 0)
            try:
                yield
            finally:
                with suppress(OSError):  # it only informs
                    os.ftruncate(descriptor, 0)
        finally:
            # The file stays: without it two processes could lock two files of the same name.
            os.close(descriptor)

    def lock_holder(self, name: str) -> str:
        """Who holds the lock `name`, in the words that `lock` tells others; empty if nobody does. Makes no file."""
        file = self._lock_file(name)
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return ""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.pread(descriptor, 1000, 0).decode(errors="replace") or "somebody"
        finally:
            os.close(descriptor)
        return ""

    @property
    def locks(self) -> Path:
        """Folder of the lake's locks on this machine."""
        return (self.root or self.cache) / "locks"

    def _lock_file(self, name: str) -> Path:
        return self.locks / _inside(f"{name}.lock")

    @property
    def _store(self) -> "Disk | Bucket":
        if self.root is not None:
            return Disk(self.root, _before)
        from storage.bucket import open_bucket  # obstore is loaded only for lakes in buckets

        return open_bucket(self.url, self.cache, _before)

    @contextmanager
    def _naming(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise NotFoundError(f"{self.where(path)}: expected a file, found none") from error


def _lock_alone(descriptor: int) -> str | None:
    """Take the exclusive lock and return None; else what its holder says of itself.

    One that says nothing yet has just taken it, or only asks who has it (`lock_holder`); so that is tried again.
    """
    for _ in range(25):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if holder := os.pread(descriptor, 1000, 0).decode(errors="replace"):
                return holder
            time.sleep(0.02)
        else:
            return None
    return ""


def _before(operation: str, path: str) -> None:
    if on_file_operation is not None:
        on_file_operation(operation, path)


def _inside(path: str) -> str:
    """The path, if it stays inside the lake: manifests name files, and a forged one could name any."""
    if any(part in ("", ".", "..") for part in path.split("/")) or "\\" in path or "\0" in path:
        raise LakeError(
            f"{path!r}: expected a path inside the lake, without '..', '.', '\\' or empty parts"
        )
    return path


def _folder(prefix: str) -> str:
    return _inside(prefix.removesuffix("/")) if prefix else ""


def _commit_of(data: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(data)["commit"])
    except (
        ValueError,
        KeyError,
        TypeError,
    ):  # damaged, or none of ours: somebody else's in any case
        return {}

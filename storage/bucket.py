"""A lake's files in an S3 bucket. Objects appear as a whole, so atomic writes need nothing but a put.

Beside the bucket there is a folder on this machine for downloads, and for files on their way up.
"""

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from storage.disk import Disk, Entry
from storage.errors import LakeError
from storage.redaction import without_secrets


class Bucket:
    """The objects below s3://bucket/prefix, by the same methods as `Disk`. What goes wrong is a LakeError."""

    def __init__(self, url: str, cache: Path, before: Callable[[str, str], None]) -> None:
        self.url = url
        self.before = before
        self._cache = Disk(cache, before=lambda operation, path: None)
        with self._in_plain_words():
            self._store = S3Store.from_url(
                url,
                # An http:// endpoint is one that the user named. The timeout is for a whole object, and shards are
                # large: obstore's 30 s would need 9 MB/s for one of 256 MB.
                client_options={
                    "allow_http": True,
                    "connect_timeout": timedelta(seconds=5),
                    "timeout": timedelta(minutes=15),
                },
                retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=60)},
            )

    def read(self, path: str) -> bytes:
        """Content of an object. Raises FileNotFoundError."""
        with self._in_plain_words(path):
            return bytes(obstore.get(self._store, path).bytes())

    def stream(self, path: str) -> Iterator[bytes]:
        """Content of an object in pieces of about 8 MiB. Raises FileNotFoundError."""
        with self._in_plain_words(path):
            for piece in obstore.get(self._store, path).stream(min_chunk_size=8 << 20):
                yield bytes(piece)

    def local_path(self, path: str) -> Path:
        """A download of the object. Raises FileNotFoundError.

        It is kept under the object's ETag, which changes with the content, so it is never out of date.
        """
        with self._in_plain_words(path):
            meta = obstore.head(self._store, path)
        mark = f"{meta['e_tag']} {meta['size']} {'' if meta['e_tag'] else meta['last_modified']}"
        name = f"files/{hashlib.blake2b(mark.encode(), digest_size=8).hexdigest()}/{path}"
        if not self._cache.exists(name):
            with self._cache.writer(name) as temporary, temporary.open("wb") as file:
                for piece in self.stream(path):
                    file.write(piece)
        return self._cache.root / name

    def exists(self, path: str) -> bool:
        """Whether there is an object of that name."""
        try:
            with self._in_plain_words(path):
                obstore.head(self._store, path)
        except FileNotFoundError:
            return False
        return True

    def list(self, folder: str, *, temporary: bool) -> Iterator[Entry]:
        """All objects in a folder and below, in no order; there are no temporary ones in a bucket."""
        with self._in_plain_words(folder, missing="bucket"):
            for page in obstore.list(self._store, folder or None, chunk_size=1000):
                for meta in page:
                    yield Entry(meta["path"], meta["size"], meta["last_modified"].timestamp())

    def folders(self, folder: str) -> "list[str]":
        """Names of the folders right below a folder, in no order."""
        with self._in_plain_words(folder, missing="bucket"):
            found = obstore.list_with_delimiter(self._store, folder)["common_prefixes"]
        return [path.rstrip("/").rsplit("/", 1)[-1] for path in found]

    @contextmanager
    def writer(self, path: str) -> Iterator[Path]:
        """Yield a name on this machine to write to; when the block ends well, the file is put into the bucket."""
        name = path.rsplit("/", 1)[-1]
        with self._cache.scratch(f"uploads/{name}") as temporary:
            yield temporary
            self._put(path, temporary)

    def write(self, path: str, data: bytes) -> None:
        """Put an object, in place of an older one."""
        self._put(path, data)

    def create(self, path: str, data: bytes) -> bool:
        """Put an object unless there is one of that name (If-None-Match: *)."""
        self.before("put", f"{self.url}/{path}")
        with self._in_plain_words(path, missing="bucket"):
            try:
                # In one request, which every S3 treats as a whole; of uploads in parts that is not sure.
                obstore.put(self._store, path, data, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    def sync_names(self, paths: Iterable[str]) -> None:
        """Nothing to do: a put is answered when it is durable."""

    def delete(self, paths: Sequence[str]) -> None:
        """Remove objects; those that do not exist are no error."""
        for start in range(0, len(paths), 1000):  # as many as S3 takes in a request
            some = list(paths[start : start + 1000])
            self.before("unlink", f"{self.url}/{some[0]}")
            with self._in_plain_words(some[0]), suppress(FileNotFoundError):
                obstore.delete(self._store, some)

    def delete_folder(self, folder: str) -> None:
        """Remove all objects in a folder and below."""
        self.delete([entry.path for entry in self.list(folder, temporary=True)])

    def _put(self, path: str, source: bytes | Path) -> None:
        self.before("put", f"{self.url}/{path}")
        with self._in_plain_words(path, missing="bucket"):
            obstore.put(self._store, path, source)

    @contextmanager
    def _in_plain_words(self, path: str = "", *, missing: str = "object") -> Iterator[None]:
        """Turn what obstore raises into LakeError; a `missing` object stays FileNotFoundError, a bucket does not."""
        where = f"{self.url}/{path}" if path else self.url
        no_bucket = f"{where}: the bucket does not exist; create it or choose another --lake"
        try:
            yield
        except FileNotFoundError as error:
            if missing == "object":
                raise
            raise LakeError(no_bucket) from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise LakeError(
                f"{where}: the bucket refuses access; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY "
                f"and what they permit ({_first_line(error)})"
            ) from _cause(error)
        except (BaseError, OSError, ValueError) as error:
            if "NoSuchBucket" in str(error):  # a list says so in its text only
                raise LakeError(no_bucket) from _cause(error)
            raise LakeError(
                f"{where}: the bucket gives no good answer; check the network, AWS_ENDPOINT_URL, AWS_REGION "
                f"and the credentials, then run the same command again ({_first_line(error)})"
            ) from _cause(error)


def _cause(error: Exception) -> Exception | None:
    """The error, for tracebacks; obstore repeats an endpoint with its password, and nobody else's logs may have that."""
    return error if without_secrets(str(error)) == str(error) else None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


@functools.cache
def open_bucket(url: str, cache: Path, before: Callable[[str, str], None]) -> Bucket:
    """The bucket of a lake: one client with its connections per process and location."""
    return Bucket(url, cache, before)

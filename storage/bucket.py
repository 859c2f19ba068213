"""Objects of an S3 bucket as a lake needs them: get, conditional put, list, delete, with errors in plain words."""

import functools
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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

from storage.errors import LakeError
from storage.lake import Entry


@dataclass(frozen=True)
class Head:
    """What a bucket says of an object without sending it."""

    num_bytes: int
    """Size of the object."""
    content: str
    """16 hex digits that change with the content: a hash of the ETag."""


class Bucket:
    """The objects below s3://bucket/prefix. Paths are relative to the prefix. Failures are LakeErrors."""

    def __init__(self, url: str) -> None:
        self.url = url
        with self._in_plain_words():
            self._store = S3Store.from_url(
                url,
                # An http:// endpoint is one that the user named in AWS_ENDPOINT_URL. The time limit is for a whole
                # object, and shards are large: obstore's 30 s would fail below 2 MB/s.
                client_options={"allow_http": True, "connect_timeout": "5s", "timeout": "15m"},
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

    def head(self, path: str) -> Head | None:
        """Size and content mark of an object, None if there is none."""
        with self._in_plain_words(path):
            try:
                meta = obstore.head(self._store, path)
            except FileNotFoundError:
                return None
        mark = meta["e_tag"] or f"{meta['last_modified'].timestamp()} {meta['size']}"
        return Head(meta["size"], hashlib.blake2b(mark.encode(), digest_size=8).hexdigest())

    def write(self, path: str, data: bytes | Path) -> None:
        """Put an object; large files go up in parts and appear as a whole."""
        with self._in_plain_words(path, writing=True):
            obstore.put(self._store, path, data)

    def create(self, path: str, data: bytes) -> bool:
        """Put an object unless there is one of that name (If-None-Match: *)."""
        with self._in_plain_words(path, writing=True):
            try:
                # In one request: only that is conditional as a whole on every S3.
                obstore.put(self._store, path, data, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    def list(self, prefix: str) -> Iterator[Entry]:
        """All objects in the folder `prefix`, in no order."""
        with self._in_plain_words(prefix):
            for page in obstore.list(self._store, prefix or None, chunk_size=1000):
                for meta in page:
                    yield Entry(meta["path"], meta["size"], meta["last_modified"].timestamp())

    def folders(self, prefix: str) -> "list[str]":
        """Names of the folders right below the folder `prefix`."""
        with self._in_plain_words(prefix):
            found = obstore.list_with_delimiter(self._store, prefix)["common_prefixes"]
        return [path.rstrip("/").rsplit("/", 1)[-1] for path in found]

    def delete(self, paths: Sequence[str]) -> None:
        """Remove objects; those that do not exist are no error."""
        with self._in_plain_words(paths[0] if paths else ""):
            for start in range(0, len(paths), 1000):  # S3's limit for one request
                try:
                    obstore.delete(self._store, list(paths[start : start + 1000]))
                except FileNotFoundError:
                    pass

    @contextmanager
    def _in_plain_words(self, path: str = "", *, writing: bool = False) -> Iterator[None]:
        where = f"{self.url}/{path}" if path else self.url
        try:
            yield
        except FileNotFoundError as error:
            if not writing:
                raise
            raise LakeError(
                f"{where}: cannot write it: the bucket does not exist; create it first"
            ) from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise LakeError(
                f"{where}: the bucket refused access; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the "
                f"rights they carry ({_first_line(error)})"
            ) from error
        except (BaseError, OSError, ValueError) as error:
            raise LakeError(
                f"{where}: the bucket did not answer as expected; check the network, AWS_ENDPOINT_URL and AWS_REGION, "
                f"then run the same command again ({_first_line(error)})"
            ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


@functools.cache
def open_bucket(url: str) -> Bucket:
    """The bucket of a lake; one client with its connections per process and location."""
    return Bucket(url)

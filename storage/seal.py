"""Seals: files that carry their own checksum, so that a changed bit in one is found before anything is made of it.

Of a sealed object in JSON every byte counts: it is read only if it is what `sealed` writes.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from storage.errors import CorruptError

OLDER = "or an older gristmill wrote it, which kept no checksums"
"""What else a missing checksum may mean."""

_SIZE = 16  # bytes of BLAKE2b: against damage, not against forgery


def sealed(body: Mapping[str, Any]) -> bytes:
    """A JSON object with its `checksum`, sorted and indented. It must not have that key; NaN and infinity are allowed."""
    plain: dict[str, Any] = json.loads(json.dumps(body))  # keys are texts, and sorted as such
    text = json.dumps(plain | {"checksum": _checksum(plain)}, indent=1, sort_keys=True)
    return f"{text}\n".encode()


def unsealed(data: bytes, where: str, remedy: str) -> dict[str, Any]:
    """The object that `sealed` was given. Raises CorruptError, naming `where` and what to do, unless every byte is right."""
    try:
        body = dict(json.loads(data))
    except (ValueError, TypeError, RecursionError) as error:
        raise CorruptError(
            f"{where}: expected a JSON object, got {data[:40]!r}; {remedy}"
        ) from error
    expected = body.pop("checksum", None)
    if expected is None:
        raise CorruptError(
            f"{where}: expected a JSON object with its checksum, got none: the file is damaged, {OLDER}; {remedy}"
        )
    if (found := _checksum(body)) != expected or sealed(body) != data:
        raise CorruptError(
            f"{where}: expected checksum {expected}, got {found}: it changed after it was written; {remedy}"
        )
    return body


def _checksum(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=_SIZE).hexdigest()

"""Seals: files that carry their own checksum, so that a changed bit in one is found before anything is made of it.

Of a sealed object in JSON every byte counts: it is read only if it is what `sealed` writes. Lines of JSON are chained:
the checksum of each covers those before it, so that a line cannot change, go or move unseen. A text's seal is a last
line; it is a comment in HTML and Markdown.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
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


def chain(before: str, row: Mapping[str, Any]) -> tuple[bytes, str]:
    """A line of JSON after the one with checksum `before` (empty for the first), and its own checksum."""
    text = json.dumps(row, separators=(",", ":"))
    checksum = hashlib.blake2b(f"{before}{text}".encode(), digest_size=_SIZE).hexdigest()
    return f'{text[:-1]},"checksum":"{checksum}"}}\n'.encode(), checksum


def unchained(data: bytes, where: str, remedy: str) -> list[dict[str, Any]]:
    """The rows of chained lines. Raises CorruptError, naming the line."""
    rows, before = [], ""
    for number, line in enumerate(data.splitlines(keepends=True), 1):
        here = f"{where}:{number}"
        try:
            row = dict(json.loads(line))
        except (ValueError, TypeError, RecursionError) as error:
            raise CorruptError(
                f"{here}: expected a JSON object, got {line[:40]!r}; {remedy}"
            ) from error
        if (expected := row.pop("checksum", None)) is None:
            raise CorruptError(
                f"{here}: expected a JSON object with its checksum, got none: the file is damaged, {OLDER}; {remedy}"
            )
        again, before = chain(before, row)
        if again != line:
            raise CorruptError(
                f"{here}: expected checksum {expected}, got {before}: it or a line before it changed after it was "
                f"written; {remedy}"
            )
        rows.append(row)
    return rows


_TEXT_SEAL = re.compile(rb"(?:<!-- checksum ([0-9a-f]{32}) -->|checksum ([0-9a-f]{32}))\n\Z")


def sealed_text(text: str, *, is_markup: bool) -> bytes:
    """The text with a last line that seals it."""
    data = (text if text.endswith("\n") else f"{text}\n").encode()
    seal = f"checksum {hashlib.blake2b(data, digest_size=_SIZE).hexdigest()}"
    return data + (f"<!-- {seal} -->\n" if is_markup else f"{seal}\n").encode()


def unsealed_text(data: bytes, where: str, remedy: str) -> str:
    """The text without its seal. Raises CorruptError, naming `where` and what to do, unless every byte is right."""
    seal = _TEXT_SEAL.search(data)
    if seal is None:
        raise CorruptError(
            f"{where}: expected a last line with its checksum, got {data[-40:]!r}: the file is damaged, {OLDER}; {remedy}"
        )
    body, expected = data[: seal.start()], (seal[1] or seal[2]).decode()
    if (found := hashlib.blake2b(body, digest_size=_SIZE).hexdigest()) != expected:
        raise CorruptError(
            f"{where}: expected checksum {expected}, got {found}: it changed after it was written; {remedy}"
        )
    return body.decode()


def _checksum(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=_SIZE).hexdigest()


def lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Chained lines of all rows."""
    parts, before = [], ""
    for row in rows:
        line, before = chain(before, row)
        parts.append(line)
    return b"".join(parts)

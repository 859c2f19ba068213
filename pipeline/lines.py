"""From chunks of bytes to UTF-8 and to lines: byte order marks, other encodings, and lines of bounded length."""

import codecs
from collections.abc import Iterator

from pipeline.raw import Problem

# UTF-32 first: its little-endian mark begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

_BAD_CHARACTER = "\udcff"
"""Stands for what an encoding could not decode: in UTF-8 it is invalid too, so that only its own line is refused."""


def _mark_bad(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return _BAD_CHARACTER, error.end


codecs.register_error("gristmill-mark", _mark_bad)


def to_utf8(chunks: Iterator[bytes | Problem], encoding: str) -> Iterator[bytes | Problem]:
    """Yield the same text in UTF-8 without a byte order mark; a mark goes before the `encoding` that was named.

    UTF-8 is passed on as it is, valid or not; in other encodings what cannot be decoded becomes invalid UTF-8, so that
    the reader of lines or documents finds it either way.
    """
    head = b""
    for chunk in chunks:
        if isinstance(chunk, Problem):
            if head:
                yield head
            yield chunk
            yield from chunks
            return
        head += chunk
        if len(head) >= 4:
            break
    mark, found = next(((m, e) for m, e in _MARKS if head.startswith(m)), (b"", encoding))
    head = head[len(mark) :]
    if codecs.lookup(found).name == "utf-8":
        if head:
            yield head
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder(found)("gristmill-mark")
    yield _encode(decoder.decode(head))
    for chunk in chunks:
        yield chunk if isinstance(chunk, Problem) else _encode(decoder.decode(chunk))
    if rest := decoder.decode(b"", final=True):
        yield _encode(rest)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def split_lines(
    chunks: Iterator[bytes | Problem], max_bytes: int, *, keep_returns: bool = False
) -> Iterator[tuple[int, bytes | Problem]]:
    """Yield (number from 1, line without its end) for every line, or a Problem in the place of one.

    Lines end at LF or CR LF (`keep_returns`: at LF alone). A byte order mark before one goes: `cat a b` leaves it there.
    A line longer than `max_bytes` is skipped up to its end as `too_long`. Memory: one line and one chunk.
    """

    def whole(line: bytes, num_bytes: int) -> bytes | Problem:
        if num_bytes > max_bytes:
            detail = f"expected a line of at most {max_bytes} bytes, got {num_bytes}"
            detail += "; raise read.max_document_bytes to take it"
            return Problem("too_long", detail, line[:8000])
        line = line.removeprefix(codecs.BOM_UTF8)
        return line if keep_returns else line.removesuffix(b"\r")

    number = 1
    held: list[bytes] = []
    num_bytes = 0
    for chunk in chunks:
        if isinstance(chunk, Problem):
            line = b"".join(held)
            if num_bytes and not chunk.cuts_record:
                yield number, whole(line, num_bytes)
                number += 1
                line = b""
            yield number, Problem(chunk.rule, chunk.detail, line[:8000])
            held, num_bytes = [], 0
            continue
        pieces = chunk.split(b"\n")
        for piece in pieces[:-1]:
            if num_bytes:
                if num_bytes <= max_bytes:
                    held.append(piece)
                yield number, whole(b"".join(held), num_bytes + len(piece))
                held, num_bytes = [], 0
            else:
                yield number, whole(piece, len(piece))
            number += 1
        num_bytes += len(pieces[-1])
        if pieces[-1] and num_bytes - len(pieces[-1]) <= max_bytes:
            held.append(pieces[-1])
    if num_bytes:
        yield number, whole(b"".join(held), num_bytes)

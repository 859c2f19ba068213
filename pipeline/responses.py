"""The page inside an HTTP response as archives keep it, whatever its header says of how it was sent.

Crawlers store bodies as they came, or with chunks and compression undone but the header unchanged, or cut off. So each
declared coding is tried, as a browser does, and where the bytes are not coded that way they are taken as they are. Of a
body that was cut, what came before the cut is kept. RFC 9110 (header fields, content codings), RFC 9112 (chunks).
"""

import codecs
import io
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import zstandard
from fastwarc.stream_io import BrotliReader

from pipeline.formats import binary_problem

_STATUS_LINE = re.compile(
    rb"\s*(?:HTTP(?:/[0-9.]{1,8})?|ICY)[ \t]+([0-9]{3})(?![0-9])", re.IGNORECASE
)
# No field begins with "<": a page that does follows a header without its empty line.
_HEAD_END = re.compile(rb"\n[ \t]*\r?\n|\n(?=<)")
_LINE_END = re.compile(r"\r?\n")
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
_MAX_CODINGS = 4
"""Codings undone of one body: more than that no server sends, and each may cost the page limit."""


class BadCodingError(Exception):
    """A body that begins in the coding its header declares, and is damaged further on."""


@dataclass(frozen=True)
class Fields:
    """Header fields, names in lower case; the values of a field that occurs again are joined by commas."""

    values: dict[str, str]

    def __getitem__(self, name: str) -> str:
        """The value of a field, "" if it is not there."""
        return self.values.get(name, "")

    def tokens(self, name: str) -> list[str]:
        """A list of codings in lower case, in the order in which they were applied."""
        return [
            token for t in self[name].lower().split(",") if (token := t.partition(";")[0].strip())
        ]


class Response(NamedTuple):
    """An HTTP response."""

    status: int | None
    """None where the block has no status line: HTTP/0.9, or a header that was left out."""
    fields: Fields
    body: bytes
    """As it was stored."""


def parse_fields(head: bytes) -> Fields:
    """The fields of a header. Lines that are no fields (the first, say) are passed over, folded ones joined."""
    try:
        text = head.decode()
    except UnicodeDecodeError:
        text = head.decode("latin-1")
    values: dict[str, str] = {}
    name = ""
    for line in _LINE_END.split(text):
        if line[:1] in (" ", "\t") and name:
            values[name] += " " + line.strip()
            continue
        field, colon, value = line.partition(":")
        name = field.strip().lower() if colon else ""
        if name:
            values[name] = f"{values[name]}, {value.strip()}" if name in values else value.strip()
    return Fields(values)


def parse_response(block: bytes) -> Response:
    """Cut a block into status, header and body; lines may end in LF alone. All of it is body if there is no header."""
    status = _STATUS_LINE.match(block)
    if status is None:
        return Response(None, Fields({}), block)
    end = _HEAD_END.search(block, status.end())
    head, body = (block[: end.start()], block[end.end() :]) if end else (block, b"")
    return Response(int(status[1]), parse_fields(head[status.end() :]), body)


def decode_body(response: Response, max_bytes: int) -> bytes:
    """The body as the server meant it, cut after `max_bytes`.

    Raises BadCodingError if it begins in a declared coding and cannot be decoded to where it ends.
    """
    sent = response.fields.tokens("transfer-encoding")
    codings = response.fields.tokens("content-encoding") + [c for c in sent if c != "chunked"]
    body = response.body
    if "chunked" in sent + codings:
        body = _join_chunks(body)
    for coding in reversed(codings[-_MAX_CODINGS:]):
        if decoder := _DECODERS.get(coding.removeprefix("x-")):
            body = decoder(body, max_bytes)
    # Encoded once more than declared, or the header was not kept: no text begins with these bytes.
    for _ in range(_MAX_CODINGS - len(codings)):
        if not body.startswith((_GZIP, _ZSTD)):
            break
        body = (_gunzip if body.startswith(_GZIP) else _unzstd)(body, max_bytes)
    return body[:max_bytes]


def _join_chunks(body: bytes) -> bytes:
    """The chunks of a body joined, up to a cut or damage; the body itself if it does not begin with a chunk."""
    joined, at = bytearray(), 0
    while size := _CHUNK_SIZE.match(body, at):
        begin, end = size.end(), size.end() + int(size[1], 16)
        behind = body[end : end + 2]
        is_whole = behind.startswith((b"\r\n", b"\n"))
        # Text may begin with a line of digits, but then no chunk ends where they say.
        if not at and not is_whole and end < len(body):
            return body
        joined += body[begin:end]
        at = end + (2 if behind == b"\r\n" else 1)
        if begin == end or not is_whole:
            break
    return bytes(joined) if at else body


def _gunzip(body: bytes, max_bytes: int) -> bytes:
    """All members of a gzip body; what follows the last one is padding or garbage."""
    if not body.startswith(_GZIP):
        return body
    found = bytearray()
    while body.startswith(_GZIP) and len(found) < max_bytes:
        piece, body = _inflate(body, zlib.MAX_WBITS | 16, max_bytes - len(found))
        found += piece
    return bytes(found)


def _undeflate(body: bytes, max_bytes: int) -> bytes:
    """RFC 1950 as the standard has it, or RFC 1951 without a header as many servers send it."""
    if _is_text(body):
        return body
    for window_bits in (zlib.MAX_WBITS, -zlib.MAX_WBITS):
        try:
            found, behind = _inflate(body, window_bits, max_bytes)
        except BadCodingError:
            continue
        # Other bytes may pass for a short stream, behind which most of them are left.
        if found and len(behind) <= len(body) // 2:
            return found
    return body


def _inflate(body: bytes, window_bits: int, max_bytes: int) -> tuple[bytes, bytes]:
    """Give (up to `max_bytes` of a zlib stream, what follows its end)."""
    decoder = zlib.decompressobj(window_bits)
    try:
        return decoder.decompress(body, max_bytes), decoder.unused_data
    except zlib.error as error:
        raise BadCodingError(
            f"expected a {len(body)}-byte body as declared, got: {error}"
        ) from error


def _unbrotli(body: bytes, max_bytes: int) -> bytes:
    if _is_text(body):
        return body
    return b"".join(_read_all(BrotliReader(io.BytesIO(body)).read, max_bytes)) or body


def _is_text(body: bytes) -> bool:
    """Whether bytes are UTF-8 without controls. Brotli and raw deflate have no mark, but they never look like this."""
    head = body[:4096]
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return binary_problem(head) is None


def _unzstd(body: bytes, max_bytes: int) -> bytes:
    if not body.startswith(_ZSTD):
        return body
    context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    reader = context.stream_reader(body, read_across_frames=True)
    found = b"".join(_read_all(reader.read, max_bytes))
    if not found:
        raise BadCodingError(
            "expected zstd data as declared, got some that is cut or damaged in its first block"
        )
    return found


def _read_all(read: Callable[[int], bytes], max_bytes: int) -> Iterator[bytes]:
    """Pieces of a stream up to `max_bytes`, up to its end or to where it is cut or damaged."""
    while max_bytes > 0:
        try:
            piece = read(min(max_bytes, 64 << 10))
        except (OSError, zstandard.ZstdError):
            return
        if not piece:
            return
        yield piece
        max_bytes -= len(piece)


_GZIP = b"\x1f\x8b\x08"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_WINDOW_BYTES = 8 << 20
"""The largest window that RFC 9659 allows in HTTP."""

_DECODERS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gunzip,
    "deflate": _undeflate,
    "br": _unbrotli,
    "zstd": _unzstd,
}
"""By content coding, without the old prefix "x-"; any other (identity, none, utf-8) leaves a body as it is."""

"""Documents out of web archives: the framing of WARC files, so that one broken record costs no other.

This module cuts a stream into records, finds the next one after a break, and tells pages from what is none; what is
inside an HTTP response is `responses.py`'s. WARC 1.1: https://iipc.github.io/warc-specifications/
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from pipeline.extract import ExtractError, decode_page, html_to_text
from pipeline.formats import binary_problem, foreign_kind
from pipeline.raw import Problem, ReadLimits, Row, bad_row, document_row, skipped_row
from pipeline.responses import (
    BadCodingError,
    Fields,
    Response,
    decode_body,
    parse_fields,
    parse_response,
)

_MAX_HEADER_BYTES = 64 << 10
"""A record's header is some 500 bytes."""

_START = re.compile(rb"WARC/[0-9]\.[0-9]{1,2}\r?\n")
_NEXT = re.compile(rb"\nWARC/[0-9]\.[0-9]{1,2}\r?\n")
_HEADER_ENDS = (b"\r\n\r\n", b"\n\n")
_WITH_DOCUMENTS = ("response", "resource", "conversion")
_WITHOUT = ("warcinfo", "request", "metadata", "revisit", "continuation")
_PAGE_STATUS = (None, 200, 203)
"""203 is 200 by way of a proxy (RFC 9110, section 15.3.4)."""
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_XML_TYPES = ("text/xml", "application/xml")
_UNKNOWN_TYPES = ("", "unknown/unknown", "application/unknown", "*/*")
"""Types that say nothing, so that the look of the page decides (MIME Sniffing, section 7)."""


class _Frame(NamedTuple):
    offset: int
    """Where the record begins in the decompressed stream."""
    data: bytes
    """The whole record, header and block; of a broken one what there is."""
    problem: Problem | None
    is_gap: bool = False
    """The problem lies between two records; the second of them begins at the same offset."""


def read_warc(chunks: Iterator[bytes | Problem], uri: str, limits: ReadLimits) -> Iterator[Row]:
    """Yield a document for each response, resource or conversion record of HTML or plain text.

    uri: `file#offset of the record in the decompressed stream`. All other records (requests, redirects, pictures) are
    skipped rows. Memory: one record.
    """
    for frame in _frames(chunks, limits):
        where = f"{uri}#{frame.offset}{'-gap' if frame.is_gap else ''}"
        if frame.problem is None:
            yield _record_row(frame.data, where, limits)
            continue
        row = Problem(frame.problem.rule, frame.problem.detail, frame.data[:8000]).row(where)
        if row.error == "too_long":  # a film of gigabytes is no page either; its header is here
            row = _not_a_page(_Record.parse(frame.data), where) or row
        yield row


class _Record(NamedTuple):
    kind: str
    """WARC-Type, in lower case; "" if there is none."""
    uri: str
    response: Response
    """What was fetched; of records without an HTTP header the type and the block."""

    @classmethod
    def parse(cls, data: bytes) -> "_Record":
        ends = [at + len(e) for e in _HEADER_ENDS if (at := data.find(e)) >= 0]
        size = min(ends, default=len(data))
        fields, block = parse_fields(data[:size]), data[size:]
        content_type = fields["content-type"]
        if content_type.lower().startswith("application/http"):
            response = parse_response(block)
        else:
            response = Response(None, Fields({"content-type": content_type}), block)
        return cls(fields["warc-type"].lower(), fields["warc-target-uri"].strip("<>"), response)

    @property
    def mime(self) -> str:
        """The first media type that is named, "" if none is."""
        return re.split("[;,]", self.response.fields["content-type"])[0].strip().lower()

    @property
    def charset(self) -> str | None:
        named = re.search(
            r"charset\s*=\s*[\"']?([^\s\"';,]+)",
            self.response.fields["content-type"],
            re.IGNORECASE,
        )
        return named[1] if named else None


def _record_row(data: bytes, where: str, limits: ReadLimits) -> Row:
    record = _Record.parse(data)
    if not record.kind:
        return bad_row(where, "bad_record", "expected a WARC record with a type, got none", data)
    if skipped := _not_a_page(record, where):
        return skipped
    try:
        body = decode_body(record.response, limits.html.max_bytes + 1)
    except BadCodingError as error:
        return bad_row(where, "bad_record", str(error), record.response.body)
    if kind := foreign_kind(body[:512]):
        return skipped_row(where, "unsupported_type", f"expected HTML or plain text, got {kind}")
    return page_row(body, record.mime, record.charset, where, limits)


def _not_a_page(record: _Record, where: str) -> Row | None:
    """The skipped row of a record that by its header holds no page."""
    kind, status, mime = record.kind, record.response.status, record.mime
    if kind in _WITHOUT:
        return skipped_row(where, f"{kind}_record", "expected a record with a page")
    if kind not in _WITH_DOCUMENTS:
        detail = f"expected a record of a known type, got {kind[:40]!r}"
        return skipped_row(where, "unknown_record", detail)
    if record.uri.startswith("metadata:"):  # what wget keeps of its own run
        return skipped_row(where, "metadata_record", "expected a record with a page")
    if status not in _PAGE_STATUS:
        reason = {3: "redirect", 4: "http_error", 5: "http_error"}.get((status or 0) // 100)
        detail = f"expected a page (status 200), got status {status}"
        return skipped_row(where, reason or "http_status", detail)
    if mime not in (*_HTML_TYPES, *_XML_TYPES, *_UNKNOWN_TYPES, "text/plain") and "/" in mime:
        detail = f"expected HTML or plain text, got {mime[:80]}"
        return skipped_row(where, "unsupported_type", detail)
    return None


def page_row(body: bytes, mime: str, charset: str | None, where: str, limits: ReadLimits) -> Row:
    """The document that a page is; `body` may be cut behind limits.html.max_bytes, being too long anyway."""
    if not body.strip():
        return skipped_row(where, "empty", "expected a page, got an empty body")
    is_utf16 = body.startswith(_UTF16_MARKS) or (charset or "").lower().startswith("utf-16")
    if not is_utf16 and (problem := binary_problem(body)):
        return problem.row(where)
    is_html = mime in _HTML_TYPES
    if not is_html and mime != "text/plain":
        start = body[:1024].replace(b"\0", b"").lower()
        is_html = b"<html" in start or (mime not in _XML_TYPES and _MARKUP.match(start) is not None)
        if not is_html and mime in _XML_TYPES:
            return skipped_row(
                where, "unsupported_type", f"expected HTML, got {mime} of other kind"
            )
    try:
        if is_html:
            return document_row(where, html_to_text(body, charset, limits.html)[0])
        return document_row(where, decode_page(body, charset, limits.html))
    except ExtractError as error:
        return bad_row(where, error.rule, str(error), body)


_MARKUP = re.compile(rb"(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)?\s*<")


def _frames(chunks: Iterator[bytes | Problem], limits: ReadLimits) -> Iterator[_Frame]:
    """Cut a stream into records; a Problem in it costs the record that it cuts, and the stream goes on behind it."""
    offset = 0
    while True:
        segment = _Segment(chunks, offset)
        for frame in _segment_frames(segment, limits):
            if frame.problem is _CUT and segment.problem is not None:
                yield frame._replace(problem=segment.problem)
                segment.is_reported = True
            else:
                yield frame
        if segment.problem is None:
            return
        if not segment.is_reported:
            yield _Frame(segment.offset, b"", segment.problem, is_gap=True)
        offset = segment.offset


_CUT = Problem(
    "truncated_record", "expected a whole record, got the end of the file in the middle of it"
)


def _segment_frames(segment: "_Segment", limits: ReadLimits) -> Iterator[_Frame]:
    """After a broken record the next one is looked for behind the first line of the broken one."""
    while segment.skip_newlines():
        offset = segment.offset
        head = segment.peek_header()
        length = _content_length(head)
        total = len(head) + (length or 0)
        if not _START.match(head):
            what = (
                "an ARC file (the format before WARC)"
                if head.startswith(b"filedesc:")
                else repr(head[:40])
            )
            problem = Problem("bad_record", f"expected a WARC record, got {what}")
        elif not head.endswith(_HEADER_ENDS):
            problem = Problem(
                "bad_record",
                f"expected a header of at most {_MAX_HEADER_BYTES} bytes, got no end of it",
            )
            if len(head) < _MAX_HEADER_BYTES:
                problem = _CUT
        elif length is None:
            problem = Problem("bad_record", "expected one Content-Length in digits, got none")
        elif length > limits.max_document_bytes:
            # Not held in memory, so the length is not checked: the next record may be inside this one's block.
            problem = Problem(
                "too_long",
                f"expected a record of at most {limits.max_document_bytes} bytes, got {length}",
            )
        elif not segment.fill(total):
            problem = _CUT
        else:
            segment.fill(total + 10)
            behind = segment.peek(total + 10)[total:]
            if behind.startswith(b"\r\n\r\n") or b"WARC/".startswith(behind.lstrip(b"\r\n")[:5]):
                yield _Frame(offset, segment.take(total), None)
                continue
            problem = Problem(
                "bad_length",
                f"expected the record to end after {length} bytes, got {behind!r} there",
            )
        sample = segment.peek(8000)
        is_next = segment.seek_next()
        if is_next and problem is _CUT:
            problem = Problem(
                "bad_length", f"expected {length} bytes in the record, got fewer in all the file"
            )
        yield _Frame(offset, sample, problem)


def _content_length(head: bytes) -> int | None:
    values = re.findall(rb"(?im)^content-length[ \t]*:[ \t]*([^\r\n]*)", head)
    digits = values[0].strip() if len(values) == 1 else b""
    return int(digits) if digits.isdigit() and len(digits) < 19 else None


class _Segment:
    """A stretch of the stream without a Problem, and the part of it that is being looked at."""

    def __init__(self, chunks: Iterator[bytes | Problem], offset: int) -> None:
        self._chunks = chunks
        self._data = bytearray()
        self._is_over = False
        self.offset = offset
        """Where the looked-at part begins in the whole stream."""
        self.problem: Problem | None = None
        """What ended the segment; None if the stream is over."""
        self.is_reported = False

    def fill(self, num_bytes: int) -> bool:
        """Read until that many bytes are held; False if the segment has no more."""
        while len(self._data) < num_bytes and not self._is_over:
            chunk = next(self._chunks, None)
            if isinstance(chunk, bytes):
                self._data += chunk
            else:
                self._is_over, self.problem = True, chunk
        return len(self._data) >= num_bytes

    def peek(self, num_bytes: int) -> bytes:
        return bytes(self._data[:num_bytes])

    def take(self, num_bytes: int) -> bytes:
        data = self.peek(num_bytes)
        del self._data[:num_bytes]
        self.offset += len(data)
        return data

    def skip_newlines(self) -> bool:
        """Go to the next byte that is no line end; False if there is none."""
        while self.fill(1):
            kept = self._data.lstrip(b"\r\n")
            self.offset += len(self._data) - len(kept)
            self._data = kept
            if kept:
                return True
        return False

    def peek_header(self) -> bytes:
        """The header with the empty line behind it, or what there is if it does not end."""
        size = 4096
        while True:
            self.fill(size)
            ends = [at + len(e) for e in _HEADER_ENDS if (at := self._data.find(e, 0, size)) >= 0]
            if ends:
                return self.peek(min(ends))
            if size >= _MAX_HEADER_BYTES or len(self._data) < size:
                return self.peek(size)
            size *= 4

    def seek_next(self) -> bool:
        """Go to the next record's first line behind the one here; False if there is none, and all is consumed."""
        begin = 1
        while True:
            if match := _NEXT.search(self._data, begin - 1):
                self.take(match.start() + 1)
                return True
            if self._is_over:
                self.take(len(self._data))
                return False
            # A first line may be cut in two: 11 bytes and a line end.
            self.take(max(0, len(self._data) - 16))
            begin = 1
            self.fill(len(self._data) + 1)

"""Web archives: sound ones are read as fastwarc reads them, what is no page is skipped, broken records cost only
themselves."""

import gzip
import io
import random
from pathlib import Path
from typing import Any

import pytest
import zstandard
from fastwarc.warc import ArchiveIterator, WarcRecordType

from pipeline.readers import ReadLimits, SourceConfig, find_inputs, read_input

SHARED = Path(__file__).parents[3] / "shared/data/web"


def page(number: int, body: bytes | None = None, mime: str = "text/html; charset=utf-8") -> bytes:
    """One WARC response record."""
    text = f"<html><body><p>This is page {number}, with some words.</p></body></html>".encode()
    body = text if body is None else body
    http = (
        f"HTTP/1.1 200 OK\r\nContent-Type: {mime}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    return record("response", "application/http; msgtype=response", http, number)


def record(kind: str, mime: str, block: bytes, number: int = 0, length: str | None = None) -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://example.org/{number}\r\n"
        f"WARC-Date: 2026-01-01T00:00:00Z\r\nWARC-Record-ID: <urn:uuid:{number}>\r\n"
        f"Content-Type: {mime}\r\nContent-Length: {len(block) if length is None else length}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def read(
    folder: Path, data: bytes, name: str = "x.warc", limits: ReadLimits | None = None
) -> list[dict[str, Any]]:
    (folder / name).write_bytes(data)
    source = SourceConfig(path=name)
    (found,) = find_inputs(source, folder)
    rows = [
        row
        for batch in read_input(found, source, limits or ReadLimits())
        for row in batch.to_pylist()
    ]
    assert len({row["uri"] for row in rows}) == len(rows)
    return rows


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """Number of the page for a document, the rule for an error."""
    return [row["error"] or row["text"].split()[3].rstrip(",") for row in rows]


PAGES = [page(i) for i in range(5)]


@pytest.mark.parametrize("name", ["x.warc", "x.warc.gz", "members.warc.gz"])
def test_pages_become_documents(tmp_path: Path, name: str) -> None:
    """Plain, compressed as a whole, and with a gzip member for each record; uri is the offset in the plain stream."""
    data = b"".join(PAGES)
    packed = {"x.warc": data, "x.warc.gz": gzip.compress(data)}.get(name) or b"".join(
        map(gzip.compress, PAGES)
    )
    rows = read(tmp_path, packed, name)
    assert summary(rows) == ["0", "1", "2", "3", "4"]
    for row in rows:
        assert data[int(row["uri"].rpartition("#")[2]) :].startswith(b"WARC/1.0\r\n")


def test_only_records_with_documents_are_read(tmp_path: Path) -> None:
    """Requests, metadata and the like, other media types and statuses are skipped, each with its reason."""
    data = b"".join(
        [
            record("warcinfo", "application/warc-fields", b"software: x\r\n"),
            record("request", "application/http; msgtype=request", b"GET / HTTP/1.1\r\n\r\n"),
            page(1),
            page(2, b"\x89PNG....", "image/png"),
            record(
                "response",
                "application/http",
                b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n\r\nno",
            ),
            record("conversion", "text/plain", b"This is page 3 already as text"),
            record("resource", "text/html", b"<p>This is page 4 as a resource</p>"),
            page(5, b"This is page 5 in plain text", "text/plain"),
            page(6, b"", "text/html"),
        ]
    )
    rows = read(tmp_path, data)
    assert summary(rows) == [
        "warcinfo_record",
        "request_record",
        "1",
        "unsupported_type",
        "http_error",
        "3",
        "4",
        "5",
        "empty",
    ]
    assert all(row["is_skipped"] == (row["error"] is not None) for row in rows)


def response(
    head: str, body: bytes = b"<p>This is page 1 of any kind</p>", kind: str = ""
) -> bytes:
    block = head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + body
    return record("response", kind or "application/http; msgtype=response", block)


OK = "HTTP/1.1 200 OK\nContent-Type: "
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))
PAGES_OF_ALL_KINDS = {
    "upper case": response(OK + "TEXT/HTML; CHARSET=UTF-8"),
    "no type": response("HTTP/1.1 200 OK"),
    "empty type": response(OK),
    "unknown type": response(OK + "unknown/unknown"),
    "no slash": response(OK + "html"),
    "two types": response(OK + "text/html, text/html; charset=utf-8"),
    "two fields": response(OK + "text/html\nContent-Type: text/html"),
    "xhtml": response(OK + "application/xhtml+xml"),
    "xhtml as xml": response(
        OK + "text/xml", b'<?xml version="1.0"?><html><body><p>This is page 1</p></body></html>'
    ),
    "byte order mark": response("HTTP/1.1 200 OK", b"\xef\xbb\xbf<p>This is page 1</p>"),
    "plain text": response(OK + "text/plain", b"This is page 1"),
    "by way of a proxy": response("HTTP/1.1 203 Non-Authoritative Information"),
    "HTTP/2": response("HTTP/2 200 \ncontent-type: text/html"),
    "no HTTP header": record("response", "text/html", b"<p>This is page 1</p>"),
    "no status line": record("response", "application/http", b"<p>This is page 1</p>"),
    "upper-case kind": record("Response", "Application/HTTP;msgtype=response", b"HTTP/1.1 200 OK\n\n<p>This is page 1</p>"),
    "conversion": record("conversion", "text/plain", b"This is page 1"),
    "resource": record("resource", "text/html; charset=utf-8", b"<p>This is page 1</p>"),
}  # fmt: skip
NO_PAGES = {
    "picture": (response(OK + "image/png", PNG), "unsupported_type"),
    "picture called a page": (response(OK + "text/html", PNG), "unsupported_type"),
    "PDF": (response(OK + "application/pdf", b"%PDF-1.7 ..."), "unsupported_type"),
    "PDF without a type": (response("HTTP/1.1 200 OK", b"%PDF-1.7 ..."), "unsupported_type"),
    "style sheet": (response(OK + "text/css", b"body{color:red}"), "unsupported_type"),
    "script": (response(OK + "text/javascript; charset=utf-8", b"alert(1)"), "unsupported_type"),
    "JSON": (response(OK + "application/json", b'{"a": 1}'), "unsupported_type"),
    "feed": (response(OK + "application/rss+xml", b"<rss></rss>"), "unsupported_type"),
    "feed as XML": (response(OK + "text/xml", b"<rss></rss>"), "unsupported_type"),
    "moved": (response("HTTP/1.1 301 Moved\nContent-Type: text/html"), "redirect"),
    "not modified": (response("HTTP/1.1 304 Not Modified", b""), "redirect"),
    "gone": (response("HTTP/1.1 410 Gone\nContent-Type: text/html"), "http_error"),
    "down": (response("HTTP/1.1 503 Service Unavailable"), "http_error"),
    "part of a film": (response("HTTP/1.1 206 Partial Content"), "http_status"),
    "no content": (response("HTTP/1.1 204 No Content", b""), "http_status"),
    "empty page": (response(OK + "text/html", b""), "empty"),
    "page without text": (response(OK + "text/html", b"<script>x()</script>"), "empty"),
    "name look-up": (record("response", "text/dns", b"20260101000000\nexample.org. 300 IN A 1.2.3.4"), "unsupported_type"),
    "visited before": (record("revisit", "application/http; msgtype=response", b"HTTP/1.1 200 OK\r\n\r\n"), "revisit_record"),
    "rest of a record": (record("continuation", "text/html", b"... and so on"), "continuation_record"),
    "kind of its own": (record("screenshot", "image/png", PNG), "unknown_record"),
    "log of wget": (
        record("resource", "text/plain", b"--2026-01-01-- http://...").replace(
            b"http://example.org/0", b"<metadata://gnu.org/software/wget/warc/wget.log>"
        ),
        "metadata_record",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", PAGES_OF_ALL_KINDS)
def test_pages_of_all_kinds_become_documents(tmp_path: Path, kind: str) -> None:
    """Types in any spelling or none, statuses that stand for a page, records with and without an HTTP header."""
    assert summary(read(tmp_path, PAGES_OF_ALL_KINDS[kind])) == ["1"]


@pytest.mark.parametrize("kind", NO_PAGES)
def test_what_is_no_page_is_skipped(tmp_path: Path, kind: str) -> None:
    """It is told with its reason, and is no fault of the archive."""
    data, reason = NO_PAGES[kind]
    (row,) = read(tmp_path, data)
    assert (row["error"], row["is_skipped"], row["text"]) == (reason, True, None)


def test_a_long_film_is_skipped_and_a_long_page_is_told(tmp_path: Path) -> None:
    """The limit of a record is one of pages; what is no page may be of any size."""
    limits = ReadLimits(max_document_bytes=20_000)
    film = response(OK + "video/mp4", bytes(50_000))
    rows = read(tmp_path, PAGES[0] + film + response(OK + "text/html", b"<p>x" * 20_000) + PAGES[1], limits=limits)  # fmt: skip
    assert summary(rows) == ["0", "unsupported_type", "too_long", "1"]
    assert [row["is_skipped"] for row in rows] == [False, True, False, False]


def test_a_zstd_archive_brings_its_dictionary(tmp_path: Path) -> None:
    """The first frame holds it, plain or compressed; without it no other frame can be read."""
    pages = [page(i) for i in range(200)]
    dictionary = zstandard.train_dictionary(2048, pages)
    coder = zstandard.ZstdCompressor(dict_data=dictionary)
    frames = b"".join(map(coder.compress, pages))
    for stored in (dictionary.as_bytes(), zstandard.compress(dictionary.as_bytes())):
        head = b"\x5d\x2a\x4d\x18" + len(stored).to_bytes(4, "little") + stored
        rows = read(tmp_path, head + frames, "x.warc.zst")
        assert summary(rows) == [str(i) for i in range(200)]
        assert summary(read(tmp_path, head[:100], "x.warc.zst")) == ["truncated_archive"]
    assert summary(read(tmp_path, frames, "x.warc.zst")) == ["corrupt_archive"]


BROKEN = {
    "too long a length": record(
        "response", "application/http", b"HTTP/1.1 200 OK\r\n\r\nx", length="99999"
    ),
    "too short a length": record(
        "response", "application/http", b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 99, length="30"
    ),
    "no number": record("response", "application/http", b"x", length="NaN"),
    "negative": record("response", "application/http", b"x", length="-5"),
    "beyond all": record("response", "application/http", b"x", length="9" * 30),
    "gigabytes": record("response", "application/http", b"x", length=str(1 << 40)),
    "two lengths": record("response", "application/http", b"x", length="1\r\nContent-Length: 7"),
    "no length": page(9).replace(b"Content-Length", b"Content-Size"),
    "no type": page(9).replace(b"WARC-Type: response\r\n", b""),
    "no header end": b"WARC/1.0\r\nWARC-Type: response\r\n" + b"X: y\r\n" * 20_000,
    "garbage": b"\x00\x01 these are no records at all \xff\r\n\r\n",
    "damaged coding": record(
        "response",
        "application/http",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\n\r\n"
        + gzip.compress(bytes(range(256)))[:40]
        + b"\xff" * 40,
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_record_costs_only_itself(tmp_path: Path, what: str) -> None:
    """The records before and behind it are read, and it is told once."""
    rows = read(tmp_path, PAGES[0] + PAGES[1] + BROKEN[what] + PAGES[2] + PAGES[3])
    good = [s for s in summary(rows) if s.isdigit()]
    assert good == ["0", "1", "2", "3"]
    assert len(rows) == 5, summary(rows)


def test_a_cut_archive_tells_of_the_cut(tmp_path: Path) -> None:
    """The last record is cut: one row. Behind whole records nothing is missing."""
    data = b"".join(PAGES)
    assert summary(read(tmp_path, data[:-90])) == ["0", "1", "2", "3", "truncated_record"]
    assert summary(read(tmp_path, data[:-4])) == ["0", "1", "2", "3", "4"]
    packed = b"".join(map(gzip.compress, PAGES))
    assert summary(read(tmp_path, packed[:-30], "x.warc.gz")) == [
        "0",
        "1",
        "2",
        "3",
        "truncated_archive",
    ]


def test_a_damaged_member_costs_only_its_record(tmp_path: Path) -> None:
    """Reading goes on at the next gzip member."""
    members = [gzip.compress(p) for p in PAGES]
    damaged = bytearray(members[2])
    damaged[len(damaged) // 2 :] = bytes(b ^ 0xA5 for b in damaged[len(damaged) // 2 :])
    rows = read(tmp_path, b"".join([*members[:2], bytes(damaged), *members[3:]]), "x.warc.gz")
    assert [s for s in summary(rows) if s.isdigit()] == ["0", "1", "3", "4"]
    assert "corrupt_archive" in summary(rows)
    rows = read(tmp_path, members[0] + b"garbage between members" + members[1], "x.warc.gz")
    assert summary(rows) == ["0", "trailing_garbage", "1"]


def test_an_arc_file_is_named(tmp_path: Path) -> None:
    """The format before WARC is refused with its name."""
    (row,) = read(
        tmp_path,
        b"filedesc://x.arc 127.0.0.1 20140216050221 text/plain 75\n1 0 LiveWeb\n",
        "x.warc",
    )
    assert (row["error"], "an ARC file" in row["detail"]) == ("bad_record", True)


def test_a_record_beyond_the_limit_is_skipped(tmp_path: Path) -> None:
    """It is not held in memory, and the next one is found."""
    big = page(7, b"<p>" + b"word " * 100_000)
    rows = read(tmp_path, PAGES[0] + big + PAGES[1], limits=ReadLimits(max_document_bytes=100_000))
    assert summary(rows) == ["0", "too_long", "1"]


def test_a_record_header_inside_a_page_is_text(tmp_path: Path) -> None:
    """A page that quotes a WARC header is one document: the length decides, not the look."""
    quoted = page(
        1,
        b"<p>This is page 1 quoting</p><pre>\r\n\r\nWARC/1.0\r\nContent-Length: 5\r\n\r\nabcde\r\n\r\n</pre>",
    )
    assert summary(read(tmp_path, PAGES[0] + quoted + PAGES[2])) == ["0", "1", "2"]


@pytest.mark.skipif(
    not SHARED.is_dir(), reason="real archives, too large for the repository, are not beside it"
)
@pytest.mark.parametrize(
    "name", ["sample.warc.gz", "sample_small_plain.warc", "warcio_example.warc.gz"]
)
def test_real_archives_hold_the_records_that_fastwarc_finds(name: str) -> None:
    """As many rows as fastwarc finds responses, and as many documents as pages with text."""
    with (SHARED / name).open("rb") as file:
        expected = sum(1 for _ in ArchiveIterator(file, record_types=WarcRecordType.response))
    source = SourceConfig(path=name)
    (found,) = find_inputs(source, SHARED)
    rows = [row for batch in read_input(found, source, ReadLimits()) for row in batch.to_pylist()]
    pages = [row for row in rows if not str(row["error"]).endswith("_record")]
    assert len(pages) == expected


@pytest.mark.skipif(
    not SHARED.is_dir(), reason="real archives, too large for the repository, are not beside it"
)
def test_a_real_damaged_archive_gives_what_is_left() -> None:
    """fastwarc ends at the damage, after 6 pages; behind it are more."""
    source = SourceConfig(path="corrupt_middle.warc.gz")
    (found,) = find_inputs(source, SHARED)
    rows = [row for batch in read_input(found, source, ReadLimits()) for row in batch.to_pylist()]
    assert sum(row["error"] is None for row in rows) > 6
    assert any(row["error"] == "corrupt_archive" for row in rows)


def test_random_damage_is_survived(tmp_path: Path) -> None:
    """Bytes changed, cut out or put in anywhere: rows come back, each with a name of its own."""
    plain = b"".join(PAGES)
    for seed in range(60):
        chance = random.Random(seed)
        data = bytearray(plain if seed % 2 else b"".join(map(gzip.compress, PAGES)))
        for _ in range(chance.choice([1, 3, 30])):
            at = chance.randrange(len(data))
            if chance.random() < 0.7:
                data[at] = chance.randrange(256)
            else:
                del data[at : at + chance.choice([1, 8, 100])]
        read(tmp_path, bytes(data), "x.warc" if seed % 2 else "x.warc.gz")


def test_http_compression_is_undone_within_limits(tmp_path: Path) -> None:
    """A page sent with gzip is read; a bomb in a record is cut off at the page limit."""
    for body, expected in (
        (b"<p>This is page 8 sent packed</p>", "8"),
        (b"<p>" + b"a" * 50_000_000, "too_long"),
    ):
        packed = io.BytesIO()
        with gzip.open(packed, "wb") as file:
            file.write(body)
        http = (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\n\r\n"
            + packed.getvalue()
        )
        rows = read(tmp_path, record("response", "application/http; msgtype=response", http))
        assert summary(rows) == [expected]

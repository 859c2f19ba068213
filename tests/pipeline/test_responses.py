"""HTTP responses as archives keep them: every way to send a body comes back as the body, declared truly or not."""

import gzip
import io
import itertools
import random
import zlib

import pytest
import zstandard
from fastwarc.stream_io import BrotliWriter

from pipeline.responses import BadCodingError, decode_body, parse_response

MAX_BYTES = 1 << 20

PAGE = (
    "<!DOCTYPE html><html><head><title>Gr\xfc\xdfe</title></head><body>"
    + "".join(
        f"<p>Paragraph {i} of {random.Random(i).randrange(10**9)} words.</p>" for i in range(60)
    )
    + "</body></html>"
).encode()


def brotli(body: bytes) -> bytes:
    packed = io.BytesIO()
    writer = BrotliWriter(packed)
    writer.write(body)
    writer.close()
    return packed.getvalue()


def raw_deflate(body: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-15)
    return coder.compress(body) + coder.flush()


def chunks(body: bytes, size: int = 700, extension: bytes = b"", end: bytes = b"\r\n") -> bytes:
    pieces = [body[i : i + size] for i in range(0, len(body), size)] + [b""]
    return b"".join(b"%X%s%s%s%s" % (len(p), extension, end, p, end) for p in pieces)


CODERS = {
    "gzip": gzip.compress,
    "GZip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": raw_deflate,
    "br": brotli,
    "zstd": zstandard.ZstdCompressor().compress,
    "identity": bytes,
    "none": bytes,
    "utf-8": bytes,
    "": bytes,
    "gzip, br": lambda body: brotli(gzip.compress(body)),
    "gzip, gzip": lambda body: gzip.compress(gzip.compress(body)),
}


def decode(body: bytes, *fields: str, line_end: str = "\r\n", max_bytes: int = MAX_BYTES) -> bytes:
    head = line_end.join(["HTTP/1.1 200 OK", *fields, "", ""])
    return decode_body(parse_response(head.encode("latin-1") + body), max_bytes)


@pytest.mark.parametrize("is_chunked", [False, True], ids=["whole", "chunked"])
@pytest.mark.parametrize("coding", CODERS)
def test_each_coding_is_undone_where_it_was_done(coding: str, is_chunked: bool) -> None:
    """Codings and chunks are stored as declared, or undone with their fields left, either of the two or both."""
    fields = [f"Content-Encoding: {coding}"]
    fields += ["Transfer-Encoding: chunked"] if is_chunked else []
    coded = CODERS[coding](PAGE)
    stored = [PAGE, coded, *([chunks(PAGE), chunks(coded)] if is_chunked else [])]
    for body in stored:
        assert decode(body, *fields) == PAGE
        assert decode(body, *fields, "Content-Length: 7", line_end="\n") == PAGE


def test_codings_of_the_transfer_are_undone_too() -> None:
    """A list in Transfer-Encoding, in fields that occur twice or are folded."""
    body = chunks(gzip.compress(PAGE))
    assert decode(body, "Transfer-Encoding: gzip, Chunked") == PAGE
    assert decode(body, "transfer-encoding: gzip", "TRANSFER-ENCODING:chunked") == PAGE
    assert decode(body, "Transfer-Encoding:\r\n\tgzip,\r\n chunked") == PAGE
    assert decode(chunks(brotli(gzip.compress(PAGE))), "Content-Encoding: gzip", "Transfer-Encoding: br, chunked") == PAGE  # fmt: skip


def test_what_is_compressed_without_a_word_is_undone() -> None:
    """The field was lost, or the body was compressed once more than it says."""
    assert decode(gzip.compress(PAGE)) == PAGE
    assert decode(gzip.compress(gzip.compress(PAGE)), "Content-Encoding: gzip") == PAGE
    assert decode(zstandard.compress(PAGE), "Content-Encoding: utf-8") == PAGE


@pytest.mark.parametrize("extension", [b"; name=value", b' ; a="b"', b"   ", b";"])
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_chunk_sizes_may_say_more(extension: bytes, end: bytes) -> None:
    """Extensions, padding, leading zeros, trailers."""
    chunked = "Transfer-Encoding: chunked"
    body = chunks(PAGE, extension=extension, end=end)
    assert decode(body, chunked) == PAGE
    assert decode(b"000" + body[:-2] + b"Trailer: x\r\n\r\n", chunked) == PAGE
    assert decode(b"0\r\n\r\n", chunked) == b""


@pytest.mark.parametrize("coding", ["gzip", "deflate", "Deflate", "identity"])
def test_of_a_cut_body_the_beginning_stays(coding: str) -> None:
    """Wherever it is cut, in chunks or not, a part of the page comes back that grows with what is there."""
    coded = CODERS[coding](PAGE)
    fields = [f"Content-Encoding: {coding}", "Transfer-Encoding: chunked"]
    for body in (coded, chunks(coded, 100)):
        lengths = []
        for size in range(len(body) // 2, len(body), 61):
            found = decode(body[:size], *fields)
            assert PAGE.startswith(found)
            lengths.append(len(found))
        assert lengths == sorted(lengths)
        assert lengths[-1] > len(PAGE) // 3


def test_gzip_members_and_garbage_behind_them() -> None:
    """Several members are one body; padding and garbage behind the last are none of it."""
    half = len(PAGE) // 2
    body = gzip.compress(PAGE[:half]) + gzip.compress(PAGE[half:])
    for behind in (b"", b"\0" * 100, b"\r\n", b"<!-- cached -->"):
        assert decode(body + behind, "Content-Encoding: gzip") == PAGE


def test_damage_inside_a_coding_is_told() -> None:
    """What begins as gzip and is damaged is neither text nor a plain body."""
    body = bytearray(gzip.compress(PAGE))
    body[len(body) // 2 :] = bytes(b ^ 0x5A for b in body[len(body) // 2 :])
    with pytest.raises(BadCodingError, match=r"expected .* as declared, got"):
        decode(bytes(body), "Content-Encoding: gzip")


def test_bombs_are_cut_at_the_limit() -> None:
    """No coding, and no tower of them, gives more than the limit."""
    flood = bytes(20 << 20)
    for coding, coder in CODERS.items():
        assert len(decode(coder(flood), f"Content-Encoding: {coding}")) <= MAX_BYTES
    tower = flood
    for _ in range(8):
        tower = gzip.compress(tower)
    assert len(decode(tower)) <= MAX_BYTES


@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
@pytest.mark.parametrize(
    "status",
    ["HTTP/1.1 200 OK", "HTTP/1.0 200", "HTTP/2 200 ", "HTTP/2.0 200", "http/1.1  200 Gr\xfcn", "ICY 200 OK", "HTTP/1.1 200OK"],
)  # fmt: skip
def test_heads_of_all_kinds_are_parsed(status: str, line_end: str) -> None:
    """Old, new and sloppy status lines; fields folded, in Latin-1, without a colon, twice."""
    lines = [
        status,
        "Content-Type : Text/HTML;",
        "  charset=utf-8",
        "no field at all",
        "X: Gr\xfc\xdfe",
        "x: again",
    ]
    block = line_end.join([*lines, "", ""]).encode("latin-1") + b"body\r\n\r\nmore"
    response = parse_response(block)
    assert response.status == 200
    assert response.fields["content-type"] == "Text/HTML; charset=utf-8"
    assert response.fields["x"] == "Gr\xfc\xdfe, again"
    assert response.fields["y"] == ""
    assert response.body == b"body\r\n\r\nmore"


@pytest.mark.parametrize(
    "block",
    [b"", b"<html>no header</html>", b"Chapter 200 of it\r\n\r\nbegins", b"HTTP/1.1 abc\r\n\r\n"],
)
def test_a_block_without_a_status_line_is_all_body(block: bytes) -> None:
    """HTTP/0.9, or a header that the crawler left out."""
    assert parse_response(block) == (None, parse_response(b"").fields, block)


def test_a_page_right_behind_the_fields_is_found() -> None:
    """The empty line is missing; a header without a page has none."""
    assert parse_response(b"HTTP/1.1 200 OK\r\nA: b\r\n<html>").body == b"<html>"
    assert parse_response(b"HTTP/1.1 204 No Content\r\nA: b\r\n").body == b""


def test_plain_text_is_no_chunk() -> None:
    """Text that begins with a line of digits, under a header that says chunked."""
    for first in (b"1984", b"7", b"0"):
        text = first + b"\r\nA novel of the year " + first + b", and more of it. " * 600
        assert decode(text, "Transfer-Encoding: chunked") == text


def test_random_bytes_are_survived() -> None:
    """Any bytes under any header give bytes or one kind of error."""
    for seed, coding in itertools.product(range(20), CODERS):
        chance = random.Random(f"{seed} {coding}")
        body = bytearray(CODERS[coding](PAGE))
        for _ in range(chance.choice([1, 3, 30])):
            body[chance.randrange(len(body))] = chance.randrange(256)
        try:
            decode(bytes(body), f"Content-Encoding: {coding}", "Transfer-Encoding: chunked")
        except BadCodingError:
            continue

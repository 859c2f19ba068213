"""The decompressed bytes of one file, in bounded chunks: gzip, zstd, bzip2, xz or none, told apart by their first bytes.

A file that ends too early, is damaged or grows beyond all proportion gives what came before and then a `Problem`. No
archive is trusted: output is bounded chunk by chunk, and a zstd or xz stream that wants more memory than allowed is
refused. Only regular files are opened, and only as far as they reached when opened, so nothing here can block.
"""

import bz2
import lzma
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import zstandard

from pipeline.raw import Problem, ReadLimits

CHUNK_BYTES = 1 << 20
"""Bytes asked of a file, and of a decompressor, at a time."""

_RATIO_FREE_BYTES = 64 << 20
"""A file may always decompress to this much, whatever its ratio."""

# A zstd block of 4 bytes can stand for 128 KiB (RLE block, RFC 8878, 3.1.1.2), so 512 bytes give at most 16 MiB.
_ZSTD_FEED_BYTES = 512

_MAGIC = {
    "gz": b"\x1f\x8b",
    "zst": b"\x28\xb5\x2f\xfd",
    "bz2": b"BZh",
    "xz": b"\xfd7zXZ\x00",
}
_ZSTD_SKIPPABLE = tuple(bytes([0x50 + i, 0x2A, 0x4D, 0x18]) for i in range(16))

ENDINGS = {".gz": "gz", ".zst": "zst", ".zstd": "zst", ".bz2": "bz2", ".xz": "xz"}
"""Compression that a file's last ending promises."""


def compression_of(head: bytes) -> str:
    """Name the compression of a file that begins with `head` (6 bytes suffice): gz, zst, bz2, xz or "" for none."""
    for name, magic in _MAGIC.items():
        if head.startswith(magic):
            return name
    return "zst" if head.startswith(_ZSTD_SKIPPABLE) else ""


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file for reading without ever blocking. Raises OSError, also if it is anything else."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("expected a regular file, got a directory, pipe, socket or device")
    return os.fdopen(descriptor, "rb", buffering=0)


def read_chunks(file: IO[bytes]) -> Iterator[bytes]:
    """Yield a file's bytes, as many as it had when it was opened: one that keeps growing ends all the same."""
    left = os.fstat(file.fileno()).st_size - file.tell()
    while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
        left -= len(chunk)
        yield chunk


def decompress(
    file: IO[bytes], compression: str, limits: ReadLimits, *, resume: bool = False
) -> Iterator[bytes | Problem]:
    """Yield the decompressed bytes of a file from its beginning; a Problem where they go wrong.

    After a Problem nothing more comes, unless `resume` is given and the file is gzip: then reading goes on at the next
    member that can be read (a WARC has one member a record). Members and frames in a row are one stream.
    Memory: one chunk and the decompressor's window (at most limits.max_window_bytes).
    """
    file.seek(0)
    if not compression:
        yield from read_chunks(file)
        return
    consumed = produced = 0

    def counted() -> Iterator[bytes]:
        nonlocal consumed
        for chunk in read_chunks(file):
            consumed += len(chunk)
            yield chunk

    decoders = {"gz": _gunzip, "zst": _unzstd, "bz2": _unbz2, "xz": _unxz}
    decode = decoders[compression]
    pieces = (
        _gunzip(counted(), limits, resume=True)
        if resume and compression == "gz"
        else decode(counted(), limits)
    )
    for piece in pieces:
        yield piece
        if isinstance(piece, bytes):
            produced += len(piece)
            if produced > _RATIO_FREE_BYTES and produced > limits.max_ratio * consumed:
                yield Problem(
                    "bomb",
                    f"expected at most {limits.max_ratio:g} times the compressed size, got {produced} bytes out of "
                    f"{consumed}; if the file is sound, raise read.max_ratio",
                )
                return


def _truncated(kind: str) -> Problem:
    return Problem(
        "truncated_archive", f"expected the end of the {kind} stream, got the end of the file"
    )


def _corrupt(kind: str, error: Exception) -> Problem:
    return Problem("corrupt_archive", f"expected {kind} data, got damaged bytes ({error})")


def _garbage(kind: str, rest: bytes) -> Problem:
    return Problem(
        "trailing_garbage",
        f"expected the end of the file or another {kind} member, got other bytes ({rest[:8].hex(' ')})",
        cuts_record=False,
    )


def _gunzip(
    chunks: Iterator[bytes], limits: ReadLimits, *, resume: bool = False
) -> Iterator[bytes | Problem]:
    decoder = zlib.decompressobj(31)
    data = b""
    inside = False  # a member has begun
    for chunk in chunks:
        data += chunk
        while data:
            if not inside:
                data = data.lstrip(b"\0")  # padding, as gzip itself accepts
                if len(data) < 3:
                    break
                if not data.startswith(b"\x1f\x8b\x08"):
                    yield _garbage("gzip", data)
                    if not resume:
                        return
                    data = _from_next_member(data)
                    continue
                decoder, inside = zlib.decompressobj(31), True
            try:
                piece = decoder.decompress(data, CHUNK_BYTES)
            except zlib.error as error:
                yield _corrupt("gzip", error)
                if not resume:
                    return
                # The member began before `data` or at it: its own first byte is not looked at again.
                data, inside = _from_next_member(data[1:]), False
                continue
            if piece:
                yield piece
            if decoder.eof:
                data, inside = decoder.unused_data, False
            else:
                data = decoder.unconsumed_tail
    if inside:
        yield _truncated("gzip")
    elif data.lstrip(b"\0"):
        yield _garbage("gzip", data)


def _from_next_member(data: bytes) -> bytes:
    """The rest of `data` from where a gzip member may begin; its last bytes if the mark may be cut in two."""
    at = data.find(b"\x1f\x8b\x08")
    if at >= 0:
        return data[at:]
    for tail in (b"\x1f\x8b", b"\x1f"):
        if data.endswith(tail):
            return tail
    return b""


def _unzstd(chunks: Iterator[bytes], limits: ReadLimits) -> Iterator[bytes | Problem]:
    context = zstandard.ZstdDecompressor(max_window_size=limits.max_window_bytes)
    decoder = context.decompressobj()
    inside = False
    rest = b""  # fewer bytes than a frame's mark, at the end of a chunk
    for chunk in chunks:
        view = memoryview(rest + chunk if rest else chunk)
        rest = b""
        while len(view):
            if not inside:
                if len(view) < 4:
                    rest = bytes(view)
                    break
                if compression_of(bytes(view[:6])) != "zst":
                    yield _garbage("zstd", bytes(view[:8]))
                    return
                decoder, inside = context.decompressobj(), True
            part = view[:_ZSTD_FEED_BYTES]
            try:
                piece = decoder.decompress(part)
            except zstandard.ZstdError as error:
                yield _corrupt("zstd", error)
                return
            if piece:
                yield piece
            if decoder.eof:
                inside = False
                view = view[len(part) - len(decoder.unused_data) :]
            else:
                view = view[len(part) :]
    if inside:
        yield _truncated("zstd")
    elif rest:
        yield _garbage("zstd", rest)


def _unbz2(chunks: Iterator[bytes], limits: ReadLimits) -> Iterator[bytes | Problem]:
    decoder = bz2.BZ2Decompressor()
    inside = False
    for chunk in chunks:
        data = chunk
        while data or (inside and not decoder.needs_input):
            if not inside:
                if not b"BZh".startswith(data[:3]):
                    yield _garbage("bzip2", data)
                    return
                decoder, inside = bz2.BZ2Decompressor(), True
            try:
                piece = decoder.decompress(data, CHUNK_BYTES)
            except (OSError, ValueError) as error:
                yield _corrupt("bzip2", error)
                return
            if piece:
                yield piece
            data = b""
            if decoder.eof:
                data, inside = decoder.unused_data, False
    if inside:
        yield _truncated("bzip2")


def _unxz(chunks: Iterator[bytes], limits: ReadLimits) -> Iterator[bytes | Problem]:
    decoder: lzma.LZMADecompressor | None = None
    for chunk in chunks:
        data = chunk
        while data or (decoder is not None and not decoder.needs_input):
            if decoder is None:
                data = data.lstrip(b"\0")  # stream padding (xz format, section 2.2)
                if not data:
                    break
                if not _MAGIC["xz"].startswith(data[:6]):
                    yield _garbage("xz", data)
                    return
                decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=limits.max_window_bytes)
            try:
                piece = decoder.decompress(data, CHUNK_BYTES)
            except lzma.LZMAError as error:
                yield _corrupt("xz", error)
                return
            if piece:
                yield piece
            data = b""
            if decoder.eof:
                data, decoder = decoder.unused_data, None
    if decoder is not None:
        yield _truncated("xz")

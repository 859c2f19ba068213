"""The decompressed bytes of one file, in bounded chunks: gzip, zstd, bzip2, xz or none, told apart by their first bytes.

A file that ends too early, is damaged or grows beyond all proportion gives what came before and then a `Problem`. No
archive is trusted: output is bounded chunk by chunk, and a zstd or xz stream that wants more memory than allowed is
refused. Only regular files are opened, and only as far as they reached when opened, so nothing here can block.
"""

import bz2
import hashlib
import io
import lzma
import os
import stat
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO

import zstandard

from pipeline.raw import Problem, ReadLimits

CHUNK_BYTES = 1 << 20
"""Bytes asked of a plain file, and of a decompressor, at a time."""

FINGERPRINT_BYTES = 16
"""Bytes of a fingerprint, which is written in twice as many hex digits."""

_FEED_BYTES = 64 << 10
"""Compressed bytes at a time: what lies behind a finished member is copied, so tiny members cost feed x members."""

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


class RegularFile(io.FileIO):
    """A regular file open for reading, up to `num_bytes`; it hashes what is read of it in order from its beginning.

    So a reader that has used a file can say afterwards whether these were the bytes that a fingerprint stands for.
    """

    def __init__(self, path: Path, num_bytes: int | None = None) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._stamp = _stamp(os.fstat(descriptor))
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError("expected a regular file, got a directory, pipe, socket or device")
        super().__init__(descriptor, "rb")
        self._path = path
        self._end = os.fstat(descriptor).st_size if num_bytes is None else num_bytes
        self._digest = hashlib.blake2b(digest_size=FINGERPRINT_BYTES)
        self._hashed = 0
        self._is_in_order = True

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to `size` bytes, all that are left for a negative one; none from behind `num_bytes`."""
        begin = self.tell()
        left = max(0, self._end - begin)
        data = super().read(left if size is None or size < 0 else min(size, left)) or b""
        if begin == self._hashed:
            self._digest.update(data)
            self._hashed += len(data)
        elif data:
            self._is_in_order = False
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to a position; from the beginning on, hashing starts again."""
        if (offset, whence) == (0, os.SEEK_SET):
            self._digest = hashlib.blake2b(digest_size=FINGERPRINT_BYTES)
            self._hashed = 0
        return super().seek(offset, whence)

    def fingerprint(self) -> str:
        """BLAKE2b of the bytes up to `num_bytes`, as they were when they were read; empty if that cannot be said.

        Reads what has not been read yet. Of a file that was read here and there (a table) all of it, and then nothing
        of it may have been written since it was opened, nor another have taken its name.
        """
        if not self._is_in_order:
            self.seek(0)
        super().seek(self._hashed)
        while self.read(CHUNK_BYTES):
            pass
        if not self._is_in_order and not (
            self._stamp == _stamp(os.fstat(self.fileno())) == _stamp(self._path.lstat())
            and self._end == self._stamp[2]
        ):
            return ""
        return self._digest.hexdigest()


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def open_regular(path: Path, num_bytes: int | None = None) -> RegularFile:
    """Open a regular file for reading without ever blocking, to the size it has now or to its first `num_bytes`.

    Raises OSError if it is anything else, also a link.
    """
    return RegularFile(path, num_bytes)


def read_chunks(file: IO[bytes], chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Yield a file's bytes, as many as it had at the start: one that keeps growing ends all the same."""
    left = os.fstat(file.fileno()).st_size - file.tell()
    while left > 0 and (chunk := file.read(min(chunk_bytes, left))):
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
        for chunk in read_chunks(file, _FEED_BYTES):
            consumed += len(chunk)
            yield chunk

    if compression == "gz":
        pieces = _gunzip(counted(), resume=resume)
    elif compression == "bz2":
        pieces = _unbz2(counted())
    elif compression == "zst":
        pieces = _unzstd(counted(), limits.max_window_bytes)
    else:
        pieces = _unxz(counted(), limits.max_window_bytes)
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
    if "memory" in str(error).lower():
        return Problem(
            "window_too_large",
            f"expected a {kind} stream that needs at most read.max_window_bytes of memory, got one that needs more "
            f"({error}); raise it to take the file",
        )
    return Problem("corrupt_archive", f"expected {kind} data, got damaged bytes ({error})")


def _garbage(kind: str, rest: bytes) -> Problem:
    return Problem(
        "trailing_garbage",
        f"expected the end of the file or another {kind} member, got other bytes ({rest[:8].hex(' ')})",
        cuts_record=False,
    )


def _gunzip(chunks: Iterator[bytes], *, resume: bool) -> Iterator[bytes | Problem]:
    decoder = zlib.decompressobj(31)
    data = b""
    is_inside = False  # a member has begun
    is_told = False  # that here is damage: said once until a member can be read again
    for chunk in chunks:
        data += chunk
        while data:
            if not is_inside:
                data = data.lstrip(b"\0")  # padding, which gzip itself accepts
                if len(data) < len(_MEMBER):
                    break
                if not data.startswith(_MEMBER):
                    if not is_told:
                        yield _garbage("gzip", data)
                        is_told = True
                    if not resume:
                        return
                    data = _from_next_member(data)
                    continue
                decoder, is_inside = zlib.decompressobj(31), True
            try:
                piece = decoder.decompress(data, CHUNK_BYTES)
            except zlib.error as error:
                if not is_told:
                    yield _corrupt("gzip", error)
                    is_told = True
                if not resume:
                    return
                # The mark of the damaged member itself may still be the first bytes.
                data, is_inside = _from_next_member(data[1:]), False
                continue
            if piece:
                yield piece
                is_told = False
            if decoder.eof:
                data, is_inside = decoder.unused_data, False
            else:
                data = decoder.unconsumed_tail
    if is_inside and not is_told:
        yield _truncated("gzip")
    elif data.strip(b"\0") and not is_told:
        yield _garbage("gzip", data)


_MEMBER = b"\x1f\x8b\x08"
"""How a gzip member begins: magic and the only compression method there is (RFC 1952)."""


def _from_next_member(data: bytes) -> bytes:
    """The rest of `data` from where a gzip member may begin; its last bytes if the mark may be cut in two."""
    at = data.find(_MEMBER)
    if at >= 0:
        return data[at:]
    return next((_MEMBER[:size] for size in (2, 1) if data.endswith(_MEMBER[:size])), b"")


def _unzstd(chunks: Iterator[bytes], window_bytes: int) -> Iterator[bytes | Problem]:
    try:
        dictionary, chunks = _zstd_dictionary(chunks)
    except zstandard.ZstdError as error:
        yield _corrupt("zstd", error)
        return
    context = zstandard.ZstdDecompressor(dictionary, max_window_size=window_bytes)
    decoder = context.decompressobj()
    is_inside = False
    rest = b""  # fewer bytes than a frame's mark, at the end of a chunk
    for chunk in chunks:
        view = memoryview(rest + chunk if rest else chunk)
        rest = b""
        while len(view):
            if not is_inside:
                if len(view) < 4:
                    rest = bytes(view)
                    break
                if compression_of(bytes(view[:6])) != "zst":
                    yield _garbage("zstd", bytes(view[:8]))
                    return
                decoder, is_inside = context.decompressobj(), True
            part = view[:_ZSTD_FEED_BYTES]
            try:
                piece = decoder.decompress(part)
            except zstandard.ZstdError as error:
                yield _corrupt("zstd", error)
                return
            if piece:
                yield piece
            if decoder.eof:
                is_inside = False
                view = view[len(part) - len(decoder.unused_data) :]
            else:
                view = view[len(part) :]
    if is_inside:
        yield _truncated("zstd")
    elif rest:
        yield _garbage("zstd", rest)


def _zstd_dictionary(
    chunks: Iterator[bytes],
) -> tuple[zstandard.ZstdCompressionDict | None, Iterator[bytes]]:
    """Give (the dictionary that a web archive brings in its first frame, None if there is none, all chunks).

    .warc.zst files begin with a skippable frame that holds it, compressed or not:
    https://iipc.github.io/warc-specifications/specifications/warc-zstd/
    """
    head = b""
    for chunk in chunks:
        head += chunk
        end = 8 + int.from_bytes(head[4:8], "little")
        if not head.startswith(_ZSTD_DICTIONARY) or end > 8 + _MAX_DICTIONARY_BYTES:
            break
        if len(head) < max(8, end):
            continue
        data = head[8:end]
        if data.startswith(_MAGIC["zst"]):
            reader = zstandard.ZstdDecompressor(max_window_size=_MAX_DICTIONARY_BYTES)
            data = reader.decompress(data, max_output_size=_MAX_DICTIONARY_BYTES)
        is_one = data.startswith(_DICTIONARY_MAGIC)
        return zstandard.ZstdCompressionDict(data) if is_one else None, chain([head], chunks)
    return None, chain([head], chunks)


_ZSTD_DICTIONARY = b"\x5d\x2a\x4d\x18"
_DICTIONARY_MAGIC = b"\x37\xa4\x30\xec"
_MAX_DICTIONARY_BYTES = 16 << 20
"""Dictionaries in use have up to some 1 MB."""


def _unbz2(chunks: Iterator[bytes]) -> Iterator[bytes | Problem]:
    decoder = bz2.BZ2Decompressor()
    is_inside = False
    for chunk in chunks:
        data = chunk
        while data or (is_inside and not decoder.needs_input):
            if not is_inside:
                if not b"BZh".startswith(data[:3]):
                    yield _garbage("bzip2", data)
                    return
                decoder, is_inside = bz2.BZ2Decompressor(), True
            try:
                piece = decoder.decompress(data, CHUNK_BYTES)
            except (OSError, ValueError) as error:
                yield _corrupt("bzip2", error)
                return
            if piece:
                yield piece
            data = b""
            if decoder.eof:
                data, is_inside = decoder.unused_data, False
    if is_inside:
        yield _truncated("bzip2")


def _unxz(chunks: Iterator[bytes], window_bytes: int) -> Iterator[bytes | Problem]:
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
                decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=window_bytes)
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

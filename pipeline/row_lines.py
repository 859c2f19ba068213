"""Lines that are documents: JSON lines, and lines of plain text; plain, gz, zst, bz2 or xz.

Blocks of whole lines go from the file to the parser, and in the second reading to OUT, so that a kept line has the
very bytes that it had: only a byte order mark goes, and a missing last line feed comes.
"""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
import pyarrow as pa
import zstandard
from numpy.typing import NDArray

from pipeline.compression import CHUNK_BYTES, ENDINGS, compression_of, decompress, open_regular
from pipeline.fields import NoField, field_or_none, find_field
from pipeline.formats import binary_problem, describe_utf8_error, read_jsonl, repeated_key
from pipeline.lines import to_utf8
from pipeline.raw import Problem, ReadLimits
from pipeline.row_files import (
    KINDS,
    BadRow,
    Fields,
    Part,
    RowFile,
    Rows,
    Tell,
    changed,
    check_unchanged,
    damaged,
    tell_nobody,
)
from pipeline.source_config import SourceConfig
from storage.errors import InputError

_HEAD_BYTES = 1 << 16


def line_parts(file: RowFile, part_bytes: int) -> list[Part]:
    """Cut a file behind line feeds; compressed files and UTF-16 stay whole. Raises InputError for what is no text."""
    with _opened(file) as stream:
        head = stream.read(_HEAD_BYTES)
        if not head:
            return []
        if compression_of(head):
            return [Part(file=file, num_bytes=file.num_bytes)]
        marked = b"".join(
            chunk for chunk in to_utf8(iter([head]), "utf-8") if isinstance(chunk, bytes)
        )
        if binary_problem(marked):
            raise InputError(
                f"{file.name}: expected {KINDS[file.kind]} in UTF-8, got binary data ({head[:8].hex(' ')} ...)"
            )
        begin = len(head) - len(marked)
        if (
            begin not in (0, 3) or head[begin:] != marked
        ):  # UTF-16 or UTF-32: read through a decoder
            return [Part(file=file, num_bytes=file.num_bytes)]
        parts = []
        while begin < file.num_bytes:
            end = _line_end(stream, begin + part_bytes, file.num_bytes)
            parts.append(Part(file=file, begin=begin, end=end, num_bytes=end - begin))
            begin = end
    return parts


def _line_end(stream: IO[bytes], at: int, num_bytes: int) -> int:
    """Where the line that holds byte `at` ends."""
    if at >= num_bytes:
        return num_bytes
    stream.seek(at)
    while chunk := stream.read(CHUNK_BYTES):
        found = chunk.find(b"\n")
        if found >= 0:
            return at + found + 1
        at += len(chunk)
    return num_bytes


@contextmanager
def _opened(file: RowFile) -> Iterator[IO[bytes]]:
    try:
        with open_regular(file.path) as stream:
            yield stream
    except OSError as error:
        raise InputError(
            f"{file.name}: expected a readable file, got: {error.strerror or error}"
        ) from error


def line_rows(
    part: Part, fields: Fields, limits: ReadLimits, tell: Tell = tell_nobody
) -> Iterator[Rows]:
    """Yield the lines of a part in order; blank ones are no documents. Raises InputError if the file is damaged."""
    if part.file.kind == "text":
        parse = _text_rows
    else:
        source = SourceConfig(
            path="x", reader="jsonl", text_field=fields.text, license_field="", domain_field=""
        )

        def parse(block: bytes) -> Rows:
            return _jsonl_rows(block, fields, source)

    for block in _blocks(part, limits, tell):
        if isinstance(block, Problem):
            yield _refused(block)
        elif len(block) <= limits.max_document_bytes:
            yield parse(block)
        else:  # one of its lines may be too long
            for line in block.split(b"\n")[:-1]:
                is_long = len(line) > limits.max_document_bytes
                yield (
                    _refused(_too_long(line[:8000], len(line), limits))
                    if is_long
                    else parse(line + b"\n")
                )


def _refused(problem: Problem) -> Rows:
    """One line that cannot be used."""
    bad = BadRow(0, problem.rule, problem.detail, problem.sample)
    none = pa.array([], pa.string())
    return Rows(count=1, rows=[], texts=none, names=none, bad=[bad])


def kept_lines(
    part: Part, is_kept: NDArray[np.bool_], limits: ReadLimits, tell: Tell = tell_nobody
) -> Iterator[bytes]:
    """Yield the chosen lines of a part, byte for byte. Raises InputError if the file changed since then."""
    first = 0
    for block in _blocks(part, limits, tell):
        if isinstance(block, Problem):
            first += 1
            continue
        ends = np.flatnonzero(np.frombuffer(block, np.uint8) == 10) + 1
        chosen = is_kept[first : first + len(ends)]
        first += len(ends)
        if first > len(is_kept):
            break
        if chosen.all():
            yield block
            continue
        starts = np.concatenate([np.zeros(1, np.int64), ends])
        edges = np.flatnonzero(np.diff(np.concatenate([[0], chosen.view(np.int8), [0]])))
        view = memoryview(block)
        pieces = zip(starts[edges[::2]].tolist(), starts[edges[1::2]].tolist(), strict=True)
        yield b"".join([view[begin:end] for begin, end in pieces])
    if first != len(is_kept):
        raise changed(part.file)


def _blocks(part: Part, limits: ReadLimits, tell: Tell) -> Iterator[bytes | Problem]:
    """Whole lines with their ends, or a Problem in the place of one line that is too long. Memory: the longest line."""
    held: list[bytes] = []
    size = 0
    for chunk in _chunks(part, limits, tell):
        first = chunk.find(b"\n")
        if size + (first if first >= 0 else len(chunk)) > limits.max_document_bytes:
            # Of the line's bytes so many are kept as show what it was.
            held = [b"".join([*held, chunk[:first] if first >= 0 else chunk])[:8000]]
            size += first if first >= 0 else len(chunk)
            if first < 0:
                continue
            yield _too_long(held[0], size, limits)
            chunk, held, size = chunk[first + 1 :], [], 0
        cut = chunk.rfind(b"\n") + 1
        if cut:
            yield b"".join([*held, chunk[:cut]]) if held or cut < len(chunk) else chunk
            held, size = [], 0
        if cut < len(chunk):
            held.append(chunk[cut:])
            size += len(chunk) - cut
    if size > limits.max_document_bytes:
        yield _too_long(b"".join(held)[:8000], size, limits)
    elif size:
        yield b"".join([*held, b"\n"])


def _too_long(sample: bytes, num_bytes: int, limits: ReadLimits) -> Problem:
    return Problem(
        "too_long",
        f"expected a line of at most {limits.max_document_bytes} bytes, got {num_bytes}; raise "
        "read.max_document_bytes to take it",
        sample,
    )


def _chunks(part: Part, limits: ReadLimits, tell: Tell) -> Iterator[bytes]:
    """The part's bytes, decompressed."""
    check_unchanged(part.file)
    with _opened(part.file) as stream:
        if part.end is None:
            compression = compression_of(stream.read(6))
            for chunk in to_utf8(decompress(stream, compression, limits), "utf-8"):
                if isinstance(chunk, Problem):
                    raise damaged(part.file, chunk.detail)
                tell(stream.tell())
                yield chunk
            return
        stream.seek(part.begin)
        left = part.end - part.begin
        while left and (chunk := stream.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            tell(part.end - part.begin - left)
            yield chunk
        if left:
            raise changed(part.file)


def _text_rows(block: bytes) -> Rows:
    lines = block.split(b"\n")[:-1]
    try:
        texts = [line.removesuffix("\r") for line in block.decode().split("\n")[:-1]]
        bad: list[BadRow] = []
    except UnicodeDecodeError:
        texts, bad = _decode_each(lines)
    rows = [i for i, text in enumerate(texts) if text and not text.isspace()]
    if len(rows) < len(texts):
        texts = [texts[i] for i in rows]
    return Rows(
        count=len(lines),
        rows=rows,
        texts=pa.array(texts, pa.large_string()),
        names=pa.nulls(len(texts), pa.string()),
        bad=bad,
    )


def _decode_each(lines: list[bytes]) -> tuple[list[str], list[BadRow]]:
    texts, bad = [], []
    for i, line in enumerate(lines):
        try:
            texts.append(line.decode().removesuffix("\r"))
        except UnicodeDecodeError as error:
            texts.append("")
            detail = describe_utf8_error(line, error, 1).partition(" (")[0]
            bad.append(BadRow(i, "invalid_utf8", detail, line))
    return texts, bad


def _jsonl_rows(block: bytes, fields: Fields, source: SourceConfig) -> Rows:
    lines = block.split(b"\n")[:-1]
    text_field, id_field = fields
    # A key that occurs once cannot be there twice; more occurrences may also lie deeper, or in a text.
    key, is_path = json.dumps(text_field).encode(), "." in text_field
    rows: list[int] = []
    texts: list[str] = []
    names: list[str | None] = []
    bad: list[BadRow] = []
    text, name = "", None
    for i, line in enumerate(lines):
        try:
            record = orjson.loads(line)
            text = find_field(record, text_field)
            name = field_or_none(record, id_field)
            is_clear = type(text) is str and (
                repeated_key(line, record, text_field) is None if is_path else line.count(key) == 1
            )
        except (orjson.JSONDecodeError, NoField, TypeError):
            is_clear = False
        if not is_clear:
            if not line or line.isspace():
                continue
            found = _careful(line, fields, source)
            if isinstance(found, Problem):
                bad.append(
                    BadRow(i, found.rule, found.detail.partition("; name the source")[0], line)
                )
                continue
            text, name = found
        rows.append(i)
        texts.append(text)
        names.append(_as_json(name))
    return Rows(
        count=len(lines),
        rows=rows,
        texts=pa.array(texts, pa.large_string()),
        names=pa.array(names, pa.string()),
        bad=bad,
    )


def _careful(line: bytes, fields: Fields, source: SourceConfig) -> tuple[str, Any] | Problem:
    """Text and id of a line that orjson refused, or in which the text is not plain to see."""
    row = next(read_jsonl(iter([(1, line)]), "", source))
    if row.error and row.error != "empty":  # an empty text is a text here
        return Problem(row.error, row.detail or "")
    record = json.loads(line, parse_int=lambda digits: int(digits) if len(digits) < 20 else digits)
    return find_field(record, fields.text), field_or_none(record, fields.id)


def _as_json(name: Any) -> str | None:
    if name is None:
        return None
    if type(name) is int:
        return str(name)
    try:
        return orjson.dumps(name).decode()
    except TypeError:  # lone surrogates, endless integers
        return json.dumps(str(name))


@contextmanager
def line_writer(path: Path, out_name: str) -> Iterator[Callable[[bytes], Any]]:
    """Open a file for lines, compressed as the ending of `out_name` says, without a time or name in it."""
    compression = ENDINGS.get(Path(out_name.lower()).suffix, "")
    with path.open("wb") as file, _compressor(file, compression) as stream:
        yield stream.write


def _compressor(file: IO[bytes], compression: str) -> AbstractContextManager[Any]:
    if compression == "gz":
        return gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0)
    if compression == "zst":
        return zstandard.ZstdCompressor().stream_writer(file, closefd=False)
    if compression == "bz2":
        return bz2.BZ2File(file, "wb")
    return lzma.LZMAFile(file, "wb") if compression == "xz" else nullcontext(file)

"""From a file to RAW batches: finds out how the file is compressed, encoded and laid out, and runs the reader for it.

The first stage of a build. `find_inputs` lists a source's files, `read_input` reads one of them as a stream of record
batches in bounded memory. What cannot be read becomes rows with an `error`: reading never raises for what a file holds.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import IO, cast

import pyarrow as pa

from pipeline.compression import ENDINGS, compression_of, decompress, open_regular
from pipeline.delimited import read_csv
from pipeline.formats import binary_problem, read_jsonl, read_text, read_text_in_parts
from pipeline.lines import split_lines, to_utf8
from pipeline.raw import Problem, ReadLimits, Row, bad_row, gather_batches
from pipeline.source_config import READER_ENDINGS, Reader, SourceConfig, inner_ending
from pipeline.sources import FoundInput, find_inputs, fingerprint
from pipeline.table_batches import Kind
from pipeline.tables import read_table
from pipeline.warc import page_row, read_warc

__all__ = ["FoundInput", "ReadLimits", "SourceConfig", "find_inputs", "fingerprint", "read_input"]

_HEAD_BYTES = 1024


def read_input(
    found: FoundInput, source: SourceConfig, limits: ReadLimits
) -> Iterator[pa.RecordBatch]:
    """Yield a file's records in order as RAW batches of about 16 MiB of text; at least one row, good or bad.

    Never raises for what is in the file or on the disk. One pass; memory is a few times limits.max_document_bytes.
    """
    return gather_batches(_rows(found, source, limits))


def _rows(found: FoundInput, source: SourceConfig, limits: ReadLimits) -> Iterator[Row]:
    if found.problem:
        yield bad_row(found.uri, found.problem, found.detail)
        return
    is_empty = True
    try:
        with (
            open_regular(found.path) as file,
            closing(_file_rows(file, found, source, limits)) as rows,
        ):
            for row in rows:
                is_empty = False
                yield row
    except OSError as error:
        detail = f"expected a readable file, got: {error.strerror or error}"
        yield bad_row(found.uri, "unreadable", detail)
        return
    if is_empty:
        yield bad_row(found.uri, "empty", "expected at least one record in the file, got none")


def _file_rows(
    file: IO[bytes], found: FoundInput, source: SourceConfig, limits: ReadLimits
) -> Generator[Row]:
    uri, ending = found.uri, inner_ending(found.path.name)
    raw_head = file.read(_HEAD_BYTES)
    if not raw_head:
        return
    compression = compression_of(raw_head)
    table = _table_reader(source.reader, ending, raw_head)
    if table and not compression:
        file.seek(0)
        yield from read_table(file, table, uri, source, limits)
        return
    # A web archive has a gzip member for each record, so what is damaged costs no more than its record.
    is_archive = source.reader == "warc" or (source.reader == "auto" and ending in _ARCHIVE_ENDINGS)
    head, chunks = _peek(decompress(file, compression, limits, resume=is_archive))
    if problem := _unreadable(head, found.path.name, compression):
        yield problem.row(uri)
        return
    reader = _choose_reader(source.reader, ending, head)
    if reader == "warc":
        yield from read_warc(chunks, uri, limits)
    elif reader == "html":
        yield _html_row(chunks, uri, limits)
    elif reader in ("parquet", "arrow"):
        detail = (
            f"expected an uncompressed {reader} file, got one compressed as a whole; decompress it"
        )
        yield bad_row(uri, "unsupported_type", detail)
    else:
        patience = limits.max_bad_records
        if binary_problem(head):
            patience = min(patience, _BINARY_PATIENCE)
        chunks = to_utf8(chunks, source.encoding)
        yield from _text_rows(chunks, reader, uri, source, limits, patience)


def _text_rows(
    chunks: Iterator[bytes | Problem],
    reader: Reader,
    uri: str,
    source: SourceConfig,
    limits: ReadLimits,
    patience: int,
) -> Iterator[Row]:
    if reader in ("text", "code") and not source.split_bytes:
        yield from read_text(chunks, uri, limits)
        return
    lines = split_lines(chunks, limits.max_document_bytes)
    if reader in ("text", "code"):
        yield from read_text_in_parts(lines, uri, source.split_bytes, limits)
        return
    rows = (
        read_jsonl(lines, uri, source)
        if reader == "jsonl"
        else read_csv(lines, uri, source, limits)
    )
    for num_bad, row in enumerate(rows, start=1):
        yield row
        if row.error is None:
            yield from rows
            return
        if num_bad >= patience:
            yield bad_row(
                uri,
                "given_up",
                f"expected a good record among the first {num_bad}, got none, so the rest of the file was not read; "
                "set the source's `reader` if it was guessed wrong",
            )
            return


_BINARY_PATIENCE = 20
"""Bad lines after which a JSONL or CSV file that begins with binary data is given up."""


def _peek(chunks: Iterator[bytes | Problem]) -> tuple[bytes, Iterator[bytes | Problem]]:
    """Give (first bytes, the same chunks)."""
    held: list[bytes | Problem] = []
    head = b""
    for chunk in chunks:
        held.append(chunk)
        if isinstance(chunk, Problem):
            break
        head += chunk[:_HEAD_BYTES]
        if len(head) >= _HEAD_BYTES:
            break
    return head, chain(held, chunks)


def _table_reader(reader: Reader, ending: str, head: bytes) -> Kind | None:
    """The kind of a table, which is read from the file and not from a stream; None if the file is none."""
    if reader in ("parquet", "arrow"):
        return reader
    if reader != "auto":
        return None
    if head.startswith(b"PAR1") or ending in READER_ENDINGS["parquet"]:
        return "parquet"
    if head.startswith(b"ARROW1") or ending in READER_ENDINGS["arrow"]:
        return "arrow"
    return None


def _choose_reader(reader: Reader, ending: str, head: bytes) -> Reader:
    if reader != "auto":
        return reader
    # ARC, the format before WARC, goes to the same reader, which says so.
    if head.startswith((b"WARC/", b"filedesc://")):
        return "warc"
    for name, endings in READER_ENDINGS.items():
        if ending in endings:
            return cast(Reader, name)
    return "text"


def _unreadable(head: bytes, name: str, compression: str) -> Problem | None:
    """What a file is that none of the readers reads."""
    for start, kind in _FOREIGN:
        if head.startswith(start):
            detail = f"expected text, records or tables, got {kind}; unpack or convert it first"
            return Problem("unsupported_type", detail)
    if head[257:262] == b"ustar":
        return Problem(
            "unsupported_type", "expected a single file, got a tar archive; unpack it first"
        )
    promised = ENDINGS.get(Path(name.lower()).suffix)
    # Some downloads are decompressed on the way and keep their name: sound text is read as it is.
    if promised and not compression and (problem := binary_problem(head)):
        detail = f"expected {promised} data, as the file's ending says, got {head[:4].hex(' ')} ..."
        return Problem("corrupt_archive", detail, problem.sample)
    return None


_ARCHIVE_ENDINGS = (*READER_ENDINGS["warc"], ".arc")

_FOREIGN = (
    (b"PK\x03\x04", "a zip archive (or an office document)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a rar archive"),
    (b"\x04\x22\x4d\x18", "an lz4 stream"),
    (b"%PDF-", "a PDF document"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\x7fELF", "a program"),
)


def _html_row(chunks: Iterator[bytes | Problem], uri: str, limits: ReadLimits) -> Row:
    held = bytearray()
    for chunk in chunks:
        if isinstance(chunk, Problem):
            return Problem(chunk.rule, chunk.detail, bytes(held[:8000])).row(uri)
        held += chunk
        if len(held) > limits.html.max_bytes:
            break
    return page_row(bytes(held), "text/html", None, uri, limits)

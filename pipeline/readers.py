"""From a file to RAW batches: finds out how the file is compressed, encoded and laid out, and runs the reader for it.

The first stage of a build. `find_inputs` lists a source's files, `read_input` reads one of them as a stream of record
batches in bounded memory. What cannot be read becomes rows with an `error`: reading never raises for what a file holds.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO

import pyarrow as pa

from pipeline.compression import ENDINGS, compression_of, decompress, open_regular
from pipeline.extract import html_to_text
from pipeline.formats import binary_problem, read_csv, read_jsonl, read_text, read_text_in_parts
from pipeline.lines import split_lines, to_utf8
from pipeline.raw import Problem, ReadLimits, Row, bad_row, document_row, gather_batches
from pipeline.sources import (
    READER_ENDINGS,
    FoundInput,
    Reader,
    SourceConfig,
    find_inputs,
    fingerprint,
    inner_ending,
)
from pipeline.tables import read_arrow, read_parquet
from pipeline.warc import read_warc

__all__ = ["FoundInput", "ReadLimits", "SourceConfig", "find_inputs", "fingerprint", "read_input"]

_HEAD_BYTES = 8


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
    num_rows = num_good = 0
    try:
        with (
            open_regular(found.path) as file,
            closing(_file_rows(file, found, source, limits)) as rows,
        ):
            for row in rows:
                yield row
                num_rows += 1
                num_good += row.error is None
                if not num_good and num_rows >= limits.max_bad_records:
                    yield bad_row(
                        found.uri,
                        "given_up",
                        f"expected a good record among the first {limits.max_bad_records}, got none; the rest of the "
                        "file was not read; set the source's `reader` if it was guessed wrong",
                    )
                    return
    except OSError as error:
        yield bad_row(
            found.uri, "unreadable", f"expected a readable file, got: {error.strerror or error}"
        )
        return
    if not num_rows:
        yield bad_row(found.uri, "empty", "expected at least one record in the file, got none")


def _file_rows(
    file: IO[bytes], found: FoundInput, source: SourceConfig, limits: ReadLimits
) -> Generator[Row]:
    uri = found.uri
    head = file.read(_HEAD_BYTES)
    if not head:
        return
    compression = compression_of(head)
    promised = ENDINGS.get(Path(found.path.name.lower()).suffix, "")
    reader = _choose_reader(found.path, source, head, compression)
    if reader in ("parquet", "arrow"):
        if compression or promised:
            yield bad_row(
                uri,
                "unsupported_type",
                f"expected an uncompressed {reader} file, got one compressed as a whole; decompress it",
            )
        elif reader == "parquet":
            yield from read_parquet(file, uri, source, limits)
        else:
            yield from read_arrow(file, uri, source, limits)
        return
    if promised and not compression:
        file.seek(0)
        # Some downloads are decompressed on the way and keep their name: sound text is read as it is.
        if problem := binary_problem(file.read(1 << 16)):
            detail = f"expected {promised} data, as the file's ending says, got other bytes ({head[:4].hex(' ')})"
            yield Problem("corrupt_archive", detail, problem.sample).row(uri)
            return
    chunks = decompress(file, compression, limits, resume=reader == "warc")
    if reader == "warc":
        yield from read_warc(chunks, uri, limits)
    elif reader == "html":
        yield _html_row(chunks, uri, limits)
    else:
        chunks = to_utf8(chunks, source.encoding)
        if reader in ("text", "code") and not source.split_bytes:
            yield from read_text(chunks, uri, limits)
            return
        lines = split_lines(chunks, limits.max_document_bytes)
        if reader == "jsonl":
            yield from read_jsonl(lines, uri, source, limits)
        elif reader == "csv":
            yield from read_csv(lines, uri, source, limits)
        else:
            yield from read_text_in_parts(lines, uri, source.split_bytes, limits)


def _choose_reader(path: Path, source: SourceConfig, head: bytes, compression: str) -> Reader:
    if source.reader != "auto":
        return source.reader
    if not compression:
        if head.startswith(b"PAR1"):
            return "parquet"
        if head.startswith(b"ARROW1"):
            return "arrow"
        if head.startswith(b"WARC/"):
            return "warc"
    ending = inner_ending(path.name)
    for reader, endings in READER_ENDINGS.items():
        if ending in endings:
            return reader  # pyright: ignore[reportReturnType]  # keys are the readers
    return "text"


def _html_row(chunks: Iterator[bytes | Problem], uri: str, limits: ReadLimits) -> Row:
    held = bytearray()
    for chunk in chunks:
        if isinstance(chunk, Problem):
            return Problem(chunk.rule, chunk.detail, bytes(held[:8000])).row(uri)
        held += chunk
        if len(held) > limits.max_html_bytes:
            return bad_row(
                uri,
                "too_long",
                f"expected a page of at most {limits.max_html_bytes} bytes, got more; raise read.max_html_bytes",
                bytes(held[:8000]),
            )
    text, _ = html_to_text(bytes(held))
    return document_row(uri, text)

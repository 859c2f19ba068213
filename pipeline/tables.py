"""Documents out of Parquet and Arrow files: columns instead of lines, and nothing in them is believed unchecked.

pyarrow checks neither UTF-8 nor offsets when it reads, and a dictionary can make a small file a large table; so each
batch is validated before a value is touched, and text columns stay dictionary-encoded until rows are made of them.
"""

from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.formats import row_from_fields
from pipeline.raw import BATCH_BYTES, Problem, ReadLimits, Row, bad_row
from pipeline.sources import SourceConfig

_ERRORS = (pa.ArrowException, OSError, ValueError, KeyError, NotImplementedError, MemoryError)
"""What pyarrow raises for a damaged file."""

_MAX_METADATA_BYTES = 16 << 20
"""Strings and lists in a Parquet footer beyond this are refused (pyarrow's own default is six times as much)."""


def read_parquet(
    file: IO[bytes], uri: str, source: SourceConfig, limits: ReadLimits
) -> Iterator[Row]:
    """Yield a document a row, uri `file#row` from 0. Memory: one page of the text column and 16 MiB of its values."""
    row_number = 0
    produced = 0
    num_bytes = file.seek(0, 2)
    file.seek(0)
    try:
        with pq.ParquetFile(
            pa.PythonFile(file, mode="r"),
            read_dictionary=[source.text_field],
            thrift_string_size_limit=_MAX_METADATA_BYTES,
            thrift_container_size_limit=_MAX_METADATA_BYTES // 16,
        ) as parquet:
            names = parquet.schema_arrow.names
            if problem := _missing_column(names, source):
                yield problem.row(uri)
                return
            metadata = parquet.metadata
            mean = 1
            for i in range(metadata.num_row_groups):
                group = metadata.row_group(i)
                mean = max(mean, group.total_byte_size // max(1, group.num_rows))
            rows = max(1, min(8192, BATCH_BYTES // mean))
            for batch in parquet.iter_batches(batch_size=rows, columns=_columns(names, source)):
                for row in _rows(batch, uri, row_number, source, limits):
                    yield row
                    produced += len(row.text or "")
                    if produced > limits.max_ratio * max(num_bytes, 1 << 17):
                        yield bad_row(
                            f"{uri}#{row_number}",
                            "bomb",
                            f"expected at most {limits.max_ratio:g} times the file's size, got more; if the file is "
                            "sound, raise read.max_ratio",
                        )
                        return
                row_number += batch.num_rows
    except _ERRORS as error:
        yield bad_row(
            f"{uri}#{row_number}",
            "corrupt_table",
            f"expected a Parquet file, got: {_first_line(error)}",
        )


def read_arrow(
    file: IO[bytes], uri: str, source: SourceConfig, limits: ReadLimits
) -> Iterator[Row]:
    """Yield a document a row of an Arrow IPC file or stream, uri `file#row` from 0. Memory: one record batch."""
    row_number = 0
    produced = 0
    num_bytes = file.seek(0, 2)
    file.seek(0)
    head = file.read(8)
    is_file = head.startswith(b"ARROW1")
    file.seek(0)
    try:
        stream = pa.PythonFile(file, mode="r")
        if is_file:
            reader = pa.ipc.open_file(stream)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            reader = pa.ipc.open_stream(stream)
            batches = iter(reader)
        names = reader.schema.names
        if problem := _missing_column(names, source):
            yield problem.row(uri)
            return
        for batch in batches:
            batch = batch.select(_columns(names, source))
            for row in _rows(batch, uri, row_number, source, limits):
                yield row
                produced += len(row.text or "")
                if produced > limits.max_ratio * max(num_bytes, 1 << 17):
                    yield bad_row(
                        f"{uri}#{row_number}",
                        "bomb",
                        f"expected at most {limits.max_ratio:g} times the file's size, got more; if the file is "
                        "sound, raise read.max_ratio",
                    )
                    return
            row_number += batch.num_rows
        if not is_file and not _has_end_mark(file):
            yield bad_row(
                f"{uri}#{row_number}",
                "truncated_archive",
                "expected an end-of-stream mark, got the end of the file: batches may be missing",
            )
    except _ERRORS as error:
        yield bad_row(
            f"{uri}#{row_number}",
            "corrupt_table",
            f"expected an Arrow IPC file, got: {_first_line(error)}",
        )


def _has_end_mark(file: IO[bytes]) -> bool:
    """Whether an Arrow stream ends with its end-of-stream mark (Arrow columnar format, IPC streaming format)."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 8))
    return file.read(8).endswith((b"\xff\xff\xff\xff\0\0\0\0", b"\0\0\0\0"))


def _missing_column(names: list[str], source: SourceConfig) -> Problem | None:
    if names.count(source.text_field) == 1:
        return None
    shown = ", ".join(name[:40] for name in names[:8]) or "none"
    return Problem(
        "missing_text",
        f"expected one column {source.text_field!r}, got: {shown}; name the column in the source's `text_field`",
    )


def _columns(names: list[str], source: SourceConfig) -> list[str]:
    wanted = [source.text_field, source.license_field, source.domain_field]
    return [name for name in dict.fromkeys(wanted) if name and names.count(name) == 1]


def _rows(
    batch: pa.RecordBatch, uri: str, first: int, source: SourceConfig, limits: ReadLimits
) -> Iterator[Row]:
    columns = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        column.validate()  # offsets within their buffers
        columns[name] = column
    for i in range(batch.num_rows):
        where = f"{uri}#{first + i}"
        record: dict[str, Any] = {}
        problem: Row | None = None
        for name, column in columns.items():
            try:
                record[name] = column[i].as_py()
            except UnicodeDecodeError:
                problem = bad_row(
                    where, "invalid_utf8", f"expected UTF-8 in the column {name!r}, got other bytes"
                )
        if problem:
            yield problem
            continue
        text = record[source.text_field]
        if isinstance(text, bytes):
            try:
                record[source.text_field] = text = text.decode()
            except UnicodeDecodeError:
                yield bad_row(where, "invalid_utf8", "expected UTF-8, got other bytes", text)
                continue
        if isinstance(text, str) and len(text) > limits.max_document_bytes:
            yield bad_row(
                where,
                "too_long",
                f"expected at most {limits.max_document_bytes} bytes, got more; raise read.max_document_bytes",
                text,
            )
            continue
        yield row_from_fields(record, where, source)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]

"""Documents out of Parquet and Arrow files: columns instead of lines, and nothing in them is believed unchecked.

pyarrow checks neither UTF-8 nor offsets when it reads, so each column is validated before a value is touched. A
dictionary can make a small file a huge table, so text stays dictionary-encoded until a row is made of it.
"""

from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.formats import row_from_fields
from pipeline.raw import BATCH_BYTES, BATCH_ROWS, ReadLimits, Row, bad_row
from pipeline.source_config import SourceConfig
from storage.disk import raise_for_machine

_ERRORS = (pa.ArrowException, OSError, ValueError, KeyError, IndexError, MemoryError, OverflowError)
"""What pyarrow raises for a damaged file."""

_MAX_METADATA_BYTES = 64 << 20
"""Bytes of a Parquet footer beyond which it is refused; its strings and lists may not be longer either."""

_RATIO_FREE_BYTES = 64 << 20
"""A table may always hold this much text, whatever its ratio to the file's size."""


def read_parquet(
    file: IO[bytes], uri: str, source: SourceConfig, limits: ReadLimits
) -> Iterator[Row]:
    """Yield a document a row, uri `file#row` from 0. Memory: some pages of the columns that are read."""
    batches = _parquet_batches(file, source, limits)
    return _guarded(batches, "a Parquet", file, uri, source, limits)


def read_arrow(
    file: IO[bytes], uri: str, source: SourceConfig, limits: ReadLimits
) -> Iterator[Row]:
    """Yield a document a row of an Arrow IPC file or stream, uri `file#row` from 0. Memory: one record batch."""
    return _guarded(_arrow_batches(file, source), "an Arrow IPC", file, uri, source, limits)


class _TableError(Exception):
    """The table as a whole cannot be used, or not from here on."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule


def _guarded(
    batches: Iterator[pa.RecordBatch],
    kind: str,
    file: IO[bytes],
    uri: str,
    source: SourceConfig,
    limits: ReadLimits,
) -> Iterator[Row]:
    """Rows of the batches; whatever goes wrong with the file is one more row, named after the file."""
    num_bytes = file.seek(0, 2)
    file.seek(0)
    num_rows = num_characters = 0
    try:
        for batch in batches:
            for row in _batch_rows(batch, uri, num_rows, source, limits):
                num_characters += len(row.text or "")
                _check_ratio(num_characters, num_bytes, limits)
                yield row
            num_rows += len(batch)
    except _TableError as error:
        yield bad_row(uri, error.rule, str(error))
    except _ERRORS as error:
        raise_for_machine(error, uri)
        line = (str(error).splitlines() or [type(error).__name__])[0][:300]
        yield bad_row(
            uri, "corrupt_table", f"expected {kind} file, got damage after row {num_rows}: {line}"
        )


def _check_ratio(num_produced: int, num_stored: int, limits: ReadLimits) -> None:
    if num_produced > max(_RATIO_FREE_BYTES, limits.max_ratio * num_stored):
        raise _TableError(
            "bomb",
            f"expected at most {limits.max_ratio:g} times the stored size, got {num_produced} bytes out of "
            f"{num_stored}; if the file is sound, raise read.max_ratio",
        )


def _parquet_batches(
    file: IO[bytes], source: SourceConfig, limits: ReadLimits
) -> Iterator[pa.RecordBatch]:
    stream = pa.PythonFile(file, mode="r")
    thrift: dict[str, Any] = {
        "thrift_string_size_limit": _MAX_METADATA_BYTES,
        "thrift_container_size_limit": _MAX_METADATA_BYTES // 64,
    }
    # Opened twice: which columns stay dictionaries can only be said at once, and of columns that exist.
    with pq.ParquetFile(stream, **thrift) as parquet:
        metadata = parquet.metadata
        columns = _columns(parquet.schema_arrow, source)
    with pq.ParquetFile(
        stream,
        metadata=metadata,
        read_dictionary=columns,
        buffer_size=1 << 20,
        pre_buffer=False,
        **thrift,
    ) as parquet:
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        for column in (g.column(i) for g in groups for i in range(g.num_columns)):
            if column.path_in_schema in columns:
                _check_ratio(column.total_uncompressed_size, column.total_compressed_size, limits)
        mean_bytes = max((g.total_byte_size // max(1, g.num_rows) for g in groups), default=1)
        rows = max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, mean_bytes)))
        yield from parquet.iter_batches(batch_size=rows, columns=columns, use_threads=False)


def _arrow_batches(file: IO[bytes], source: SourceConfig) -> Iterator[pa.RecordBatch]:
    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    stream = pa.PythonFile(file, mode="r")
    opened = pa.ipc.open_file(stream) if is_file else pa.ipc.open_stream(stream)
    columns = _columns(opened.schema, source)
    # Opened again, now that the columns to load are known.
    file.seek(0)
    options = pa.ipc.IpcReadOptions(
        use_threads=False, included_fields=[opened.schema.names.index(name) for name in columns]
    )
    if is_file:
        reader = pa.ipc.open_file(stream, options=options)
        for i in range(reader.num_record_batches):
            yield reader.get_batch(i).select(columns)
        return
    for batch in pa.ipc.open_stream(stream, options=options):
        yield batch.select(columns)
    file.seek(max(0, file.seek(0, 2) - 8))
    # Arrow's streaming format ends with a continuation mark and the length 0; a cut one just stops.
    if file.read(8) != b"\xff\xff\xff\xff\0\0\0\0":
        raise _TableError(
            "truncated_archive",
            "expected the end-of-stream mark of an Arrow stream, got the end of the file: batches may be missing",
        )


def _columns(schema: pa.Schema, source: SourceConfig) -> list[str]:
    """The columns to load. Raises _TableError unless one of them holds texts."""
    names = schema.names
    if names.count(source.text_field) != 1:
        shown = ", ".join(name[:40] for name in names[:8]) or "none"
        raise _TableError(
            "missing_text",
            f"expected one column {source.text_field!r}, got: {shown}; name the column in the source's `text_field`",
        )
    type_ = schema.field(source.text_field).type
    if not _is_text(type_):
        raise _TableError(
            "wrong_type", f"expected strings in the column {source.text_field!r}, got {type_}"
        )
    wanted = dict.fromkeys([source.text_field, source.license_field, source.domain_field])
    return [n for n in wanted if names.count(n) == 1 and _is_text(schema.field(n).type)]


def _is_text(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return any(is_type(type_) for is_type in _TEXT_TYPES)


_TEXT_TYPES = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
)


def _batch_rows(
    batch: pa.RecordBatch, uri: str, first: int, source: SourceConfig, limits: ReadLimits
) -> Iterator[Row]:
    columns = {name: _values(batch[name]) for name in batch.schema.names}
    for i in range(len(batch)):
        where = f"{uri}#{first + i}"
        record: dict[str, Any] = {}
        try:
            for name, (values, indices) in columns.items():
                at = i if indices is None else indices[i].as_py()
                # Checked before it is copied out of the table: one value of a dictionary may be gigabytes.
                value = None if at is None else values[at]
                if value is not None and value.is_valid:
                    size = value.as_buffer().size
                    if size > limits.max_document_bytes:
                        raise _RowError(
                            "too_long",
                            f"expected a text of at most {limits.max_document_bytes} bytes, got {size}; raise "
                            "read.max_document_bytes to take it",
                        )
                    record[name] = value.as_buffer().to_pybytes().decode()
        except UnicodeDecodeError as error:
            yield bad_row(
                where, "invalid_utf8", f"expected UTF-8, got: {error.reason}", error.object
            )
        except _RowError as error:
            yield bad_row(where, error.rule, str(error))
        else:
            yield row_from_fields(record, where, source)


class _RowError(Exception):
    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule


def _values(column: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    """Give (values, index of each row's value or None), checked: every offset and index lies where it must.

    As bytes, because the full check of a string column stops at the first value that is not UTF-8.
    """
    if pa.types.is_dictionary(column.type):
        indices, values = column.indices, column.dictionary
        indices.validate(full=True)
        bounds = pc.min_max(indices).as_py()
        if bounds["min"] is not None and not 0 <= bounds["min"] <= bounds["max"] < len(values):
            raise ValueError(
                f"a dictionary of {len(values)} values is asked for number {bounds['max']}"
            )
    else:
        indices, values = None, column
    as_bytes = {
        pa.string(): pa.binary(),
        pa.large_string(): pa.large_binary(),
        pa.string_view(): pa.binary_view(),
    }
    values = values.view(as_bytes[values.type]) if values.type in as_bytes else values
    values.validate(full=True)
    return values, indices

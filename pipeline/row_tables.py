"""Rows of Parquet and Arrow files: the text column for the first reading of `gristmill dedup`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.compression import open_regular
from pipeline.raw import ReadLimits
from pipeline.row_files import KINDS, BadRow, Fields, Part, RowFile, Rows, damaged
from pipeline.table_batches import (
    RATIO_FREE_BYTES,
    TABLE_ERRORS,
    Kind,
    Span,
    is_arrow_file,
    read_columns,
    read_rows,
    read_schema,
)
from pipeline.table_columns import TableError, column_or_none, text_column
from storage.errors import InputError


def table_parts(file: RowFile, part_bytes: int) -> list[Part]:
    """Cut a Parquet file between row groups, an Arrow file between batches; an Arrow stream stays whole."""
    with in_plain_words(file):
        if file.kind == "parquet":
            metadata = pq.read_metadata(file.path)
            sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
        else:
            with pa.memory_map(str(file.path)) as source:
                if not is_arrow_file(source.read(6)):
                    return [Part(file=file, num_bytes=file.num_bytes)]
                source.seek(0)
                count = pa.ipc.open_file(source).num_record_batches
            sizes = [file.num_bytes // max(count, 1)] * count
    parts, begin, held = [], 0, 0
    for end, size in enumerate(sizes, start=1):
        held += size
        if held >= part_bytes or end == len(sizes):
            share = file.num_bytes * held // max(sum(sizes), 1)
            parts.append(Part(file=file, begin=begin, end=end, num_bytes=share))
            begin, held = end, 0
    return parts


def table_rows(part: Part, fields: Fields, limits: ReadLimits) -> Iterator[Rows]:
    """Yield the rows of a part in order. Raises InputError if the file is damaged, or a bomb."""
    file = part.file
    num_bytes, most = 0, max(RATIO_FREE_BYTES, limits.max_ratio * file.num_bytes)
    with in_plain_words(file), open_regular(file.path) as stream:
        schema = read_schema(stream, kind_of_table(file))
        paths = [text_column(schema, fields.text)]
        if (path := column_or_none(schema, fields.id)) is not None:
            paths.append(path)
        span = Span(part.begin, part.end)
        for texts, *names in read_columns(stream, kind_of_table(file), paths, span):
            # Counted as it comes: a dictionary can make a small file a huge table.
            num_bytes += texts.nbytes
            if num_bytes > most:
                raise InputError(
                    f"{file.name}: expected at most {limits.max_ratio:g} times the file's size as text, got "
                    f"{num_bytes} bytes out of {file.num_bytes}; if the file is sound, raise read.max_ratio"
                )
            yield _rows(texts, names[0] if names else None, fields, limits)


def _rows(
    texts: pa.LargeBinaryArray, ids: pa.Array | None, fields: Fields, limits: ReadLimits
) -> Rows:
    bad: list[BadRow] = []
    usable = np.ones(len(texts), np.bool_)

    def refuse(row: int, reason: str, detail: str, record: bytes = b"") -> None:
        usable[row] = False
        bad.append(BadRow(row, reason, detail, record))

    for row in np.flatnonzero(texts.is_null().to_numpy(zero_copy_only=False)).tolist():
        refuse(row, "missing_text", f"expected a text in the column {fields.text!r}, got null")
    sizes = pc.fill_null(pc.binary_length(texts), 0).to_numpy()
    for row in np.flatnonzero(sizes > limits.max_document_bytes).tolist():
        refuse(
            row,
            "too_long",
            f"expected a text of at most {limits.max_document_bytes} bytes, got {sizes[row]}; raise "
            "read.max_document_bytes to take it",
        )
    strings = texts.view(pa.large_string())
    try:
        strings.validate(full=True)
    except pa.ArrowInvalid:
        # The offsets are sound (the batch was checked), so a text is not UTF-8: find out which.
        for row, value in enumerate(texts.to_pylist()):
            try:
                (value or b"").decode()
            except UnicodeDecodeError as error:
                refuse(row, "invalid_utf8", f"expected UTF-8, got: {error.reason}", value)
    values = [None] * len(texts) if ids is None else ids.to_pylist()
    names = pa.array([None if v is None else _as_json(v) for v in values], pa.string())
    rows = np.flatnonzero(usable)
    if len(rows) < len(texts):
        strings, names = strings.take(pa.array(rows)), names.take(pa.array(rows))
        bad.sort()
    return Rows(count=len(texts), rows=rows.tolist(), texts=strings, names=names, bad=bad)


def _as_json(value: Any) -> str:
    if type(value) is int:
        return str(value)
    value = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
    return orjson.dumps(value, default=str).decode()


def kind_of_table(file: RowFile) -> Kind:
    """The kind of a file that is a table."""
    assert file.kind == "parquet" or file.kind == "arrow"
    return file.kind


def rows_of(file: RowFile, span: Span, names: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Whole rows of a file, all columns or those of some names."""
    with in_plain_words(file), open_regular(file.path) as stream:
        yield from read_rows(stream, kind_of_table(file), span, names)


def schema_of(file: RowFile) -> pa.Schema:
    """The columns of a file."""
    with in_plain_words(file), open_regular(file.path) as stream:
        return read_schema(stream, kind_of_table(file))


@contextmanager
def in_plain_words(file: RowFile) -> Iterator[None]:
    """Errors of pyarrow as InputError, with the file's name and what to do."""
    try:
        yield
    except TableError as error:
        raise damaged(file, str(error)) from error
    except pa.ArrowNotImplementedError as error:
        raise InputError(
            f"{file.name}: expected columns of types that Arrow can copy row by row, got one that it cannot: {error}"
        ) from error
    except TABLE_ERRORS as error:
        line = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise damaged(file, f"expected {KINDS[file.kind]}, got damage: {line}") from error

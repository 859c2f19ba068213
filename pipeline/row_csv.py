"""CSV files whose records are documents: read for texts and ids, kept records copied with the very bytes that they had.

The reader is that of the builds (`delimited.csv_records`), which hands out the lines of each record. Rows count as a
spreadsheet shows them: the header is row 1, whatever number of lines a record takes.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.delimited import CsvRecord, csv_records
from pipeline.formats import has_surrogates
from pipeline.lines import split_lines
from pipeline.raw import ReadLimits
from pipeline.row_files import BadRow, Fields, Part, RowFile, Rows, Tell, changed, tell_nobody
from pipeline.row_lines import as_json, decoded_chunks
from storage.errors import ConfigError, InputError

_BATCH_BYTES = 1 << 20
"""Bytes of records that are handed on together."""


def common_header(files: Sequence[RowFile], text_field: str, limits: ReadLimits) -> None:
    """Raise InputError unless all files have the same columns and separator, ConfigError if none of them is the text's."""
    first: CsvRecord | None = None
    for file in files:
        header = _header(file, text_field, limits)
        if header is None:
            continue  # an empty file
        if header.fields.count(text_field) != 1:
            raise ConfigError(
                f"{file.name}: expected one column {text_field!r}, got: {', '.join(header.fields[:8])}; name the column "
                "with --text-field"
            )
        if first is None:
            first = header
        elif (header.fields, header.delimiter) != (first.fields, first.delimiter):
            raise InputError(
                f"{file.name}: expected the columns of {files[0].name}, {first.delimiter.join(first.fields)!r}, got "
                f"{header.delimiter.join(header.fields)!r}; bring them to one form first"
            )


def header_bytes(files: Sequence[RowFile], text_field: str, limits: ReadLimits) -> bytes:
    """The header of the first file that has one, as it stands there."""
    headers = (_header(file, text_field, limits) for file in files)
    return next((_bytes(header) for header in headers if header is not None), b"")


def _header(file: RowFile, text_field: str, limits: ReadLimits) -> CsvRecord | None:
    part = Part(file=file, num_bytes=file.num_bytes)
    return next((r for r in _records(part, text_field, limits) if r.fields), None)


def csv_rows(
    part: Part, fields: Fields, limits: ReadLimits, tell: Tell = tell_nobody
) -> Iterator[Rows]:
    """Yield the records of a file in order, without the header. Raises InputError if the file is damaged."""
    columns: list[str] = []
    held: list[CsvRecord] = []
    num_bytes = 0
    for record in _records(part, fields.text, limits, tell):
        if not columns and record.fields:
            columns = record.fields
            continue
        held.append(record)
        num_bytes += sum(map(len, record.lines)) + 1
        if num_bytes >= _BATCH_BYTES:
            yield _rows(held, columns, fields)
            held, num_bytes = [], 0
    if held:
        yield _rows(held, columns, fields)


def kept_records(
    part: Part,
    is_kept: NDArray[np.bool_],
    text_field: str,
    limits: ReadLimits,
    tell: Tell = tell_nobody,
) -> Iterator[bytes]:
    """Yield the chosen records of a file, byte for byte. Raises InputError if it changed since then."""
    count, has_header = 0, False
    for record in _records(part, text_field, limits, tell):
        if not has_header and record.fields:
            has_header = True
            continue
        if count < len(is_kept) and is_kept[count]:
            yield _bytes(record)
        count += 1
    if count != len(is_kept):
        raise changed(part.file)


def _records(
    part: Part, text_field: str, limits: ReadLimits, tell: Tell = tell_nobody
) -> Iterator[CsvRecord]:
    most = limits.max_document_bytes
    lines = split_lines(decoded_chunks(part, limits, tell), most, keep_returns=True)
    return csv_records(lines, most, text_field)


def _bytes(record: CsvRecord) -> bytes:
    """A record as it stands in the file; a missing last line feed comes."""
    return b"\n".join(record.lines) + b"\n"


def _rows(records: Sequence[CsvRecord], columns: Sequence[str], fields: Fields) -> Rows:
    rows: list[int] = []
    texts: list[str] = []
    names: list[str | None] = []
    bad: list[BadRow] = []
    text_at = columns.index(fields.text) if fields.text in columns else 0
    id_at = columns.index(fields.id) if fields.id in columns else None
    for i, record in enumerate(records):
        reason = detail = ""
        if record.problem:
            reason, detail = record.problem.rule, record.problem.detail
        elif not record.fields:
            continue
        elif len(record.fields) != len(columns):
            reason = "wrong_columns"
            detail = f"expected {len(columns)} fields, got {len(record.fields)}"
        elif has_surrogates("".join(record.fields)):
            reason, detail = "invalid_utf8", "expected UTF-8, got other bytes"
        if reason:
            sample = record.problem.sample if record.problem else b""
            bad.append(BadRow(i, reason, detail, b"\n".join(record.lines) or sample))
            continue
        rows.append(i)
        texts.append(record.fields[text_at])
        names.append(as_json(record.fields[id_at]) if id_at is not None else None)
    return Rows(
        count=len(records),
        rows=rows,
        texts=pa.array(texts, pa.large_string()),
        names=pa.array(names, pa.string()),
        bad=bad,
    )

"""Documents out of Parquet and Arrow files: columns instead of lines, and nothing in them is believed unchecked."""

from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa

from pipeline.formats import row_from_fields
from pipeline.raw import ReadLimits, Row, bad_row
from pipeline.source_config import SourceConfig
from pipeline.table_batches import TABLE_ERRORS, Kind, check_ratio, read_columns, read_schema
from pipeline.table_columns import TableError, column_or_none, column_type, is_text, text_column

_KINDS: dict[Kind, str] = {"parquet": "a Parquet", "arrow": "an Arrow IPC"}


def read_table(
    file: IO[bytes], kind: Kind, uri: str, source: SourceConfig, limits: ReadLimits
) -> Iterator[Row]:
    """Yield a document a row, uri `file#row` from 0; whatever is wrong with the file is one more row, named after it.

    Memory: see `read_columns`, of the columns with texts, licences and domains alone.
    """
    num_bytes = file.seek(0, 2)
    file.seek(0)
    num_rows = num_characters = 0
    try:
        schema = read_schema(file, kind)
        columns = _columns(schema, source)
        for batch in read_columns(file, kind, list(columns.values()), max_ratio=limits.max_ratio):
            for row in _batch_rows(dict(zip(columns, batch, strict=True)), uri, num_rows, source, limits):  # fmt: skip
                num_characters += len(row.text or "")
                check_ratio(num_characters, num_bytes, limits.max_ratio)
                yield row
            num_rows += len(batch[0])
    except TableError as error:
        hint = "; name the column in the source's `text_field`"
        yield bad_row(uri, error.rule, f"{error}{hint if error.rule == 'missing_text' else ''}")
    except TABLE_ERRORS as error:
        line = (str(error).splitlines() or [type(error).__name__])[0][:300]
        yield bad_row(
            uri,
            "corrupt_table",
            f"expected {_KINDS[kind]} file, got damage after row {num_rows}, and read no further: {line}; get a sound "
            "copy of the file",
        )


def _columns(schema: pa.Schema, source: SourceConfig) -> dict[str, tuple[str, ...]]:
    """Paths of the columns to load, by the field that asks for them. Raises TableError unless one holds texts."""
    paths = {source.text_field: text_column(schema, source.text_field)}
    for name in (source.license_field, source.domain_field):
        path = column_or_none(schema, name)
        if path is not None and is_text(column_type(schema, path)):
            paths[name] = path
    return paths


def _batch_rows(
    columns: dict[str, pa.LargeBinaryArray],
    uri: str,
    first: int,
    source: SourceConfig,
    limits: ReadLimits,
) -> Iterator[Row]:
    values = zip(*columns.values(), strict=True)
    for number, row in enumerate(values, start=first):
        where = f"{uri}#{number}"
        record: dict[str, Any] = {}
        try:
            for name, value in zip(columns, row, strict=True):
                record[name] = None
                if value.is_valid:
                    data = value.as_buffer()
                    if data.size > limits.max_document_bytes:
                        raise _TooLong(
                            f"expected a text of at most {limits.max_document_bytes} bytes, got {data.size}; raise "
                            "read.max_document_bytes to take it"
                        )
                    record[name] = data.to_pybytes().decode()
        except UnicodeDecodeError as error:
            yield bad_row(
                where, "invalid_utf8", f"expected UTF-8, got: {error.reason}", error.object
            )
        except _TooLong as error:
            yield bad_row(where, "too_long", str(error))
        else:
            yield row_from_fields(record, where, source)


class _TooLong(Exception):
    """A value is longer than the limits allow."""

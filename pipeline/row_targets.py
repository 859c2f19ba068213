"""The Parquet or Arrow file that `gristmill dedup` writes: its schema, and the rows that stay.

Kept rows go out with the schema that they came with, metadata included. What OUT cannot hold is told before the work.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.row_files import Part, RowFile, check_unchanged
from pipeline.row_tables import in_plain_words, rows_of, schema_of
from pipeline.source_config import inner_ending
from pipeline.table_batches import WHOLE, Span
from pipeline.table_columns import (
    TableError,
    children,
    has_dictionary,
    num_bytes_of,
    retyped,
    text_column,
    with_index,
)
from storage.errors import ConfigError, InputError

_GROUP_BYTES = 64 << 20
"""Bytes of a row group of OUT, in memory; smaller groups cost space, larger ones the reader's memory."""


@dataclass(frozen=True)
class TableTarget:
    """The table that OUT is to be."""

    ending: str
    schema: pa.Schema
    """Of all files, with the first one's metadata."""
    like: RowFile
    """The first input: a Parquet file is compressed as it is."""
    categories: pa.RecordBatch
    """No rows; of columns with dictionaries each dictionary, with the values of all files."""

    @property
    def is_parquet(self) -> bool:
        """Whether OUT is to be a Parquet file."""
        return self.ending in _PARQUET_ENDINGS


def table_target(
    files: Sequence[RowFile], out_name: str, text_field: str, scratch: Path
) -> TableTarget:
    """What OUT is to be, tried on one row in the file `scratch`: what cannot be written is told before the work.

    Raises ConfigError unless the text column is one of strings, or if OUT cannot hold a column, InputError for files
    that no one table can hold. Memory: the values of all dictionaries.
    """
    schema = _common_schema(files)
    try:
        text_column(schema, text_field)
    except TableError as error:
        hint = "; name the column with --text-field" if error.rule == "missing_text" else ""
        raise ConfigError(f"{files[0].name}: {error}{hint}") from error
    ending = inner_ending(out_name)
    is_parquet = ending in _PARQUET_ENDINGS
    if is_parquet:
        schema = _with_types(schema, [retyped(field.type, _in_parquet) for field in schema])
    for file in files:
        _try_out(file, TableTarget(ending, schema, files[0], _no_rows(pa.schema([]))), scratch)
    # An Arrow file holds one dictionary a column, whatever its batches came with. A Parquet file holds none, but the
    # dictionary of a batch may be too long for a short index.
    categories = {
        field.name: _categories(files, field)
        for field in schema
        if has_dictionary(field.type) and not (is_parquet and _has_long_index(field.type))
    }
    schema = _with_types(
        schema, [categories[f.name].type if f.name in categories else f.type for f in schema]
    )
    known = pa.RecordBatch.from_arrays(list(categories.values()), list(categories))
    return TableTarget(ending, schema, files[0], known)


_PARQUET_ENDINGS = (".parquet", ".pq")


def _with_types(schema: pa.Schema, types: Sequence[pa.DataType]) -> pa.Schema:
    fields = [field.with_type(type_) for field, type_ in zip(schema, types, strict=True)]
    return pa.schema(fields, schema.metadata)


def _no_rows(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.nulls(0, type_) for type_ in schema.types], schema=schema)


def _common_schema(files: Sequence[RowFile]) -> pa.Schema:
    """The schema of all files: of types that differ in width or form alone, the one that holds the values of both."""
    common = schema_of(files[0])
    for file in files[1:]:
        other = schema_of(file)
        if common.equals(other):
            continue
        fields = []
        for name in dict.fromkeys([*common.names, *other.names]):
            mine, theirs = (
                schema.field(name) if schema.names.count(name) == 1 else None
                for schema in (common, other)
            )
            wide = None if mine is None or theirs is None else _wider(mine.type, theirs.type)
            if mine is None or theirs is None or wide is None:
                types = [field.type if field else "none" for field in (theirs, mine)]
                raise InputError(
                    f"{file.name}: expected the columns of {files[0].name}, got column {name!r}: {types[0]}, not "
                    f"{types[1]}; bring them to one schema first"
                )
            fields.append(mine.with_type(wide).with_nullable(mine.nullable or theirs.nullable))
        common = pa.schema(fields, common.metadata)
    return common


def _wider(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """The type that holds all values of both as they are; None if there is none."""
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    if pa.types.is_dictionary(a) and pa.types.is_dictionary(b):
        values = _wider(a.value_type, b.value_type)
        is_one = values is not None and a.ordered == b.ordered
        return pa.dictionary(pa.int32(), values, a.ordered) if is_one else None
    if pa.types.is_dictionary(a):
        return _wider(a.value_type, b)
    if pa.types.is_dictionary(b):
        return _wider(a, b.value_type)
    return next((wide for is_kind, wide in _WIDEST if is_kind(a) and is_kind(b)), None)


_WIDEST = (
    (lambda type_: type_ in (pa.string(), pa.large_string(), pa.string_view()), pa.large_string()),
    (lambda type_: type_ in (pa.binary(), pa.large_binary(), pa.binary_view()), pa.large_binary()),
    (pa.types.is_signed_integer, pa.int64()),
    (pa.types.is_unsigned_integer, pa.uint64()),
    (pa.types.is_floating, pa.float64()),
)


def _in_parquet(type_: pa.DataType) -> pa.DataType | None:
    """For `retyped`: what a Parquet file can hold in the place of what pyarrow does not write into one."""
    if pa.types.is_run_end_encoded(type_):
        return type_.value_type
    if pa.types.is_dictionary(type_) and pa.types.is_string_view(type_.value_type):
        return pa.dictionary(type_.index_type, pa.string(), type_.ordered)
    return None


def _has_long_index(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        return type_.index_type.bit_width >= 32
    return all(
        _has_long_index(field.type) for field in children(type_) if has_dictionary(field.type)
    )


def _try_out(file: RowFile, target: TableTarget, scratch: Path) -> None:
    """Copy a row of nulls in the columns of a file. Raises ConfigError if a type cannot be copied."""
    schema = schema_of(file)
    for field in schema:
        wanted = target.schema.field(field.name) if schema.names.count(field.name) == 1 else field
        row = pa.RecordBatch.from_arrays([pa.nulls(1, field.type)], [field.name])
        try:
            one = pa.schema([wanted.with_nullable(True)])
            with table_writer(scratch, replace(target, schema=one)) as write:
                write(_conformed(_chosen(row, np.ones(1, np.bool_)), one))
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ConfigError(
                f"{file.name}: expected columns that a {target.ending} file can hold, got {field.name!r} of type "
                f"{field.type}: {str(error).splitlines()[0][:200]}; give OUT another ending, or leave the column out"
            ) from error
        finally:
            scratch.unlink(missing_ok=True)


def _categories(files: Sequence[RowFile], field: pa.Field) -> pa.Array:
    """A column without rows, and with the values of all files in its dictionaries; its index is long enough for them."""
    known = _no_rows(pa.schema([field]))
    try:
        for file in files:
            for batch in rows_of(file, WHOLE, [field.name]):
                known, _ = _unified(known, _conformed(batch, known.schema))
    except pa.ArrowInvalid:
        wide = field.with_type(retyped(field.type, with_index(pa.int32())))
        if wide.type == field.type:
            raise
        return _categories(files, wide)
    return known.column(0)


def _unified(known: pa.RecordBatch, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Both with the same dictionaries, which begin with those of the first."""
    columns = pa.Table.from_batches([known, batch]).unify_dictionaries().columns
    first, second = (
        pa.RecordBatch.from_arrays([column.chunk(i) for column in columns], schema=known.schema)
        for i in range(2)
    )
    return first, second


# --- rows --------------------------------------------------------------------------------------


def kept_batches(
    part: Part, is_kept: NDArray[np.bool_], target: TableTarget
) -> Iterator[pa.RecordBatch]:
    """Yield the chosen rows of a part, all columns, for OUT."""
    check_unchanged(part.file)
    first = 0
    for batch in rows_of(part.file, Span(part.begin, part.end)):
        chosen = is_kept[first : first + len(batch)]
        first += len(batch)
        if chosen.any():
            with in_plain_words(part.file):
                yield _conformed(_chosen(batch, chosen), target.schema)


def _chosen(batch: pa.RecordBatch, is_kept: NDArray[np.bool_]) -> pa.RecordBatch:
    """The rows of a batch that the mask names."""
    columns = [_chosen_values(column, is_kept) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _chosen_values(column: pa.Array, is_kept: NDArray[np.bool_]) -> pa.Array:
    # Arrow filters no views, and writes with each slice of them all that they may point into.
    storage = column.storage if isinstance(column, pa.ExtensionArray) else column
    wide = retyped(storage.type, _without_views)
    if is_kept.all() and wide == storage.type:
        return column
    mask = pa.array(is_kept)
    try:
        if wide == storage.type:
            return column.filter(mask)
        return storage.cast(wide).filter(mask).cast(storage.type).cast(column.type)
    except pa.ArrowNotImplementedError:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], is_kept.view(np.int8), [0]])))
        runs = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
        return pa.concat_arrays([column.slice(begin, end - begin) for begin, end in runs])


def _without_views(type_: pa.DataType) -> pa.DataType | None:
    """For `retyped`: strings in the place of views, but for those in dictionaries, which stay as they are."""
    if pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
        return type_
    return {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}.get(type_)


def _conformed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The columns of a schema, by name, in its types."""
    if batch.schema.names != schema.names:
        batch = batch.select(schema.names)
    columns = [
        column if column.type == field.type else _cast(column, field.type)
        for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _cast(column: pa.Array, type_: pa.DataType) -> pa.Array:
    if pa.types.is_run_end_encoded(column.type):
        column = pc.run_end_decode(column)
    return column if column.type == type_ else column.cast(type_)


@contextmanager
def table_writer(path: Path, target: TableTarget) -> Iterator[Callable[[pa.RecordBatch], Any]]:
    """Open a Parquet or Arrow file for batches; a Parquet file is compressed as the first input is."""
    schema, like = target.schema, target.like
    if target.is_parquet:
        # A list's items keep the name that they have; only where there is none yet, it is the specification's.
        is_new = like.kind != "parquet"
        with pq.ParquetWriter(
            path, schema, compression=_codec(like), use_compliant_nested_type=is_new
        ) as writer:
            held: list[pa.RecordBatch] = []
            num_bytes = 0

            def write(batch: pa.RecordBatch) -> None:
                nonlocal num_bytes
                held.append(batch)
                num_bytes += sum(map(num_bytes_of, batch.columns))
                if num_bytes >= _GROUP_BYTES:
                    flush()

            def flush() -> None:
                nonlocal num_bytes
                if held:
                    writer.write_table(pa.Table.from_batches(held, schema))
                held.clear()
                num_bytes = 0

            yield write
            flush()
        return
    # Feather files are compressed by default, other Arrow files are made to be mapped into memory.
    options = pa.ipc.IpcWriteOptions(compression="lz4" if target.ending == ".feather" else None)
    open_writer = pa.ipc.new_stream if target.ending == ".arrows" else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, open_writer(sink, schema, options=options) as writer:
        names = target.categories.schema.names

        def write_unified(batch: pa.RecordBatch) -> None:
            if names:
                _, unified = _unified(target.categories, batch.select(names))
                columns = [unified[n] if n in names else batch[n] for n in schema.names]
                batch = pa.RecordBatch.from_arrays(columns, schema=schema)
            writer.write_batch(batch)

        yield write_unified


def _codec(file: RowFile) -> str:
    if file.kind != "parquet":
        return "zstd"
    metadata = pq.read_metadata(file.path)
    if not metadata.num_row_groups or not metadata.num_columns:
        return "snappy"
    codec = metadata.row_group(0).column(0).compression.lower()
    return "none" if codec == "uncompressed" else codec

"""Rows of Parquet and Arrow files: the text column for the first reading, whole rows for the second.

pyarrow checks neither UTF-8 nor offsets when it reads an Arrow file, so every column is validated before it is touched.
Kept rows go out with the schema that they came with, metadata included.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.raw import ReadLimits
from pipeline.row_files import KINDS, BadRow, Fields, Part, RowFile, Rows, check_unchanged, damaged
from pipeline.source_config import inner_ending
from storage.disk import raise_for_machine
from storage.errors import ConfigError, InputError

_BATCH_BYTES = 16 << 20
"""Bytes of the text column that a batch is to have; one longer text is a batch of its own."""

_BATCH_ROWS = 8192
"""Rows of a batch at most: rows that a dictionary makes large are not known before they are read."""

_RATIO_FREE_BYTES = 64 << 20
"""A table may always hold this much text, whatever its ratio to the file's size."""

_GROUP_BYTES = 64 << 20
"""Bytes of a row group of OUT, in memory; smaller groups cost space, larger ones the reader's memory."""

_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, IndexError, OverflowError)
"""What pyarrow raises for a damaged file."""


def table_parts(file: RowFile, part_bytes: int) -> list[Part]:
    """Cut a Parquet file between row groups, an Arrow file between batches; an Arrow stream stays whole."""
    with _in_plain_words(file):
        if file.kind == "parquet":
            metadata = pq.read_metadata(file.path)
            sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
        elif _is_stream(file.path):
            return [Part(file=file, num_bytes=file.num_bytes)]
        else:
            with pa.memory_map(str(file.path)) as source:
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


def common_schema(files: Sequence[RowFile], text_field: str) -> pa.Schema:
    """The schema of all files, with the first one's metadata.

    Raises InputError if they differ, ConfigError unless the text column is one of strings.
    """
    first = _schema(files[0])
    for file in files[1:]:
        other = _schema(file)
        if not first.equals(other):
            mine, theirs = ({f.name: str(f.type) for f in schema} for schema in (first, other))
            differs = next((n for n in {**mine, **theirs} if mine.get(n) != theirs.get(n)), None)
            what = (
                f"column {differs!r}: {theirs.get(differs, 'none')}, not {mine.get(differs, 'none')}"
                if differs is not None
                else "other columns, or in another order"
            )
            raise InputError(
                f"{file.name}: expected the columns of {files[0].name}, got {what}; bring them to one schema first"
            )
    if first.names.count(text_field) != 1:
        raise ConfigError(
            f"{files[0].name}: expected one column {text_field!r}, got: {', '.join(first.names[:8]) or 'none'}; name "
            "the column with --text-field"
        )
    type_ = first.field(text_field).type
    value_type = type_.value_type if pa.types.is_dictionary(type_) else type_
    if not (
        pa.types.is_string(value_type)
        or pa.types.is_large_string(value_type)
        or pa.types.is_string_view(value_type)
    ):
        raise ConfigError(
            f"{files[0].name}: expected strings in the column {text_field!r}, got {type_}"
        )
    return first


def table_rows(part: Part, fields: Fields, limits: ReadLimits) -> Iterator[Rows]:
    """Yield the rows of a part in order. Raises InputError if the file is damaged, or a bomb."""
    file = part.file
    names = _schema(file).names
    columns = [fields.text, *({fields.id} & set(names) - {fields.text})]
    num_bytes, most = 0, max(_RATIO_FREE_BYTES, limits.max_ratio * file.num_bytes)
    for batch in _batches(part, columns):
        with _in_plain_words(file):
            # Counted before a dictionary is unpacked: it can make a small file a huge table.
            num_bytes += _text_bytes(batch[fields.text])
            if num_bytes > most:
                raise InputError(
                    f"{file.name}: expected at most {limits.max_ratio:g} times the file's size as text, got "
                    f"{num_bytes} bytes out of {file.num_bytes}; if the file is sound, raise read.max_ratio"
                )
            for piece in _pieces(batch, fields.text):
                yield _rows(piece, fields, limits)


def kept_batches(part: Part, is_kept: NDArray[np.bool_]) -> Iterator[pa.RecordBatch]:
    """Yield the chosen rows of a part, all columns."""
    check_unchanged(part.file)
    first = 0
    for batch in _batches(part, None):
        chosen = is_kept[first : first + len(batch)]
        first += len(batch)
        if chosen.all():
            yield batch
        elif chosen.any():
            with _in_plain_words(part.file):
                yield _chosen(batch, pa.array(chosen))


def _chosen(batch: pa.RecordBatch, mask: pa.BooleanArray) -> pa.RecordBatch:
    """The rows of a batch that the mask names; columns of views go through another type, since Arrow filters none."""
    columns = []
    for column in batch.columns:
        wide = _FILTERED_AS.get(column.type)
        columns.append(
            column.filter(mask)
            if wide is None
            else column.cast(wide).filter(mask).cast(column.type)
        )
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


_FILTERED_AS = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}


def _rows(batch: pa.RecordBatch, fields: Fields, limits: ReadLimits) -> Rows:
    texts = batch[fields.text]
    if pa.types.is_dictionary(texts.type):
        texts = texts.dictionary_decode()
    texts = texts.cast(pa.large_string())
    bad: list[BadRow] = []
    usable = np.ones(len(batch), np.bool_)

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
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        # The offsets are sound (the batch was checked), so a text is no UTF-8: find out which.
        for row, value in enumerate(texts.view(pa.large_binary()).to_pylist()):
            try:
                (value or b"").decode()
            except UnicodeDecodeError as error:
                refuse(row, "invalid_utf8", f"expected UTF-8, got: {error.reason}", value)
    names = pa.nulls(len(batch), pa.string())
    if fields.id in batch.schema.names:
        values = batch[fields.id].to_pylist()
        names = pa.array([None if v is None else _as_json(v) for v in values], pa.string())
    rows = np.flatnonzero(usable)
    if len(rows) < len(batch):
        texts, names = texts.take(pa.array(rows)), names.take(pa.array(rows))
        bad.sort()
    return Rows(count=len(batch), rows=rows.tolist(), texts=texts, names=names, bad=bad)


def _as_json(value: Any) -> str:
    return str(value) if type(value) is int else orjson.dumps(value, default=str).decode()


def _pieces(batch: pa.RecordBatch, text_field: str) -> Iterator[pa.RecordBatch]:
    """The batch in pieces of about `_BATCH_BYTES` of text, found by halving."""
    if len(batch) < 2 or _text_bytes(batch[text_field]) <= _BATCH_BYTES:
        yield batch
        return
    half = len(batch) // 2
    yield from _pieces(batch.slice(0, half), text_field)
    yield from _pieces(batch.slice(half), text_field)


def _text_bytes(texts: pa.Array) -> int:
    """Bytes of the texts that a column stands for."""
    if pa.types.is_dictionary(texts.type):
        lengths = pc.binary_length(texts.dictionary).take(texts.indices)
    else:
        lengths = pc.binary_length(texts.cast(pa.large_binary()))
    return pc.sum(pc.cast(lengths, pa.int64())).as_py() or 0


def _batches(part: Part, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    file, end = part.file, part.end
    with _in_plain_words(file):
        if file.kind == "parquet":
            assert end is not None
            # What is a dictionary in the file stays one, until it is known how much it stands for.
            texts = None if columns is None else columns[:1]
            with pq.ParquetFile(file.path, buffer_size=1 << 20, read_dictionary=texts) as parquet:
                groups = [parquet.metadata.row_group(i) for i in range(part.begin, end)]
                mean = max((g.total_byte_size // max(1, g.num_rows) for g in groups), default=1)
                rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, mean)))
                yield from parquet.iter_batches(
                    batch_size=rows,
                    row_groups=list(range(part.begin, end)),
                    columns=columns,
                    use_threads=False,
                )
            return
        with pa.memory_map(str(file.path)) as source:
            if end is None:
                yield from _stream_batches(file, source, columns)
                return
            reader = pa.ipc.open_file(source)
            for i in range(part.begin, end):
                yield _checked(reader.get_batch(i), columns)


def _stream_batches(
    file: RowFile, source: pa.MemoryMappedFile, columns: list[str] | None
) -> Iterator[pa.RecordBatch]:
    for batch in pa.ipc.open_stream(source):
        yield _checked(batch, columns)
    source.seek(max(0, file.num_bytes - 8))
    # Arrow's streaming format ends with a continuation mark and the length 0; a cut one just stops.
    if source.read(8) != b"\xff\xff\xff\xff\0\0\0\0":
        raise ValueError("the file ends without the end-of-stream mark, so batches may be missing")


def _checked(batch: pa.RecordBatch, columns: list[str] | None) -> pa.RecordBatch:
    """The columns of a batch, once every offset and index in them is known to lie where it must."""
    batch = batch if columns is None else batch.select(columns)
    for column in batch.columns:
        as_bytes = _AS_BYTES.get(column.type)
        # As bytes, because the full check of a string column stops at the first value that is not UTF-8.
        (column if as_bytes is None else column.view(as_bytes)).validate(full=True)
    return batch


_AS_BYTES = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}


def _schema(file: RowFile) -> pa.Schema:
    with _in_plain_words(file):
        if file.kind == "parquet":
            return pq.read_schema(file.path)
        with pa.memory_map(str(file.path)) as source:
            is_stream = _is_stream(file.path)
            return (pa.ipc.open_stream if is_stream else pa.ipc.open_file)(source).schema


def _is_stream(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6) != b"ARROW1"


@contextmanager
def _in_plain_words(file: RowFile) -> Iterator[None]:
    try:
        yield
    except pa.ArrowNotImplementedError as error:
        raise InputError(
            f"{file.name}: expected columns of types that Arrow can copy row by row, got one that it cannot: {error}"
        ) from error
    except _DAMAGE as error:
        raise_for_machine(error, file.name)
        line = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise damaged(file, f"expected {KINDS[file.kind]}, got damage: {line}") from error


@contextmanager
def table_writer(
    path: Path, out_name: str, schema: pa.Schema, like: RowFile
) -> Iterator[Callable[[pa.RecordBatch], Any]]:
    """Open a Parquet or Arrow file for batches; a Parquet file is compressed as `like`, the first input, is."""
    ending = inner_ending(out_name)
    if ending in (".parquet", ".pq"):
        # A list's items keep the name that they have; only where there is none yet, it is the specification's.
        is_new = like.kind != "parquet"
        with pq.ParquetWriter(
            path, schema, compression=_codec(like), use_compliant_nested_type=is_new
        ) as writer:
            held: list[pa.RecordBatch] = []
            num_bytes = 0

            def write(batch: pa.RecordBatch) -> None:
                nonlocal num_bytes
                held.append(batch.replace_schema_metadata(schema.metadata))
                num_bytes += batch.nbytes
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
    options = pa.ipc.IpcWriteOptions(compression="lz4" if ending == ".feather" else None)
    open_writer = pa.ipc.new_stream if ending == ".arrows" else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, open_writer(sink, schema, options=options) as writer:
        yield lambda batch: writer.write_batch(batch.replace_schema_metadata(schema.metadata))


def _codec(file: RowFile) -> str:
    if file.kind != "parquet":
        return "zstd"
    metadata = pq.read_metadata(file.path)
    if not metadata.num_row_groups or not metadata.num_columns:
        return "snappy"
    codec = metadata.row_group(0).column(0).compression.lower()
    return "none" if codec == "uncompressed" else codec

"""Record batches of Parquet and Arrow files, some MiB at a time however the file was cut.

What builds and `gristmill dedup` read tables by. Nothing in a file is believed unchecked: pyarrow checks neither UTF-8
nor offsets, a dictionary makes a small file a huge table, and one row group or record batch may hold all of a corpus.
"""

import mmap
from collections.abc import Iterator, Sequence
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.raw import BATCH_ROWS
from pipeline.table_columns import (
    TableError,
    Texts,
    check,
    cuts,
    halves,
    has_dictionary,
    is_text,
    is_view,
    num_bytes_of,
    retyped,
    selected,
    with_index,
)

Kind = Literal["parquet", "arrow"]

TABLE_ERRORS = (pa.ArrowException, OSError, ValueError, KeyError, IndexError, OverflowError)
"""What pyarrow raises for a damaged file."""

RATIO_FREE_BYTES = 64 << 20
"""A table may always hold this much text, whatever its ratio to the file's size."""

_MAX_METADATA_BYTES = 64 << 20
"""Bytes of a Parquet footer beyond which it is refused; its strings and lists may not be longer either."""

_DECODED_ROWS = 64
"""Rows of a Parquet file decoded at a time. The mean of a row group says nothing about the longest texts in it, which
may lie together; with 64 rows, 1 MB each is harmless, and a million short rows take no longer than by the thousand."""

_DECODED_BYTES = 64 << 20
"""Bytes that so many rows may have in the mean, and if each repeats all that its dictionaries hold."""

_GATHERED_BYTES = 2 << 20
"""Bytes of such batches that go on together: what stays in a processor's cache."""

_MAPPED_BYTES = 64 << 20
"""Bytes of a mapped file after which its pages are let go; they count as memory of the process until then."""


class Span(NamedTuple):
    """Row groups, or record batches, of a file; `end` None: to its end."""

    begin: int
    end: int | None


WHOLE = Span(0, None)
"""All of a file."""


def read_schema(file: IO[bytes], kind: Kind) -> pa.Schema:
    """The columns of a table."""
    if kind == "parquet":
        return _open_parquet(file).schema_arrow
    return _open_arrow(_mapped(file)).schema


def read_columns(
    file: IO[bytes],
    kind: Kind,
    paths: Sequence[tuple[str, ...]],
    span: Span = WHOLE,
    max_ratio: float | None = None,
) -> Iterator[list[pa.Array]]:
    """Yield the columns at some paths, the first of which is text, about 16 MiB of it at a time.

    Columns of texts come as large_binary, unchecked for UTF-8; others as they are. Memory: some pages of a Parquet
    file, a record batch of an Arrow file if it is compressed. Raises TableError and any of TABLE_ERRORS.
    """
    if kind == "parquet":
        found = _parquet_batches(file, [".".join(path) for path in paths], span, max_ratio)
        batches = (selected(batch, paths) for batch in found)
    else:
        batches = _arrow_batches(file, paths, span)
    for batch in batches:
        texts = {
            i: Texts.of(column) for i, column in enumerate(batch.columns) if is_text(column.type)
        }
        sizes = np.sum([column.sizes() for column in texts.values()], axis=0)
        for first, count in cuts(sizes):
            yield [
                texts[i].slice(first, count) if i in texts else column.slice(first, count)
                for i, column in enumerate(batch.columns)
            ]


def read_rows(
    file: IO[bytes], kind: Kind, span: Span = WHOLE, names: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield whole rows, all columns or those of some names, about 16 MiB at a time.

    Dictionaries of Parquet files have indices of 32 bits. Raises TableError and any of TABLE_ERRORS.
    """
    if kind == "arrow":
        paths = None if names is None else [(name,) for name in names]
        yield from _arrow_batches(file, paths, span)
        return
    for batch in _parquet_batches(file, names, span):
        yield from halves(batch)


# --- Parquet -----------------------------------------------------------------------------------


def _open_parquet(file: IO[bytes], **options: Any) -> pq.ParquetFile:
    """Page checksums are verified where there are any. A column chunk is read through a buffer, not as a whole."""
    return pq.ParquetFile(
        pa.OSFile(f"/dev/fd/{file.fileno()}"),
        buffer_size=1 << 20,
        pre_buffer=False,
        page_checksum_verification=True,
        thrift_string_size_limit=_MAX_METADATA_BYTES,
        thrift_container_size_limit=_MAX_METADATA_BYTES // 64,
        **options,
    )


def _parquet_batches(
    file: IO[bytes], columns: list[str] | None, span: Span, max_ratio: float | None = None
) -> Iterator[pa.RecordBatch]:
    """Row groups in batches of about 16 MiB; one batch never holds rows of two parts of a file."""
    whole = _open_parquet(file)
    metadata, schema = whole.metadata, whole.schema_arrow
    # A column that Arrow's writer knew as a dictionary is read as its values: pyarrow's dictionary grows over a row
    # group, to all of its texts, and is copied for every batch.
    encoded = [field.name for field in schema if has_dictionary(field.type)]
    if columns is not None:
        encoded = [name for name in encoded if any(c == name or c.startswith(f"{name}.") for c in columns)]  # fmt: skip
    plain = _open_parquet(file, metadata=_without_arrow_schema(file)) if encoded else whole
    if columns is not None:
        selections = [(plain, columns)]
    elif encoded:
        others = [name for name in schema.names if name not in encoded]
        selections = [(plain, encoded), (whole, others)]
    else:
        selections = [(whole, None)]

    def decoded() -> Iterator[pa.RecordBatch]:
        end = metadata.num_row_groups if span.end is None else span.end
        for number in range(span.begin, end):
            group = metadata.row_group(number)
            if max_ratio is not None and columns is not None:
                _check_group(group, columns, max_ratio)
            rows = _rows_at_once(file, group, columns)
            readers = [
                parquet.iter_batches(rows, row_groups=[number], columns=names, use_threads=False)
                for parquet, names in selections
                if names is None or names
            ]
            for pieces in zip(*readers, strict=True):
                if len(pieces) == 1:
                    yield pieces[0]
                    continue
                found = {name: piece[name] for piece in pieces for name in piece.schema.names}
                yield pa.RecordBatch.from_arrays(
                    [found[name] for name in schema.names], schema.names
                )

    for batch in _gathered(decoded()):
        yield _encoded(batch, schema) if columns is None and encoded else batch


def _check_group(group: pq.RowGroupMetaData, columns: Sequence[str], max_ratio: float) -> None:
    for column in (group.column(i) for i in range(group.num_columns)):
        if column.path_in_schema in columns:
            check_ratio(column.total_uncompressed_size, column.total_compressed_size, max_ratio)


def check_ratio(num_produced: int, num_stored: int, max_ratio: float) -> None:
    """Raise TableError for a bomb."""
    if num_produced > max(RATIO_FREE_BYTES, max_ratio * num_stored):
        raise TableError(
            "bomb",
            f"expected at most {max_ratio:g} times the stored size, got {num_produced} bytes out of {num_stored}; if "
            "the file is sound, raise read.max_ratio",
        )


def _rows_at_once(file: IO[bytes], group: pq.RowGroupMetaData, columns: list[str] | None) -> int:
    """How many rows of a row group may be decoded at a time, whatever their values are."""
    chunks = [
        chunk
        for chunk in (group.column(i) for i in range(group.num_columns))
        if columns is None or any(_is_within(chunk.path_in_schema, name) for name in columns)
    ]
    num_rows = max(1, group.num_rows)
    row_bytes = sum(chunk.total_uncompressed_size for chunk in chunks) / num_rows
    repeated = sum(_repeated_bytes(file, chunk) for chunk in chunks)
    row_bytes += repeated * max([1.0, *(chunk.num_values / num_rows for chunk in chunks)])
    return max(1, min(_DECODED_ROWS, int(_DECODED_BYTES / max(1.0, row_bytes))))


def _is_within(path: str, name: str) -> bool:
    return path == name or path.startswith(f"{name}.")


def _repeated_bytes(file: IO[bytes], chunk: pq.ColumnChunkMetaData) -> int:
    """The most bytes that a column chunk may repeat in each row while it stores them once."""
    if chunk.physical_type != "BYTE_ARRAY":
        return 0
    if "DELTA_BYTE_ARRAY" in chunk.encodings:  # a value may begin with all of the one before it
        return chunk.total_uncompressed_size
    # No value of a dictionary is longer than the page that holds them all, whose size its header says first.
    file.seek(min(chunk.dictionary_page_offset or chunk.data_page_offset, chunk.data_page_offset))
    header = file.read(16)
    at, numbers = 0, []
    for _ in range(2):  # Thrift's compact protocol: type of the page, bytes of it uncompressed
        if header[at : at + 1] != _NEXT_FIELD_I32:
            return chunk.total_uncompressed_size
        number = shift = 0
        for byte in header[at + 1 :]:
            at += 1
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        at += 1
        numbers.append(number >> 1)  # zigzag; neither is negative
    page_type, num_bytes = numbers
    return num_bytes if page_type == _DICTIONARY_PAGE else 0


_NEXT_FIELD_I32 = b"\x15"
_DICTIONARY_PAGE = 2


def _without_arrow_schema(file: IO[bytes]) -> pq.FileMetaData:
    """The footer without what Arrow's writer says of types, so that columns have those that the file stores."""
    file.seek(-8, 2)
    num_bytes = int.from_bytes(file.read(4), "little")
    file.seek(-8 - num_bytes, 2)
    footer = file.read(num_bytes + 8).replace(b"ARROW:schema", b"arrow:schema")
    return pq.read_metadata(pa.BufferReader(b"PAR1" + footer))


def _encoded(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch with dictionaries where the schema has them."""
    columns = [
        column
        if column.type == (type_ := retyped(field.type, with_index(pa.int32())))
        else column.cast(type_)
        for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema.names)


def _gathered(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Small batches together, up to about 16 MiB or 8,192 rows."""
    pool = pa.default_memory_pool()
    held: list[pa.RecordBatch] = []
    num_bytes = num_rows = 0
    for batch in batches:
        if held and (num_bytes + batch.nbytes > _GATHERED_BYTES or num_rows >= BATCH_ROWS):
            yield pa.concat_batches(held)
            held, num_bytes, num_rows = [], 0, 0
            pool.release_unused()
        held.append(batch)
        num_bytes += batch.nbytes
        num_rows += len(batch)
    if held:
        yield pa.concat_batches(held)


# --- Arrow -------------------------------------------------------------------------------------


def _mapped(file: IO[bytes]) -> mmap.mmap:
    """The file in memory as far as it is touched: a record batch may hold all of a corpus."""
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _open_arrow(
    view: mmap.mmap, names: Sequence[str] | None = None
) -> pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader:
    open_ = pa.ipc.open_file if is_arrow_file(view[:6]) else pa.ipc.open_stream
    opened = open_(pa.BufferReader(view))
    if names is None:
        return opened
    # Opened again, now that the numbers of the columns are known: others are not decompressed.
    fields = [opened.schema.names.index(name) for name in names]
    options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=fields)
    return open_(pa.BufferReader(view), options=options)


def is_arrow_file(head: bytes) -> bool:
    """Whether an Arrow table is a file, with a footer that says where its batches lie, and not a stream."""
    return head[:6] == b"ARROW1"


def _arrow_batches(
    file: IO[bytes], paths: Sequence[tuple[str, ...]] | None, span: Span
) -> Iterator[pa.RecordBatch]:
    """Record batches, checked, in slices of a few MiB."""
    view = _mapped(file)
    opened = _open_arrow(view, None if paths is None else sorted({path[0] for path in paths}))
    num_bytes = 0
    for batch in _record_batches(opened, span):
        batch.validate()
        if paths is not None:
            batch = selected(batch, paths)
        for column in batch.columns:
            if not is_view(column.type):
                check(column)
        for piece in halves(batch):
            # Views are compared with what they point at, so all of them at once would read the whole column.
            for column in piece.columns:
                if is_view(column.type):
                    check(column)
            yield piece
            num_bytes += sum(map(num_bytes_of, piece.columns))
            if num_bytes >= _MAPPED_BYTES:
                view.madvise(mmap.MADV_DONTNEED)
                num_bytes = 0
    view.madvise(mmap.MADV_DONTNEED)
    # Arrow's streaming format ends with a continuation mark and the length 0; a cut one just stops.
    if not is_arrow_file(view[:6]) and view[-8:] != b"\xff\xff\xff\xff\0\0\0\0":
        raise TableError(
            "truncated_archive",
            "expected the end-of-stream mark of an Arrow stream, got the end of the file: batches may be missing",
        )


def _record_batches(
    opened: pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader, span: Span
) -> Iterator[pa.RecordBatch]:
    if isinstance(opened, pa.ipc.RecordBatchStreamReader):
        yield from opened
        return
    end = opened.num_record_batches if span.end is None else span.end
    for number in range(span.begin, end):
        yield opened.get_batch(number)

"""Record batches of Parquet and Arrow files, some MiB at a time however the file was cut.

What builds and `gristmill dedup` read tables by. Nothing in a file is believed unchecked: pyarrow checks neither UTF-8
nor offsets, a dictionary makes a small file a huge table, and one row group or record batch may hold all of a corpus.
"""

import mmap
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.fields import NoField, field_path, shown_fields
from pipeline.raw import BATCH_BYTES, BATCH_ROWS

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


class TableError(Exception):
    """The table as a whole cannot be used, or not from here on."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule


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


def text_column(schema: pa.Schema, name: str) -> tuple[str, ...]:
    """The path to a column of texts. Raises TableError unless there is one."""
    tree = _tree(schema)
    try:
        path = field_path(tree, name)
    except NoField as error:
        raise TableError("missing_text", str(error).replace("the field", "one column")) from error
    if schema.names.count(path[0]) != 1:
        raise TableError(
            "missing_text", f"expected one column {name!r}, got: {shown_fields(tree, name)}"
        )
    type_ = column_type(schema, path)
    if not is_text(type_):
        hint = ""
        if pa.types.is_struct(type_):
            hint = (
                f"; name a field of it, such as {name}.{type_.field(0).name}" if len(type_) else ""
            )
        raise TableError(
            "wrong_type", f"expected strings in the column {name!r}, got {type_}{hint}"
        )
    return path


def column_or_none(schema: pa.Schema, name: str) -> tuple[str, ...] | None:
    """The path to a column that may be missing, or have no name at all."""
    try:
        path = field_path(_tree(schema), name) if name else ()
    except NoField:
        return None
    return path if path and schema.names.count(path[0]) == 1 else None


def is_text(type_: pa.DataType) -> bool:
    """Whether values of a type are texts: strings, or bytes that may be UTF-8; a column of nulls has none."""
    type_ = _storage(type_)
    if pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
        type_ = _storage(type_.value_type)
    return any(is_type(type_) for is_type in _TEXT_TYPES)


_TEXT_TYPES = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_null,
)


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
        batches = (_selected(batch, paths) for batch in found)
    else:
        batches = _arrow_batches(file, paths, span)
    for batch in batches:
        texts = {
            i: _Texts.of(column) for i, column in enumerate(batch.columns) if is_text(column.type)
        }
        sizes = np.sum([column.sizes() for column in texts.values()], axis=0)
        for first, count in _cuts(sizes):
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
        yield from _halves(batch)


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


def with_index(index: pa.DataType) -> Callable[[pa.DataType], pa.DataType | None]:
    """For `retyped`: dictionaries with another type of index."""
    return lambda type_: (
        pa.dictionary(index, type_.value_type, type_.ordered)
        if pa.types.is_dictionary(type_)
        else None
    )


def has_dictionary(type_: pa.DataType) -> bool:
    """Whether values of a type are stored in a dictionary, at any depth."""
    return pa.types.is_dictionary(type_) or any(
        has_dictionary(field.type) for field in children(type_)
    )


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
            batch = _selected(batch, paths)
        for column in batch.columns:
            if not _is_view(column.type):
                _check(column)
        for piece in _halves(batch):
            # Views are compared with what they point at, so all of them at once would read the whole column.
            for column in piece.columns:
                if _is_view(column.type):
                    _check(column)
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


def _check(array: pa.Array) -> None:
    """Raise unless every offset and index of an array lies where it must."""
    array = array.storage if isinstance(array, pa.ExtensionArray) else array
    # As bytes, because the full check of strings stops at the first that is not UTF-8.
    array.view(retyped(array.type, _AS_BYTES.get)).validate(full=True)


_AS_BYTES = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}


def _is_view(type_: pa.DataType) -> bool:
    return pa.types.is_string_view(type_) or pa.types.is_binary_view(type_)


def retyped(type_: pa.DataType, swap: Callable[[pa.DataType], pa.DataType | None]) -> pa.DataType:
    """A type with what `swap` has for it in the place of itself, or of the types within it."""

    def field(old: pa.Field) -> pa.Field:
        return old.with_type(retyped(old.type, swap))

    if (other := swap(type_)) is not None:
        return other
    if pa.types.is_struct(type_):
        return pa.struct([field(child) for child in children(type_)])
    if pa.types.is_map(type_):
        return pa.map_(field(type_.key_field), field(type_.item_field), type_.keys_sorted)
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(field(type_.value_field), type_.list_size)
    for is_list, new_list in _LISTS:
        if is_list(type_):
            return new_list(field(type_.value_field))
    if pa.types.is_dictionary(type_):
        values = retyped(type_.value_type, swap)
        return pa.dictionary(type_.index_type, values, type_.ordered)
    if pa.types.is_run_end_encoded(type_):
        return pa.run_end_encoded(type_.run_end_type, retyped(type_.value_type, swap))
    return type_


_LISTS = (
    (pa.types.is_list, pa.list_),
    (pa.types.is_large_list, pa.large_list),
    (pa.types.is_list_view, pa.list_view),
    (pa.types.is_large_list_view, pa.large_list_view),
)


# --- columns -----------------------------------------------------------------------------------


def _halves(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in slices of at most 16 MiB, or one row."""
    if len(batch) < 2 or sum(map(num_bytes_of, batch.columns)) <= BATCH_BYTES:
        yield batch
        return
    half = len(batch) // 2
    yield from _halves(batch.slice(0, half))
    yield from _halves(batch.slice(half))


def num_bytes_of(array: pa.Array) -> int:
    """Bytes of an array, of a slice its own; Arrow counts with each slice of views all that they may point into."""
    type_ = array.type
    if _is_view(type_):
        return 16 * len(array) + int(_view_lengths(array).sum())
    if isinstance(array, pa.ExtensionArray):
        return num_bytes_of(array.storage)
    if pa.types.is_struct(type_):
        return sum(num_bytes_of(array.field(i)) for i in range(len(type_)))
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_map(type_):
        if not len(array):
            return 0
        offsets = array.offsets
        first, last = offsets[0].as_py(), offsets[len(array)].as_py()
        return 8 * len(array) + num_bytes_of(_items(array).slice(first, last - first))
    return array.nbytes


def _selected(batch: pa.RecordBatch, paths: Sequence[tuple[str, ...]]) -> pa.RecordBatch:
    """The columns at some paths, in that order."""
    columns = [_column_at(batch, path) for path in paths]
    return pa.RecordBatch.from_arrays(columns, [".".join(path) for path in paths])


def _items(array: pa.Array) -> pa.Array:
    """The values of all lists, as a struct those of maps."""
    if pa.types.is_map(array.type):
        return pa.StructArray.from_arrays([array.keys, array.items], ["key", "value"])
    return array.values


def _view_lengths(array: pa.Array) -> NDArray[np.int32]:
    """The length of each view; Arrow has no function for it. A null's may be anything: it counts as 0."""
    views = array.buffers()[1]
    lengths = np.frombuffer(views, np.int32)[0::4][array.offset : array.offset + len(array)]
    if array.null_count:
        return np.where(array.is_valid().to_numpy(zero_copy_only=False), lengths, 0)
    return lengths


class _Texts(NamedTuple):
    """A column of texts of any type: its values, and the index of each row's value where they are stored once."""

    values: pa.Array
    indices: pa.Array | None

    @classmethod
    def of(cls, column: pa.Array) -> "_Texts":
        column = column.storage if isinstance(column, pa.ExtensionArray) else column
        if pa.types.is_null(column.type):
            return cls(pa.nulls(len(column), pa.large_binary()), None)
        if pa.types.is_run_end_encoded(column.type):
            rows = np.arange(column.offset, column.offset + len(column))
            runs = np.searchsorted(column.run_ends.to_numpy(), rows, side="right")
            values, indices = column.values, pa.array(runs, pa.int64())
        elif pa.types.is_dictionary(column.type):
            values, indices = column.dictionary, column.indices
        else:
            return cls(_bytes(column), None)
        values = _bytes(values)
        if _is_view(values.type):  # Arrow takes no rows of views
            values = values.cast(pa.large_binary())
        return cls(values, indices)

    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each row's text."""
        if _is_view(self.values.type):
            return _view_lengths(self.values).astype(np.int64)
        lengths = pc.binary_length(self.values)
        if self.indices is not None:
            lengths = lengths.take(self.indices)
        return pc.fill_null(lengths, 0).cast(pa.int64()).to_numpy()

    def slice(self, first: int, count: int) -> pa.LargeBinaryArray:
        """Some rows, as bytes that nothing else is stored with."""
        if self.indices is None:
            values = self.values.slice(first, count)
        else:
            values = self.values.take(self.indices.slice(first, count))
        return values.cast(pa.large_binary())


def _bytes(strings: pa.Array) -> pa.Array:
    strings = strings.storage if isinstance(strings, pa.ExtensionArray) else strings
    return strings.view(retyped(strings.type, _AS_BYTES.get))


def _cuts(sizes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Where to cut rows of such sizes: (first, count), about 16 MiB and at most 8,192 rows each."""
    ends = np.cumsum(sizes)
    first = 0
    while first < len(sizes):
        before = ends[first - 1] if first else 0
        end = int(np.searchsorted(ends, before + BATCH_BYTES, side="right"))
        end = max(first + 1, min(end, first + BATCH_ROWS))
        yield first, end - first
        first = end


def _tree(schema: pa.Schema) -> dict[str, Any]:
    """Columns by name, structs as mappings: what `pipeline/fields.py` finds its way in."""
    return {field.name: _branch(field.type) for field in schema}


def _branch(type_: pa.DataType) -> Any:
    if not pa.types.is_struct(type_):
        return type_
    return {field.name: _branch(field.type) for field in children(type_)}


def children(type_: pa.DataType) -> list[pa.Field]:
    """The fields of a nested type."""
    return [type_.field(i) for i in range(type_.num_fields)]


def column_type(schema: pa.Schema, path: Sequence[str]) -> pa.DataType:
    """The type of the column at a path."""
    type_ = schema.field(path[0]).type
    for name in path[1:]:
        type_ = type_.field(name).type
    return type_


def _column_at(batch: pa.RecordBatch, path: Sequence[str]) -> pa.Array:
    """A column, or a field of its structs: null where the struct is."""
    column = batch[path[0]]
    for name in path[1:]:
        column = pc.struct_field(column, [name])
    return column


def _storage(type_: pa.DataType) -> pa.DataType:
    return type_.storage_type if isinstance(type_, pa.BaseExtensionType) else type_

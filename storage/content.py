"""The hash of a table's values, which says what a shard is, however its file was written.

Arrow can store the same values in many ways: chunks, compression, wide or narrow offsets, anything at all under a null.
None of that may show, or the same corpus would have another hash after an upgrade of pyarrow.
"""

from collections.abc import Iterator
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.errors import GristmillError


def content_hash(table: pa.Table | pa.RecordBatch) -> str:
    """Hash of column names, types and values: 32 hex digits of BLAKE2b-128.

    It depends on neither compression, chunks, the width of offsets, metadata nor what lies under a null, so it stays
    the same across versions of pyarrow. One pass; holds one column at a time.
    """
    digest = blake2b(f"gristmill content 1, {table.num_rows} rows".encode(), digest_size=16)
    for name, column in zip(table.schema.names, table.columns, strict=True):
        digest.update(f"\n{len(name.encode())} {name} ".encode())
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        for piece in _pieces(array):
            digest.update(piece)
    return digest.hexdigest()


def _pieces(array: pa.Array) -> Iterator[bytes | memoryview]:
    """Type, validity, lengths and values of an array, each as bytes whose length the ones before determine."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        yield from _pieces(array.dictionary_decode())
        return
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        array = array.cast(
            pa.large_string() if pa.types.is_string_view(kind) else pa.large_binary()
        )
        kind = array.type
    valid = None
    if array.null_count:
        valid = pc.is_valid(array).to_numpy(zero_copy_only=False)
    yield f"{_type_name(kind)} {len(array)} {array.null_count} ".encode()
    if valid is not None:
        yield valid.view(np.uint8).data
    if pa.types.is_null(kind):
        return
    if _is_text(kind):
        array = array.fill_null(b"" if "binary" in str(kind) else "")
        yield _little_endian(pc.binary_length(array).to_numpy().astype(np.int64))
        _, offsets, data = array.buffers()
        if len(array) and data is not None:
            width = np.int64 if str(kind).startswith("large") else np.int32
            ends = np.frombuffer(offsets, width)[array.offset : array.offset + len(array) + 1]
            yield memoryview(data)[ends[0] : ends[-1]]
    elif _is_list(kind):
        lengths = pc.list_value_length(array).fill_null(0)
        yield _little_endian(lengths.to_numpy(zero_copy_only=False).astype(np.int64))
        yield from _pieces(array.flatten())  # leaves out what lies under nulls
    elif pa.types.is_struct(kind):
        for child in array.flatten():  # a child of a null is null
            yield from _pieces(child)
    elif pa.types.is_boolean(kind):
        yield array.fill_null(False).to_numpy(zero_copy_only=False).view(np.uint8).data
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        yield _little_endian(array.fill_null(0).to_numpy(zero_copy_only=False))
    elif pa.types.is_temporal(kind):
        yield from _pieces(array.view(pa.int64() if kind.bit_width == 64 else pa.int32()))
    else:
        raise GristmillError(f"content hash: expected text, numbers, lists or structs, got {kind}")


def _type_name(kind: pa.DataType) -> str:
    """A name that is the same for both widths of offsets and whatever a list calls its items."""
    if _is_text(kind):
        return str(kind).removeprefix("large_")
    if pa.types.is_fixed_size_list(kind):
        return f"list[{kind.list_size}]"
    if _is_list(kind):
        return "list"
    if pa.types.is_struct(kind):
        return f"struct{[field.name for field in kind]}"
    return str(kind)


def _is_text(kind: pa.DataType) -> bool:
    return str(kind) in ("string", "large_string", "binary", "large_binary")


def _is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _little_endian(values: np.ndarray) -> memoryview:
    return np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False)).data

"""Shards: immutable Arrow IPC files of one record batch, each described by a `Shard` in the manifest.

Arrow files have no checksums, so the manifest carries them: `checksum` of the file's bytes guards against damage and is
verified on first open in a process; `content_hash` of the values says what the shard *is*, however it was compressed.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.disk import in_plain_words
from storage.errors import CorruptError, GristmillError, NotFoundError
from storage.lake import Lake
from storage.schema import FORMAT, SCHEMAS, check_format, tokens_schema

REMEDY = "put back a good copy of the file, or build the corpus anew under another name"
"""What to do about a damaged file of a snapshot, for messages."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """What a manifest says of one shard."""

    kind: str
    """documents, fates, rejects, signatures, band_keys, edges or tokens."""
    path: str
    """File, relative to the lake."""
    rows: int
    """Rows of its one record batch."""
    num_bytes: int
    """Size of the file."""
    checksum: str
    """SHA-256 of the file, 64 hex digits."""
    content_hash: str
    """Hash of the values, 32 hex digits; see `content_hash`."""
    split: str = ""
    """train or validation for tokens, else empty."""
    num_tokens: int = 0
    """Tokens in all rows; 0 for other kinds."""
    version: int = 0
    """Version of the snapshot that wrote it."""


def write_shard(
    lake: Lake,
    path: str,
    table: pa.Table,
    *,
    split: str = "",
    num_tokens: int = 0,
    version: int = 0,
) -> Shard:
    """Write a table as one shard and describe it; equal tables give equal bytes under one version of pyarrow.

    The kind comes from the table's metadata, or from the file's name (`documents-00000.arrow`). Columns are brought
    into the order and types of the kind's schema. Tokens are counted; `num_tokens`, if given, must agree. Raises
    GristmillError if a column is missing, unknown, of another type, or null where it may not be; LakeError if the lake
    cannot be written.
    """
    kind = _kind_of(table.schema) or Path(path).name.replace(".", "-").split("-")[0]
    batch = _one_batch(_conform(table, kind, path), path)
    # Compressed buffers would have to be copied to be read; tokens are sliced from the memory map.
    options = pa.ipc.IpcWriteOptions(compression=None if kind == "tokens" else "lz4")
    with lake.writer(path) as temporary:
        with (
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_file(sink, batch.schema, options=options) as file,
        ):
            file.write_batch(batch)
        checksum, num_bytes = _digest(temporary)
    shard = _describe(path, batch, checksum, num_bytes, split=split, version=version)
    if num_tokens not in (0, shard.num_tokens):
        raise GristmillError(
            f"{path}: expected {num_tokens} tokens, the table has {shard.num_tokens}"
        )
    return shard


def describe_shard(lake: Lake, path: str, *, split: str = "", version: int = 0) -> Shard:
    """What `write_shard` gave for this finished file. Reads all of it. Raises NotFoundError, CorruptError."""
    file, where = lake.local_path(path), lake.where(path)
    checksum, num_bytes = _digest(file)
    table = _read(file, where)
    check_format(table.schema, _kind_of(table.schema), where)
    try:
        table.validate(full=True)
    except pa.ArrowInvalid as error:
        raise CorruptError(f"{where}: expected a sound Arrow file, got: {error}") from error
    batch = _one_batch(table, path)
    return _describe(path, batch, checksum, num_bytes, split=split, version=version)


def open_shard(lake: Lake, shard: Shard) -> pa.Table:
    """The shard's table over a memory map: token columns are not copied, compressed ones are unpacked.

    Before a row is given out, the file's checksum is verified, once in each process. Raises CorruptError, naming the
    file, what was expected and what was found.
    """
    where = lake.where(shard.path)
    try:
        file = lake.local_path(shard.path)
        if not _is_verified(file, shard) and not lake.is_local:
            file.unlink()  # a download damaged on this machine; the bucket's own copy decides
            file = lake.local_path(shard.path)
    except NotFoundError as error:
        raise missing_file(where) from error
    if not _is_verified(file, shard):
        raise damaged_file(where, shard.checksum, _digest(file)[0])
    table = _read(file, where)
    check_format(table.schema, shard.kind, where)
    if len(table) != shard.rows:
        raise CorruptError(f"{where}: expected {shard.rows} rows, got {len(table)}; {REMEDY}")
    return table


def missing_file(where: str) -> CorruptError:
    """The error for a file that a manifest names and the lake does not hold."""
    return CorruptError(f"{where}: expected the file that a manifest names, found none; {REMEDY}")


def damaged_file(where: str, expected: str, found: str) -> CorruptError:
    """The error for a file whose SHA-256 is not the one in the manifest."""
    return CorruptError(
        f"{where}: expected sha256 {expected}, got {found}: it changed after it was written; {REMEDY}"
    )


def content_hash(table: pa.Table | pa.RecordBatch) -> str:
    """Hash of column names, types and values: 32 hex digits of BLAKE2b-128.

    It depends on neither compression, chunks, the width of offsets, metadata nor what lies under a null, so it stays
    the same across versions of pyarrow. One pass; holds one column at a time.
    """
    digest = hashlib.blake2b(f"gristmill content 1, {table.num_rows} rows".encode(), digest_size=16)
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


def _kind_of(schema: pa.Schema) -> str:
    return (schema.metadata or {}).get(b"gristmill.kind", b"").decode()


def _conform(table: pa.Table, kind: str, path: str) -> pa.Table:
    """The table in its kind's schema; one of a kind that has none keeps its own and is marked with the kind."""
    schema = SCHEMAS.get(kind)
    if kind == "tokens" and "tokens" in table.schema.names:
        item = getattr(table.schema.field("tokens").type, "value_type", None)
        schema = tokens_schema(1 << 16 if item == pa.uint16() else 1 << 17)
    if schema is None:
        marks = {"gristmill.kind": kind, "gristmill.format": str(FORMAT)}
        return table.replace_schema_metadata((table.schema.metadata or {}) | marks)
    if sorted(table.schema.names) != sorted(schema.names):
        raise GristmillError(
            f"{path}: expected the columns {', '.join(schema.names)}; got {', '.join(table.schema.names)}"
        )
    try:
        table = table.select(schema.names)
        nulls = [
            field.name
            for field, column in zip(schema, table.columns, strict=True)
            if not field.nullable and column.null_count
        ]
        if nulls:
            raise GristmillError(f"{path}: expected no nulls in {', '.join(nulls)}, got some")
        return table.cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, ValueError) as error:
        raise GristmillError(f"{path}: expected a table of kind '{kind}': {error}") from error


def _one_batch(table: pa.Table, path: str) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    if not batches:
        return pa.RecordBatch.from_arrays(
            [pa.array([], field.type) for field in table.schema], schema=table.schema
        )
    if len(batches) > 1:
        raise GristmillError(
            f"{path}: expected a table that fits one record batch (2 GiB of text), got {table.nbytes} bytes in "
            f"{len(batches)} batches; write smaller shards"
        )
    return batches[0]


def _describe(
    path: str, batch: pa.RecordBatch, checksum: str, num_bytes: int, *, split: str, version: int
) -> Shard:
    kind = _kind_of(batch.schema)
    return Shard(
        kind=kind,
        path=path,
        rows=batch.num_rows,
        num_bytes=num_bytes,
        checksum=checksum,
        content_hash=content_hash(batch),
        split=split,
        num_tokens=len(batch["tokens"].flatten()) if kind == "tokens" else 0,
        version=version,
    )


_verified: set[tuple[str, str, int, int]] = set()
"""(file, checksum, size, time of change) that this process has verified; a file that changed is verified again."""


def _is_verified(file: Path, shard: Shard) -> bool:
    status = file.stat()
    key = (str(file), shard.checksum, status.st_size, status.st_mtime_ns)
    if key not in _verified:
        if status.st_size != shard.num_bytes or _digest(file)[0] != shard.checksum:
            return False
        _verified.add(key)
    return True


def _digest(file: Path) -> tuple[str, int]:
    with in_plain_words(file, "read"), file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return digest, stream.tell()


def _read(file: Path, where: str) -> pa.Table:
    try:
        return pa.ipc.open_file(pa.memory_map(str(file))).read_all()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptError(
            f"{where}: expected an Arrow IPC file, got: {error}; {REMEDY}"
        ) from error
